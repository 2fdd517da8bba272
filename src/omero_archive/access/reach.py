"""Whether the catalogue can be asked. After a failure nobody tries for a second; it recovers by itself."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import structlog

from omero_archive.catalogue.database import Catalogue
from omero_archive.errors import DatabaseUnavailable

_log = structlog.get_logger()


class Reach:
    """The catalogue as the mount asks it. Thousands of opens do not each wait for a server that is not there."""

    def __init__(self, catalogue: Catalogue, clock: Callable[[], float], *, rest_s: float) -> None:
        self.catalogue = catalogue
        self._clock = clock
        self._rest_s = rest_s
        self._lock = threading.Lock()
        self._failed_at: float | None = None
        self._why = ""

    def require(self) -> None:
        """Raise `DatabaseUnavailable` if it failed less than a second ago."""
        failed_at = self._failed_at
        if failed_at is not None and self._clock() - failed_at < self._rest_s:
            raise DatabaseUnavailable(self._why)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Remember if the catalogue could not be reached by what is done inside, which may ask it or not."""
        try:
            yield
        except DatabaseUnavailable as error:
            self._failed(error)
            raise

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A connection in a transaction. Raises `DatabaseUnavailable`."""
        with self.asking(), self.catalogue.begin() as connection:
            yield connection
        self.worked()

    def _failed(self, error: DatabaseUnavailable) -> None:
        with self._lock:
            was_there, self._failed_at, self._why = self._failed_at is None, self._clock(), str(error)
        if was_there:
            _log.warning(
                "the catalogue cannot be asked; files that are near still open", action="open", error=str(error)
            )

    def worked(self) -> None:
        """It answered."""
        if self._failed_at is None:
            return
        with self._lock:
            was_away, self._failed_at = self._failed_at is not None, None
        if was_away:
            _log.warning("the catalogue can be asked again", action="open")
