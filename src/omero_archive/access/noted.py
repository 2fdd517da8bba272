"""When files were last opened through the mount, until the catalogue is told. What is told late is not lost."""

import threading
from collections.abc import Mapping
from datetime import datetime

from omero_archive.catalogue import waiting
from omero_archive.catalogue.database import Catalogue
from omero_archive.errors import DatabaseUnavailable
from omero_archive.model import Clock, Key

PATHS_KEPT = 200_000
"""So many different paths are remembered between two writings, about 50 MB; of more the catalogue hears nothing."""

_AT_ONCE = 20_000


class NotedOpens:
    """Paths and when they were last opened. `note` is called for every open and costs half a microsecond."""

    def __init__(self, clock: Clock, *, most: int = PATHS_KEPT) -> None:
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._last: dict[str, datetime] = {}

    def __len__(self) -> int:
        return len(self._last)

    def note(self, path: str) -> None:
        """It was opened just now."""
        with self._lock:
            if len(self._last) < self._most or path in self._last:
                self._last[path] = self._clock()

    def flush(self, catalogue: Catalogue) -> None:
        """Tell the catalogue. Raises `DatabaseUnavailable`; what could not be told is kept for the next time."""
        with self._lock:
            taken, self._last = self._last, {}
        left = sorted(taken)  # files of one bundle lie beside each other
        while left:
            piece, rest = left[:_AT_ONCE], left[_AT_ONCE:]
            try:
                with catalogue.begin() as connection:
                    waiting.opened(connection, {Key(path): taken[path] for path in piece})
            except DatabaseUnavailable:
                self._keep({path: taken[path] for path in left})
                raise
            left = rest

    def _keep(self, untold: Mapping[str, datetime]) -> None:
        with self._lock:
            for path, at in untold.items():
                if len(self._last) >= self._most:
                    return
                self._last.setdefault(path, at)
