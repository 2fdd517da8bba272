"""A lost catalogue is made anew from the archive's manifests: what is equal, what is believed, what goes on then."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from interruptions import Stopped, stopped_before
from omero_archive.app import initialise
from omero_archive.catalogue.history import chapters
from omero_archive.demo.site import DemoSite
from omero_archive.errors import (
    FixityMismatch,
    NotMounted,
    ObjectMissing,
    OriginalUnfit,
    PermitRefused,
    ServiceUnavailable,
    SourceChanged,
    SourceVanished,
    UnsafePath,
    WrongState,
)
from omero_archive.model import Key, ServiceName
from omero_archive.omero.marks import NAMESPACE
from omero_archive.states import CopyState, Decision, Residency
from omero_archive.steps.history import sentence
from omero_archive.steps.rebuild import plan, rebuild
from omero_archive.steps.rebuild_bundle import Failed, Rebuilt
from omero_archive.steps.release import release
from site_fixtures import Facility, MakeFacility, MovableClock, flip_a_byte, left_below, rows_of

TWO = {"copies_on": ("tape", "disk2")}

# What a manifest does not have, or what begins anew. Everything else must be as it was.
BEGINS_ANEW = {
    "bundle": (
        *("id", "requested_by", "requested_at", "decided_by", "decided_at", "decision_note", "reason", "keep_until"),
        *("released_at", "near_since", "pinned_until", "decision"),
    ),
    "file": ("id", "bundle_id", "read_at", "device", "inode", "ctime_ns"),
    "image": ("bundle_id",),
    "copy": ("id", "bundle_id", "file_id", "state", "sha256", "word"),
    "manifest": ("bundle_id", "written_at"),
}
COPY_TIMES = ("verified_at", "confirmed_at", "asked_at", "checked_at", "checked_how")


def kept(facility: Facility) -> dict[str, list[dict[str, Any]]]:
    """The catalogue's rows without what begins anew."""
    left_out = {**BEGINS_ANEW, "copy": (*BEGINS_ANEW["copy"], *COPY_TIMES)}
    return rows_of(facility.site.catalogue.dsn, only=list(left_out), without=left_out)


def lose_catalogue(facility: Facility) -> None:
    """The catalogue's database is dropped, and `init` makes an empty one."""
    facility.site.catalogue.close()
    dsn = facility.site.catalogue.dsn
    name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
    with psycopg.connect(facility.demo.omero_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    initialise(facility.site)


def rebuilt(facility: Facility, *, without: tuple[str, ...] = (), go_on: bool = False) -> dict[str, Rebuilt | Failed]:
    """Rebuild; what became of each, by name."""
    services = [name for name in facility.site.services if name not in without]
    wanted = plan(facility.site, services, go_on=go_on)
    return {outcome.name: outcome for outcome in rebuild(facility.site, wanted)}


def lose_and_rebuild(facility: Facility, **options: Any) -> dict[str, Rebuilt | Failed]:
    lose_catalogue(facility)
    return rebuilt(facility, **options)


def made(found: dict[str, Rebuilt | Failed], name: str) -> Rebuilt:
    outcome = found[name]
    assert isinstance(outcome, Rebuilt), outcome
    return outcome


def failed(found: dict[str, Rebuilt | Failed], name: str) -> Failed:
    outcome = found[name]
    assert isinstance(outcome, Failed), outcome
    return outcome


def manifest_of(facility: Facility, slug: str, *, service: str = "tape", name: str = "omero.json") -> Path:
    return facility.demo.directory / service / "manifests" / facility.name(slug) / name


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what an omero.json says."""
    says = json.loads(path.read_text())
    change(says)
    path.write_text(json.dumps(says))


def put_back_as_it_was(facility: Facility, *slugs: str) -> None:
    for slug in slugs:
        if facility.residency(slug) is not Residency.RESIDENT:
            facility.unarchive(slug)
        assert facility.is_as_before(slug), slug


# ---- the whole of it


def test_a_lost_catalogue_is_made_anew_and_everything_goes_on(make_facility: MakeFacility) -> None:
    facility = make_facility(**TWO)
    facility.released("ome-tiff", "ics", "omero4", "plate")
    facility.archive("dicom")
    facility.evict("ics", "omero4")
    before = kept(facility)
    states = {slug: facility.residency(slug) for slug in ("ome-tiff", "ics", "omero4", "plate", "dicom")}
    marks = {slug: facility.record(slug).is_marked for slug in states}

    found = lose_and_rebuild(facility)

    assert kept(facility) == before
    assert {slug: facility.residency(slug) for slug in states} == states
    assert {slug: facility.record(slug).is_marked for slug in states} == marks
    assert all(isinstance(one, Rebuilt) and not one.differences and one.attention is None for one in found.values())
    for slug in states:
        assert set(facility.copy_states(slug).values()) == {CopyState.WRITTEN}
        wanted = Decision.RETURNED if slug == "dicom" else Decision.APPROVED
        assert facility.record(slug).decision is wanted
        assert facility.record(slug).decided_by == "rebuild"

    facility.recall("ics")  # also before any copy was verified again: every byte is compared on its way
    assert facility.reads_as_before("ics")
    assert facility.work().failed == 0
    for slug in ("ome-tiff", "ics", "omero4", "plate"):
        assert set(facility.copy_states(slug).values()) == {CopyState.DURABLE}
    facility.evict("ome-tiff", "ics")
    facility.recall("ome-tiff")
    put_back_as_it_was(facility, *states)
    annotations = rows_of(facility.demo.omero_dsn, only=["annotation"])["annotation"]
    assert not [row for row in annotations if row["ns"] == NAMESPACE]


def test_history_tells_that_a_bundle_was_rebuilt(facility: Facility) -> None:
    facility.released("ics")
    lose_and_rebuild(facility)
    with facility.site.catalogue.begin() as connection:
        told = [sentence(chapter) for chapter in chapters(connection, facility.record("ics").id)]
    assert f"as ONLINE, from tape: manifests/{facility.name('ics')}" in told[-1]


def test_nothing_is_evicted_by_itself_after_a_rebuild(make_facility: MakeFacility) -> None:
    """Pins and holds are lost, so an undo window that is over must not be taken for a wish to evict."""
    clock = MovableClock()
    facility = make_facility(clock=clock, keep_originals="1h")
    facility.released("ics")
    lose_and_rebuild(facility)
    clock.advance(hours=2)
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert facility.residency("ics") is Residency.ONLINE
    assert facility.reads_as_before("ics")


def test_nothing_is_evicted_before_the_copies_were_read_again(facility: Facility) -> None:
    facility.released("ics")
    lose_and_rebuild(facility)
    with pytest.raises(PermitRefused, match="WRITTEN, not DURABLE"):
        facility.evict("ics")
    assert facility.reads_as_before("ics")


def test_an_original_in_its_place_is_read_again_before_it_is_released(facility: Facility) -> None:
    facility.archive("ics")
    lose_and_rebuild(facility)
    facility.add("ics")
    facility.work()
    with pytest.raises(SourceChanged, match="rehash"):
        facility.release("ics")
    release(facility.site, facility.name("ics"), rehash=True)
    assert facility.residency("ics") is Residency.ONLINE
    assert facility.reads_as_before("ics")
    put_back_as_it_was(facility, "ics")


# ---- steps that were interrupted when the catalogue was lost


def empty_catalogue(facility: Facility) -> None:
    """As `lose_catalogue`, but quicker: all rows go."""
    with psycopg.connect(facility.site.catalogue.dsn) as conn:
        names = [sql.Identifier(name) for name in rows_of(facility.site.catalogue.dsn) if name != "alembic_version"]
        conn.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names)))


def finish(facility: Facility, slug: str) -> None:
    """Run again what was interrupted, then bring the originals back."""
    if facility.record(slug).intent == "release":
        facility.work()
        facility.release(slug)
        assert facility.residency(slug) is Residency.ONLINE
    if facility.residency(slug) is not Residency.RESIDENT:
        facility.unarchive(slug)
    assert facility.residency(slug) is Residency.RESIDENT
    assert facility.is_as_before(slug)
    assert not [path for path in left_below(facility.demo.archive_root) if not path.is_symlink()]
    assert not list(facility.paths(slug)[0].parent.rglob("*omero-archive-tmp"))
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        assert conn.execute("SELECT count(*) FROM annotation WHERE ns = %s", (NAMESPACE,)).fetchone() == (0,)


def online(facility: Facility, slug: str) -> None:
    if facility.residency(slug) is Residency.RESIDENT:
        facility.add(slug)
        facility.work()
        release(facility.site, facility.name(slug), rehash=True)


@pytest.mark.parametrize("step", ["release", "unarchive", "evict", "recall"])
@pytest.mark.parametrize("slug", ["ics", "omero4"])
def test_the_catalogue_may_be_lost_in_the_middle_of_any_step(facility: Facility, slug: str, step: str) -> None:
    """Stopped before a change of a step, all rows lost, rebuilt: the way on is known, and no byte is lost."""
    facility.archive(slug)
    stops, stride = 0, 2 if slug == "ics" else 6
    first = random.SystemRandom().randint(1, stride)
    print(f"every {stride}th change from {first} on")
    for number in range(first, 80, stride):
        if step != "release":
            online(facility, slug)
            if step == "recall":
                facility.evict(slug)
        elif number > first:
            facility.add(slug)
            facility.work()
            identify(facility, slug)
        try:
            with stopped_before(number):
                getattr(facility, step)(slug)
        except Stopped:
            stops += 1
        else:
            break
        empty_catalogue(facility)
        found = made(rebuilt(facility), facility.name(slug))
        assert found.attention is None, (number, found)
        facility.work()
        finish(facility, slug)
    assert stops > 1


def identify(facility: Facility, slug: str) -> None:
    """What `release --rehash` does first: so that the release alone is what is stopped."""
    with psycopg.connect(facility.site.catalogue.dsn) as conn:
        for path, key in zip(facility.paths(slug), facility.demo.fileset(slug).keys, strict=True):
            values = (path.stat().st_ctime_ns, os.fsencode(key))
            conn.execute("UPDATE file SET ctime_ns = %s WHERE key = %s", values)


def test_an_original_that_changed_while_its_release_was_interrupted_is_not_released(facility: Facility) -> None:
    facility.archive("ics")
    with pytest.raises(Stopped), stopped_before(6):
        facility.release("ics")
    path = next(path for path in facility.paths("ics") if not path.is_symlink())
    flip_a_byte(path)
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.intent is None
    assert found.attention is not None
    assert "other bytes than were archived" in found.attention
    assert facility.record("ics").needs_attention


# ---- manifests that are damaged, unfinished, old, or disagree


def test_a_damaged_manifest_is_named_and_the_others_go_on(facility: Facility) -> None:
    facility.archive("ics", "dicom")
    rewrite(manifest_of(facility, "ics"), lambda says: says["files"][0].update(sha256="0" * 64))
    found = lose_and_rebuild(facility)
    name = facility.name("ics")
    assert isinstance(failed(found, name).error, FixityMismatch)
    assert "no manifest that can be believed" in str(failed(found, name).error)
    assert isinstance(failed(found, f"tape: manifests/{name}").error, FixityMismatch)
    assert made(found, facility.name("dicom")).files == len(facility.paths("dicom"))


def test_a_damaged_manifest_is_read_from_another_service(make_facility: MakeFacility) -> None:
    facility = make_facility(**TWO)
    facility.released("ics")
    flip_a_byte(manifest_of(facility, "ics", name="manifest-sha256.txt"))
    found = lose_and_rebuild(facility)
    name = facility.name("ics")
    assert made(found, name).service == "disk2"
    assert made(found, name).copies == {("tape", CopyState.WRITTEN): 2, ("disk2", CopyState.WRITTEN): 2}
    assert isinstance(failed(found, f"tape: manifests/{name}").error, FixityMismatch)
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    damaged = manifest_of(facility, "ics").parent
    assert (damaged.with_name(f"{name}.2") / "omero.json").exists()  # written anew beside it
    put_back_as_it_was(facility, "ics")


def test_services_that_do_not_agree_are_not_believed(make_facility: MakeFacility) -> None:
    facility = make_facility(**TWO)
    facility.archive("ics")
    whole = manifest_of(facility, "ics", service="disk2").parent
    rewrite(whole / "omero.json", lambda says: says["files"][0].update(sha256="0" * 64))
    lines = (whole / "manifest-sha256.txt").read_bytes()
    (whole / "manifest-sha256.txt").write_bytes(b"0" * 64 + lines[64:])
    found = lose_and_rebuild(facility)
    error = failed(found, facility.name("ics")).error
    assert isinstance(error, FixityMismatch)
    assert "do not agree" in str(error)


def newer(facility: Facility, slug: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A second generation of a manifest, changed."""
    first = manifest_of(facility, slug).parent
    second = first.with_name(f"{first.name}.2")
    shutil.copytree(first, second)
    rewrite(second / "omero.json", change)
    return second


def test_the_newest_generation_is_believed(facility: Facility) -> None:
    facility.archive("ics")
    newer(facility, "ics", lambda says: says.update(containers=["Dataset:9 Newer"]))
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.directory.endswith(".2")
    assert facility.record("ics").containers == ("Dataset:9 Newer",)


def test_a_generation_that_was_never_finished_is_passed_over(facility: Facility) -> None:
    facility.archive("ics")
    (newer(facility, "ics", lambda says: None) / "omero.json").unlink()
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.directory == f"manifests/{facility.name('ics')}"
    assert any("never finished" in note for note in found.differences)


def test_a_damaged_newer_generation_needs_attention_if_files_may_be_missing(facility: Facility) -> None:
    """The older one has a file less than OMERO: it may be in the newer one, which cannot be read."""
    facility.archive("ics")
    second = newer(facility, "ics", lambda says: None)
    (second / "manifest-sha256.txt").write_text("junk")
    first = manifest_of(facility, "ics")
    rewrite(first, lambda says: says["files"].pop())
    lines = first.with_name("manifest-sha256.txt").read_bytes().splitlines(keepends=True)
    first.with_name("manifest-sha256.txt").write_bytes(b"".join(lines[:-1]))
    found = lose_and_rebuild(facility)
    outcome = made(found, facility.name("ics"))
    assert outcome.attention is not None
    assert "is newer and damaged" in outcome.attention
    assert any("1 files more" in note for note in outcome.differences)
    assert isinstance(failed(found, f"tape: manifests/{facility.name('ics')}.2").error, FixityMismatch)


def test_a_bundle_without_a_whole_manifest_is_named(facility: Facility) -> None:
    facility.archive("ics")
    manifest_of(facility, "ics").unlink()
    error = failed(lose_and_rebuild(facility), facility.name("ics")).error
    assert isinstance(error, ObjectMissing)


def test_two_manifests_that_claim_one_file_are_not_both_believed(facility: Facility) -> None:
    facility.archive("ics")
    first = manifest_of(facility, "ics").parent
    shutil.copytree(first, first.with_name("Fileset-999"))
    rewrite(
        first.with_name("Fileset-999") / "omero.json", lambda says: says.update(bundle="Fileset-999", filesets=[999])
    )
    found = lose_and_rebuild(facility)
    made(found, facility.name("ics"))
    error = failed(found, "Fileset-999").error
    assert isinstance(error, WrongState)
    assert "another bundle" in str(error)


def test_junk_among_the_manifests_is_named_and_passed_over(facility: Facility) -> None:
    facility.archive("ics")
    top = facility.demo.service_path / "manifests"
    (top / "README").write_text("mine")
    (top / "Fileset-7.old").mkdir()
    (top / "Fileset-7.old" / "omero.json").write_text("{}")
    (top / "loop").symlink_to(top)
    lose_catalogue(facility)
    wanted = plan(facility.site, [ServiceName("tape")])
    assert wanted.names == (facility.name("ics"),)
    assert set(wanted.strangers) == {"tape: manifests/README", "tape: manifests/Fileset-7.old/omero.json"}


# ---- copies


def test_a_copy_is_what_the_service_answers(make_facility: MakeFacility) -> None:
    """There: WRITTEN. Not there: MISSING. With another size: DAMAGED. Without a manifest and files: no copy."""
    facility = make_facility(copies_on=("tape", "disk2"))
    facility.archive("ome-tiff")
    first, second, third, _ = facility.demo.fileset("ome-tiff").keys
    facility.archived_path(first).unlink()
    with facility.archived_path(second).open("ab") as copy:
        copy.write(b"more")
    flip_a_byte(facility.archived_path(third))
    for name in ("manifests", "ManagedRepository"):
        shutil.rmtree(facility.demo.directory / "disk2" / name)
    found = lose_and_rebuild(facility)
    unwell = {type(outcome.error) for outcome in found.values() if isinstance(outcome, Failed)}
    states = facility.copy_states("ome-tiff")
    assert {service for _, service in states} == {"tape"}
    assert unwell <= {FixityMismatch, ObjectMissing}
    assert unwell
    assert states[first, "tape"] is CopyState.MISSING
    assert states[second, "tape"] is CopyState.DAMAGED
    assert states[third, "tape"] is CopyState.WRITTEN  # of the right size: that it is damaged is found by `run`
    assert any("is not there any more" in error for error in facility.errors("ome-tiff"))
    facility.add("ome-tiff")
    facility.work()
    assert facility.copy_states("ome-tiff")[third, "tape"] is CopyState.DAMAGED


def test_a_service_that_lost_only_its_manifests_gets_new_ones(make_facility: MakeFacility) -> None:
    facility = make_facility(**TWO)
    facility.released("ics")
    shutil.rmtree(facility.demo.directory / "disk2" / "manifests")
    lose_and_rebuild(facility)
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    one, other = (manifest_of(facility, "ics", service=service).read_bytes() for service in ("tape", "disk2"))
    assert one == other


def test_a_service_that_cannot_tell_of_a_copy_is_asked_again(facility: Facility) -> None:
    facility.released("ics")
    key = facility.demo.fileset("ics").keys[0]
    above = facility.archived_path(key).parent
    above.rename(above.with_name("elsewhere"))
    above.symlink_to(above.with_name("elsewhere"))  # the service refuses to go through a link: it cannot tell
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.copies == {("tape", CopyState.WRITTEN): 2}
    assert all("could not be asked" in error for error in facility.errors("ics"))
    with pytest.raises(PermitRefused):
        facility.evict("ics")
    above.unlink()
    above.with_name("elsewhere").rename(above)
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert not facility.errors("ics")


def test_a_service_that_cannot_be_asked_is_not_forgotten_silently(make_facility: MakeFacility) -> None:
    facility = make_facility(**TWO)
    facility.released("ics")
    lose_catalogue(facility)
    marker = facility.demo.directory / "disk2" / ".omero-archive"
    marker.rename(marker.with_name("away"))
    with pytest.raises(ServiceUnavailable, match="--without disk2"):
        rebuilt(facility)
    found = made(rebuilt(facility, without=("disk2",)), facility.name("ics"))
    assert found.copies == {("tape", CopyState.WRITTEN): 2}
    marker.with_name("away").rename(marker)


def test_a_manifest_that_cannot_be_read_stops_its_bundle_only(facility: Facility) -> None:
    facility.archive("ics", "dicom")
    path = manifest_of(facility, "ics")
    path.rename(path.with_name("aside"))
    path.symlink_to(path.with_name("aside"))
    found = lose_and_rebuild(facility)
    assert isinstance(failed(found, facility.name("ics")).error, UnsafePath)
    made(found, facility.name("dicom"))
    path.unlink()
    path.with_name("aside").rename(path)
    made(rebuilt(facility, go_on=True), facility.name("ics"))


# ---- an empty catalogue, and a rebuild that was killed


def test_a_catalogue_that_has_bundles_is_left_alone(facility: Facility) -> None:
    facility.archive("ics", "dicom")
    for go_on in (False, True):
        with pytest.raises(WrongState, match="has bundles already"):
            rebuilt(facility, go_on=go_on)
    lose_and_rebuild(facility)
    with pytest.raises(WrongState, match="--continue"):
        rebuilt(facility)
    assert rebuilt(facility, go_on=True) == {}
    facility.add("omero4")
    with pytest.raises(WrongState, match="not made by a rebuild"):
        rebuilt(facility, go_on=True)


def test_a_rebuild_may_be_killed_anywhere_and_goes_on(facility: Facility) -> None:
    facility.released("ics", "omero4")
    facility.archive("dicom")
    before = kept(facility)
    for number in range(1, 9):
        empty_catalogue(facility)
        try:
            with stopped_before(number):
                rebuilt(facility)
        except Stopped:
            whole = {slug for slug in ("ics", "omero4", "dicom") if is_known(facility, slug)}
            assert len(whole) < 3
            found = rebuilt(facility, go_on=True)
            assert len(found) == 3 - len(whole)
        else:
            assert number > 3
        assert kept(facility) == before


def is_known(facility: Facility, slug: str) -> bool:
    rows = rows_of(facility.site.catalogue.dsn, only=["bundle"])["bundle"]
    return any(row["name"] == facility.name(slug) for row in rows)


def test_a_bundle_is_not_added_anew_when_its_originals_are_links_that_nobody_knows(facility: Facility) -> None:
    facility.released("ics")
    lose_catalogue(facility)
    with pytest.raises(OriginalUnfit, match="omero-archive rebuild"):
        facility.add("ics")
    assert not is_known(facility, "ics")


# ---- what the disk shows


def test_links_that_are_gone_are_told_and_can_be_filled_again(facility: Facility) -> None:
    facility.released("ics")
    for path in facility.paths("ics"):
        path.unlink()
    facility.evict("ics")
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.residency is Residency.OFFLINE
    assert found.attention is not None
    assert "2 of 2 paths have nothing" in found.attention
    put_back_as_it_was(facility, "ics")


def test_a_disk_that_is_not_mounted_makes_no_bundle(facility: Facility) -> None:
    facility.released("ics")
    lose_catalogue(facility)
    managed = facility.demo.data_dir / "ManagedRepository"
    facility.site._trees.clear()
    managed.rename(managed.with_name("unmounted"))
    managed.mkdir()
    with pytest.raises(NotMounted):
        rebuilt(facility)
    assert not is_known(facility, "ics")
    managed.rmdir()
    managed.with_name("unmounted").rename(managed)
    facility.site._trees.clear()
    made(rebuilt(facility), facility.name("ics"))


def test_a_part_of_the_repository_that_is_not_mounted_makes_no_bundle(facility: Facility) -> None:
    facility.released("ics")
    lose_catalogue(facility)
    part = facility.demo.path(facility.demo.fileset("ics").keys[0]).parents[3]
    part.rename(part.with_name("unmounted"))
    part.mkdir()
    error = failed(rebuilt(facility), facility.name("ics")).error
    assert isinstance(error, SourceVanished)
    assert not is_known(facility, "ics")
    part.rmdir()
    part.with_name("unmounted").rename(part)
    made(rebuilt(facility, go_on=True), facility.name("ics"))


def test_a_stranger_in_an_originals_place_is_told(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    path = facility.paths("ics")[0]
    path.unlink()
    path.write_bytes(b"somebody's")
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.residency is Residency.OFFLINE
    assert found.attention is not None
    assert "1 of 2 paths have a file with another size or time" in found.attention
    with pytest.raises(WrongState, match="we did not put there"):
        facility.unarchive("ics")
    assert path.read_bytes() == b"somebody's"


def test_originals_that_came_back_in_part_are_told(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    key, path = facility.demo.fileset("ics").keys[0], facility.paths("ics")[0]
    path.unlink()
    shutil.copy2(facility.archived_path(key), path)
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.attention is not None
    assert "some originals came back" in found.attention
    put_back_as_it_was(facility, "ics")


def test_a_bundle_that_is_near_in_part_is_told_and_never_taken_for_whole(facility: Facility) -> None:
    facility.released("ics")
    (facility.demo.archive_root / facility.demo.fileset("ics").keys[0]).unlink()
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.residency is Residency.ONLINE
    assert found.attention is not None
    assert "only a part of its files is near" in found.attention
    facility.work()
    facility.evict("ics")
    facility.recall("ics")
    assert facility.reads_as_before("ics")


def test_an_original_that_was_changed_after_archiving_is_told(facility: Facility) -> None:
    facility.archive("ics")
    facility.paths("ics")[0].write_bytes(b"changed")
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert found.residency is Residency.RESIDENT
    assert found.attention is not None
    assert facility.record("ics").decision is Decision.RETURNED


# ---- what OMERO shows


def in_omero(facility: Facility, *statements: str) -> None:
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        conn.execute("SET session_replication_role = replica")  # the rows alone, without their references
        for statement in statements:
            conn.execute(statement.encode())


def test_a_bundle_that_was_deleted_in_omero_is_told(facility: Facility) -> None:
    facility.released("ics", "dicom")
    facility.evict("ics")
    number = facility.demo.fileset("ics").fileset_id
    for path in facility.paths("ics"):
        path.unlink()
    facility.paths("ics")[0].parent.rmdir()
    in_omero(
        facility,
        f"DELETE FROM image WHERE fileset = {number}",
        f"DELETE FROM filesetentry WHERE fileset = {number}",
        f"DELETE FROM fileset WHERE id = {number}",
    )
    found = lose_and_rebuild(facility)
    outcome = made(found, f"Fileset-{number}")
    assert any("deleted there" in note for note in outcome.differences)
    assert outcome.residency is Residency.OFFLINE
    assert not made(found, facility.name("dicom")).differences


def test_what_omero_gained_and_lost_since_is_told(facility: Facility) -> None:
    facility.released("ics", "dicom", "plate")
    ics, dicom, plate = (facility.demo.fileset(slug) for slug in ("ics", "dicom", "plate"))
    in_omero(
        facility,
        f"UPDATE image SET archived = false WHERE fileset = {ics.fileset_id}",
        f"UPDATE image SET fileset = {ics.fileset_id} WHERE id = {plate.image_ids[0]}",
        "DELETE FROM annotation WHERE id IN "
        f"(SELECT child FROM filesetannotationlink WHERE parent = {dicom.fileset_id})",
        "DELETE FROM annotation_mapvalue WHERE annotation_id NOT IN (SELECT id FROM annotation)",
    )
    found = lose_and_rebuild(facility)
    notes = {slug: " ".join(made(found, facility.name(slug)).differences) for slug in ("ics", "dicom", "plate")}
    assert f"1 images more, such as Image:{plate.image_ids[0]}" in notes["ics"]
    assert "not flagged archived" in notes["ics"]
    assert "released, but not marked" in notes["dicom"]
    assert f"not got 1 of the images, such as Image:{plate.image_ids[0]}" in notes["plate"]
    assert not facility.record("dicom").is_marked


def test_the_flags_from_before_come_back_from_the_manifest(facility: Facility) -> None:
    images = facility.demo.fileset("plate").image_ids
    in_omero(facility, f"UPDATE image SET archived = false WHERE id = {images[0]}")
    facility.released("plate")
    lose_and_rebuild(facility)
    facility.unarchive("plate")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        found = conn.execute("SELECT id, archived FROM image WHERE id = ANY(%s)", (list(images),)).fetchall()
    assert dict(found) == dict.fromkeys(images) | {images[0]: False}


def test_a_manifest_of_an_older_version_gives_flags_as_imports_leave_them(facility: Facility) -> None:
    facility.released("plate")
    rewrite(manifest_of(facility, "plate"), lambda says: [image.pop("archived") for image in says["images"]])
    lose_and_rebuild(facility)
    facility.unarchive("plate")
    images = facility.demo.fileset("plate").image_ids
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        found = conn.execute("SELECT DISTINCT archived FROM image WHERE id = ANY(%s)", (list(images),)).fetchall()
    assert found == [(None,)]


# ---- names


def test_names_of_any_bytes_are_rebuilt(make_facility: MakeFacility) -> None:
    """Spaces, quotes, a backslash, a line break, and a byte that is no UTF-8: an OMERO whose Java wrote Latin-1."""
    facility = make_facility(omero='filename_encoding = "latin-1"')
    fileset = facility.demo.fileset("ics")
    old = facility.paths("ics")[0]
    name = 'k "1" \\ \n ü.ics'
    new = Path(os.fsdecode(os.fsencode(old.parent) + b"/" + name.encode("latin-1")))
    old.rename(new)
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        conn.execute("UPDATE originalfile SET name = %s WHERE name = %s", (name, old.name))
    keys = tuple(
        Key(str(new.relative_to(facility.demo.data_dir))) if path == old else key
        for path, key in zip(facility.paths("ics"), fileset.keys, strict=True)
    )
    facility.demo = renamed(facility.demo, "ics", keys)
    facility.released("ics")
    facility.evict("ics")
    before = kept(facility)
    found = made(lose_and_rebuild(facility), facility.name("ics"))
    assert not found.differences
    assert found.attention is None
    assert kept(facility) == before
    facility.work()
    facility.recall("ics")
    put_back_as_it_was(facility, "ics")


def renamed(demo: DemoSite, slug: str, keys: tuple[Key, ...]) -> DemoSite:
    others = tuple(
        replace(fileset, keys=keys, entry=keys[0]) if fileset.slug == slug else fileset for fileset in demo.filesets
    )
    return replace(demo, filesets=others)
