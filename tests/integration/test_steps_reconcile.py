"""Reconcile names every difference that is made on a real site, repairs the safe ones, and finds none in order."""

import os
import shutil
from pathlib import Path

import psycopg
import pytest
from omero_changes import deleted_in_omero, execute, flags, near_path, our_annotations
from psycopg.conninfo import make_conninfo

from interruptions import Stopped, stopped_before
from omero_archive.catalogue import bundles, recalls
from omero_archive.errors import OmeroIsOn, WrongState
from omero_archive.model import Key
from omero_archive.omero.marks import NAMESPACE
from omero_archive.states import CopyState, Residency
from omero_archive.steps.recall import request_recall
from omero_archive.steps.reconcile.differences import Difference, Kind, NotLooked
from omero_archive.steps.reconcile.fix import fix
from omero_archive.steps.reconcile.look import Scope, look
from site_fixtures import Facility, MakeFacility, catalogue_rows, disk_below, flip_a_byte, rows_of

SLUGS = ("ics", "omero4")  # one with a directory of its own, one without
EVERYTHING = Scope()


def findings(facility: Facility, scope: Scope = EVERYTHING) -> list[Difference | NotLooked]:
    return list(look(facility.site, scope))


def found(facility: Facility, scope: Scope = EVERYTHING) -> list[Difference]:
    """All differences; fails if anything could not be looked at."""
    all_ = findings(facility, scope)
    assert not [one for one in all_ if isinstance(one, NotLooked)], all_
    return [one for one in all_ if isinstance(one, Difference)]


def kinds(facility: Facility, scope: Scope = EVERYTHING) -> set[Kind]:
    return {one.kind for one in found(facility, scope)}


def only(facility: Facility, kind: Kind, scope: Scope = EVERYTHING) -> Difference:
    """The one difference there is."""
    (one,) = found(facility, scope)
    assert one.kind is kind, one
    return one


def fixed(facility: Facility, *wanted: Kind) -> None:
    """Every difference is safe, of these kinds, repaired, and gone; an event tells it."""
    differences = found(facility)
    assert {one.kind for one in differences} == set(wanted)
    for one in differences:
        assert one.is_safe, one
        fix(facility.site, one)
    assert found(facility) == []
    events = rows_of(facility.site.catalogue.dsn, only=["event"])["event"]
    told = {row["detail"]["difference"] for row in events if row["what"] == "reconciled"}
    assert set(wanted) <= told


def left(facility: Facility, kind: Kind) -> Difference:
    """The one difference is not safe: a repair is refused and changes nothing."""
    one = only(facility, kind)
    assert not one.is_safe, one
    before = everything(facility)
    with pytest.raises(WrongState):
        fix(facility.site, one)
    assert everything(facility) == before
    return one


def everything(facility: Facility) -> tuple[object, ...]:
    demo = facility.demo
    return (
        catalogue_rows(demo.catalogue_dsn),
        rows_of(demo.omero_dsn),
        disk_below(demo.data_dir, demo.service_path),
    )


# ---- in order


@pytest.mark.parametrize("slug", SLUGS)
def test_a_site_in_order_gives_no_difference_in_any_residency(facility: Facility, slug: str) -> None:
    assert found(facility) == []
    facility.add("plate", slug)
    assert found(facility) == []
    facility.work()
    assert found(facility) == []
    facility.release(slug)
    assert (facility.residency(slug), found(facility)) == (Residency.ONLINE, [])
    facility.evict(slug)
    assert (facility.residency(slug), found(facility)) == (Residency.OFFLINE, [])
    request_recall(facility.site, facility.name(slug), by="tester")
    assert found(facility) == []
    facility.recall(slug)
    assert found(facility) == []
    assert found(facility, Scope(names=(facility.name(slug),), is_read=True)) == []
    facility.unarchive(slug)
    assert (facility.residency(slug), found(facility)) == (Residency.RESIDENT, [])


def test_looking_changes_nothing(facility: Facility) -> None:
    facility.released("ics")
    facility.paths("ics")[0].unlink()
    before = everything(facility)
    assert kinds(facility) == {Kind.LINK_MISSING}
    assert everything(facility) == before


EXPLAINED = {
    "release": {Kind.INTENT_LEFT},
    "evict": {Kind.NOT_READABLE, Kind.EVICTION_LEFT},
    "recall": {Kind.RECALL_OPEN},
    "unarchive": {Kind.INTENT_LEFT, Kind.NEAR_WAYS_LEFT},
}


def bring_to_start(facility: Facility, slug: str, step: str) -> None:
    """Into the residency from which a step starts, whatever was before."""
    if facility.residency(slug) in (Residency.OFFLINE, Residency.RECALLING) and step != "recall":
        facility.recall(slug)
    if facility.residency(slug) is Residency.ONLINE and step == "release":
        facility.unarchive(slug)
    if facility.residency(slug) is Residency.RESIDENT:
        facility.add(slug)
        if step != "release":
            facility.release(slug)
    if facility.residency(slug) is Residency.ONLINE and step == "recall":
        facility.evict(slug)


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("step", EXPLAINED)
def test_a_step_that_was_stopped_anywhere_names_only_itself_and_is_finished(
    facility: Facility, slug: str, step: str
) -> None:
    facility.archive(slug)
    seen: set[Kind] = set()
    for number in range(1, 90, 4):
        bring_to_start(facility, slug, step)
        try:
            with stopped_before(number):
                getattr(facility, step)(slug)
        except Stopped:
            now = found(facility)
        else:
            break
        assert {one.kind for one in now} <= EXPLAINED[step], number
        seen |= {one.kind for one in now}
        for one in now:
            if one.is_safe:
                fix(facility.site, one)
        if facility.record(slug).intent is not None:
            getattr(facility, step)(slug)
        facility.work()
        assert {one.kind for one in found(facility)} <= {Kind.NEAR_WAYS_LEFT}, number
    else:
        pytest.fail("the step never came to its end")
    assert seen or step == "recall"


# ---- deleted in OMERO


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("residency", ["RESIDENT", "ONLINE", "OFFLINE"])
def test_what_omero_deleted_is_named_with_its_copies(facility: Facility, slug: str, residency: str) -> None:
    facility.archive(slug)
    if residency != "RESIDENT":
        facility.release(slug)
    if residency == "OFFLINE":
        facility.evict(slug)
    deleted_in_omero(facility, slug)
    one = next(one for one in found(facility) if one.kind is Kind.DELETED_IN_OMERO)
    # OMERO leaves annotations without links behind; the bundle they name is known.
    assert kinds(facility) == {Kind.DELETED_IN_OMERO}
    assert one.bundle == facility.name(slug)
    assert residency in one.sentence
    assert "DURABLE on tape" in one.sentence
    assert "--purge" in one.would
    left(facility, Kind.DELETED_IN_OMERO)


def test_links_that_omero_left_behind_are_counted(facility: Facility) -> None:
    facility.released("ics")
    deleted_in_omero(facility, "ics", with_paths=False)
    assert "at 2 of 2 paths something lies still" in left(facility, Kind.DELETED_IN_OMERO).sentence


def test_a_fileset_without_its_images_is_partly_deleted(facility: Facility) -> None:
    facility.released("ics")
    execute(
        facility,
        "SET session_replication_role = replica",
        "DELETE FROM image WHERE id = ANY(%(images)s)",
        images=list(facility.demo.fileset("ics").image_ids),
    )
    assert "1 of its 1 filesets and 0 of its 1 images" in left(facility, Kind.PARTLY_DELETED).sentence


# ---- links


@pytest.mark.parametrize("slug", SLUGS)
def test_a_missing_link_is_made_again_even_while_omero_runs(facility: Facility, slug: str) -> None:
    facility.released(slug)
    (facility.demo.data_dir / "Pixels/1").touch()  # empty, it would look as if it were not mounted
    path = facility.paths(slug)[0]
    target = os.readlink(path)
    path.unlink()
    with psycopg.connect(make_conninfo(facility.demo.omero_dsn, application_name="OMERO.Server")):
        fixed(facility, Kind.LINK_MISSING)
    assert os.readlink(path) == target
    assert facility.reads_as_before(slug)


def test_a_missing_link_is_not_made_where_something_lies_by_then(facility: Facility) -> None:
    facility.released("ics")
    path = facility.paths("ics")[0]
    path.unlink()
    one = only(facility, Kind.LINK_MISSING)
    path.write_bytes(b"somebody was faster")
    with pytest.raises(WrongState, match="is taken by a file"):
        fix(facility.site, one)
    assert path.read_bytes() == b"somebody was faster"


def test_a_missing_link_is_not_made_for_a_file_that_omero_has_deleted_by_then(facility: Facility) -> None:
    facility.released("ics")
    facility.paths("ics")[0].unlink()
    one = only(facility, Kind.LINK_MISSING)
    deleted_in_omero(facility, "ics")
    with pytest.raises(WrongState, match="not in OMERO's database any more"):
        fix(facility.site, one)
    assert not facility.paths("ics")[0].is_symlink()


def test_a_missing_directory_is_named_once_and_not_made(facility: Facility) -> None:
    facility.released("ics")
    shutil.rmtree(facility.paths("ics")[0].parent)
    left(facility, Kind.DIRECTORY_MISSING)


def test_a_retargeted_link_is_left_and_both_targets_are_told(facility: Facility) -> None:
    facility.released("ics")
    path = facility.paths("ics")[0]
    ours = os.readlink(path)
    path.unlink()
    path.symlink_to("/elsewhere/x")
    one = left(facility, Kind.LINK_RETARGETED)
    assert "/elsewhere/x" in one.sentence
    assert ours in one.sentence


def came_back(facility: Facility, path: Path) -> None:
    """The original, restored from a backup, where our link was."""
    seen, content = path.stat(), path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    path.chmod(seen.st_mode & 0o7777)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def test_an_original_that_came_back_is_taken_by_unarchive(facility: Facility) -> None:
    facility.released("ics")
    came_back(facility, facility.paths("ics")[0])
    assert "omero-archive unarchive" in left(facility, Kind.ORIGINAL_BACK).would
    assert kinds(facility, Scope(is_read=True)) == {Kind.ORIGINAL_BACK}
    facility.unarchive("ics")
    assert facility.is_as_before("ics")
    assert found(facility) == []


def test_other_bytes_with_the_same_size_and_mtime_are_found_by_reading(facility: Facility) -> None:
    facility.released("ics")
    path = facility.paths("ics")[0]
    came_back(facility, path)
    flip_a_byte(path)
    assert kinds(facility) == {Kind.ORIGINAL_BACK}
    one = only(facility, Kind.OTHER_FILE, Scope(is_read=True))
    assert str(facility.before[facility.demo.fileset("ics").keys[0]][1]) in one.sentence


def test_another_file_in_a_links_place_is_left_and_the_archived_digest_named(facility: Facility) -> None:
    facility.released("ics")
    path = facility.paths("ics")[0]
    path.unlink()
    path.write_bytes(b"new")
    one = left(facility, Kind.OTHER_FILE)
    assert str(facility.before[facility.demo.fileset("ics").keys[0]][1]) in one.sentence


def test_originals_that_go_or_change_before_their_release_are_named(facility: Facility) -> None:
    facility.archive("ics", "plate")
    facility.paths("ics")[0].unlink()
    left(facility, Kind.ORIGINAL_MISSING)
    facility.paths("plate")[0].write_bytes(b"overwritten")
    assert kinds(facility) == {Kind.ORIGINAL_MISSING, Kind.ORIGINAL_CHANGED}


def test_a_link_of_a_bundle_that_the_catalogue_thinks_resident_is_left(facility: Facility) -> None:
    facility.archive("ics")
    path = facility.paths("ics")[0]
    path.unlink()
    path.symlink_to(facility.site.link_target(facility.demo.fileset("ics").keys[0]))
    left(facility, Kind.LINK_OF_RESIDENT)


def test_a_temporary_name_goes_only_if_no_bytes_go_with_it(facility: Facility) -> None:
    facility.released("ics")
    tree, relative = facility.site.original(facility.demo.fileset("ics").keys[0])
    near = facility.site.near.tree
    tree.link_temporary_from(near, facility.demo.fileset("ics").keys[0], relative)
    fixed(facility, Kind.TEMPORARY_LEFT)
    os.close(tree.create_temporary(relative))
    left(facility, Kind.TEMPORARY_LEFT)


# ---- marks


def test_a_group_move_that_dropped_annotations_is_marked_again(facility: Facility) -> None:
    facility.released("plate")
    execute(
        facility,
        "DELETE FROM imageannotationlink WHERE child IN (SELECT id FROM annotation WHERE ns = %(ns)s)",
        "DELETE FROM filesetannotationlink WHERE child IN (SELECT id FROM annotation WHERE ns = %(ns)s)",
        "UPDATE image SET group_id = 0 WHERE id = ANY(%(images)s)",
        "UPDATE fileset SET group_id = 0 WHERE id = %(fileset)s",
        ns=NAMESPACE,
        images=list(facility.demo.fileset("plate").image_ids),
        fileset=facility.demo.fileset("plate").fileset_id,
    )
    fixed(facility, Kind.MARK_INCOMPLETE, Kind.FACTS_CHANGED)
    assert facility.record("plate").owner_group == "system"
    facility.unarchive("plate")
    assert facility.is_as_before("plate")


def test_a_flag_that_was_reset_by_hand_is_set_again_with_omero_off(facility: Facility) -> None:
    facility.released("plate")
    plate = facility.demo.fileset("plate")
    execute(facility, "UPDATE image SET archived = false WHERE id = %(image)s", image=plate.image_ids[2])
    one = only(facility, Kind.MARK_INCOMPLETE)
    assert f"Image:{plate.image_ids[2]}" in one.sentence
    running = psycopg.connect(make_conninfo(facility.demo.omero_dsn, application_name="OMERO.Server"))
    with running, pytest.raises(OmeroIsOn):
        fix(facility.site, one)
    fixed(facility, Kind.MARK_INCOMPLETE)
    assert flags(facility, plate) == [True] * 6


def test_a_mark_on_a_resident_bundle_is_taken_away_with_the_flags_as_they_were(facility: Facility) -> None:
    facility.archive("ics")
    ics = facility.demo.fileset("ics")
    execute(facility, "UPDATE image SET archived = false WHERE id = ANY(%(images)s)", images=list(ics.image_ids))
    facility.release("ics")
    omero = rows_of(facility.demo.omero_dsn)
    facility.unarchive("ics")
    marks_again(facility, omero)
    assert flags(facility, ics) == [True]
    fixed(facility, Kind.MARK_OF_RESIDENT)
    assert flags(facility, ics) == [False]
    assert our_annotations(facility) == []


def marks_again(facility: Facility, omero: dict[str, list[dict[str, object]]]) -> None:
    """OMERO's database restored from a backup of the time when the bundle was marked, as far as marks go."""
    images = [row["id"] for row in omero["image"] if row["archived"]]
    execute(facility, "UPDATE image SET archived = true WHERE id = ANY(%(images)s)", images=images)
    ours = {row["id"] for row in omero["annotation"] if row["ns"] == NAMESPACE}
    wanted = (
        ("annotation", "id"),
        ("annotation_mapvalue", "annotation_id"),
        ("filesetannotationlink", "child"),
        ("imageannotationlink", "child"),
    )
    with psycopg.connect(facility.demo.omero_dsn, application_name="omero-archive test") as conn:
        for table, column in wanted:
            for row in omero[table]:
                if row[column] in ours:
                    columns = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, row))
                    values = psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() for _ in row)
                    insert = psycopg.sql.SQL("INSERT INTO {} ({}) VALUES ({})")
                    name = psycopg.sql.Identifier(table)
                    conn.execute(insert.format(name, columns, values), list(row.values()))


def test_a_mark_that_the_catalogue_never_made_is_left(facility: Facility) -> None:
    facility.released("ics")
    omero = rows_of(facility.demo.omero_dsn)
    facility.unarchive("ics")
    marks_again(facility, omero)
    number = facility.record("ics").id
    with facility.site.catalogue.begin() as connection:
        connection.exec_driver_sql("DELETE FROM event WHERE bundle_id = %s", (number,))
    left(facility, Kind.MARK_OF_RESIDENT)


def test_a_mark_of_a_bundle_that_the_catalogue_lacks_is_left(facility: Facility) -> None:
    facility.released("ics")
    execute(
        facility,
        "UPDATE annotation_mapvalue SET value = 'Fileset-4711' WHERE name = 'Bundle'",
    )
    assert kinds(facility) == {Kind.MARK_OF_UNKNOWN, Kind.MARK_INCOMPLETE}
    unknown = next(one for one in found(facility) if one.kind is Kind.MARK_OF_UNKNOWN)
    assert unknown.bundle == "Fileset-4711"
    assert not unknown.is_safe


# ---- images, files, facts


NEW_IMAGE = """
    INSERT INTO image (id, name, fileset, series, permissions, owner_id, group_id, creation_id, update_id, archived)
    SELECT ome_nextval('seq_image'), 'new', fileset, 9, permissions, owner_id, group_id, creation_id, update_id, NULL
    FROM image WHERE id = %(image)s
"""


@pytest.mark.parametrize("is_released", [True, False])
def test_new_images_join_their_bundle_with_the_flag_they_had(facility: Facility, is_released: bool) -> None:
    facility.archive("ics")
    if is_released:
        facility.release("ics")
    execute(facility, NEW_IMAGE, image=facility.demo.fileset("ics").image_ids[0])
    fixed(facility, Kind.IMAGES_ADDED)
    with facility.site.catalogue.begin() as connection:
        known = {image.id: image.previous_archived for image in bundles.images(connection, facility.record("ics").id)}
    assert known == dict.fromkeys([image.id for image in facility.found("ics").images])
    assert [image.archived for image in facility.found("ics").images] == [True if is_released else None] * 2
    if is_released:
        facility.unarchive("ics")
        assert [image.archived for image in facility.found("ics").images] == [None] * 2


def test_images_that_went_leave_their_bundle_and_their_names_stay_in_an_event(facility: Facility) -> None:
    facility.released("plate")
    gone = facility.demo.fileset("plate").image_ids[0]
    execute(facility, "SET session_replication_role = replica", "DELETE FROM image WHERE id = %(image)s", image=gone)
    fixed(facility, Kind.IMAGES_GONE)
    events = rows_of(facility.site.catalogue.dsn, only=["event"])["event"]
    (event,) = [row for row in events if row["what"] == "images"]
    assert event["detail"]["gone"] == [{"id": gone, "name": "A1", "previous_archived": None}]


def test_images_in_another_fileset_now_are_left(facility: Facility) -> None:
    facility.released("plate")
    moved = facility.demo.fileset("plate").image_ids[0]
    execute(
        facility,
        "UPDATE image SET fileset = %(other)s WHERE id = %(image)s",
        image=moved,
        other=facility.demo.fileset("dicom").fileset_id,
    )
    left(facility, Kind.IMAGES_MOVED)


def test_images_that_moved_from_one_bundle_to_another_are_left_in_both(facility: Facility) -> None:
    facility.released("plate")
    facility.released("dicom")
    values = {"other": facility.demo.fileset("dicom").fileset_id, "image": facility.demo.fileset("plate").image_ids[0]}
    execute(facility, "UPDATE image SET fileset = %(other)s WHERE id = %(image)s", **values)
    told = [one for one in found(facility) if one.kind in (Kind.IMAGES_MOVED, Kind.IMAGES_ADDED)]
    before = everything(facility)
    assert len(told) == 2
    for one in told:
        with pytest.raises(WrongState):
            fix(facility.site, one)
    assert everything(facility) == before


def test_files_that_omero_moved_changed_or_lost_are_left_and_no_link_is_made_for_them(facility: Facility) -> None:
    facility.released("plate")
    ids = [file.omero_id for file in facility.found("plate").files]
    execute(facility, "UPDATE originalfile SET name = 'renamed' WHERE id = %(id)s", id=ids[0])
    one = left(facility, Kind.FILE_MOVED)
    assert one.key == facility.demo.fileset("plate").keys[0]
    assert "renamed" in one.sentence
    facility.paths("plate")[0].unlink()
    left(facility, Kind.FILE_MOVED)
    execute(facility, "UPDATE originalfile SET size = 1 WHERE id = %(id)s", id=ids[1])
    execute(facility, "DELETE FROM filesetentry WHERE originalfile = %(id)s", id=ids[2])
    assert kinds(facility) == {Kind.FILE_MOVED, Kind.FILE_CHANGED, Kind.FILE_GONE}


@pytest.mark.parametrize("is_released", [True, False])
def test_a_new_file_in_an_archived_fileset_is_named(facility: Facility, is_released: bool) -> None:
    facility.archive("ics")
    if is_released:
        facility.release("ics")
    home = facility.paths("ics")[0].parent
    (home / "new.ids").write_bytes(b"0123456789")
    execute(
        facility,
        """INSERT INTO originalfile (id, name, path, repo, size, hash, hasher, mimetype, permissions, owner_id,
               group_id, creation_id, update_id)
           SELECT ome_nextval('seq_originalfile'), 'new.ids', path, repo, 10, NULL, NULL, mimetype, permissions,
               owner_id, group_id, creation_id, update_id FROM originalfile WHERE id = %(id)s""",
        """INSERT INTO filesetentry (id, clientpath, fileset, originalfile, fileset_index, permissions, owner_id,
               group_id, creation_id, update_id)
           SELECT ome_nextval('seq_filesetentry'), 'new.ids', e.fileset, o.id, 99, o.permissions, o.owner_id,
               o.group_id, o.creation_id, o.update_id
           FROM originalfile AS o, filesetentry AS e WHERE o.name = 'new.ids' AND e.originalfile = %(id)s""",
        id=facility.found("ics").files[0].omero_id,
    )
    one = left(facility, Kind.FILE_ADDED)
    assert ("unarchive" in one.would) is is_released
    if not is_released:
        facility.archive("ics")
        assert found(facility) == []


def test_owner_and_containers_are_brought_up_to_date(facility: Facility) -> None:
    facility.released("ics")
    ics = facility.demo.fileset("ics")
    execute(
        facility,
        "UPDATE fileset SET owner_id = 0 WHERE id = %(fileset)s",
        "DELETE FROM datasetimagelink WHERE child = ANY(%(images)s)",
        fileset=ics.fileset_id,
        images=list(ics.image_ids),
    )
    fixed(facility, Kind.FACTS_CHANGED)
    assert (facility.record("ics").owner, facility.record("ics").containers) == ("root", ())


# ---- near


@pytest.mark.parametrize("slug", SLUGS)
def test_near_bytes_that_are_gone_are_recorded_and_can_be_recalled(facility: Facility, slug: str) -> None:
    facility.released(slug)
    for path in facility.paths(slug):
        path.resolve().unlink()
    near = facility.demo.archive_root
    shutil.rmtree(near_path(facility, "ics").parent if slug == "ics" else near / ".omero-archive/bundles")
    fixed(facility, Kind.NEAR_GONE)
    assert facility.residency(slug) is Residency.OFFLINE
    facility.recall(slug)
    assert facility.reads_as_before(slug)


def test_a_bundle_that_is_only_partly_near_is_damage_and_left(facility: Facility) -> None:
    facility.released("ics")
    near_path(facility, "ics").unlink()
    assert "wrong pixels" in left(facility, Kind.NEAR_INCOMPLETE).sentence


def test_near_bytes_of_another_size_are_left(facility: Facility) -> None:
    facility.released("ics")
    near_path(facility, "ics").write_bytes(b"x")
    left(facility, Kind.NEAR_CHANGED)


def test_a_bundle_that_is_readable_although_away_is_recorded_online_if_it_is_whole(facility: Facility) -> None:
    facility.released("ics")
    home = near_path(facility, "ics").parent
    kept = facility.demo.directory / "kept"
    shutil.copytree(home, kept)
    facility.evict("ics")
    shutil.copytree(kept, home)
    fixed(facility, Kind.NEAR_READABLE)
    assert facility.residency("ics") is Residency.ONLINE
    facility.evict("ics")
    shutil.copytree(kept, home)
    near_path(facility, "ics").unlink()
    left(facility, Kind.NEAR_PARTLY_READABLE)


def test_what_no_state_explains_near_is_left(facility: Facility) -> None:
    facility.archive("ics")
    root = facility.demo.archive_root
    (root / ".omero-archive/incoming/Fileset-4711").mkdir(parents=True)
    assert "Fileset-4711" in str(left(facility, Kind.NEAR_UNKNOWN).key)
    (root / ".omero-archive/incoming/Fileset-4711").rmdir()
    (root / "ManagedRepository/nobody").mkdir(parents=True)
    (root / "ManagedRepository/nobody/x").write_bytes(b"")
    (root / "ManagedRepository/nobody/y").write_bytes(b"")
    assert "2 files" in left(facility, Kind.NEAR_UNKNOWN).sentence
    shutil.rmtree(root / "ManagedRepository")
    (root / f".omero-archive/outgoing/{facility.name('ics')}").mkdir(parents=True)
    left(facility, Kind.NEAR_LEFT)


# ---- services


def test_objects_that_the_catalogue_does_not_know_are_left(facility: Facility) -> None:
    facility.archive("ics")
    (facility.archived_path("ManagedRepository/strange")).write_bytes(b"abc")
    assert "3 bytes" in left(facility, Kind.OBJECT_UNKNOWN).sentence
    facility.archived_path("ManagedRepository/strange").unlink()
    directory = facility.archived_path("manifests/Fileset-4711")
    directory.mkdir()
    (directory / "omero.json").write_bytes(b"{}")
    assert left(facility, Kind.MANIFEST_UNKNOWN).bundle == "Fileset-4711"


def test_what_is_ours_in_the_archive_is_no_unknown_object(facility: Facility) -> None:
    facility.archive("ics")
    facility.archived_path("damaged").mkdir()
    facility.archived_path("damaged/x").write_bytes(b"evidence")
    (facility.archived_path("manifests") / facility.name("ics")).rename(
        facility.archived_path(f"manifests/{facility.name('ics')}.2")
    )
    assert kinds(facility) == {Kind.MANIFEST_MISSING}


def test_a_missing_copy_is_recorded_and_one_that_comes_back_is_read_before_it_counts(facility: Facility) -> None:
    facility.archive("ics")
    key = facility.demo.fileset("ics").keys[0]
    copy = facility.archived_path(key)
    kept = copy.read_bytes()
    copy.unlink()
    for scope in (EVERYTHING, Scope(names=(facility.name("ics"),)), Scope(service="tape")):  # type: ignore[arg-type]
        assert kinds(facility, scope) == {Kind.COPY_MISSING}
    fixed(facility, Kind.COPY_MISSING)
    assert facility.copy_states("ics")[key, "tape"] is CopyState.MISSING
    assert "no such object" in facility.errors("ics")[0]
    copy.write_bytes(kept)
    fixed(facility, Kind.COPY_BACK)
    assert facility.copy_states("ics")[key, "tape"] is CopyState.WRITTEN
    facility.clock.advance(minutes=1)  # it was asked about a moment ago
    facility.work()
    assert facility.copy_states("ics")[key, "tape"] is CopyState.DURABLE


def test_a_copy_that_is_back_by_then_is_not_recorded_missing(facility: Facility) -> None:
    facility.archive("ics")
    key = facility.demo.fileset("ics").keys[0]
    copy = facility.archived_path(key)
    aside = copy.rename(copy.with_name("aside"))
    (one,) = (one for one in found(facility) if one.kind is Kind.COPY_MISSING)
    aside.rename(copy)
    with pytest.raises(WrongState, match=r"says of .* now: safe"):
        fix(facility.site, one)
    assert facility.copy_states("ics")[key, "tape"] is CopyState.DURABLE


def test_a_copy_of_another_size_is_recorded_damaged(facility: Facility) -> None:
    facility.archive("ics")
    key = facility.demo.fileset("ics").keys[0]
    facility.archived_path(key).write_bytes(b"short")
    assert kinds(facility, Scope(names=(facility.name("ics"),))) == {Kind.COPY_SIZE}
    fixed(facility, Kind.COPY_SIZE)
    assert facility.copy_states("ics")[key, "tape"] is CopyState.DAMAGED


def test_a_missing_manifest_is_written_again(facility: Facility) -> None:
    facility.archive("ics")
    path = facility.archived_path(f"manifests/{facility.name('ics')}/omero.json")
    content = path.read_bytes()
    path.unlink()
    assert kinds(facility, Scope(names=(facility.name("ics"),))) == {Kind.MANIFEST_MISSING}
    fixed(facility, Kind.MANIFEST_MISSING)
    assert path.read_bytes() == content


# ---- the catalogue


def test_recalls_that_nobody_would_finish_are_opened_or_closed(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    with facility.site.catalogue.begin() as connection:
        bundles.move(connection, facility.record("ics"), Residency.RECALLING)
    fixed(facility, Kind.RECALL_LOST)
    facility.work()
    assert facility.residency("ics") is Residency.ONLINE
    with facility.site.catalogue.begin() as connection:
        recalls.ask(connection, facility.record("ics").id, "tester", None)
    fixed(facility, Kind.RECALL_OPEN)


# ---- what cannot be looked at


def not_looked(facility: Facility) -> list[NotLooked]:
    """The places that were not looked at; no difference was concluded."""
    all_ = findings(facility)
    assert not [one for one in all_ if isinstance(one, Difference)], all_
    return [one for one in all_ if isinstance(one, NotLooked)]


def test_a_repository_that_is_not_mounted_is_not_a_thousand_missing_links(facility: Facility) -> None:
    facility.released("ics", "omero4")
    managed = facility.demo.data_dir / "ManagedRepository"
    managed.rename(managed.with_name("away"))
    managed.mkdir()
    facility.site._trees.clear()
    (one,) = not_looked(facility)
    assert (one.place, one.name) == ("OMERO's disk", "ManagedRepository")
    assert "not mounted on this host" in one.reason
    managed.rmdir()
    facility.site._trees.clear()
    assert [one.name for one in not_looked(facility)] == ["ManagedRepository"]


def test_a_near_directory_that_is_not_mounted_is_not_a_thousand_lost_bundles(facility: Facility) -> None:
    facility.released("ics")
    root = facility.demo.archive_root
    root.rename(root.with_name("away"))
    root.mkdir()
    facility.site._trees.clear()
    facility.site._near = None
    (one,) = not_looked(facility)
    assert one.place == "near"


def test_an_archive_that_is_not_mounted_is_not_a_thousand_missing_copies(facility: Facility) -> None:
    facility.released("ics")
    facility.demo.service_path.rename(facility.demo.service_path.with_name("away"))
    facility.demo.service_path.mkdir()
    (one,) = not_looked(facility)
    assert (one.place, one.name) == ("service", "tape")


def test_a_service_that_left_the_settings_is_named(make_facility: MakeFacility) -> None:
    make_facility(copies_on=("tape", "disk2")).archive("ics")
    (one,) = not_looked(make_facility(copies_on=("tape",)))
    assert (one.place, one.name) == ("service", "disk2")


def test_without_omeros_database_nothing_is_said_of_what_it_would_know(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.released("ics")
    deleted_in_omero(facility, "ics")
    monkeypatch.setattr(facility.site.omero, "_dsn", make_conninfo(facility.demo.omero_dsn, port="1"))
    all_ = findings(facility)
    assert [one.place for one in all_ if isinstance(one, NotLooked)] == ["OMERO's database"]
    links = [one for one in all_ if isinstance(one, Difference)]
    assert {one.kind for one in links} == {Kind.LINK_MISSING}
    assert not any(one.is_safe for one in links)


def test_a_bundle_that_somebody_works_on_is_not_judged(facility: Facility) -> None:
    facility.released("ics")
    facility.paths("ics")[0].unlink()
    with facility.site.catalogue.lock_bundle(facility.name("ics")):
        (one,) = not_looked(facility)
    assert (one.place, one.name) == ("bundle", facility.name("ics"))


def test_names_that_are_not_utf8_are_compared_and_told(facility: Facility) -> None:
    facility.archive("ics")
    strange = os.fsencode(facility.demo.service_path) + b"/ManagedRepository/\xff\x80"
    with open(strange, "wb"):
        pass
    one = only(facility, Kind.OBJECT_UNKNOWN)
    assert one.key == Key("ManagedRepository/\udcff\udc80")
    assert "\\xff\\x80" in one.sentence
