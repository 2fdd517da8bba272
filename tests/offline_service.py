"""A tape library for tests: a directory service whose objects are offline until they were staged.

It keeps the contract: what is offline is present, has a size and, if it was told to report them, digests of what was
stored; opening it raises `ObjectOffline`. It has no paths, so that nothing is read past it. `broken` are keys of which
every read breaks off, `rotten` keys whose reported digest is another than that of what was stored.
"""

import errno
import hashlib
import io
from collections.abc import Iterable
from dataclasses import replace
from typing import BinaryIO

from omero_archive.errors import ObjectOffline
from omero_archive.model import Clock, Key, ServiceName
from omero_archive.service import Answer, Capabilities, Location, ObjectStatus, Staged
from omero_archive.services.directory import DirectoryService, DirectorySettings


class _BreaksOff(io.RawIOBase):
    """A file on a medium with a bad sector."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise OSError(errno.EIO, "Input/output error")


class OfflineService(DirectoryService):
    """See the module's docstring."""

    capabilities = Capabilities(has_paths=False, needs_staging=True)

    def __init__(self, name: ServiceName, settings: DirectorySettings, clock: Clock, *, reports: bool) -> None:
        super().__init__(name, settings, clock)
        self.reports = reports
        self.online: set[Key] = set()
        self.staged: list[Key] = []
        self.opened: list[Key] = []
        self.broken: set[Key] = set()
        self.rotten: set[Key] = set()

    def locate(self, key: Key) -> Location | None:
        del key
        return None

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        self.opened.append(key)
        if key not in self.online:
            raise ObjectOffline(f"{key} is on tape.")
        return _BreaksOff() if key in self.broken else super().open(key, offset)  # type: ignore[return-value]

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        return {key: self._with_staging(key, status) for key, status in super().status(keys).items()}

    def stage(self, keys: Iterable[Key]) -> None:
        self.staged.extend(keys)

    def _with_staging(self, key: Key, status: ObjectStatus) -> ObjectStatus:
        if status.present is not Answer.YES:
            return status
        staged = Staged.ONLINE if key in self.online else Staged.OFFLINE
        if not self.reports:
            return replace(status, staged=staged)
        with super().open(key) as stored:
            sha256 = hashlib.file_digest(stored, "sha256").hexdigest()  # type: ignore[arg-type]
        if key in self.rotten:
            sha256 = sha256[::-1]
        return replace(status, staged=staged, digests={"sha256": sha256})
