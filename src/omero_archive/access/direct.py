"""Bytes where a service keeps them: files of a service of `mount.direct` that lies under a path of this machine.

What is handed on was not copied, and nobody compares it with a digest first. What is trusted instead, and why, stands
in docs/decisions/0015-direct-files.md.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from omero_archive.access.items import Opened
from omero_archive.catalogue import listing
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.listing import Begin
from omero_archive.errors import ArchiveError
from omero_archive.files import EntryKind, Tree, entry_of, same_time
from omero_archive.model import Clock, ServiceName
from omero_archive.service import Answer, Location, Service, Staged

_BELIEVED = timedelta(seconds=5)
"""So long a service's answer about a bundle counts. A reader opens all files of a set one after the other, and a tape
system asked about all of them each time would be asked about a plate a hundred thousand times."""

_REMEMBERED = 1_000
"""Answers that are kept at most."""


class Direct:
    """Opens files of services in their place. `services` are those that may be used, nearest first."""

    def __init__(self, services: Mapping[ServiceName, Service], *, begin: Begin, clock: Clock) -> None:
        self._services = services
        self._begin = begin
        self._clock = clock
        self._said: dict[tuple[int, ServiceName], tuple[datetime, bool]] = {}
        self._lock = threading.Lock()

    @property
    def is_wanted(self) -> bool:
        """Whether there is any such service."""
        return bool(self._services)

    def open(self, bundle: BundleRecord, file: FileRecord, having: Sequence[ServiceName]) -> Opened | None:
        """The file where the nearest of the services that `having` a copy keeps it; None if from none.

        Raises `DatabaseUnavailable`. What a service or its disk fails at is no reason to fail: the bytes come by a
        recall then.
        """
        for name, service in self._services.items():
            location = service.locate(file.key) if name in having and file.read is not None else None
            if location is None or not self._is_whole(bundle, name):
                continue
            if self._is_online(bundle, name) and (opened := _opened(location, file)) is not None:
                return opened
        return None

    def _is_whole(self, bundle: BundleRecord, name: ServiceName) -> bool:
        """Whether the service has all files of the bundle, compared. Asked each time: an audit may find damage."""
        with self._begin() as connection:
            return listing.is_whole(connection, bundle.id, name)

    def _is_online(self, bundle: BundleRecord, name: ServiceName) -> bool:
        """Whether all files of the bundle can be read now without waiting for a tape. "Cannot tell" is no."""
        if not self._services[name].capabilities.needs_staging:
            return True
        now, question = self._clock(), (bundle.id, name)
        with self._lock:
            at, answer = self._said.get(question, (now - 2 * _BELIEVED, False))
        if now - _BELIEVED < at <= now:
            return answer
        answer = self._ask(bundle, name)
        with self._lock:
            if len(self._said) >= _REMEMBERED:
                self._said.clear()
            self._said[question] = (now, answer)
        return answer

    def _ask(self, bundle: BundleRecord, name: ServiceName) -> bool:
        with self._begin() as connection:
            keys = listing.keys(connection, bundle.id)
        try:
            said = self._services[name].status(keys)
        except ArchiveError:
            return False
        return all(
            key in said and said[key].present is Answer.YES and said[key].staged is Staged.ONLINE for key in keys
        )


def _opened(location: Location, file: FileRecord) -> Opened | None:
    """The file at the place, if it is a plain file with the size and the mtime of the original."""
    try:
        with Tree(location.root) as tree:
            there = tree.look(location.relative)
            if there is None or there.kind is not EntryKind.FILE:
                return None  # never opened to find out: opening a pipe waits for its other end
            fd = tree.open_to_read(location.relative)
    except (OSError, ArchiveError):
        return None
    entry = entry_of(fd)
    read = file.source
    is_same = entry.kind is EntryKind.FILE and entry.identity.size_bytes == read.fixity.size_bytes
    if is_same and same_time(entry.identity.mtime_ns, read.attributes.mtime_ns):
        return Opened(fd=fd, identity=entry.identity)
    os.close(fd)
    return None
