"""Is the bucket in order? What `omero-archive check` looks at, and what to do where it is not."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime

from omero_archive.errors import ArchiveError
from omero_archive.model import Clock, ServiceName, printable
from omero_archive.service import Finding
from omero_archive.services.s3.connection import Connection, Refusal, advice, advice_without_answer, is_older
from omero_archive.services.s3.listing import PROBES
from omero_archive.services.s3.names import MARKER, Names
from omero_archive.services.s3.residency import OFFLINE_CLASSES, ONLINE_CLASSES
from omero_archive.services.s3.settings import S3Settings

MOST_SKEW = timedelta(minutes=5)
"""AWS refuses requests whose time differs by more than 15 minutes; an expiry is judged by this machine's clock."""

LIFECYCLE = "A lifecycle rule AbortIncompleteMultipartUpload does it by itself: docs/howto/s3-and-glacier.md."


class Checker:
    """Looks at one bucket."""

    def __init__(self, name: ServiceName, settings: S3Settings, connection: Connection, *, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._connection = connection
        self._clock = clock
        self._names = Names(prefix=settings.prefix)

    def findings(self) -> list[Finding]:
        """What was looked at. Stops at the first thing without which nothing else can be asked."""
        try:
            return list(self._look())
        except Refusal as refusal:
            return [self._wrong(str(refusal), advice(refusal, self._settings))]
        except ArchiveError as error:
            return [self._wrong(str(error), advice_without_answer(error))]

    def _look(self) -> Iterator[Finding]:
        # A listing and not HeadBucket: its refusals have a body, which says why.
        self._connection.ask("list_objects_v2", "bucket", Prefix=self._names.top, MaxKeys=1)
        yield self._fine(f"{self._connection.place}, storage class {self._settings.storage_class}")
        yield from self._clocks()
        yield from self._classes()
        head = self._connection.head(self._names.marker, "marker")
        if head is None:
            yield self._wrong(f"{self._names.marker} is missing", "Run `omero-archive init`; is `prefix` right?")
            return
        if self._settings.keeps_checksums and not head.digests:
            yield self._wrong(
                "the server keeps no SHA-256 checksum beside objects",
                'Set `checksums = "none"`: copies are then read back to be verified.',
            )
        yield from self._writing()
        if self._settings.object_lock is not None:
            yield from self._locking()
        yield from self._unfinished()

    def _clocks(self) -> Iterator[Finding]:
        answer = self._connection.ask("head_bucket", "bucket")
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        try:
            theirs = parsedate_to_datetime(date) if date else None
        except ValueError:
            theirs = None
        if theirs is None:
            return
        theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
        skew = abs(self._clock() - theirs)
        if skew > MOST_SKEW:
            text = f"the clocks differ by {skew.total_seconds():.0f} s: here {self._clock():%H:%M:%S %Z}, there {date}"
            yield self._wrong(text, "Set this machine's clock by NTP; expired restores would be taken for readable.")

    def _classes(self) -> Iterator[Finding]:
        settings = self._settings
        known = ONLINE_CLASSES | OFFLINE_CLASSES | {*settings.online_classes, *settings.offline_classes}
        if settings.storage_class not in known:
            yield self._wrong(
                f"whether what has the storage class {settings.storage_class} can be read at once is not known here: "
                "if it can, no copy would ever be recalled",
                "Correct `storage_class`, or name the class in `online_classes` or in `offline_classes`.",
            )

    def _writing(self) -> Iterator[Finding]:
        """Whether objects may be stored, without storing one: the marker is there, and `If-None-Match` forbids it."""
        try:
            *_, (_, content) = prepared(self._name)
            is_new = self._connection.write_own(self._names.marker, content)
        except Refusal as refusal:
            text = f"objects cannot be stored: {refusal}"
            yield replace(self._wrong(text, advice(refusal, self._settings)), only_hinders_writing=True)
            return
        if is_new:
            yield self._wrong(
                "the server does not know `If-None-Match: *`",
                "Two processes that store the same object at once could overwrite each other: run one worker only.",
            )

    def _locking(self) -> Iterator[Finding]:
        try:
            answer = self._connection.ask("get_object_lock_configuration", "bucket")
            locking = answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled")
            versioning = self._connection.ask("get_bucket_versioning", "bucket").get("Status")
        except Refusal as refusal:
            text = f"`object_lock` is set, but whether the bucket has it could not be found out: {refusal}"
            if refusal.code == "ObjectLockConfigurationNotFoundError":
                text = "`object_lock` is set, but the bucket has no object lock"
            yield self._wrong(text, "Enable versioning and object lock on the bucket, or take `object_lock` away.")
            return
        if locking != "Enabled" or versioning != "Enabled":
            yield self._wrong(
                f"`object_lock` is set, but the bucket's object lock is {locking}, its versioning {versioning}",
                "Enable versioning and object lock on the bucket, or take `object_lock` away.",
            )

    def _unfinished(self) -> Iterator[Finding]:
        oldest = self._clock() - self._settings.abandon_uploads_after
        try:
            left = list(self._connection.unfinished(self._names.top, subject="bucket"))
        except Refusal as refusal:
            yield self._wrong(f"unfinished uploads cannot be listed: {refusal}", advice(refusal, self._settings))
            return
        old = sorted((each for each in left if is_older(each, oldest)), key=lambda each: each.begun_at or oldest)
        if old:
            yield self._wrong(
                f"{len(old)} uploads were begun and never ended, the oldest {old[0].begun_at:%Y-%m-%d}, of "
                f"{printable(old[0].name)}; what they hold is paid for",
                f"Abort them. {LIFECYCLE}",
            )

    def _fine(self, text: str) -> Finding:
        return Finding(subject=f"service {self._name}", is_fine=True, text=text)

    def _wrong(self, text: str, what: str) -> Finding:
        return Finding(subject=f"service {self._name}", is_fine=False, text=text, advice=what)


def prepared(name: ServiceName) -> tuple[tuple[str, bytes], ...]:
    """What `initialise` writes, below the prefix: the marker last, so that with it everything is there."""
    marker = (
        f"The archive {name!r} of omero-archive. Do not delete this object: without it\n"
        "omero-archive takes the bucket, or this prefix in it, for another one.\n"
    ).encode()
    return (*((probe, b"Tells in which order this server lists.\n") for probe in PROBES), (MARKER, marker))
