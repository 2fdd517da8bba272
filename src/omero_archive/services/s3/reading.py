"""Reading one object as a stream that is whole or raises: never a silent short read."""

import errno
import io
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from omero_archive.errors import ArchiveError, ObjectMissing, ObjectOffline, ServiceUnavailable
from omero_archive.model import Key, ServiceName, printable
from omero_archive.services.s3.connection import NO_ANSWER, Connection, Refusal

BUFFER_BYTES = 1 << 20
REOPENINGS = 3

_OFFLINE = frozenset({"InvalidObjectState", "ObjectNotInActiveTier"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An answer whose body is still to be read: up to which byte of the object it goes, and which version it is of."""

    body: Any
    end: int
    etag: str


def open_object(name: ServiceName, connection: Connection, key: Key, object_name: str, offset: int) -> BinaryIO:
    """The bytes from `offset` on. Raises `ObjectMissing`, `ObjectOffline`, `ServiceUnavailable`."""

    def begin(position: int, etag: str | None) -> Opened | None:
        return _begin(connection, key, object_name, position, etag)

    try:
        opened = begin(offset, None)
    except Refusal as refusal:
        subject = f"{name}: {printable(key)}"
        if refusal.is_no:
            raise ObjectMissing(f"{name}: there is no {connection.place}/{printable(key)}.") from refusal
        if refusal.code in _OFFLINE:
            raise ObjectOffline(f"{subject} is in cold storage and must be staged before it can be read.") from refusal
        raise connection.unavailable(key, refusal) from refusal
    if opened is None:
        return io.BytesIO()
    stream = _Stream(f"{name}: {printable(key)}", begin, opened, offset)
    return cast(BinaryIO, io.BufferedReader(stream, buffer_size=BUFFER_BYTES))


def _begin(connection: Connection, key: Key, object_name: str, position: int, etag: str | None) -> Opened | None:
    """Ask for the bytes from `position` on, of one version if `etag` is given; None beyond the end.

    Raises `Refusal`, and `ServiceUnavailable` if what comes is not what was asked for.
    """
    parameters: dict[str, object] = {"Key": object_name}
    if position:
        parameters["Range"] = f"bytes={position}-"
    if etag:
        parameters["IfMatch"] = etag
    try:
        answer = connection.ask("get_object", key, **parameters)
    except Refusal as refusal:
        if refusal.status == 416:
            return None
        raise
    length = answer.get("ContentLength")
    begins = f"bytes {position}-"
    if length is None or (position and not str(answer.get("ContentRange", "")).startswith(begins)):
        with closing(answer["Body"]):
            raise ServiceUnavailable(f"{printable(key)}: the server did not answer with the bytes that were asked for.")
    return Opened(body=answer["Body"], end=position + int(length), etag=str(answer.get("ETag") or ""))


class _Stream(io.RawIOBase):
    """The body of an answer; where the connection breaks, the rest of the same version is asked for."""

    def __init__(
        self, subject: str, begin: Callable[[int, str | None], Opened | None], opened: Opened, position: int
    ) -> None:
        super().__init__()
        self._subject = subject
        self._begin = begin
        self._opened = opened
        self._position = position
        self._reopenings = REOPENINGS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not len(buffer):
            return 0
        while self._position < self._opened.end:
            problem: BaseException | None = None
            try:
                count = int(self._opened.body.readinto(buffer))
            except NO_ANSWER as error:
                count, problem = 0, error
            if count > 0:
                self._position += count
                return count
            self._go_on(problem)
        return 0

    def close(self) -> None:
        if not self.closed:
            self._opened.body.close()
        super().close()

    def _go_on(self, problem: BaseException | None) -> None:
        """Ask for the rest. Raises `OSError` when that cannot be, with how much came."""
        end = self._opened.end
        missing = f"{self._subject}: the connection ended after {self._position} of {end} bytes"
        if self._reopenings == 0 or not self._opened.etag:
            raise OSError(errno.EIO, missing) from problem
        self._reopenings -= 1
        self._opened.body.close()
        try:
            opened = self._begin(self._position, self._opened.etag)
        except (Refusal, ArchiveError) as error:
            raise OSError(errno.EIO, f"{missing}, and asking for the rest failed: {error}") from error
        if opened is None or opened.end != end:
            raise OSError(errno.EIO, f"{missing}, and then it had another size")
        self._opened = opened
