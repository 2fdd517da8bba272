"""What a reader of OMERO's disk notices of a copy beside it: as it comes, nice, with idle I/O, and with a limit.

    python -m bench.bandwidth [--directory DIR] [--mib 1024] [--scheduler bfq]

The reader reads 64 KiB at random places of a file on OMERO's disk, past the page cache, ten milliseconds after the last
one: what somebody does who looks at a large image. With `--scheduler` (root) all lies on a loop device of its own, so
that no other disk's scheduler is changed: idle I/O needs one that knows classes.
"""

import argparse
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.omero import Omero, Sizes, build
from bench.programs import Cold, put_aside, run
from omero_archive.demo.postgres import EmbeddedPostgres

HEAD = (
    "| beside the reader | copy and verify | median read | 99 of 100 within | longest |",
    "|---|---|---|---|---|",
)
BLOCK_BYTES = 64 << 10
PAUSE_S = 0.01

WAYS = {
    "nothing else": None,
    "as it comes": "",
    "nice = 15": "nice = 15\n",
    "idle_io = true": "idle_io = true\n",
    "both": "nice = 15\nidle_io = true\n",
    "rate": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """What the reader felt, in milliseconds, and how long the copy took."""

    way: str
    reads: int
    median_ms: float
    p99_ms: float
    worst_ms: float
    copied_s: float | None


class Reader:
    """Reads at random places until it is told to stop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self.took: list[float] = []
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        chance, buffer = random.Random(1), mmap.mmap(-1, BLOCK_BYTES)
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        try:
            blocks = os.fstat(fd).st_size // BLOCK_BYTES
            while not self._over.wait(PAUSE_S):
                begun = time.perf_counter()
                os.preadv(fd, [buffer], chance.randrange(blocks) * BLOCK_BYTES)
                self.took.append(time.perf_counter() - begun)
        finally:
            os.close(fd)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Bench:
    """Measures one site. `command` is the program `omero-archive`."""

    def __init__(self, omero: Omero, command: Path, rate_mb: int) -> None:
        self._omero, self._command, self._rate_mb = omero, command, rate_mb
        self._plain = omero.settings.read_text()
        self._log = omero.directory / "log"

    def felt(self, way: str, looked_at: Path) -> Felt:
        """Copy and verify everything while the reader reads."""
        work = WAYS[way]
        rate = f'rate = "{self._rate_mb} MB"\n' if way == "rate" else ""
        text = self._plain.replace('type = "directory"\n', f'type = "directory"\n{rate}')
        self._omero.settings.write_text(f"{text}\n[work]\n{work or ''}")
        if work is None:
            with Reader(looked_at) as reader:
                time.sleep(5)
            return _felt(way, reader.took, None)
        put_aside(self._omero.archive)
        self._omero.archive.mkdir()
        self._omero.forget_catalogue()
        self._ours("init")
        self._ours("add", self._omero.large.reference)
        Cold().make(self._omero.directory / "OMERO")
        with Reader(looked_at) as reader:
            took = self._ours("run")
        return _felt(way, reader.took, took)

    def _ours(self, *arguments: str) -> float:
        return run([self._command, "--settings", self._omero.settings, *arguments], log=self._log).seconds


def _felt(way: str, took: list[float], copied_s: float | None) -> Felt:
    ordered = sorted(took)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 for part in (0.5, 0.99, 1.0)]
    return Felt(way=way, reads=len(ordered), median_ms=at[0], p99_ms=at[1], worst_ms=at[2], copied_s=copied_s)


@contextmanager
def disk(directory: Path, scheduler: str | None, mib: int) -> Iterator[Path]:
    """Where all lies: below `directory`, or on a loop device with that scheduler whose image lies there."""
    if scheduler is None:
        yield directory
        return
    image, target = directory / "disk.img", directory / "disk"
    target.mkdir()
    with image.open("wb") as file:
        file.truncate((4 * mib + 512) << 20)
    device = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        Path(f"/sys/block/{Path(device).name}/queue/scheduler").write_text(scheduler)
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, target], check=True)
        try:
            yield target
        finally:
            subprocess.run(["umount", target], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def line(row: Felt, rate_mb: int) -> str:
    """A line of the table in the docs."""
    took = "-" if row.copied_s is None else f"{row.copied_s:.1f} s"
    way = f'`rate = "{rate_mb} MB"`' if row.way == "rate" else row.way
    return f"| {way} | {took} | {row.median_ms:.1f} ms | {row.p99_ms:.1f} ms | {row.worst_ms:.0f} ms |"


def main() -> None:
    """Measure all ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rate-mb", type=int, default=50)
    parser.add_argument("--scheduler")
    parser.add_argument("--ways", default=",".join(WAYS), help="of the table, with commas")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the loop device goes too
    sizes = Sizes(large_files=4, large_bytes=(options.mib << 20) // 4, small_files=1, small_bytes=(1, 2))
    base = Path(tempfile.mkdtemp(prefix="oa-bandwidth-", dir=options.directory))
    command = Path(sys.executable).with_name("omero-archive")
    try:
        with disk(base, options.scheduler, options.mib) as place, EmbeddedPostgres(base / "postgres") as postgres:
            omero = build(place / "site", postgres, sizes)
            looked_at = place / "looked-at"
            looked_at.write_bytes(os.urandom(64 << 20) * max(1, options.mib // 256))
            os.sync()
            bench = Bench(omero, command, options.rate_mb)
            print("\n".join(HEAD), flush=True)
            for way in options.ways.split(","):
                print(line(bench.felt(way, looked_at), options.rate_mb), flush=True)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
