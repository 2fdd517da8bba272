"""Bytes that leave the mount and come back: what autoclear and recall do to one file.

`leave` makes room, `come_back` fills it again; the file stays the same inode with the same size and mtime throughout.
"""

import fcntl
import os
import shutil
from pathlib import Path


class Stub:
    """A file on the mount without its bytes, held open so that readers wait: a write lease stops every `open`."""

    def __init__(self, fd: int, tape: Path, *, has_lease: bool) -> None:
        self._fd = fd
        self._tape = tape
        self._has_lease = has_lease

    @property
    def is_wanted(self) -> bool:
        """Whether somebody is waiting in `open` for the bytes."""
        return self._has_lease and fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def come_back(self) -> os.stat_result:
        """Fill the file again and let its readers in; what `fstat` says of it then."""
        before = os.fstat(self._fd)
        os.lseek(self._fd, 0, os.SEEK_SET)
        with self._tape.open("rb") as kept, os.fdopen(os.dup(self._fd), "r+b") as stub:
            shutil.copyfileobj(kept, stub)
        os.utime(self._fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = os.fstat(self._fd)
        self._tape.unlink()
        self.close()
        return after

    def close(self) -> None:
        """Let go of the file, as it is."""
        os.close(self._fd)  # the lease goes with it


def leave(path: Path, tape: Path, *, with_lease: bool) -> Stub | None:
    """Move the bytes of a file to tape; None if somebody has it open."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    has_lease = with_lease and _lease(fd)
    if has_lease is None:
        os.close(fd)
        return None
    before = os.fstat(fd)
    tape.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.dup(fd), "rb") as source, tape.open("wb") as kept:
        shutil.copyfileobj(source, kept)
    _empty(fd, before)
    return Stub(fd, tape, has_lease=has_lease)


def adopt(path: Path, tape: Path, *, with_lease: bool) -> Stub:
    """The stub of a file whose bytes an earlier run moved to tape."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return Stub(fd, tape, has_lease=with_lease and bool(_lease(fd)))


def _empty(fd: int, before: os.stat_result) -> None:
    os.ftruncate(fd, 0)
    os.ftruncate(fd, before.st_size)
    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def _lease(fd: int) -> bool | None:
    """Whether the file has a lease now; None if another has it open, False if the file system knows none."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True
