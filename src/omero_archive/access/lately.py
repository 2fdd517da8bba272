"""What was found out and asked for in the last seconds, so that a storm of opens is not a storm of queries."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.model import ServiceName

REMEMBERED_S = 2.0
"""How long an answer counts. Longer would save little, and a bundle may come and go meanwhile."""

_MOST = 10_000


class Away(Protocol):
    """What the tree tells of a file that is not near: its bundle, and the services that could bring it."""

    @property
    def bundle(self) -> BundleRecord: ...

    @property
    def services(self) -> Sequence[ServiceName]: ...


@dataclass(frozen=True, slots=True)
class _Found:
    away: Away
    at: float


@dataclass(frozen=True, slots=True)
class _Asked:
    priority: int
    at: float


class Lately:
    """Away files by path, or by their bundle's directory, and bundles whose recall was asked for."""

    def __init__(self, clock: Callable[[], float], *, remembered_s: float = REMEMBERED_S) -> None:
        self._clock = clock
        self._remembered_s = remembered_s
        self._lock = threading.Lock()
        self._found: dict[str, _Found] = {}
        self._asked: dict[int, _Asked] = {}

    def find(self, path: str) -> Away | None:
        """What was found out about the file, or about another of the same bundle; None if nothing lately."""
        with self._lock:
            name = path
            while name:
                found = self._found.get(name)
                if found is not None:
                    return found.away if self._counts(found.at) else None
                name = name.rpartition("/")[0]
            return None

    def found(self, path: str, away: Away) -> None:
        """It was found out just now. A bundle that has a directory for itself is known by that."""
        with self._lock:
            if len(self._found) >= _MOST:
                self._found.clear()
            self._found[away.bundle.home or path] = _Found(away, self._clock())

    def is_asked(self, bundle_id: int, priority: int) -> bool:
        """Whether its recall was asked for just now, as urgently."""
        with self._lock:
            asked = self._asked.get(bundle_id)
            return asked is not None and asked.priority >= priority and self._counts(asked.at)

    def asked(self, bundle_id: int, priority: int) -> None:
        """Its recall was asked for."""
        with self._lock:
            if len(self._asked) >= _MOST:
                self._asked.clear()
            self._asked[bundle_id] = _Asked(priority, self._clock())

    def forget(self, bundle_id: int) -> None:
        """Something happened to it."""
        with self._lock:
            self._asked.pop(bundle_id, None)
            self._found = {name: one for name, one in self._found.items() if one.away.bundle.id != bundle_id}

    def _counts(self, at: float) -> bool:
        return self._clock() - at <= self._remembered_s
