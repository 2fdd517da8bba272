"""The undo window: originals are kept near after a release, go by themselves when it is over, and undo is free."""

from datetime import datetime

import pytest

from omero_archive.states import CopyState, Residency
from site_fixtures import Facility, MakeFacility, disk_below


def test_run_evicts_when_the_window_is_over_and_not_before(facility: Facility) -> None:
    facility.released("ics")
    facility.clock.advance(days=6, hours=23)
    facility.work()
    assert facility.residency("ics") is Residency.ONLINE
    facility.clock.advance(hours=2)
    facility.work()
    assert facility.residency("ics") is Residency.OFFLINE
    assert not any(path.exists() for path in facility.paths("ics"))


def test_the_permit_at_the_end_of_the_window_is_fresh(facility: Facility) -> None:
    facility.released("ics")
    confirmed = [row["confirmed_at"] for row in facility.copies("ics")]
    facility.clock.advance(days=8)
    facility.work()
    assert all(row["confirmed_at"] > before for row, before in zip(facility.copies("ics"), confirmed, strict=True))


def test_without_a_permit_nothing_goes_and_it_is_tried_again_later(facility: Facility) -> None:
    facility.released("ics")
    marker = facility.demo.service_path / ".omero-archive" / "service"
    marker.rename(marker.with_name("away"))  # the archive is not mounted
    facility.clock.advance(days=8)
    facility.work()
    record = facility.record("ics")
    assert record.residency is Residency.ONLINE
    assert record.last_error is not None
    assert "is missing; the archive is not mounted" in record.last_error
    assert not record.needs_attention
    assert facility.reads_as_before("ics")
    marker.with_name("away").rename(marker)
    facility.clock.advance(hours=1)
    facility.work()
    assert facility.residency("ics") is Residency.OFFLINE


def test_what_somebody_reads_when_its_window_is_over_goes_later_and_nobody_is_asked(facility: Facility) -> None:
    facility.released("ics")
    facility.clock.advance(days=8)
    with facility.paths("ics")[0].open("rb"):
        for _ in range(12):  # more than `work.attempts`
            assert facility.work().failed == 0
            facility.clock.advance(hours=2)
        assert facility.residency("ics") is Residency.ONLINE
        assert not facility.record("ics").needs_attention
    facility.work()
    assert facility.residency("ics") is Residency.OFFLINE


def test_unarchive_within_the_window_copies_nothing(facility: Facility) -> None:
    facility.archive("ics")
    inodes = [path.stat().st_ino for path in facility.paths("ics")]
    facility.release("ics")
    archive = facility.demo.service_path
    archive.rename(archive.with_name("gone"))  # not one byte can come from there
    facility.unarchive("ics")
    archive.with_name("gone").rename(archive)
    assert facility.is_as_before("ics")
    assert [path.stat().st_ino for path in facility.paths("ics")] == inodes


def test_what_a_recall_brought_is_not_in_the_window(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    facility.recall("ics")
    facility.clock.advance(days=30)
    facility.work()
    assert facility.residency("ics") is Residency.ONLINE


@pytest.mark.parametrize("kept_by", ["pin", "hold"])
def test_what_is_pinned_or_on_hold_stays(facility: Facility, kept_by: str) -> None:
    from omero_archive.catalogue import bundles

    facility.released("ics")
    with facility.site.catalogue.begin() as connection:
        if kept_by == "pin":
            bundles.pin(connection, facility.record("ics"), datetime(2100, 1, 1).astimezone())
        else:
            bundles.hold(connection, facility.record("ics"), "inspection")
    before = disk_below(facility.demo.archive_root)
    facility.clock.advance(days=30)
    facility.work()
    assert disk_below(facility.demo.archive_root) == before


@pytest.mark.parametrize("may_shorten", [True, False])
def test_a_full_disk_shortens_the_window_only_if_the_settings_let_it(
    make_facility: MakeFacility, may_shorten: bool
) -> None:
    facility = make_facility()
    facility.released("ics")
    facility.released("omero4")
    tight = make_facility(archive='min_free = "8000 TB"\n', release=f"shorten_when_full = {str(may_shorten).lower()}\n")
    tight.before = facility.before
    tight.work()
    wanted = Residency.OFFLINE if may_shorten else Residency.ONLINE
    assert (tight.residency("ics"), tight.residency("omero4")) == (wanted, wanted)
    assert set(tight.copy_states("ics").values()) == {CopyState.DURABLE}


def test_a_full_disk_takes_the_longest_ago_released_first_and_no_more_than_it_must(
    make_facility: MakeFacility,
) -> None:
    facility = make_facility()
    facility.released("ics")
    facility.clock.advance(minutes=1)
    facility.released("omero4")
    room = facility.record("omero4").size_bytes
    tight = make_facility(facility.clock, archive=f"max_size = {room}\n", release="shorten_when_full = true\n")
    tight.before = facility.before
    tight.work()
    assert tight.residency("ics") is Residency.OFFLINE
    assert tight.residency("omero4") is Residency.ONLINE
