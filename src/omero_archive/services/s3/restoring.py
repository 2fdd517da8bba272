"""Asking S3 to restore what lies in an archive class; it takes minutes to days, and nobody waits here."""

from datetime import timedelta

from omero_archive.errors import ArchiveError
from omero_archive.model import Clock, Key
from omero_archive.service import Staged
from omero_archive.services.s3.connection import Connection, Refusal
from omero_archive.services.s3.objects import Head
from omero_archive.services.s3.residency import OFFLINE_CLASSES, ONLINE_CLASSES, Residency, parse_restore, residency
from omero_archive.services.s3.settings import S3Settings

_HARMLESS = frozenset({"RestoreAlreadyInProgress", "InvalidObjectState", "ObjectAlreadyInActiveTierError"})
"""What S3 answers to a restore that is under way, or of what needs none."""

_NO_EXPEDITED = "GlacierExpeditedRetrievalNotAvailable"


class Restorer:
    """Says where bytes are, and asks for them. Safe for several threads."""

    def __init__(self, settings: S3Settings, connection: Connection, *, clock: Clock) -> None:
        self._settings = settings
        self._connection = connection
        self._clock = clock
        self._usually = dict.fromkeys(ONLINE_CLASSES, Staged.ONLINE) | dict.fromkeys(OFFLINE_CLASSES, Staged.OFFLINE)
        self._usually |= dict.fromkeys(settings.online_classes, Staged.ONLINE)
        self._usually |= dict.fromkeys(settings.offline_classes, Staged.OFFLINE)

    def residency(self, head: Head) -> Residency:
        """Where the bytes of an object are now."""
        usually = self._usually.get(head.storage_class, Staged.CANNOT_TELL)
        restore = parse_restore(head.restore)
        return residency(head.storage_class, head.archive_status, restore, usually=usually, now=self._clock())

    def stage(self, key: Key, object_name: str, head: Head) -> ArchiveError | None:
        """Ask for the bytes of one object unless they are there and stay for a while; what went wrong."""
        try:
            if self._is_wanted(self.residency(head)):
                self._restore(key, object_name, head, tier=self._settings.restore_tier)
        except Refusal as refusal:
            return self._connection.unavailable(key, refusal)
        except ArchiveError as error:
            return error
        return None

    def _is_wanted(self, where: Residency) -> bool:
        """What is online is restored again when half of its time is over, so that it does not go while it is read."""
        if where.staged is not Staged.ONLINE:
            return where.staged is not Staged.STAGING
        renewed_at = timedelta(days=self._settings.restore_days) / 2
        return where.until is not None and where.until - self._clock() < renewed_at

    def _restore(self, key: Key, object_name: str, head: Head, *, tier: str) -> None:
        request: dict[str, object] = {"GlacierJobParameters": {"Tier": tier}}
        if head.storage_class != "INTELLIGENT_TIERING":  # there it is for good, and S3 refuses a number of days
            request["Days"] = self._settings.restore_days
        try:
            self._connection.ask("restore_object", key, Key=object_name, RestoreRequest=request)
        except Refusal as refusal:
            if refusal.code in _HARMLESS:
                return
            if refusal.code == _NO_EXPEDITED and tier == "Expedited":
                # There is no capacity for it just now; slow bytes are better than none.
                self._restore(key, object_name, head, tier="Standard")
                return
            raise
