"""Whether it is worth asking: after the catalogue could not be reached, nobody tries again for a second.

Else everyone who looks something up would wait as long as the catalogue is waited for, one after the other.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from omero_archive.errors import DatabaseUnavailable

REST_S = 1.0


class Resting:
    """Safe to use from several threads: each may find out for itself, and the last one is remembered."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failed: tuple[float, str] | None = None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Raises `DatabaseUnavailable` at once if it failed a moment ago; remembers if it fails inside."""
        failed = self._failed
        if failed is not None and self._clock() - failed[0] < REST_S:
            raise DatabaseUnavailable(failed[1])
        try:
            yield
        except DatabaseUnavailable as error:
            self._failed = (self._clock(), str(error))
            raise
        self._failed = None
