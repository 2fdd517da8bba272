"""`python -m bench.streams`: copying and reading back alone, without commands and catalogue: where the time goes.

The very calls that `omero-archive run` makes for the bytes, on files of `bench`'s sizes, from a cold cache. With 1, 2,
4 and 8 files at once in one process, and in 1, 2 and 4 processes, as with so many streams of a service. Beside the
time stands the processor time that it took, in our code and in the kernel: the rest was waiting for the disk.
"""

import argparse
import hashlib
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.omero import FULL
from bench.programs import Cold, put_aside
from omero_archive.files import Tree
from omero_archive.model import Checksum, FileKind, Key, OriginalFile, ServiceName
from omero_archive.mount import Mount
from omero_archive.service import Incoming
from omero_archive.transfer import FILES_AT_ONCE, Lanes, SourceReader, read_back

_SLICE = 5000  # files; as work.slice_files
_PIECE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds: of the clock, of the processors in our code, and in the kernel's."""

    wall: float
    user: float
    system: float


def main() -> int:
    """Measure and print a table in Markdown."""
    options = _options()
    place = Path(tempfile.mkdtemp(prefix="omero-archive-streams.", dir=options.dir))
    try:
        for name in options.only or ["small", "large"]:
            files = _small(place / name / "source") if name == "small" else _large(place / name / "source")
            _measure(place / name, files, options.rounds)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("small", "large"), action="append")
    return parser.parse_args()


def _measure(place: Path, files: list[OriginalFile], rounds: int) -> None:
    ways = [(1, at_once) for at_once in (1, 2, 4, 8)] + [(streams, FILES_AT_ONCE) for streams in (2, 4)]
    spent: dict[tuple[int, int], list[tuple[Spent, Spent]]] = {way: [] for way in ways}
    for number in range(rounds):
        for turn in range(len(ways)):  # each round begins with another
            way = ways[(turn + number) % len(ways)]
            spent[way].append(_round(place, files, *way))
    size = sum(file.size_bytes or 0 for file in files)
    print(
        f"\n{len(files)} files, {size >> 20} MiB, medians of {rounds} rounds;"
        " in brackets processor time: our code + kernel\n"
    )
    print("| streams | files at once in each | copy | read back | together |\n| --- | --- | --- | --- | --- |")
    for (streams, at_once), taken in spent.items():
        copies, backs = [one for one, _ in taken], [other for _, other in taken]
        both = median(one.wall + other.wall for one, other in taken)
        print(f"| {streams} | {at_once} | {_text(copies)} | {_text(backs)} | {both:.2f} s |", flush=True)


def _text(spent: Sequence[Spent]) -> str:
    wall, user, system = (median(getattr(one, part) for one in spent) for part in ("wall", "user", "system"))
    return f"{wall:.2f} s ({user:.2f} + {system:.2f})"


def _round(place: Path, files: list[OriginalFile], streams: int, at_once: int) -> tuple[Spent, Spent]:
    """One copy of everything and one reading back, each in so many processes."""
    archive = place / "archive"
    put_aside(archive)
    archive.mkdir()
    mount = Mount(ServiceName("bench"), archive, clock=lambda: datetime.now(UTC))
    mount.initialise()
    mount.close()
    Cold().make(place / "source")
    parts = [files[len(files) * n // streams : len(files) * (n + 1) // streams] for n in range(streams)]
    copied = _in_processes([lambda part=part: _copy(place, part, at_once) for part in parts])  # type: ignore[misc]
    return copied, _in_processes([lambda part=part: _read_back(archive, part, at_once) for part in parts])  # type: ignore[misc]


def _copy(place: Path, files: list[OriginalFile], at_once: int) -> None:
    lanes = Lanes(files_at_once=at_once)
    mount = Mount(ServiceName("bench"), place / "archive", clock=lambda: datetime.now(UTC), lanes=lanes)
    with Tree(place / "source") as tree:
        for start in range(0, len(files), _SLICE):
            part = files[start : start + _SLICE]
            group = [Incoming(key=file.key, reader=SourceReader(tree, file.key, file, lanes)) for file in part]
            for outcome in mount.put_group(group):
                if outcome.error is not None:
                    raise outcome.error
    mount.close()


def _read_back(archive: Path, files: list[OriginalFile], at_once: int) -> None:
    lanes = Lanes(files_at_once=at_once)

    def read(file: OriginalFile) -> bool:
        with Tree(archive) as tree:
            return read_back(tree, file.key, lanes)[0] == file.size_bytes

    if not all(lanes.each(read, files)):
        raise AssertionError("a copy is not whole")
    lanes.close()


def _in_processes(acts: Sequence[Callable[[], None]]) -> Spent:
    """Do these, each in a process of its own."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    children = [_forked(act) for act in acts]
    failed = [status for _, status in (os.waitpid(child, 0) for child in children) if status]
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if failed:
        raise AssertionError("it failed: see above")
    return Spent(wall=wall, user=after.ru_utime - before.ru_utime, system=after.ru_stime - before.ru_stime)


def _forked(act: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    return child


def _small(top: Path) -> list[OriginalFile]:
    chance = random.Random(2)
    sizes = [chance.randint(*FULL.small_bytes) for _ in range(FULL.small_files)]
    each = FULL.small_in_directory
    return [_make(top, f"ManagedRepository/W{n // each:03}/{n:05}.tif", size, chance) for n, size in enumerate(sizes)]


def _large(top: Path) -> list[OriginalFile]:
    chance = random.Random(1)
    names = [f"ManagedRepository/scan_{number}.tif" for number in range(FULL.large_files)]
    return [_make(top, name, FULL.large_bytes, chance) for name in names]


def _make(top: Path, key: str, size_bytes: int, chance: random.Random) -> OriginalFile:
    digest = hashlib.sha1(usedforsecurity=False)
    path = top / key
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size_bytes, _PIECE_BYTES):
            piece = chance.randbytes(min(_PIECE_BYTES, size_bytes - start))
            digest.update(piece)
            file.write(piece)
    checksum = Checksum(algorithm="SHA1-160", value=digest.hexdigest())
    return OriginalFile(kind=FileKind.ORIGINAL, omero_id=1, key=Key(key), size_bytes=size_bytes, checksum=checksum)


if __name__ == "__main__":
    sys.exit(main())
