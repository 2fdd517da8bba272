"""Near bytes: on another file system, with little room, from a second service, under names that are not UTF-8."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from omero_archive import disk
from omero_archive.catalogue import bundles, recalls
from omero_archive.catalogue.bundles import Request
from omero_archive.catalogue.tables import bundle
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.errors import ArchiveError, Busy, FixityMismatch, NotEnoughSpace, ObjectMissing, OmeroIsOn
from omero_archive.model import Key
from omero_archive.states import CopyState, Decision, Permit, Residency
from omero_archive.steps.add import add
from omero_archive.steps.evict import evict, evict_dry
from omero_archive.steps.permits import permits
from omero_archive.steps.release import release
from omero_archive.steps.room import _candidates
from omero_archive.steps.unarchive import put_back
from site_fixtures import (
    Facility,
    MakeFacility,
    MovableClock,
    disk_below,
    file_facts,
    flip_a_byte,
    left_below,
    opened_facility,
)

SETS = ("ome-tiff", "plate", "ics", "dicom")


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of its own. Needs root."""
    where = tmp_path / "other"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(where)]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode != 0:
        if os.geteuid() == 0 and os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
            pytest.fail(f"a file system could not be mounted: {made.stderr!r}")
        pytest.skip("no file system can be mounted here; that needs root")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


def last_used(facility: Facility, slug: str, minutes_ago: float) -> None:
    """Near files as if they had been opened last so long ago."""
    for path in facility.paths(slug):
        seen = path.stat()
        os.utime(path.resolve(), ns=(int((facility.clock().timestamp() - 60 * minutes_ago) * 1e9), seen.st_mtime_ns))


def size_of(facility: Facility, *slugs: str) -> int:
    return sum(facility.record(slug).size_bytes for slug in slugs)


def with_room_for_all_but_one_byte(make_facility: MakeFacility) -> Facility:
    """A facility with all of `SETS` near but `ome-tiff`, for which there is no room, an hour after their release."""
    facility = make_facility(keep_originals="0d")
    facility.released(*SETS)
    facility.evict("ome-tiff")
    room = size_of(facility, *SETS) - 1
    facility = make_facility(facility.clock, keep_originals="0d", archive=f"max_size = {room}\n")
    facility.before.update({key: file_facts(facility.demo.path(key)) for key in facility.demo.fileset("plate").keys})
    facility.clock.advance(hours=1)
    return facility


# ---- another file system


@pytest.mark.parametrize("slug", ["ics", "omero4"])
def test_near_on_another_file_system_gets_verified_copies(
    make_facility: MakeFacility, other_disk: Path, slug: str
) -> None:
    facility = make_facility(near=other_disk)
    facility.demo.archive_root.rmdir()
    facility.demo.archive_root.symlink_to(other_disk)  # what a mount does: links point at the root
    facility.released(slug)
    assert facility.reads_as_before(slug)
    device = other_disk.stat().st_dev
    assert all(path.is_symlink() and path.stat().st_dev == device for path in facility.paths(slug))
    facility.evict(slug)
    assert not any(path.exists() for path in facility.paths(slug))
    facility.recall(slug)
    assert facility.reads_as_before(slug)
    facility.unarchive(slug)
    assert facility.is_as_before(slug)
    assert facility.paths(slug)[0].stat().st_dev != device
    assert not left_below(other_disk)
    facility.add(slug)
    assert facility.work().done == 0
    facility.release(slug)
    assert facility.reads_as_before(slug)


@pytest.mark.parametrize("step", ["release", "unarchive"])
def test_omero_that_is_started_while_bytes_are_copied_stops_the_swap(
    make_facility: MakeFacility, other_disk: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A release or an unarchive between two file systems may take hours, and OMERO be wanted again."""
    facility = make_facility(near=other_disk)
    facility.demo.archive_root.rmdir()
    facility.demo.archive_root.symlink_to(other_disk)
    facility.archive("ics")
    if step == "unarchive":
        facility.release("ics")
    paths = {path: path.lstat().st_ino for path in facility.paths("ics")}
    begin = release if step == "release" else put_back
    on: list[psycopg.Connection] = []
    utime = disk.utime

    def copied(*arguments: Any, **times: Any) -> None:
        utime(*arguments, **times)  # the last that is done to a copy
        on.append(psycopg.connect(make_conninfo(facility.demo.omero_dsn, application_name="OMERO.Server")))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "utime", copied)
        with pytest.raises(OmeroIsOn, match="while its bytes were copied, OMERO was started"):
            begin(facility.site, facility.name("ics"))
    assert {path: path.lstat().st_ino for path in paths} == paths
    assert facility.reads_as_before("ics")
    for connection in on:
        connection.close()
    if step == "release":
        facility.release("ics")
    else:
        facility.unarchive("ics")
    assert facility.reads_as_before("ics")


# ---- room


def test_a_recall_that_does_not_fit_is_refused_before_anything_is_moved(make_facility: MakeFacility) -> None:
    make_facility().released("pyramid")
    facility = make_facility(archive='max_size = "1 MB"\n')
    facility.evict("pyramid")
    with pytest.raises(NotEnoughSpace, match=f"{facility.name('pyramid')} needs .* more than there is room for"):
        facility.recall("pyramid")
    assert facility.residency("pyramid") is Residency.OFFLINE
    assert not left_below(facility.demo.archive_root)


def test_the_least_recently_opened_bundle_makes_room(make_facility: MakeFacility) -> None:
    facility = with_room_for_all_but_one_byte(make_facility)
    for slug, minutes in (("plate", 10), ("ics", 30), ("dicom", 20)):
        last_used(facility, slug, minutes)
    facility.recall("ome-tiff")
    found = {slug: facility.residency(slug) for slug in SETS}
    assert found == dict.fromkeys(SETS, Residency.ONLINE) | {"ics": Residency.OFFLINE}


def test_an_open_through_the_mount_counts_as_one(make_facility: MakeFacility) -> None:
    """Where the file system keeps no atimes (noatime), the catalogue alone knows of it."""
    facility = with_room_for_all_but_one_byte(make_facility)
    for slug, minutes in (("plate", 10), ("ics", 30), ("dicom", 20)):
        last_used(facility, slug, minutes)
    with facility.site.catalogue.begin() as connection:
        connection.execute(
            bundle.update()
            .where(bundle.c.name == facility.name("ics"))
            .values(last_opened_at=facility.clock() - timedelta(minutes=15))
        )
    facility.recall("ome-tiff")
    assert facility.residency("dicom") is Residency.OFFLINE
    assert [facility.residency(slug) for slug in ("plate", "ics", "ome-tiff")] == [Residency.ONLINE] * 3


def test_what_has_just_come_near_does_not_go_next(make_facility: MakeFacility) -> None:
    """Its files have the times of their originals, and may have been read by nobody yet."""
    facility = with_room_for_all_but_one_byte(make_facility)
    for slug in ("plate", "dicom"):
        last_used(facility, slug, 30)
    facility.evict("ics")
    facility.recall("ics")
    last_used(facility, "ics", 10**6)
    facility.recall("ome-tiff")
    assert facility.residency("ics") is Residency.ONLINE
    assert Residency.OFFLINE in [facility.residency(slug) for slug in ("plate", "dicom")]


def test_what_is_open_never_makes_room(make_facility: MakeFacility) -> None:
    facility = with_room_for_all_but_one_byte(make_facility)
    for slug, minutes in (("plate", 30), ("ics", 20), ("dicom", 10)):
        last_used(facility, slug, minutes)
    with facility.paths("plate")[-1].open("rb"):
        facility.recall("ome-tiff")
        assert facility.residency("plate") is Residency.ONLINE
        assert facility.reads_as_before("plate")
    assert facility.residency("ics") is Residency.OFFLINE


def test_the_order_is_that_of_all_times_whoever_knows_them(make_facility: MakeFacility) -> None:
    """The disk is asked late, and only about some; the outcome is as if it had been asked about all."""
    facility = make_facility(keep_originals="0d")
    facility.released(*SETS)
    facility.clock.advance(hours=1)
    for order in permutations(SETS):
        for minutes, slug in enumerate(order):
            last_used(facility, slug, 30 - minutes)
        found = list(_candidates(facility.site, replace(facility.record("ics"), id=-1)))
        assert [bundle.name for bundle in found] == [facility.name(slug) for slug in order]


@pytest.mark.parametrize("how", ["evict", "unarchive"])
def test_a_recall_that_was_asked_for_while_the_bytes_came_is_over_when_they_go(facility: Facility, how: str) -> None:
    facility.released("ics")
    number = facility.record("ics").id
    with facility.site.catalogue.begin() as connection:
        recalls.ask(connection, number, "somebody", "opened it a moment ago", priority=recalls.OPENED)
    facility.evict("ics") if how == "evict" else facility.unarchive("ics")
    with facility.site.catalogue.begin() as connection:
        assert not recalls.is_open(connection, number)
    facility.work()
    assert facility.residency("ics") is (Residency.OFFLINE if how == "evict" else Residency.RESIDENT)


def test_what_is_on_its_way_has_its_room_already(make_facility: MakeFacility) -> None:
    facility = make_facility(keep_originals="0d")
    facility.released("plate", "dicom")
    facility.evict("plate", "dicom")
    room = size_of(facility, "plate", "dicom") - 1
    facility = make_facility(facility.clock, keep_originals="0d", archive=f"max_size = {room}\n")
    with facility.site.catalogue.begin() as connection:
        bundles.move(connection, facility.record("plate"), Residency.RECALLING)
    with pytest.raises(NotEnoughSpace, match="1 more than there is room for"):
        facility.recall("dicom")
    facility.recall("plate")
    assert facility.residency("plate") is Residency.ONLINE


def test_what_is_pinned_held_kept_or_half_recalled_never_makes_room(make_facility: MakeFacility) -> None:
    facility = make_facility(keep_originals="0d")
    facility.released(*SETS, "pyramid")
    facility.evict("pyramid", "dicom")
    with facility.site.catalogue.begin() as connection:
        bundles.pin(connection, facility.record("plate"), facility.clock().replace(year=2100))
        bundles.hold(connection, facility.record("ics"), "inspection")
        # A recall that was interrupted: what has come already stays.
        bundles.move(connection, facility.record("dicom"), Residency.RECALLING)
    half = facility.demo.archive_root / ".omero-archive" / "incoming" / facility.name("dicom")
    half.mkdir(parents=True)
    (half / "CT5N_2062.dcm").write_bytes(b"half of it")
    room = size_of(facility, "plate", "ics", "ome-tiff")
    facility = make_facility(facility.clock, keep_originals="1d", archive=f"max_size = {room}\n")
    with pytest.raises(NotEnoughSpace):
        facility.recall("pyramid")
    for slug in ("plate", "ics", "ome-tiff"):  # the last one: originals are kept a day
        assert facility.residency(slug) is Residency.ONLINE, slug
        assert all(path.exists() for path in facility.paths(slug)), slug
    assert (half / "CT5N_2062.dcm").read_bytes() == b"half of it"
    facility.clock.advance(days=2)
    with pytest.raises(NotEnoughSpace):
        facility.recall("pyramid")
    assert facility.residency("ome-tiff") is Residency.OFFLINE
    assert [facility.residency(slug) for slug in ("plate", "ics")] == [Residency.ONLINE] * 2


def test_a_bundle_that_somebody_works_on_is_passed_over(make_facility: MakeFacility) -> None:
    facility = make_facility(keep_originals="0d")
    facility.released(*SETS)
    facility.evict("dicom")
    room = size_of(facility, *SETS) - 1
    facility = make_facility(facility.clock, keep_originals="0d", archive=f"max_size = {room}\n")
    facility.clock.advance(hours=1)
    for slug, minutes in (("plate", 30), ("ics", 20), ("ome-tiff", 10)):
        last_used(facility, slug, minutes)
    with facility.site.catalogue.lock_bundle(facility.name("plate")):
        facility.recall("dicom")
    assert facility.residency("plate") is Residency.ONLINE
    assert facility.residency("ics") is Residency.OFFLINE


# ---- open files


def test_a_bundle_of_which_a_file_is_open_is_not_evicted(facility: Facility) -> None:
    facility.released("ics")
    before, name = disk_below(facility.demo.archive_root), facility.name("ics")
    key = facility.demo.fileset("ics").keys[1]
    with facility.demo.path(key).open("rb") as reader:
        for step in (evict, evict_dry):
            with pytest.raises(Busy, match=f"{re.escape(key)} is being read by somebody; {name} was not evicted"):
                step(facility.site, name)
        assert facility.residency("ics") is Residency.ONLINE
        assert disk_below(facility.demo.archive_root) == before
        assert reader.read() == facility.demo.path(key).read_bytes()
    facility.evict("ics")
    assert not any(path.exists() for path in facility.paths("ics"))


def test_a_file_that_opens_while_the_services_are_asked_is_seen(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.released("ics")
    opened = []

    def slow(*arguments: Any, **named: Any) -> dict[Key, Permit]:
        opened.append(facility.paths("ics")[0].open("rb"))
        return permits(*arguments, **named)

    monkeypatch.setattr("omero_archive.steps.evict.permits", slow)
    with pytest.raises(Busy, match="is being read by somebody"):
        facility.evict("ics")
    opened.pop().close()
    assert facility.residency("ics") is Residency.ONLINE
    assert facility.reads_as_before("ics")


# ---- two services


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_recall_falls_over_to_the_second_service(make_facility: MakeFacility, is_gone: bool) -> None:
    facility = make_facility(copies_on=("tape", "disk2"))
    facility.released("ics")
    facility.evict("ics")
    key = facility.demo.fileset("ics").keys[1]
    bad = facility.archived_path(key)
    if is_gone:
        bad.unlink()
    else:
        flip_a_byte(bad)
    facility.recall("ics")
    assert facility.reads_as_before("ics")
    states = facility.copy_states("ics")
    assert states[key, "tape"] is (CopyState.MISSING if is_gone else CopyState.DAMAGED)
    assert states[key, "disk2"] is CopyState.DURABLE
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_wrong_bytes_never_become_readable(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    key = facility.demo.fileset("ics").keys[0]
    flip_a_byte(facility.archived_path(key))
    with pytest.raises(FixityMismatch):
        facility.recall("ics")
    assert facility.copy_states("ics")[key, "tape"] is CopyState.DAMAGED
    assert not any(path.exists() for path in facility.paths("ics"))
    with pytest.raises(ObjectMissing, match="there is no verified copy anywhere"):
        facility.recall("ics")


# ---- names


def test_a_name_that_is_not_utf_8_goes_the_whole_way(make_facility: MakeFacility, demo_site: DemoSite) -> None:
    """OMERO's database knows it as Latin-1's characters, the disk as Latin-1's bytes."""
    fileset = demo_site.fileset("ics")
    old = demo_site.path(fileset.keys[1])
    name = "M\xe4use \\ n\xb0 4\n.ids"
    raw = os.fsencode(old.parent) + b"/" + name.encode("latin-1")
    os.rename(os.fsencode(old), raw)
    with psycopg.connect(demo_site.omero_dsn) as conn:
        done = conn.execute("UPDATE originalfile SET name = %s WHERE name = %s", (name, old.name))
        assert done.rowcount == 1
    before = file_facts(Path(os.fsdecode(raw)))
    facility = make_facility(omero='filename_encoding = "latin-1"\n')
    _add(facility)
    facility.work()
    facility.release("ics")
    assert os.path.islink(raw)
    assert os.path.exists(raw)
    facility.evict("ics")
    assert not os.path.exists(raw)
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", f"manifests/{facility.name('ics')}/manifest-sha256.txt"],
        cwd=facility.demo.service_path,
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, checked
    facility.recall("ics")
    facility.unarchive("ics")
    assert file_facts(Path(os.fsdecode(raw))) == before


def _add(facility: Facility) -> None:
    add(facility.site, facility.found("ics"), Request(by="tester"), decision=Decision.APPROVED)


def test_a_read_only_role_is_enough_for_everything_but_the_marks(
    demo_site: DemoSite, postgres: EmbeddedPostgres
) -> None:
    """Copying needs no right to write into OMERO's database."""
    database = conninfo_to_dict(demo_site.omero_dsn)["dbname"]
    with psycopg.connect(postgres.dsn(str(database)), autocommit=True) as conn:
        conn.execute("DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    limited = replace(demo_site, omero_dsn=make_conninfo(demo_site.omero_dsn, user="reader"))
    with opened_facility(limited, MovableClock()) as facility:
        facility.archive("ics")
        with pytest.raises(ArchiveError, match="permission denied"):
            facility.release("ics")
        assert facility.is_as_before("ics")
