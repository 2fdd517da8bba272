"""Whether the bytes of an object can be read now: from its storage class and its restore header together.

The class alone never says "offline": it stays GLACIER while a restored copy lies beside the object. The header
alone never says "online": it is absent for what never needed a restore and for what was never restored. Forms of
`x-amz-restore` that were seen: absent; empty (a file system that is offline and was not asked for);
`ongoing-request="true"`; `ongoing-request="false"` with an `expiry-date` in GMT or UTC, or without one; the same with
the class STANDARD, which some servers report of what is restored.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from omero_archive.service import Staged

ONLINE_CLASSES = frozenset(
    {
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",  # unless its archive status says otherwise
        "GLACIER_IR",  # read at once, in spite of its name
        "EXPRESS_ONEZONE",
    }
)
OFFLINE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})

_RESTORE = re.compile(
    r'\s*ongoing-request="(?P<ongoing>true|false)"(?:\s*,\s*expiry-date="(?P<expiry>[^"]*)")?\s*', re.I
)


class Progress(StrEnum):
    """What a restore header says."""

    NONE = "none"
    ONGOING = "ongoing"
    DONE = "done"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """A restore header. `expiry` is when the restored bytes go again, where it says so."""

    progress: Progress
    expiry: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """Where the bytes are, and until when they are there if they are restored."""

    staged: Staged
    until: datetime | None = None


def parse_restore(header: str | None) -> Restore:
    """What the header says; a form that is not known is UNREADABLE, which is neither "restored" nor "not"."""
    if header is None or not header.strip():
        return Restore(progress=Progress.NONE)
    match = _RESTORE.fullmatch(header)
    if match is None:
        return Restore(progress=Progress.UNREADABLE)
    if match["ongoing"].lower() == "true":
        return Restore(progress=Progress.ONGOING)
    if not match["expiry"]:
        return Restore(progress=Progress.DONE)
    try:
        expiry = parsedate_to_datetime(match["expiry"])
    except ValueError:
        return Restore(progress=Progress.UNREADABLE)
    return Restore(progress=Progress.DONE, expiry=expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC))


def residency(
    storage_class: str, archive_status: str | None, restore: Restore, *, usually: Staged, now: datetime
) -> Residency:
    """Where the bytes of one object are now. `usually` is what its class means without a restore."""
    if restore.progress is Progress.ONGOING:
        return Residency(staged=Staged.STAGING)
    if storage_class == "INTELLIGENT_TIERING" and archive_status:
        # A restore moves it to a tier that is read at once and takes the archive status away.
        return Residency(staged=Staged.OFFLINE)
    if restore.progress is Progress.DONE:
        if restore.expiry is None or restore.expiry > now:
            return Residency(staged=Staged.ONLINE, until=restore.expiry)
        return Residency(staged=usually)
    if restore.progress is Progress.UNREADABLE and usually is not Staged.ONLINE:
        return Residency(staged=Staged.CANNOT_TELL)
    return Residency(staged=usually)
