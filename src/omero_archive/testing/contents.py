"""Contents to store and ways to read them back: what the conformance checks and the tests of a plugin are made of."""

import hashlib
import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

from omero_archive.digests import FixityDigests
from omero_archive.errors import BrokenInvariant
from omero_archive.model import FileAttributes, Fixity, Key
from omero_archive.service import ObjectStatus, Service
from omero_archive.transfer import BytesReader

ATTRIBUTES = FileAttributes(mtime_ns=1_234_567_890_123_456_789, mode=0o640, uid=os.getuid(), gid=os.getgid())
"""What the files that are stored have besides their bytes; the mtime is in 2009."""


class SteppedReader:
    """Gives its pieces one by one and does something after each; raises `problem` at the end if there is one."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        *,
        problem: BaseException | None = None,
        after_each: Callable[[], object] = lambda: None,
    ) -> None:
        self._pieces = pieces
        self._problem = problem
        self.after_each = after_each
        self.attributes = ATTRIBUTES
        digests = FixityDigests()
        for piece in pieces:
            digests.update(piece)
        self.fixity: Fixity = digests.fixity()

    def pieces(self) -> Generator[memoryview, None, None]:
        for piece in self._pieces:
            yield memoryview(piece)
            self.after_each()
        if self._problem is not None:
            raise self._problem


class Clock:
    """A clock that stands until it is moved: `clock.advance(timedelta(hours=3))`, from any thread."""

    def __init__(self, now: datetime = datetime(2026, 11, 23, tzinfo=UTC)) -> None:
        self.now = now
        self._moving = threading.Lock()

    def advance(self, by: timedelta) -> None:
        """Move it on. Of two threads that do so at once none puts it back."""
        with self._moving:
            self.now += by

    def __call__(self) -> datetime:
        return self.now


def reader(content: bytes) -> BytesReader:
    """A reader of bytes in memory."""
    return BytesReader(content, ATTRIBUTES)


def noise(size_bytes: int) -> bytes:
    """So many bytes that look random and are the same each time; no two pieces of them are alike."""
    return hashlib.shake_128(b"omero-archive").digest(size_bytes)


def content_of(service: Service, key: Key, offset: int = 0) -> bytes:
    """What `open` gives, read to its end. Raises what the service raises."""
    with closing(service.open(key, offset)) as stream:
        pieces = []
        while piece := stream.read(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)


def status_of(service: Service, key: Key) -> ObjectStatus:
    """What a service says of one object. Raises what the service raises."""
    answers = service.status([key])
    if list(answers) != [key]:
        raise BrokenInvariant(f"asked about {key!r}, the service answered about {list(answers)!r}")
    return answers[key]
