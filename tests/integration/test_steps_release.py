"""Release, evict, recall, unarchive: what they change, what they refuse, and what they put back."""

import os
import shutil

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from test_steps_add import file_ids, gain_a_file

from omero_archive.catalogue import bundles
from omero_archive.demo.filesets import Expected
from omero_archive.errors import ArchiveError, OmeroIsOn, OriginalUnfit, PermitRefused, SourceChanged, WrongState
from omero_archive.omero.marks import NAMESPACE
from omero_archive.states import CopyState, Residency
from omero_archive.steps.evict import evict_dry
from omero_archive.steps.release import release, release_dry
from site_fixtures import Facility, MakeFacility, catalogue_rows, disk_below, flip_a_byte, left_below, rows_of

GOOD = ("ome-tiff", "plate", "ics", "dicom", "pyramid", "omero4")


def refuse(facility: Facility, error: type[ArchiveError], match: str, slug: str = "ics") -> None:
    """Release must refuse, dry or not, and touch neither OMERO's database nor its disk."""
    disk, rows = disk_below(facility.demo.data_dir), rows_of(facility.demo.omero_dsn)
    with pytest.raises(error, match=match):
        release_dry(facility.site, facility.name(slug))
    with pytest.raises(error, match=match):
        release(facility.site, facility.name(slug))
    assert disk_below(facility.demo.data_dir) == disk
    assert rows_of(facility.demo.omero_dsn) == rows
    assert facility.residency(slug) is Residency.RESIDENT
    assert facility.record(slug).intent is None


def flags(facility: Facility, slug: str) -> set[bool | None]:
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        query = "SELECT archived FROM image WHERE id = ANY(%s)"
        return {row[0] for row in conn.execute(query, (list(facility.demo.fileset(slug).image_ids),))}


def annotations(facility: Facility) -> int:
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        row = conn.execute("SELECT count(*) FROM annotation WHERE ns = %s", (NAMESPACE,)).fetchone()
    assert row is not None
    return int(row[0])


# ---- the way down and up


@pytest.mark.parametrize("slug", GOOD)
def test_the_whole_way_of_a_bundle(facility: Facility, slug: str) -> None:
    facility.released(slug)
    assert facility.residency(slug) is Residency.ONLINE
    assert all(path.is_symlink() for path in facility.paths(slug))
    assert facility.reads_as_before(slug)
    assert annotations(facility) == 1

    freed = facility.evict(slug)
    assert freed >= sum(os.stat(facility.archived_path(key)).st_size for key in facility.demo.fileset(slug).keys)
    assert facility.residency(slug) is Residency.OFFLINE
    assert not any(path.exists() for path in facility.paths(slug))

    facility.recall(slug)
    assert facility.residency(slug) is Residency.ONLINE
    assert facility.reads_as_before(slug)

    facility.unarchive(slug)
    assert facility.residency(slug) is Residency.RESIDENT
    assert facility.is_as_before(slug)
    assert annotations(facility) == 0
    assert not left_below(facility.demo.archive_root)


def test_nothing_is_left_beside_the_originals(facility: Facility) -> None:
    before = set(disk_below(facility.demo.data_dir / "ManagedRepository"))
    facility.released("ics", "plate")
    assert set(disk_below(facility.demo.data_dir / "ManagedRepository")) == before
    facility.evict("ics", "plate")
    facility.unarchive("ics", "plate")
    assert set(disk_below(facility.demo.data_dir / "ManagedRepository")) == before


def test_a_bundle_can_be_archived_again_without_reading_it_again(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    facility.unarchive("ics")
    facility.add("ics")
    assert facility.work().done == 0
    facility.release("ics")
    facility.evict("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_release_frees_nothing_and_evict_frees_the_bytes(facility: Facility) -> None:
    facility.archive("pyramid")
    (path,) = facility.paths("pyramid")
    inode = path.stat().st_ino
    facility.release("pyramid")
    assert path.stat().st_ino == inode, "the original itself, under another name"
    used = path.stat().st_blocks * 512
    assert evict_dry(facility.site, facility.name("pyramid")) == path.stat().st_size
    assert facility.evict("pyramid") == used


@pytest.mark.parametrize("flag", [None, True, False])
def test_the_flag_that_an_image_had_comes_back(facility: Facility, flag: bool | None) -> None:
    images = list(facility.demo.fileset("ics").image_ids)
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        conn.execute("UPDATE image SET archived = %s WHERE id = ANY(%s)", (flag, images))
    facility.released("ics")
    assert flags(facility, "ics") == {True}
    facility.unarchive("ics")
    assert flags(facility, "ics") == {flag}


def test_the_flag_of_an_omero_4_image_is_never_touched(facility: Facility) -> None:
    before = flags(facility, "omero4")
    facility.released("omero4")
    assert flags(facility, "omero4") == before
    assert annotations(facility) == 1
    facility.unarchive("omero4")
    assert flags(facility, "omero4") == before


def test_marks_that_somebody_took_off_do_not_stand_in_the_way_of_unarchive(facility: Facility) -> None:
    facility.released("plate")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        conn.execute(
            "DELETE FROM imageannotationlink WHERE parent = %s", (facility.demo.fileset("plate").image_ids[0],)
        )
    facility.unarchive("plate")
    assert facility.is_as_before("plate")


# ---- refusals


def test_release_is_refused_on_hold(facility: Facility) -> None:
    facility.archive("ics")
    with facility.site.catalogue.begin() as connection:
        bundles.hold(connection, facility.record("ics"), "a lawyer asks")
    refuse(facility, PermitRefused, r"on hold: a lawyer asks \(2 of 2 files\)")


def test_release_is_refused_without_a_durable_copy_and_every_reason_is_named(make_facility: MakeFacility) -> None:
    facility = make_facility(copies_on=("tape", "disk2"), durable_after="1h")
    facility.add("ics")
    facility.work()
    with facility.site.catalogue.begin() as connection:
        bundles.hold(connection, facility.record("ics"), "wait")
    with pytest.raises(PermitRefused) as refused:
        release_dry(facility.site, facility.name("ics"))
    for reason in ("0 of 2 durable", "tape: VERIFIED, not DURABLE", "disk2: VERIFIED, not DURABLE", "on hold: wait"):
        assert reason in str(refused.value)


def test_release_is_refused_before_anything_was_copied(facility: Facility) -> None:
    facility.add("ics")
    refuse(facility, PermitRefused, "never read and hashed")


def test_a_stale_proof_is_asked_for_again(make_facility: MakeFacility) -> None:
    facility = make_facility(proof_lifetime="10min")
    facility.archive("ics")
    facility.clock.advance(hours=5)
    facility.release("ics")
    assert min(row["confirmed_at"] for row in facility.copies("ics")).timestamp() > facility.clock().timestamp() - 60


def test_a_touched_original_is_refused_and_rehash_accepts_equal_bytes(facility: Facility) -> None:
    facility.archive("ics")
    path = facility.paths("ics")[0]
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    refuse(facility, SourceChanged, r"was touched since it was read \(ctime_ns\).*--rehash")
    release_dry(facility.site, facility.name("ics"), rehash=True)
    release(facility.site, facility.name("ics"), rehash=True)
    assert facility.reads_as_before("ics")


def test_rehash_accepts_equal_bytes_with_another_mtime(facility: Facility) -> None:
    facility.archive("ics")
    path = facility.paths("ics")[0]
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**12))
    release(facility.site, facility.name("ics"), rehash=True)
    assert facility.residency("ics") is Residency.ONLINE
    assert facility.reads_as_before("ics")


def test_rehash_refuses_other_bytes(facility: Facility) -> None:
    facility.archive("pyramid")  # File-Size-64: OMERO itself would not notice
    (path,) = facility.paths("pyramid")
    flip_a_byte(path)
    refuse(facility, SourceChanged, "was touched since it was read", slug="pyramid")
    with pytest.raises(SourceChanged, match="has other bytes than were archived"):
        release(facility.site, facility.name("pyramid"), rehash=True)
    assert not path.is_symlink()


def test_a_hard_link_that_was_made_later_is_refused(facility: Facility) -> None:
    facility.archive("ics")
    os.link(facility.paths("ics")[0], facility.demo.directory / "second-name")
    refuse(facility, OriginalUnfit, r"has 2 names \(hard links\)")


def test_an_original_that_became_a_link_or_went_is_refused(facility: Facility) -> None:
    facility.archive("ics", "dicom")
    first = facility.paths("ics")[0]
    first.rename(facility.demo.directory / "elsewhere")
    refuse(facility, OriginalUnfit, "is not on OMERO's disk")
    first.symlink_to(facility.demo.directory / "elsewhere")
    refuse(facility, OriginalUnfit, "is a link, not a plain file")


def test_release_and_unarchive_are_refused_while_omero_is_on(facility: Facility) -> None:
    facility.archive("ics", "dicom")
    with psycopg.connect(make_conninfo(facility.demo.omero_dsn, application_name="OMERO.Server")):
        refuse(facility, OmeroIsOn, r"OMERO is running.*PostgreSQL sessions: on .*OMERO\.Server")
    facility.release("ics")
    facility.evict("ics")
    with psycopg.connect(make_conninfo(facility.demo.omero_dsn, application_name="OMERO.Server")):
        facility.recall("ics")  # any time
        facility.evict("ics")
        with pytest.raises(OmeroIsOn):
            facility.unarchive("ics")
    assert facility.residency("ics") is Residency.OFFLINE
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_a_fileset_that_gained_a_file_is_refused(facility: Facility) -> None:
    facility.archive("ics")
    gain_a_file(facility, "ics", "more.txt")
    refuse(facility, WrongState, "has other files in OMERO than were archived")


def test_a_fileset_that_lost_a_file_is_refused_and_nobody_is_sent_to_add_it_again(facility: Facility) -> None:
    facility.archive("ics")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        conn.execute("DELETE FROM filesetentry WHERE originalfile = %s", (file_ids(facility, "ics")[0],))
    refuse(facility, WrongState, "fewer files in OMERO than were archived, it lacks .*reconcile")


def test_a_fileset_that_omero_deleted_is_refused(facility: Facility) -> None:
    facility.archive("ics")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        conn.execute("SET session_replication_role = replica")  # the demo need not know every table in between
        conn.execute("DELETE FROM fileset WHERE id = %s", (facility.demo.fileset("ics").fileset_id,))
    refuse(facility, ArchiveError, "ileset")


def test_what_was_not_approved_or_is_not_resident_is_refused(facility: Facility) -> None:
    facility.released("ics")
    with pytest.raises(WrongState, match="is ONLINE; only a RESIDENT bundle can be released"):
        facility.release("ics")
    facility.archive("dicom")
    with pytest.raises(WrongState, match="is RESIDENT; only an ONLINE bundle can be evicted"):
        facility.evict("dicom")
    with pytest.raises(WrongState, match="is RESIDENT already"):
        facility.unarchive("dicom")
    facility.unarchive("ics")
    with pytest.raises(WrongState, match="is RETURNED, not APPROVED"):
        facility.release("ics")


def test_evict_is_refused_while_pinned_or_on_hold(facility: Facility) -> None:
    facility.released("ics")
    before = disk_below(facility.demo.data_dir)
    with facility.site.catalogue.begin() as connection:
        bundles.pin(connection, facility.record("ics"), facility.clock.__call__().replace(year=2100))
    with pytest.raises(WrongState, match="is pinned until 2100"):
        facility.evict("ics")
    with facility.site.catalogue.begin() as connection:
        bundles.pin(connection, facility.record("ics"), None)
        bundles.hold(connection, facility.record("ics"), "inspection")
    with pytest.raises(PermitRefused, match="on hold: inspection"):
        facility.evict("ics")
    assert disk_below(facility.demo.data_dir) == before


def test_evict_is_refused_when_the_archive_lost_a_copy(facility: Facility) -> None:
    facility.released("ics")
    facility.archived_path(facility.demo.fileset("ics").keys[0]).unlink()
    with pytest.raises(PermitRefused, match=r"tape: MISSING, not DURABLE \(1 of 2 files\)"):
        facility.evict("ics")
    assert facility.reads_as_before("ics")
    assert facility.residency("ics") is Residency.ONLINE


def test_a_file_that_somebody_put_in_a_links_place_is_not_overwritten(facility: Facility) -> None:
    facility.released("ics")
    path = facility.paths("ics")[0]
    path.unlink()
    path.write_bytes(b"somebody's")
    with pytest.raises(WrongState, match="is a file that we did not put there"):
        facility.unarchive("ics")
    assert path.read_bytes() == b"somebody's"


@pytest.mark.parametrize("slug", ["ics", "omero4"])
def test_without_omeros_directory_nothing_is_put_back_and_nothing_is_begun(facility: Facility, slug: str) -> None:
    """OMERO deletes the directory with the images; then a purge must be possible still."""
    facility.released(slug)
    for directory in {path.parent for path in facility.paths(slug)}:
        shutil.rmtree(directory)
    with pytest.raises(WrongState, match=r"is not there, so .* cannot be put back; .* OMERO deleted its images"):
        facility.unarchive(slug)
    assert (facility.residency(slug), facility.record(slug).intent) == (Residency.ONLINE, None)
    facility.evict(slug)


def test_files_that_cannot_be_archived_are_left_alone_by_everything(facility: Facility) -> None:
    unfit = [fileset for fileset in facility.demo.filesets if fileset.expected is not Expected.ARCHIVED]
    before = [disk_below(facility.demo.path(fileset.keys[0]).parent) for fileset in unfit]
    facility.add("rotted")
    facility.work()
    assert facility.copy_states("rotted").popitem()[1] is CopyState.PENDING
    with pytest.raises(PermitRefused, match="never read and hashed"):
        facility.release("rotted")
    assert [disk_below(facility.demo.path(fileset.keys[0]).parent) for fileset in unfit] == before


def test_every_move_of_a_bundle_has_its_event(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    facility.recall("ics")
    facility.unarchive("ics")
    events = catalogue_rows(facility.site.catalogue.dsn)["event"]
    moves = [
        (row["old"], row["new"]) for row in sorted(events, key=lambda row: row["id"]) if row["what"] == "residency"
    ]
    assert moves == [
        ("RESIDENT", "ONLINE"),
        ("ONLINE", "OFFLINE"),
        ("OFFLINE", "RECALLING"),
        ("RECALLING", "ONLINE"),
        ("ONLINE", "RESIDENT"),
    ]
