"""Every step may be stopped anywhere and run again: the bytes are always there, and the end is always the same.

In this process, before every single change that a step makes; `test_kill_9.py` kills real ones.
"""

from collections.abc import Callable

import psycopg
import pytest

from interruptions import Stopped, stopped_before
from omero_archive.errors import PermitRefused, SourceChanged, SourceRotted, WrongState
from omero_archive.omero.marks import NAMESPACE
from omero_archive.states import Residency
from omero_archive.steps.release import release
from omero_archive.steps.site import no_progress
from site_fixtures import Facility, disk_below, left_below

SLUGS = ("ics", "omero4")  # one with a directory of its own, one without
MOST_CHANGES = 80


def stop_everywhere(
    act: Callable[[], object],
    *,
    before: Callable[[], object],
    look: Callable[[], object],
    after: Callable[[], object],
    slug: str,
) -> int:
    """Stop `act` before its first change, its second, and so on to its end: `before`, act, `look`, `after` each time.

    The number of changes it makes. For the bundle without a directory of its own every second change must do: most
    are the same.
    """
    for number in range(1, MOST_CHANGES, 1 if slug == SLUGS[0] else 2):
        before()
        try:
            with stopped_before(number):
                act()
        except Stopped:
            look()
            after()
        else:
            return number - 1
    pytest.fail("the step never came to its end")


def require_originals(facility: Facility, slug: str) -> None:
    """The bundle is back as it was, and nothing of it or of ours is left behind."""
    assert facility.residency(slug) is Residency.RESIDENT
    assert facility.is_as_before(slug)
    assert not left_below(facility.demo.archive_root)
    home = facility.paths(slug)[0].parent
    assert not list(home.rglob("*omero-archive-tmp"))
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        assert conn.execute("SELECT count(*) FROM annotation WHERE ns = %s", (NAMESPACE,)).fetchone() == (0,)


def require_whole_or_nothing(facility: Facility, slug: str) -> None:
    """All files of the bundle open, with their bytes, or none does."""
    opening = {path.exists() for path in facility.paths(slug)}
    assert len(opening) == 1, "a part of a fileset shows wrong pixels"
    if opening == {True}:
        assert facility.reads_as_before(slug)


def to_resident(facility: Facility, slug: str) -> None:
    if facility.residency(slug) is not Residency.RESIDENT:
        facility.unarchive(slug)
        facility.add(slug)
    require_originals(facility, slug)


@pytest.mark.parametrize("slug", SLUGS)
def test_release_may_be_stopped_before_any_of_its_changes(facility: Facility, slug: str) -> None:
    facility.archive(slug)

    def finish() -> None:
        if facility.residency(slug) is Residency.RESIDENT:
            facility.release(slug)
        assert all(path.is_symlink() for path in facility.paths(slug))
        assert facility.reads_as_before(slug)

    stops = stop_everywhere(
        lambda: facility.release(slug),
        before=lambda: to_resident(facility, slug),
        look=lambda: facility.reads_as_before(slug) or pytest.fail("a reader did not get the bytes"),
        after=finish,
        slug=slug,
    )
    assert stops > 10


@pytest.mark.parametrize("slug", SLUGS)
def test_unarchive_may_be_stopped_before_any_of_its_changes(facility: Facility, slug: str) -> None:
    facility.archive(slug)

    def release() -> None:
        if facility.record(slug).decision == "RETURNED":
            facility.add(slug)
        facility.release(slug)

    def finish() -> None:
        if facility.residency(slug) is not Residency.RESIDENT:
            facility.unarchive(slug)
        require_originals(facility, slug)

    stops = stop_everywhere(
        lambda: facility.unarchive(slug),
        before=release,
        look=lambda: facility.reads_as_before(slug) or pytest.fail("a reader did not get the bytes"),
        after=finish,
        slug=slug,
    )
    assert stops > 10


@pytest.mark.parametrize("way_on", ["evict", "recall", "unarchive"])
@pytest.mark.parametrize("slug", SLUGS)
def test_evict_may_be_stopped_before_any_of_its_changes(facility: Facility, slug: str, way_on: str) -> None:
    facility.released(slug)

    def online() -> None:
        if facility.residency(slug) is Residency.RESIDENT:
            facility.add(slug)
            facility.release(slug)
        if facility.residency(slug) is not Residency.ONLINE:
            facility.recall(slug)
        assert facility.reads_as_before(slug)

    def go_on() -> None:
        match way_on:
            case "evict":
                facility.evict(slug)
                assert not any(path.exists() for path in facility.paths(slug))
                outgoing = facility.demo.archive_root / ".omero-archive" / "outgoing"
                assert not [path for path in outgoing.rglob("*") if path.is_file()]
            case "recall":
                facility.recall(slug)
                assert facility.reads_as_before(slug)
                facility.evict(slug)
                assert not any(path.exists() for path in facility.paths(slug))
            case _:
                facility.unarchive(slug)
                require_originals(facility, slug)

    stops = stop_everywhere(
        lambda: facility.evict(slug),
        before=online,
        look=lambda: require_whole_or_nothing(facility, slug),
        after=go_on,
        slug=slug,
    )
    assert stops > 5


@pytest.mark.parametrize("way_on", ["recall", "unarchive"])
@pytest.mark.parametrize("slug", SLUGS)
def test_recall_may_be_stopped_before_any_of_its_changes(facility: Facility, slug: str, way_on: str) -> None:
    facility.released(slug)

    def offline() -> None:
        if facility.residency(slug) is Residency.RESIDENT:
            facility.add(slug)
            facility.release(slug)
        if facility.residency(slug) is Residency.RECALLING:
            facility.recall(slug)
        facility.evict(slug)
        assert not any(path.exists() for path in facility.paths(slug))

    def go_on() -> None:
        if way_on == "recall":
            facility.recall(slug)
            assert facility.residency(slug) is Residency.ONLINE
            assert facility.reads_as_before(slug)
        else:
            facility.unarchive(slug)
            require_originals(facility, slug)

    stops = stop_everywhere(
        lambda: facility.recall(slug),
        before=offline,
        look=lambda: require_whole_or_nothing(facility, slug),
        after=go_on,
        slug=slug,
    )
    assert stops > 10


def test_copying_may_be_stopped_before_any_of_its_changes(facility: Facility) -> None:
    facility.add("ics")
    for number in range(1, MOST_CHANGES):
        try:
            with stopped_before(number):
                facility.work()
        except (Stopped, BaseExceptionGroup):
            assert facility.is_as_before("ics")
        if set(facility.copy_states("ics").values()) == {"DURABLE"}:
            break
        facility.clock.advance(minutes=2)
    facility.clock.advance(hours=1)
    facility.work()
    assert set(facility.copy_states("ics").values()) == {"DURABLE"}
    left = facility.demo.service_path / ".omero-archive" / "incoming"
    assert not [path for path in left.rglob("*") if path.is_file()]


def test_an_interrupted_release_keeps_others_from_touching_the_bundle(facility: Facility) -> None:
    facility.archive("ics")

    def stop(step: str, files: int, size_bytes: int) -> None:
        raise Stopped(step)

    facility.site.progress = stop
    with pytest.raises(Stopped):
        facility.release("ics")
    assert [path.is_symlink() for path in facility.paths("ics")] == [True, False]
    assert facility.reads_as_before("ics")
    with pytest.raises(WrongState, match="only an ONLINE bundle can be evicted"):
        facility.evict("ics")
    assert facility.add("ics")[0].did == "was there; nothing to do"


@pytest.mark.parametrize("slug", SLUGS)
def test_a_release_that_was_stopped_before_any_of_its_changes_can_be_undone(facility: Facility, slug: str) -> None:
    facility.archive(slug)

    def undo() -> None:
        if facility.record(slug).residency is Residency.RESIDENT and facility.record(slug).intent is None:
            return  # nothing was begun
        facility.unarchive(slug)
        require_originals(facility, slug)

    def again() -> None:
        if facility.record(slug).decision == "RETURNED":
            facility.add(slug)
        to_resident(facility, slug)

    stops = stop_everywhere(
        lambda: facility.release(slug),
        before=again,
        look=lambda: facility.reads_as_before(slug) or pytest.fail("a reader did not get the bytes"),
        after=undo,
        slug=slug,
    )
    assert stops > 10


@pytest.mark.parametrize("slug", SLUGS)
def test_undoing_a_release_may_be_stopped_before_any_of_its_changes(facility: Facility, slug: str) -> None:
    facility.archive(slug)

    def half_released() -> None:
        if facility.record(slug).decision == "RETURNED":
            facility.add(slug)

        def stop(step: str, files: int, size_bytes: int) -> None:
            raise Stopped(step)

        facility.site.progress = stop
        with pytest.raises(Stopped):
            facility.release(slug)
        facility.site.progress = no_progress

    def finish() -> None:
        if facility.residency(slug) is not Residency.RESIDENT or facility.record(slug).intent is not None:
            facility.unarchive(slug)
        require_originals(facility, slug)

    stop_everywhere(
        lambda: facility.unarchive(slug),
        before=half_released,
        look=lambda: facility.reads_as_before(slug) or pytest.fail("a reader did not get the bytes"),
        after=finish,
        slug=slug,
    )


def test_a_release_that_cannot_be_finished_since_a_copy_was_lost_is_undone(facility: Facility) -> None:
    facility.archive("ics")

    def stop(step: str, files: int, size_bytes: int) -> None:
        raise Stopped(step)

    facility.site.progress = stop
    with pytest.raises(Stopped):
        facility.release("ics")
    facility.site.progress = no_progress
    facility.archived_path(facility.demo.fileset("ics").keys[0]).unlink()
    with pytest.raises(PermitRefused):
        facility.release("ics")
    facility.unarchive("ics")
    require_originals(facility, "ics")


def test_what_a_user_wrote_through_a_link_is_not_taken_for_what_was_archived(facility: Facility) -> None:
    """Else the next release and eviction would delete the only bytes of it."""
    facility.released("ics")
    path = facility.paths("ics")[1]
    with path.open("r+b") as file:
        file.write(b"mine")
    mine = path.read_bytes()
    facility.unarchive("ics")
    assert path.read_bytes() == mine
    facility.add("ics")
    facility.work()
    with pytest.raises(SourceChanged, match="was touched since it was read"):
        facility.release("ics")
    with pytest.raises((SourceChanged, SourceRotted)):
        release(facility.site, facility.name("ics"), rehash=True)
    assert path.read_bytes() == mine


def test_an_eviction_that_was_stopped_before_its_record_is_put_back_by_run(facility: Facility) -> None:
    facility.released("ics")
    for number in range(1, MOST_CHANGES):
        with pytest.raises(Stopped), stopped_before(number):
            facility.evict("ics")
        if not any(path.exists() for path in facility.paths("ics")):
            break
    assert facility.residency("ics") is Residency.ONLINE
    facility.work()
    assert facility.residency("ics") is Residency.ONLINE
    assert facility.reads_as_before("ics")


def test_an_interrupted_unarchive_of_what_a_user_wrote_to_is_finished(facility: Facility) -> None:
    facility.released("dicom")
    path = facility.paths("dicom")[0]
    path.write_bytes(b"written through the link")

    def stop(step: str, files: int, size_bytes: int) -> None:
        raise Stopped(step)

    facility.site.progress = stop
    with pytest.raises(Stopped):
        facility.unarchive("dicom")
    assert [each.is_symlink() for each in facility.paths("dicom")] == [False, True, True, True, True]
    facility.site.progress = no_progress
    facility.unarchive("dicom")
    assert facility.residency("dicom") is Residency.RESIDENT
    assert not any(each.is_symlink() for each in facility.paths("dicom"))
    assert path.read_bytes() == b"written through the link"


def test_the_archive_is_whole_after_everything(facility: Facility) -> None:
    facility.released("plate")
    before = disk_below(facility.demo.service_path)
    facility.evict("plate")
    facility.recall("plate")
    facility.unarchive("plate")
    assert disk_below(facility.demo.service_path) == before


def test_a_stopped_eviction_without_a_permit_waits_and_does_not_keep_run_busy(facility: Facility) -> None:
    facility.released("ics")
    for number in range(1, MOST_CHANGES):
        with pytest.raises(Stopped), stopped_before(number):
            facility.evict("ics")
        if facility.residency("ics") is Residency.OFFLINE:
            break
    marker = facility.demo.service_path / ".omero-archive" / "service"
    marker.rename(marker.with_name("away"))  # not mounted: no permit, once the last word is old
    facility.clock.advance(hours=2)
    assert facility.work().failed == 1
    assert "no permit" in str(facility.record("ics").last_error)
    assert facility.work().failed == 0
    marker.with_name("away").rename(marker)
    facility.clock.advance(hours=1)
    facility.work()
    outgoing = facility.demo.archive_root / ".omero-archive" / "outgoing"
    assert not [path for path in outgoing.rglob("*") if path.is_file()]
