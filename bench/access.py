"""The mount against the file itself, in one run: the same bytes at the same time, round by round.

Three ways lead to each file: its path in `near`; the mount, which lets the kernel read the near file (passthrough); a
second mount of the same archive whose server reads for the kernel. Each round measures every kind of access in all
three, and begins with another. "Cold" is POSIX_FADV_DONTNEED on the near file and on the mount's; and for names
/proc/sys/vm/drop_caches = 2, where this account may. Nothing else is in a time than the client's own calls.
"""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.access_rounds import OPEN, RANDOM, SEQUENTIAL, AccessBench
from bench.access_table import Access, Figure
from bench.access_ways import Client, Server, served
from bench.omero import Omero, Sizes, build
from bench.programs import DROP_CACHES, Failed, run
from omero_archive.demo.postgres import EmbeddedPostgres

ROUNDS = 7
FULL_MIB, QUICK_MIB = 1024, 128
FULL_FILES, QUICK_FILES = 10_000, 2_000
FULL_NAMES, QUICK_NAMES = 100_000, 20_000
WAITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured, and by which program."""

    command: Path  # omero-archive
    mib: int
    files: int
    names: int
    rounds: int


def measure(place: Path, extent: Extent) -> tuple[list[Access], list[Figure]]:
    """Make a site in `place`, release and serve it, measure. Needs root and /dev/fuse."""
    with EmbeddedPostgres(place / "postgres", durable=True) as postgres:
        try:
            omero = build(place, postgres, sizes(extent.mib, extent.files))
            return _on_site(omero, extent)
        finally:
            postgres.remove()


def _on_site(omero: Omero, extent: Extent) -> tuple[list[Access], list[Figure]]:
    near = omero.directory / "OMERO" / "Near"
    roots = (omero.near, omero.directory / "OMERO" / "Served")
    first, second = (_settings(omero, near, root) for root in roots)

    def ours(*arguments: str) -> None:
        run([extent.command, "--settings", first, *arguments], log=omero.directory / "log")

    omero.archive.mkdir()
    ours("init")
    roots[1].mkdir()
    ours("add", omero.large.reference, omero.small.reference)
    ours("run")
    client = Client.build(omero.directory)
    with ExitStack() as mounts:
        mount = mounts.enter_context(served(extent.command, first, roots[0]))
        ours("release", omero.large.reference, omero.small.reference)
        other = mounts.enter_context(served(extent.command, second, roots[1], "--no-passthrough"))
        bench = AccessBench(omero, client, (mount, other), near)
        for number in range(extent.rounds):
            bench.round(number)
        figures = [_machine(), Figure(name="the client", said=client.how), *bench.cpu_figures()]
        figures.append(_memory(mount, near, client, extent.names))
        figures.append(_waiting(omero, mount.root, near, client, ours))
    return bench.accesses(), figures


def _settings(omero: Omero, near: Path, root: Path) -> Path:
    """The site's settings with its near bytes beside the root, which is served. A program that opens waits."""
    text = omero.settings.read_text().replace(f'root = "{omero.near}"', f'root = "{root}"\nnear = "{near}"')
    path = omero.directory / f"{root.name}.toml"
    path.write_text(f'{text}\n[mount]\non_open = "wait"\nwait = "5min"\n')
    return path


def _memory(server: Server, near: Path, client: Client, names: int) -> Figure:
    """The server's memory when so many names were looked up, and when the kernel has forgotten them."""
    top = Path("ManagedRepository") / "names"
    paths = [top / f"{number // 10_000}" / f"{number}.tif" for number in range(names)]
    for path in paths:
        (near / path).parent.mkdir(parents=True, exist_ok=True)
        (near / path).touch()
    found = near.parent / "names"
    found.write_text("".join(f"{server.root / path}\n" for path in paths))
    before = server.resident_bytes
    client.said("stats", found)
    looked_up = server.resident_bytes
    if os.access(DROP_CACHES, os.W_OK):
        DROP_CACHES.write_text("2")
        client.said("stats", found)  # the kernel tells what it forgot when it asks next
    again = server.resident_bytes
    said = (
        f"{before / 1e6:.0f} MB before, {looked_up / 1e6:.0f} MB after, {again / 1e6:.0f} MB when they were forgotten"
    )
    return Figure(name=f"memory of the server, {names} names looked up", said=f"{said} and looked up again")


def _waiting(omero: Omero, root: Path, near: Path, client: Client, ours: Callable[..., None]) -> Figure:
    """How long a program that waits for a recall still waits when the bytes are there: five times."""
    relative = omero.key(omero.large.files[0])
    above = (near / relative).parent.parent
    took = []
    for _ in range(WAITS):
        ours("evict", omero.large.reference)
        command = [*client.command, "wait", str(root / relative)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
            time.sleep(0.5)
            if waiting.poll() is not None:
                raise Failed(f"{' '.join(command)} did not wait")
            ours("recall", omero.large.reference)
            said, _ = waiting.communicate(timeout=60)
        took.append(float(said) - above.stat().st_mtime)
    took.sort()
    return Figure(
        name="from the rename that makes a recalled file near to the end of a waiting open",
        said=f"{took[len(took) // 2] * 1e3:.0f} ms ({took[0] * 1e3:.0f}-{took[-1] * 1e3:.0f} ms)",
    )


def sizes(mib: int, files: int) -> Sizes:
    """One large file, and many of 4 KiB."""
    return Sizes(
        large_files=1, large_bytes=mib << 20, small_files=files, small_bytes=(4096, 4096), small_in_directory=files
    )


def obstacle() -> str:
    """Why nothing can be mounted here; empty if it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be used"
    return "" if os.geteuid() == 0 else "only root can mount with passthrough"


def missing(why: str) -> list[Access]:
    """The lines with a goal, which is not met."""
    lines = {"sequential, cold": SEQUENTIAL, "random 4 KiB, cold": RANDOM, "open and close": OPEN}
    return [Access(name=name, unit="µs", count=1, goal=goal, missing=why) for name, goal in lines.items()]


def _machine() -> Figure:
    said = f"Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} processors, Python "
    now = datetime.now(UTC)
    return Figure(name="measured on", said=f"{now:%Y-%m-%d %H:%M} UTC, {said}{platform.python_version()}")
