"""A whole archive service in memory: the contract in its shortest form, and a tape library where it is told to be one.

    service = MemoryService(clock=clock)
    tape = MemoryService(clock=clock, staging=timedelta(hours=3), durable_after=timedelta(days=1))

With `staging` its objects are offline once they are stored, and online so long after they were asked for; `evict`
takes them offline again. Time is the clock's, nothing sleeps. It is gone when the process ends: it proves nothing
about disks, and is for tests of what uses a service. It passes the conformance checks.
"""

import hashlib
import io
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO

from omero_archive.errors import (
    FixityMismatch,
    ObjectExists,
    ObjectMissing,
    ObjectOffline,
    ServiceUnavailable,
    SettingsError,
)
from omero_archive.model import Clock, Fixity, Key, ServiceName
from omero_archive.service import Answer, Capabilities, Finding, Listed, ObjectStatus, Receipt, Service, Staged
from omero_archive.transfer import Reader


@dataclass(slots=True, kw_only=True)
class Stored:
    """One object. `asked_at` is when its bytes were asked for, None while nobody did."""

    content: bytes
    digests: Mapping[str, str]
    stored_at: datetime
    asked_at: datetime | None = None


class MemoryService(Service):
    """See the module's docstring."""

    def __init__(
        self, *, clock: Clock, staging: timedelta | None = None, durable_after: timedelta = timedelta(0)
    ) -> None:
        self.capabilities = Capabilities(has_paths=False, needs_staging=staging is not None, digests=("sha256", "md5"))
        self.objects: dict[Key, Stored] = {}
        self._clock, self._staging, self._durable_after = clock, staging, durable_after
        self._is_reachable = True
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> "MemoryService":
        del settings, clock
        raise SettingsError(f"services.{name}: what is kept in memory only is no archive; it cannot be configured.")

    # ---- what only a tester can do

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """A context in which the service cannot be reached."""
        self._is_reachable = False
        try:
            yield
        finally:
            self._is_reachable = True

    def evict(self, key: Key) -> None:
        """Take the bytes of an object offline."""
        self.objects[key].asked_at = None

    # ---- the verbs

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        self._reach()
        # Without the lock: while a slow reader is read, the service is asked about other objects, and about this one.
        with closing(reader.pieces()) as pieces:
            content = b"".join(bytes(piece) for piece in pieces)
        if expected not in (None, reader.fixity):
            raise FixityMismatch(f"{key} came with other bytes than expected; nothing was stored.")
        digests = {name: hashlib.new(name, content, usedforsecurity=False).hexdigest() for name in ("sha256", "md5")}
        with self._lock:
            was_there = key in self.objects
            if was_there:
                self._require_same(key, content)
            else:
                self.objects[key] = Stored(content=content, digests=digests, stored_at=self._clock())
        return Receipt(key=key, size_bytes=len(content), was_there=was_there, digests={"md5": digests["md5"]})

    def _require_same(self, key: Key, content: bytes) -> None:
        if self._staged(self.objects[key]) is not Staged.ONLINE:
            raise ObjectOffline(f"{key} must be staged before it can be compared; nothing was stored.")
        if self.objects[key].content != content:
            raise ObjectExists(f"other content lies at {key} already; it was not overwritten.")

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        found = self._find(key)
        if self._staged(found) is not Staged.ONLINE:
            raise ObjectOffline(f"{key} must be staged before it can be read.")
        return io.BytesIO(found.content[offset:])

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        self._reach()
        return {key: self._status(self.objects.get(key)) for key in keys}

    def _status(self, found: Stored | None) -> ObjectStatus:
        if found is None:
            return ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE, word="not there")
        is_safe = self._clock() - found.stored_at >= self._durable_after
        return ObjectStatus(
            present=Answer.YES,
            durable=Answer.YES if is_safe else Answer.NO,
            staged=self._staged(found),
            size_bytes=len(found.content),
            digests=found.digests,
            word="safe" if is_safe else "not yet",
        )

    def stage(self, keys: Iterable[Key]) -> None:
        for key in keys:
            found = self._find(key)
            with self._lock:
                found.asked_at = found.asked_at or self._clock()

    def delete(self, key: Key) -> None:
        self._find(key)
        with self._lock:
            self.objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[Listed]:
        self._reach()
        with self._lock:
            found = sorted((key, len(each.content)) for key, each in self.objects.items() if key.startswith(prefix))
        return iter([Listed(key=key, size_bytes=size) for key, size in found])

    def check(self) -> Sequence[Finding]:
        text = "in memory" if self._is_reachable else "cannot be reached"
        return [Finding(subject="memory service", is_fine=self._is_reachable, text=text)]

    # ---- the inside

    def _reach(self) -> None:
        if not self._is_reachable:
            raise ServiceUnavailable("the service cannot be reached; nothing was done.")

    def _find(self, key: Key) -> Stored:
        self._reach()
        with self._lock:
            found = self.objects.get(key)
        if found is None:
            raise ObjectMissing(f"there is no {key}.")
        return found

    def _staged(self, found: Stored) -> Staged:
        if self._staging is None:
            return Staged.ONLINE
        if found.asked_at is None:
            return Staged.OFFLINE
        return Staged.ONLINE if self._clock() - found.asked_at >= self._staging else Staged.STAGING
