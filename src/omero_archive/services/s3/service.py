"""S3 and S3 Glacier as an archive. See `docs/howto/s3-and-glacier.md`.

An object is durable when S3 has it with a checksum that was compared when it came: S3's word for that is its storage
class. Whether its bytes can be read now, S3 says in the restore header; `stage` asks for a restore. A HEAD is answered
with 404 for an object that is not there and for a bucket that is not: so no object is called missing before the
marker, which `initialise` wrote beside it, was found there.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, BinaryIO, TypeVar

from omero_archive.errors import (
    ArchiveError,
    ItemFailed,
    ObjectMissing,
    ObjectOffline,
    Refused,
    ServiceUnavailable,
    SettingsError,
    Unavailable,
)
from omero_archive.model import Clock, Fixity, Key, ServiceName, printable
from omero_archive.service import (
    Answer,
    Capabilities,
    Finding,
    Incoming,
    Listed,
    ObjectStatus,
    Outcome,
    Receipt,
    Service,
    Staged,
)
from omero_archive.services.s3.checking import Checker, prepared
from omero_archive.services.s3.checksums import PARTS, WHOLE
from omero_archive.services.s3.connection import Connection, Refusal, advice
from omero_archive.services.s3.listing import Lister
from omero_archive.services.s3.names import Names
from omero_archive.services.s3.objects import Head
from omero_archive.services.s3.reading import open_object
from omero_archive.services.s3.restoring import Restorer
from omero_archive.services.s3.settings import S3Settings
from omero_archive.services.s3.writing import Writer
from omero_archive.settings import parse_table
from omero_archive.transfer import Reader

MARKER_BELIEVED = timedelta(minutes=1)
"""So long the marker that was seen spares a `put` to look for it again."""

UNANSWERED_IN_A_ROW = 20
"""After so many objects in a row of which S3 could not say anything, it is not asked about the others."""

_READ_BYTES = 1 << 20

_T = TypeVar("_T")
_R = TypeVar("_R")


class S3Service(Service):
    """A bucket, or what lies below a prefix in it. `session` is one of boto3's that is to be shared."""

    def __init__(self, name: ServiceName, settings: S3Settings, clock: Clock, *, session: Any = None) -> None:
        digests = (WHOLE, PARTS) if settings.keeps_checksums else ()
        # A lifecycle rule may move objects to an archive class, whatever class they were stored with.
        self.capabilities = Capabilities(has_paths=False, needs_staging=True, digests=digests)
        self._name = name
        self._settings = settings
        self._clock = clock
        self._names = Names(prefix=settings.prefix)
        self._connection = Connection(name, settings, session)
        self._lister = Lister(name, self._connection, self._names)
        self._restorer = Restorer(settings, self._connection, clock=clock)
        self._writer = Writer(name, settings, self._connection, clock=clock, read_back=self._read_back)
        self._pool = ThreadPoolExecutor(max_workers=settings.connections, thread_name_prefix="s3")
        self._marker_seen: datetime | None = None

    @classmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> "S3Service":
        return cls(name, parse_table(S3Settings, f"services.{name}", settings), clock)

    def initialise(self) -> None:
        try:
            for object_name, content in prepared(self._name):
                self._connection.write_own(self._names.top + object_name, content)
        except Refusal as refusal:
            if refusal.status in (404, 403):
                what = advice(refusal, self._settings)
                raise SettingsError(f"services.{self._name}: {self._connection.place}: {refusal}. {what}") from refusal
            raise self._connection.unavailable(self._names.marker, refusal) from refusal

    # ---- storing

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        object_name = self._names.name(key)
        self._require_marker(believing=MARKER_BELIEVED)
        return self._writer.put(key, object_name, reader, expected)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        for part in _without_repeats(group):
            yield from self._each(self._outcome, part)

    def _outcome(self, incoming: Incoming) -> Outcome:
        try:
            receipt = self.put(incoming.key, incoming.reader, incoming.expected)
        except ArchiveError as error:
            return Outcome(key=incoming.key, error=error)
        return Outcome(key=incoming.key, receipt=receipt)

    def _read_back(self, key: Key, head: Head) -> str:
        """The SHA-256 of an object's bytes. Raises `ObjectOffline` for one that is not online."""
        if self._restorer.residency(head).staged is not Staged.ONLINE:
            raise ObjectOffline(
                f"{self._name}: {printable(key)} is there already, in cold storage and without a checksum that can be "
                "compared: it must be staged before it can be told whether it is the same."
            )
        digest = hashlib.sha256()
        try:
            with closing(self.open(key)) as stored:
                while piece := stored.read(_READ_BYTES):
                    digest.update(piece)
        except OSError as error:
            raise ServiceUnavailable(f"{self._name}: {error.strerror or error}.") from error
        return digest.hexdigest()

    # ---- reading

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        object_name = self._name_or_missing(key)
        try:
            return open_object(self._name, self._connection, key, object_name, offset)
        except ObjectMissing:
            self._require_marker()
            raise

    def list(self, prefix: str) -> Iterator[Listed]:
        is_empty = True
        for listed in self._lister.list(prefix):
            is_empty = False
            yield listed
        if is_empty:
            self._require_marker()

    def delete(self, key: Key) -> None:
        object_name = self._name_or_missing(key)
        try:
            head = self._connection.head(object_name, key)
            if head is None:
                self._require_marker()
                raise self._not_there(key)
            if head.locked_until is not None and head.locked_until > self._clock():
                raise Refused(
                    f"{self._name}: {printable(key)} is locked until {head.locked_until:%Y-%m-%d}: it was not deleted."
                )
            self._connection.ask("delete_object", key, Key=object_name)
        except Refusal as refusal:
            raise self._connection.unavailable(key, refusal) from refusal

    # ---- asking

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        found: dict[Key, ObjectStatus] = {}
        problem: Unavailable | None = None
        unanswered = 0
        wanted = tuple(dict.fromkeys(keys))
        for key, answer in zip(wanted, self._each(self._ask_about, wanted), strict=True):
            if isinstance(answer, ObjectStatus):
                found[key], unanswered = answer, 0
                continue
            problem, unanswered = answer, unanswered + 1
            found[key] = _unknown(str(answer))
            if unanswered >= UNANSWERED_IN_A_ROW:
                raise problem
        if problem is not None and unanswered == len(wanted):
            raise problem
        if any(answer.present is Answer.NO for answer in found.values()):
            self._require_marker()
        return found

    def _ask_about(self, key: Key) -> ObjectStatus | Unavailable:
        """What S3 says of one object; an error if it could not say anything of it, though it answered others."""
        try:
            head = self._connection.head(self._names.name(key), key)
        except ItemFailed as error:  # a name that S3 does not take: nothing can lie there
            return ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE, word=str(error))
        except Refusal as refusal:
            if refusal.status == 403:
                # Without the permission to list, S3 answers this of objects that are not there, too.
                return _unknown(f"no permission to look: {refusal}")
            return self._connection.unavailable(key, refusal)
        if head is None:
            return ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE, word="not there")
        where = self._restorer.residency(head)
        durable, word = self._word(head)
        return ObjectStatus(
            present=Answer.YES,
            durable=durable,
            staged=where.staged,
            size_bytes=head.size_bytes,
            digests=head.digests,
            word=word,
            staged_until=where.until,
        )

    def _word(self, head: Head) -> tuple[Answer, str]:
        """Whether S3 vouches for an object, and its word: the storage class."""
        word = head.storage_class
        if self._settings.keeps_checksums and not head.digests:
            return Answer.CANNOT_TELL, f"{word}, without a checksum"
        if self._settings.durable_after:
            if head.modified_at is None:
                return Answer.CANNOT_TELL, f"{word}, without a date"
            left = self._settings.durable_after - (self._clock() - head.modified_at)
            if left > timedelta(0):
                return Answer.NO, f"{word}, safe in {left.total_seconds():.0f} s"
        return Answer.YES, word

    def stage(self, keys: Iterable[Key]) -> None:
        problems = [problem for problem in self._each(self._stage, tuple(dict.fromkeys(keys))) if problem is not None]
        missing = [problem for problem in problems if isinstance(problem, ObjectMissing)]
        if missing:
            self._require_marker()
        # That others could not be asked for says more: it is tried again, and then told what is missing.
        for problem in (*(each for each in problems if each not in missing), *missing):
            raise problem

    def _stage(self, key: Key) -> ArchiveError | None:
        """Ask for the bytes of one object; what went wrong."""
        try:
            object_name = self._name_or_missing(key)
            head = self._connection.head(object_name, key)
        except Refusal as refusal:
            return self._connection.unavailable(key, refusal)
        except ArchiveError as error:
            return error
        return self._not_there(key) if head is None else self._restorer.stage(key, object_name, head)

    # ---- the rest

    def place(self) -> str:
        return f"s3://{self._settings.server}/{self._settings.bucket}/{self._names.top}".rstrip("/")

    def check(self) -> Sequence[Finding]:
        return Checker(self._name, self._settings, self._connection, clock=self._clock).findings()

    def close(self) -> None:
        self._pool.shutdown()
        self._writer.close()
        self._connection.close()

    def _not_there(self, key: Key) -> ObjectMissing:
        return ObjectMissing(f"{self._name}: there is no {self._connection.place}/{printable(key)}.")

    def _name_or_missing(self, key: Key) -> str:
        """The name of an object that may be there. Raises `ObjectMissing` for one that S3 could not hold."""
        try:
            return self._names.name(key)
        except ItemFailed as error:
            raise ObjectMissing(str(error)) from error

    def _require_marker(self, *, believing: timedelta = timedelta(0)) -> None:
        """Raise `ServiceUnavailable` unless this is the bucket, and the prefix, that `init` prepared."""
        now = self._clock()
        if self._marker_seen is not None and now - self._marker_seen < believing:
            return
        try:
            head = self._connection.head(self._names.marker, "marker")
        except Refusal as refusal:
            raise self._connection.unavailable("marker", refusal) from refusal
        if head is None:
            raise ServiceUnavailable(
                f"{self._name}: there is no {self._names.marker} in the bucket {self._settings.bucket}, or no such "
                "bucket. Correct `endpoint`, `bucket` or `prefix`; if it is new, run `omero-archive init`."
            )
        self._marker_seen = now

    def _each(self, act: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[_R]:
        """What `act` returns for each item, in order, several at once. When it ends, nothing is being done any more."""
        window: deque[Future[_R]] = deque()
        waiting = iter(items)
        try:
            for item in waiting:
                window.append(self._pool.submit(act, item))
                if len(window) >= 2 * self._settings.connections:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            for future in window:
                future.cancel()
            wait(window)


def _unknown(word: str) -> ObjectStatus:
    unknown = Answer.CANNOT_TELL
    return ObjectStatus(present=unknown, durable=unknown, staged=Staged.CANNOT_TELL, word=word)


def _without_repeats(group: Sequence[Incoming]) -> Iterator[list[Incoming]]:
    """The group in parts in which no key is named twice: the second must be compared with the first."""
    part: dict[Key, Incoming] = {}
    for incoming in group:
        if incoming.key in part:
            yield [*part.values()]
            part = {}
        part[incoming.key] = incoming
    yield [*part.values()]
