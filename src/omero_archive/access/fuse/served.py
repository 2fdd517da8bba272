"""What is served: the tree and the gate as this package needs them, and the errno for every way an open can end."""

import errno
from collections.abc import Iterator
from typing import Any, Protocol

from omero_archive.access.items import Answer, Caller, Item, Reason


class ServedTree(Protocol):
    """What the archive looks like as files. Paths are relative to its root, the empty text.

    All raise `ArchiveError` where something could not be found out, which is neither yes nor no.
    """

    def look_near(self, path: str) -> Item | None:
        """From the disk alone, at once. None says nothing about the archive."""

    def look(self, path: str) -> Item | None:
        """What lies at a path; None: there is no such thing. May take time, but fails at once while it is known to."""

    def list(self, path: str) -> Iterator[tuple[str, Item]]:
        """All that lies in a directory. May take time."""

    def room(self) -> tuple[int, int]:
        """The size and the free space of the file system of near bytes."""


class ServedGate(Protocol):
    """Decides about opens. A ticket is whatever the gate makes it."""

    def open(self, path: str, caller: Caller, answer: Answer) -> Any | None:
        """Calls `answer` exactly once, at any time and from any thread; None if that was done already."""

    def give_up(self, ticket: Any) -> None:
        """The program was interrupted: answer it now, if it was not answered yet."""


def errno_of(reason: Reason) -> int:
    """What a program sees when an open gave no bytes: none of these comes from an ordinary file system by accident.

    ENOENT is not among them, since programs take it as deleted, nor EAGAIN, which some read over, nor EIO, which looks
    like a failing disk.
    """
    return _ERRNO[reason]


_ERRNO = {
    Reason.OFFLINE: errno.ENODATA,
    Reason.DENIED: errno.ENOMEDIUM,
    Reason.TIMED_OUT: errno.ETIMEDOUT,
    Reason.FAILED: errno.EREMOTEIO,
    Reason.UNKNOWN: errno.EREMOTEIO,
    Reason.MOVED: errno.ESTALE,
    Reason.INTERRUPTED: errno.EINTR,
}
