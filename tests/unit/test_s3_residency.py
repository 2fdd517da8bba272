"""Restore headers in all their forms, and what they mean together with a storage class."""

from datetime import UTC, datetime, timedelta

import pytest

from omero_archive.service import Staged
from omero_archive.services.s3.residency import Progress, Residency, Restore, parse_restore, residency

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = datetime(2026, 12, 2, tzinfo=UTC)
ONGOING = 'ongoing-request="true"'
DONE = 'ongoing-request="false", expiry-date="Wed, 02 Dec 2026 00:00:00 GMT"'
OVER = 'ongoing-request="false", expiry-date="Sun, 22 Nov 2026 00:00:00 GMT"'


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, Restore(progress=Progress.NONE)),
        ("", Restore(progress=Progress.NONE)),
        ("  ", Restore(progress=Progress.NONE)),
        (ONGOING, Restore(progress=Progress.ONGOING)),
        ('ongoing-request="TRUE"', Restore(progress=Progress.ONGOING)),
        (DONE, Restore(progress=Progress.DONE, expiry=LATER)),
        (DONE.replace("GMT", "UTC"), Restore(progress=Progress.DONE, expiry=LATER)),
        (DONE.replace("02 Dec", "2 Dec"), Restore(progress=Progress.DONE, expiry=LATER)),
        (DONE.replace(", expiry", ",expiry"), Restore(progress=Progress.DONE, expiry=LATER)),
        (DONE.replace("GMT", "+0200"), Restore(progress=Progress.DONE, expiry=LATER - timedelta(hours=2))),
        ('ongoing-request="false"', Restore(progress=Progress.DONE)),
        ('ongoing-request="false", expiry-date=""', Restore(progress=Progress.DONE)),
        ('ongoing-request="false", expiry-date="soon"', Restore(progress=Progress.UNREADABLE)),
        ('ongoing-request="perhaps"', Restore(progress=Progress.UNREADABLE)),
        ("restored", Restore(progress=Progress.UNREADABLE)),
        (f"{DONE} and more", Restore(progress=Progress.UNREADABLE)),
    ],
)
def test_every_form_of_the_restore_header_is_read(header: str | None, wanted: Restore) -> None:
    assert parse_restore(header) == wanted


@pytest.mark.parametrize(
    ("storage_class", "usually", "header", "staged", "until"),
    [
        ("STANDARD", Staged.ONLINE, None, Staged.ONLINE, None),
        ("GLACIER_IR", Staged.ONLINE, None, Staged.ONLINE, None),
        ("GLACIER", Staged.OFFLINE, None, Staged.OFFLINE, None),
        ("GLACIER", Staged.OFFLINE, "", Staged.OFFLINE, None),
        ("GLACIER", Staged.OFFLINE, ONGOING, Staged.STAGING, None),
        ("GLACIER", Staged.OFFLINE, DONE, Staged.ONLINE, LATER),
        ("GLACIER", Staged.OFFLINE, 'ongoing-request="false"', Staged.ONLINE, None),
        ("GLACIER", Staged.OFFLINE, OVER, Staged.OFFLINE, None),
        ("GLACIER", Staged.OFFLINE, "rubbish", Staged.CANNOT_TELL, None),
        ("DEEP_ARCHIVE", Staged.OFFLINE, DONE, Staged.ONLINE, LATER),
        ("STANDARD", Staged.ONLINE, DONE, Staged.ONLINE, LATER),  # the class of what is restored, on some servers
        ("STANDARD", Staged.ONLINE, ONGOING, Staged.STAGING, None),
        ("STANDARD", Staged.ONLINE, OVER, Staged.ONLINE, None),
        ("STANDARD", Staged.ONLINE, "rubbish", Staged.ONLINE, None),
        ("SNOWBALL", Staged.CANNOT_TELL, None, Staged.CANNOT_TELL, None),
        ("SNOWBALL", Staged.CANNOT_TELL, DONE, Staged.ONLINE, LATER),
        ("SNOWBALL", Staged.CANNOT_TELL, OVER, Staged.CANNOT_TELL, None),
    ],
)
def test_class_and_header_together_say_where_the_bytes_are(
    storage_class: str, usually: Staged, header: str | None, staged: Staged, until: datetime | None
) -> None:
    found = residency(storage_class, None, parse_restore(header), usually=usually, now=NOW)
    assert found == Residency(staged=staged, until=until)


@pytest.mark.parametrize(
    ("status", "header", "staged"),
    [
        (None, None, Staged.ONLINE),
        ("ARCHIVE_ACCESS", None, Staged.OFFLINE),
        ("DEEP_ARCHIVE_ACCESS", None, Staged.OFFLINE),
        ("DEEP_ARCHIVE_ACCESS", ONGOING, Staged.STAGING),
    ],
)
def test_intelligent_tiering_is_offline_in_its_archive_tiers_only(
    status: str | None, header: str | None, staged: Staged
) -> None:
    found = residency("INTELLIGENT_TIERING", status, parse_restore(header), usually=Staged.ONLINE, now=NOW)
    assert found.staged is staged
