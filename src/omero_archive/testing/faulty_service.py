"""A service that goes wrong when it is told to: unavailable, slow, damaged, missing, doubting, lying, offline.

    faulty = FaultyService(DirectoryService(...), clock=clock)
    faulty.set(Fault.DAMAGED, key=key)             # until it is cleared
    faulty.set(Fault.UNAVAILABLE, verb="status", times=2)
    faulty.clear()

It wraps any service and keeps its contract as long as no fault is set: it passes the conformance suite. It never has
paths, so that nothing is read past it, and its objects may be offline. `happened` tells which faults happened, in
their order. Safe to use from several threads.
"""

import io
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO

from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ObjectMissing,
    ObjectOffline,
    ServiceUnavailable,
)
from omero_archive.model import Clock, Fixity, Key
from omero_archive.service import (
    Answer,
    Finding,
    Incoming,
    Listed,
    Location,
    ObjectStatus,
    Outcome,
    Receipt,
    Service,
    Staged,
)
from omero_archive.transfer import BytesReader, Reader
from omero_archive.wrapped.base import Wrapped

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

VERBS = ("put", "open", "status", "stage", "delete", "list")
"""The verbs of the contract, at which a fault may be set."""


class Fault(StrEnum):
    """What can go wrong with a service."""

    UNAVAILABLE = "unavailable"  # the verb raises ServiceUnavailable
    SLOW = "slow"  # the verb takes its time, then does what it should
    DAMAGED = "damaged"  # `open` gives other bytes, `status` reports other digests; it can be deleted and stored anew
    MISSING = "missing"  # the object is gone; it can be stored anew
    WITHDRAWN = "withdrawn"  # `status` says that it is not durable, "amber"; that is more than a doubt
    DOUBTFUL = "doubtful"  # `status` cannot tell whether it is durable
    LOST_PUT = "lost put"  # `put` gives a receipt and stores nothing
    HALF_PUT = "half put"  # `put` gives a receipt for the whole and stores the first half
    OFFLINE = "offline"  # the bytes must be staged before they can be read


@dataclass(slots=True, kw_only=True)
class _Set:
    """A fault that is set: at which verb and key (None: at all of them), and how often yet (None: for ever)."""

    fault: Fault
    verb: str | None
    key: Key | None
    times: int | None

    def hits(self, fault: Fault, verb: str, key: Key | None) -> bool:
        is_here = self.fault is fault and self.verb in (None, verb) and self.times != 0
        return is_here and (self.key is None or self.key == key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """A fault that happened."""

    fault: Fault
    verb: str
    key: Key | None


class FaultyService(Wrapped):
    """Another service, with faults. `slow_s` is how long SLOW takes, `staging` how long an object is STAGING."""

    def __init__(
        self,
        inner: Service,
        *,
        clock: Clock,
        slow_s: float = 0.05,
        staging: timedelta = timedelta(0),
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self.capabilities = replace(inner.capabilities, has_paths=False, needs_staging=True)
        self._clock, self._slow_s, self._staging, self._sleep = clock, slow_s, staging, sleep
        self._lock = threading.Lock()
        self._faults: list[_Set] = []
        self.happened: list[Happened] = []
        self._asked: dict[Key, datetime] = {}  # when an object that is OFFLINE was asked for

    # ---- faults

    def set(self, fault: Fault, *, verb: str | None = None, key: Key | None = None, times: int | None = None) -> None:
        """Let a fault happen: at one verb or wherever it can, for one key or all, so many times or until cleared."""
        if verb is not None and verb not in VERBS:
            raise ValueError(f"{verb!r} is no verb of a service; there are {', '.join(VERBS)}.")
        with self._lock:
            self._faults.append(_Set(fault=fault, verb=verb, key=key, times=times))

    def clear(self, *faults: Fault) -> None:
        """Let these faults, or all, happen no more."""
        with self._lock:
            self._faults = [each for each in self._faults if faults and each.fault not in faults]
            if not faults or Fault.OFFLINE in faults:
                self._asked.clear()

    def is_set(self, fault: Fault, *, verb: str, key: Key) -> bool:
        """Whether a fault would happen at a verb for a key."""
        with self._lock:
            return any(each.hits(fault, verb, key) for each in self._faults)

    def _hits(self, fault: Fault, verb: str, key: Key | None = None) -> bool:
        """Whether a fault happens now; it is counted."""
        with self._lock:
            found = next((each for each in self._faults if each.hits(fault, verb, key)), None)
            if found is not None and found.times is not None:
                found.times -= 1
            if found is not None:
                self.happened.append(Happened(fault=fault, verb=verb, key=key))
            return found is not None

    def _begin(self, verb: str, keys: Sequence[Key] = ()) -> None:
        """What happens to a verb as a whole."""
        for key in keys or (None,):
            if self._hits(Fault.SLOW, verb, key):
                self._sleep(self._slow_s)
                break  # once, however many keys are asked about
        for key in keys or (None,):
            if self._hits(Fault.UNAVAILABLE, verb, key):
                raise ServiceUnavailable(f"the service cannot be reached ({verb}); nothing was done.")

    # ---- storing

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        self._begin("put", [key])
        if self._hits(Fault.LOST_PUT, "put", key):
            return Receipt(key=key, size_bytes=len(_all_of(reader, expected)), was_there=False)
        if self._hits(Fault.HALF_PUT, "put", key):
            content = _all_of(reader, expected)
            half = BytesReader(content[: len(content) // 2], reader.attributes)
            return replace(self.inner.put(key, half, None), size_bytes=len(content))
        receipt = self.inner.put(key, reader, expected)
        self._stored_anew(key)
        return receipt

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        with self._lock:
            is_harmless = not self._faults
        if is_harmless:
            yield from self.inner.put_group(group)
            return
        for incoming in group:
            try:
                receipt = self.put(incoming.key, incoming.reader, incoming.expected)
            except ArchiveError as error:
                yield Outcome(key=incoming.key, error=error)
            else:
                yield Outcome(key=incoming.key, receipt=receipt)

    def _stored_anew(self, key: Key) -> None:
        """What was wrong with one object is over."""
        over = (Fault.MISSING, Fault.DAMAGED)
        with self._lock:
            self._faults = [each for each in self._faults if each.key != key or each.fault not in over]

    # ---- reading

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        self._begin("open", [key])
        if self._hits(Fault.MISSING, "open", key):
            raise ObjectMissing(f"there is no {key}.")
        if self._staged(key, "open") in (Staged.OFFLINE, Staged.STAGING):
            raise ObjectOffline(f"{key} must be staged before it can be read.")
        stream = self.inner.open(key, offset)
        return io.BufferedReader(_Damaged(stream)) if self._hits(Fault.DAMAGED, "open", key) else stream

    def stage(self, keys: Iterable[Key]) -> None:
        wanted = tuple(keys)
        self._begin("stage", wanted)
        with self._lock:
            for key in wanted:
                self._asked.setdefault(key, self._clock())
        self.inner.stage(wanted)

    def delete(self, key: Key) -> None:
        self._begin("delete", [key])
        if self._hits(Fault.MISSING, "delete", key):
            raise ObjectMissing(f"there is no {key}.")
        self.inner.delete(key)

    def list(self, prefix: str) -> Iterator[Listed]:
        self._begin("list")
        for found in self.inner.list(prefix):
            if not self._hits(Fault.MISSING, "list", found.key):
                yield found

    # ---- asking

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = tuple(keys)
        self._begin("status", wanted)
        return {key: self._spoilt(key, status) for key, status in self.inner.status(wanted).items()}

    def _spoilt(self, key: Key, status: ObjectStatus) -> ObjectStatus:
        if status.present is not Answer.YES:
            return status
        if self._hits(Fault.MISSING, "status", key):
            return ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE, word="not there")
        if self._hits(Fault.DAMAGED, "status", key):
            status = replace(status, digests={name: digest[::-1] for name, digest in status.digests.items()})
        if self._hits(Fault.DOUBTFUL, "status", key):
            status = replace(status, durable=Answer.CANNOT_TELL, word="who knows")
        if self._hits(Fault.WITHDRAWN, "status", key):
            status = replace(status, durable=Answer.NO, word="amber")
        return replace(status, staged=self._staged(key, "status") or status.staged)

    def _staged(self, key: Key, verb: str) -> Staged | None:
        """Where the bytes of an object are that is set OFFLINE; None for all others."""
        if not self._hits(Fault.OFFLINE, verb, key):
            return None
        with self._lock:
            asked = self._asked.get(key)
        if asked is None:
            return Staged.OFFLINE
        return Staged.ONLINE if self._clock() - asked >= self._staging else Staged.STAGING

    def check(self) -> Sequence[Finding]:
        with self._lock:
            is_cut_off = any(each.hits(Fault.UNAVAILABLE, "check", None) for each in self._faults if each.key is None)
        if is_cut_off:
            text = "the service cannot be reached"
            return [Finding(subject="faulty service", is_fine=False, text=text, advice="Clear the fault.")]
        return self.inner.check()

    def locate(self, key: Key) -> Location | None:
        del key
        return None  # else it would be read past the faults


class _Damaged(io.RawIOBase):
    """A stream whose first byte is another; an empty one has a byte too many."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner
        self._is_first = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        found = self._inner.read(len(view))
        if self._is_first and len(view):
            self._is_first = False
            found = bytes([found[0] ^ 0x20]) + found[1:] if found else b"?"
        view[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _all_of(reader: Reader, expected: Fixity | None) -> bytes:
    """The bytes of a reader, as an honest service would have read them. Raises what the reader raises."""
    with closing(reader.pieces()) as pieces:
        content = b"".join(bytes(piece) for piece in pieces)
    if expected not in (None, reader.fixity):
        raise FixityMismatch("other bytes came than were expected; nothing was stored.")
    return content
