"""No more bytes a second to and from a service than wished, over all threads together."""

import io
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from omero_archive.model import FileAttributes, Fixity, Key
from omero_archive.service import Incoming, Outcome, Receipt, Service
from omero_archive.transfer import Reader
from omero_archive.wrapped.base import Wrapped

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Throttled(Wrapped):
    """Lets `rate` bytes a second pass: what is stored and what is read by `open`, counted together.

    The average counts; one piece goes as fast as it can, the next waits for it. Time in which nothing passed is not
    saved up. What is read past the service, under the path that `locate` gives, is not counted.
    """

    def __init__(
        self,
        inner: Service,
        *,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._flow = Flow(rate, clock, sleep)

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        return self.inner.put(key, _Slowed(reader, self._flow), expected)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        slowed = [replace(incoming, reader=_Slowed(incoming.reader, self._flow)) for incoming in group]
        yield from self.inner.put_group(slowed)

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        return io.BufferedReader(_SlowedStream(self.inner.open(key, offset), self._flow))


class Flow:
    """The bytes that pass, of all threads. `clock` tells seconds and never goes backwards."""

    def __init__(self, rate: int, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._lock = threading.Lock()
        self._free_at: float | None = None

    def pass_on(self, size_bytes: int) -> None:
        """Wait until so many bytes may pass."""
        if not size_bytes:
            return  # the end of a stream
        with self._lock:
            now = self._clock()
            free_at = now if self._free_at is None else max(now, self._free_at)
            self._free_at = free_at + size_bytes / self._rate
        if free_at > now:
            self._sleep(free_at - now)


class _Slowed:
    """A reader whose pieces come no faster than the flow lets them."""

    def __init__(self, inner: Reader, flow: Flow) -> None:
        self._inner, self._flow = inner, flow

    @property
    def fixity(self) -> Fixity:
        return self._inner.fixity

    @property
    def attributes(self) -> FileAttributes:
        return self._inner.attributes

    def pieces(self) -> Generator[memoryview, None, None]:
        for piece in self._inner.pieces():
            self._flow.pass_on(len(piece))
            yield piece


class _SlowedStream(io.RawIOBase):
    """A stream that gives its bytes no faster than the flow lets them."""

    def __init__(self, inner: BinaryIO, flow: Flow) -> None:
        self._inner, self._flow = inner, flow

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count: int = self._inner.readinto(buffer) or 0  # type: ignore[attr-defined]
        self._flow.pass_on(count)
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()
