"""A line in the log for each use of a service. Never a secret: it goes around `Redacted`.

What changes something (`put_group`, `stage`, `delete`, `initialise`) is told at the level info, what only asks or reads
and single puts at debug, what fails at warning.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import structlog

from omero_archive.errors import ArchiveError
from omero_archive.model import Fixity, Key, ServiceName, printable
from omero_archive.service import Incoming, Listed, ObjectStatus, Outcome, Receipt, Service
from omero_archive.transfer import Reader
from omero_archive.wrapped.base import Wrapped

_log = structlog.get_logger()


@dataclass(slots=True)
class _Line:
    """What becomes known of one use while it lasts."""

    keys: int = 0
    failed: int = 0


class Logged(Wrapped):
    """Logs each verb with the service's name, how many keys, and how long it took in seconds.

    The time of a listing or of a group is that of whoever takes its results, too. Reading an open stream is not logged.
    """

    def __init__(self, inner: Service, name: ServiceName, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(inner)
        self._name, self._clock = name, clock

    def initialise(self) -> None:
        with self._logged("initialise", logging.INFO):
            self.inner.initialise()

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        with self._logged("put", logging.DEBUG, 1):
            return self.inner.put(key, reader, expected)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        with self._logged("put_group", logging.INFO, len(group)) as line:
            for outcome in self.inner.put_group(group):
                line.failed += outcome.error is not None
                yield outcome

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        with self._logged("open", logging.DEBUG, 1):
            return self.inner.open(key, offset)

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = tuple(keys)
        with self._logged("status", logging.DEBUG, len(wanted)):
            return self.inner.status(wanted)

    def stage(self, keys: Iterable[Key]) -> None:
        wanted = tuple(keys)
        with self._logged("stage", logging.INFO, len(wanted)):
            self.inner.stage(wanted)

    def delete(self, key: Key) -> None:
        with self._logged("delete", logging.INFO, 1):
            self.inner.delete(key)

    def list(self, prefix: str) -> Iterator[Listed]:
        with self._logged("list", logging.DEBUG) as line:
            for found in self.inner.list(prefix):
                line.keys += 1
                yield found

    @contextmanager
    def _logged(self, verb: str, level: int, keys: int = 0) -> Iterator[_Line]:
        line, begun = _Line(keys=keys), self._clock()
        try:
            yield line
        except ArchiveError as error:
            facts = self._facts(verb, line, begun) | {"error": printable(str(error))}
            _log.warning("service failed", kind=type(error).__name__, **facts)
            raise
        _log.log(level, "service used", **self._facts(verb, line, begun))

    def _facts(self, verb: str, line: _Line, begun: float) -> dict[str, object]:
        facts: dict[str, object] = {"action": verb, "service": self._name, "keys": line.keys}
        if line.failed:
            facts["failed"] = line.failed
        return facts | {"duration_s": round(self._clock() - begun, 3)}
