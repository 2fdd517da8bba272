"""The files of the synthetic site: sparse originals, links where they were released, near files, copies.

They are many, and what is in them does not matter: each holds zeros that take no room on the disk.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.scale_shape import Kind, Unit, file_name
from omero_archive.states import Residency

DISK = "disk"
"""The one service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """One original as it lies on the disk: what the catalogue remembers of it."""

    unit: int
    number: int
    inode: int
    ctime_ns: int


class Layout:
    """The directories of a site."""

    def __init__(self, directory: Path) -> None:
        self.omero = directory / "OMERO"
        self.repository = self.omero / "ManagedRepository"
        self.near = self.omero / "Archive"
        self.archive = directory / "archive"

    def lay(self, unit: Unit) -> list[Laid]:
        """Make all files of one fileset. Of a released one the numbers are those of its near files, or made up."""
        names = [file_name(number) for number in range(unit.files)]
        sizes = [unit.size_bytes(number) for number in range(unit.files)]
        if unit.kind is not None and unit.kind.is_released:
            _links(self.repository / unit.prefix, names, self.near / unit.home)
            if unit.kind.residency is Residency.ONLINE:
                _sparse(self.near / unit.home, names, sizes, unit.mtime_ns)
            laid = invented(unit)
        else:
            found = _sparse(self.repository / unit.prefix, names, sizes, unit.mtime_ns)
            laid = [Laid(unit=unit.number, number=n, inode=i, ctime_ns=c) for n, (i, c) in enumerate(found)]
        if unit.kind is not None and unit.kind.is_read:
            self._copies(unit, names, sizes)
        return laid

    def _copies(self, unit: Unit, names: Sequence[str], sizes: Sequence[int]) -> None:
        missing = unit.kind is Kind.MISSING
        _sparse(self.archive / unit.home, names[missing:], sizes[missing:], unit.mtime_ns)
        if unit.kind is not Kind.WRITTEN:  # its manifest is due
            _sparse(self.archive / "manifests" / unit.name, ("manifest-sha256.txt", "omero.json"), (0, 0), 0)


def invented(unit: Unit) -> list[Laid]:
    """Numbers for files that are not there, or not there any more."""
    return [
        Laid(unit=unit.number, number=n, inode=10**9 + unit.first_file + n, ctime_ns=unit.mtime_ns)
        for n in range(unit.files)
    ]


def _sparse(place: Path, names: Sequence[str], sizes: Sequence[int], mtime_ns: int) -> list[tuple[int, int]]:
    """Make files that hold only zeros; inode and ctime of each."""
    found = []
    with _opened(place, names) as fds:
        for name, size in zip(names, sizes, strict=True):
            directory, _, base = name.rpartition("/")
            fd = os.open(base, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=fds[directory])
            try:
                os.ftruncate(fd, size)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
                status = os.fstat(fd)
            finally:
                os.close(fd)
            found.append((status.st_ino, status.st_ctime_ns))
    return found


def _links(place: Path, names: Sequence[str], target: Path) -> None:
    with _opened(place, names) as fds:
        for name in names:
            directory, _, base = name.rpartition("/")
            os.symlink(f"{target}/{name}", base, dir_fd=fds[directory])


@contextmanager
def _opened(place: Path, names: Sequence[str]) -> Iterator[dict[str, int]]:
    """The directories in which these names lie, made and opened."""
    fds: dict[str, int] = {}
    try:
        for directory in sorted({name.rpartition("/")[0] for name in names}):
            path = place / directory
            path.mkdir(parents=True, exist_ok=True)
            fds[directory] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)
