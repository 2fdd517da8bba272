"""No more bytes a second to and from a service than wished, over all threads together."""

import io
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from omero_archive.model import FileAttributes, Fixity, Key, ServiceName
from omero_archive.service import Incoming, Outcome, Receipt, Service
from omero_archive.transfer import Reader
from omero_archive.wrapped.base import Wrapped

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Throttled(Wrapped):
    """Lets `rate` bytes a second pass: what is stored and what is read by `open`, counted together.

    The average counts; one piece goes as fast as it can, the next waits for it. Time in which nothing passed is not
    saved up. What is read past the service, under the path that `locate` gives, its reader tells by `pass_on`.
    The rate is for all hosts together: `share` says which part of it is ours.
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
        self._rate = rate
        self._flow = Flow(rate, clock, sleep)

    def share(self, mine: int, all_streams: int) -> None:
        """Take the part of the rate that so many streams of ours have among all there are.

        One that moves bytes without having claimed a stream, such as a recall, has the part of one.
        """
        ours = max(1, mine)
        self._flow.set_rate(self._rate * ours / max(ours, all_streams))

    @property
    def rate(self) -> float:
        """The bytes a second that may pass here now."""
        return self._flow.rate

    def pass_on(self, size_bytes: int) -> None:
        """Wait until so many bytes may pass that are read past the service."""
        self._flow.pass_on(size_bytes)

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        return self.inner.put(key, _Slowed(reader, self._flow), expected)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        slowed = [replace(incoming, reader=_Slowed(incoming.reader, self._flow)) for incoming in group]
        yield from self.inner.put_group(slowed)

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        return io.BufferedReader(_SlowedStream(self.inner.open(key, offset), self._flow))


def throttle_of(service: Service) -> Throttled | None:
    """The limit of a service's rate, wherever among its decorators; None if it has none."""
    while isinstance(service, Wrapped):
        if isinstance(service, Throttled):
            return service
        service = service.inner
    return None


def share_rates(
    services: Mapping[ServiceName, Service],
    streams: Mapping[ServiceName, int],
    *,
    mine: Mapping[ServiceName, int],
) -> None:
    """Share each service's rate by the streams that there are to it on all hosts, and those of them that are ours."""
    for name, service in services.items():
        throttle = throttle_of(service)
        if throttle is not None:
            throttle.share(mine.get(name, 0), streams.get(name, 0))


class Flow:
    """The bytes that pass, of all threads. `clock` tells seconds and never goes backwards."""

    def __init__(self, rate: float, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._lock = threading.Lock()
        self._free_at: float | None = None

    @property
    def rate(self) -> float:
        """Bytes a second, as they are allowed now."""
        return self._rate

    def set_rate(self, rate: float) -> None:
        """Another rate from now on; what waits already waits as long as it was told."""
        with self._lock:
            self._rate = rate

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
