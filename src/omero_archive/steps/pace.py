"""Pace: no more bytes a second from one service than wished, on the average of what was read so far."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from omero_archive.model import ServiceName


@dataclass(slots=True, kw_only=True)
class Pace:
    """Keeps reading to `rate` bytes a second from each service; None is no limit. Safe for several threads.

    A file is read as fast as it comes; what that was too fast is waited for after it. `clock` tells seconds and never
    goes backwards.
    """

    rate: int | None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _ready: dict[ServiceName, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spent(self, service: ServiceName, size_bytes: int, *, since: float) -> None:
        """So many bytes were read, beginning at `since` by the clock: wait until that is not too fast any more."""
        if not self.rate:
            return
        with self._lock:
            # Time in which nothing was read is not saved up for later.
            ready = max(self._ready.get(service, since), since) + size_bytes / self.rate
            self._ready[service] = ready
        wait = ready - self.clock()
        if wait > 0:
            self.sleep(wait)
