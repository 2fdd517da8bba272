"""The nouns of access: what lies at a path, who asks, and how an open ends. Frozen, without input or output.

Paths are relative to the archive root, as keys are: `ManagedRepository/alice_2/2026-11/22/x.tif`; the root itself is
the empty text. File names are bytes on disk and `str` as `os.fsdecode` makes them here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import xxhash

from omero_archive.model import FileAttributes, FileIdentity, printable


class ItemKind(StrEnum):
    """What lies at a path."""

    FILE = "file"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or directory of the archive as `stat` shows it; near or away makes no difference to it."""

    kind: ItemKind
    size_bytes: int  # of a directory 0
    attributes: FileAttributes


def inode_number(path: str) -> int:
    """The inode number that is shown for a path: the same on every machine and after every restart. Never 0."""
    return inode_number_of(path.encode("utf-8", "surrogateescape"))


def inode_number_of(path: bytes) -> int:
    """As `inode_number`, for a path as it is on disk."""
    return xxhash.xxh3_64_intdigest(path) or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who opens. `program` and `user` are names where they could be found out, else empty and the number as text."""

    pid: int  # 0: a process that this machine does not see, such as one in another container
    uid: int
    program: str
    user: str

    def __str__(self) -> str:
        return f"{printable(self.program) or 'an unknown program'} (pid {self.pid}) of {self.user}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A descriptor of the bytes, for reading; whoever gets it closes it. `identity` is what `fstat` says of it."""

    fd: int
    identity: FileIdentity


class Reason(StrEnum):
    """Why an open gave no bytes. The words are for logs; programs see the errno beside each."""

    OFFLINE = "offline"  # ENODATA: the bytes are away, a recall is asked for
    DENIED = "denied"  # ENOMEDIUM: the bytes are away, and this caller or this file may not have them recalled
    TIMED_OUT = "timed out"  # ETIMEDOUT: waited as long as allowed; the recall goes on
    FAILED = "failed"  # EREMOTEIO: the recall failed, and a person must look
    UNKNOWN = "unknown"  # EREMOTEIO: it could not be found out, as when the catalogue cannot be asked
    MOVED = "moved"  # ESTALE: not here any more; the kernel walks the path anew, and finds the original in its place
    INTERRUPTED = "interrupted"  # EINTR: the program that waited was told to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An open that gave no bytes: why, in a word and in a sentence for the log."""

    reason: Reason
    text: str


Answer = Callable[[Opened | Refusal], None]
"""Told how an open ended, exactly once, from any thread. It must not block and takes over the descriptor."""
