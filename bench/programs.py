"""Running the programs that are compared, each as a process, from a cold cache, with its time and its memory."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
MANY_FILES = 100

_ALL_OF_OURS = """
import importlib, pkgutil, omero_archive
for module in pkgutil.walk_packages(omero_archive.__path__, "omero_archive."):
    module.name.endswith("__main__") or importlib.import_module(module.name)
"""
WARMED = (
    (sys.executable, "-c", _ALL_OF_OURS),
    ("rsync", "--version"),
    ("rclone", "version"),
    ("cp", "--version"),
    ("ln", "--version"),
)
"""Loaded again after every cache was dropped."""


class Failed(Exception):
    """A program that was measured ended with an error: its time means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one process took: seconds from before it was started until it had ended, its largest resident set."""

    seconds: float
    peak_bytes: int


class Cold:
    """Makes the cache cold: no byte of the files is in it, nor, where this account may, a name or an inode.

    The programs and the database stay warm: how long a disk takes to load Python says nothing about archiving.

    What the kernel keeps of the device itself goes too: directories, inode tables. ext4 without a journal skips each
    inode that a table in memory still calls deleted, one after the other for every file that is made
    (`recently_deleted` in fs/ext4/ialloc.c): 10 000 files took three times as long on a disk where tests had deleted
    many hours before, and whom that met depended on the directory where a program makes its files.
    """

    def __init__(self) -> None:
        self._may_drop_names = os.access(DROP_CACHES, os.W_OK)

    @property
    def how(self) -> str:
        """What "cold" means in this run."""
        data = "sync, then posix_fadvise(DONTNEED) on each file of the source and of the copy"
        if self._may_drop_names:
            return f"{data}, then /proc/sys/vm/drop_caches = 3; programs are warm"
        return f"{data}; names and inodes stay (only root may drop them); programs are warm"

    def make(self, *places: Path) -> None:
        """Empty the cache of everything below `places`. What is dirty is written out first: only clean pages go."""
        os.sync()
        for path in _files(places):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
        if self._may_drop_names:
            DROP_CACHES.write_text("3")
            for program in WARMED:
                if is_there(program[0]):
                    subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def _files(places: Iterable[Path]) -> Iterable[Path]:
    for place in places:
        for above, _, names in os.walk(place):
            yield from (Path(above, name) for name in names if not Path(above, name).is_symlink())


def run(command: Sequence[str | Path], *, log: Path) -> Measured:
    """Run one program to its end. Raises `Failed` with the end of what it printed."""
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment())
        # Not Popen.wait: only wait4 tells the memory of this one process.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        end = log.read_text(errors="replace")[-2000:]
        raise Failed(f"{' '.join(map(str, command))}: exit status {process.returncode}\n{end}")
    return Measured(seconds=seconds, peak_bytes=usage.ru_maxrss * 1024)


def environment() -> dict[str, str]:
    """Ours, without what would let a user's own settings change what is measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RCLONE_", "RSYNC_", "PG"))}
    return kept | {"RCLONE_CONFIG": os.devnull, "LC_ALL": "C.UTF-8"}


def timed_sync() -> float:
    """Seconds until everything written so far is on the medium."""
    started = time.perf_counter()
    os.sync()
    return time.perf_counter() - started


def put_aside(directory: Path) -> None:
    """Make a place free, on the medium too. A directory of many files is renamed, to be deleted at the very end.

    ext4 does not give the inodes of deleted files away again for some minutes, and looks at each of them whenever a
    file is made in that part of the disk: after deleting 10 000 files every program is slower, by chance more or
    less (`recently_deleted` in the kernel's fs/ext4/ialloc.c).
    """
    if directory.exists():
        if sum(len(names) for _, _, names in os.walk(directory)) > MANY_FILES:
            directory.rename(directory.with_name(f"{directory.name}.old-{time.monotonic_ns()}"))
        else:
            shutil.rmtree(directory)
    os.sync()


def is_there(program: str) -> bool:
    """Whether the program can be run."""
    return shutil.which(program) is not None


def version(program: str) -> str:
    """The first line that a program says of itself."""
    if not is_there(program):
        return f"{program}: not installed"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (said.stdout or said.stderr).splitlines()[0]
