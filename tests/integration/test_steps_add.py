"""What `add` takes, what it refuses, and what adding again picks up."""

import os
import shutil

import psycopg
import pytest

from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import Request
from omero_archive.demo import omero_tables as tables
from omero_archive.errors import DatabaseUnavailable, OriginalUnfit, UnsafePath, WrongState
from omero_archive.model import Bundle, ObjectRef, ObjectType
from omero_archive.omero.closure import bundles as closure
from omero_archive.states import CopyState, Decision, Residency
from omero_archive.steps.add import add
from omero_archive.steps.release import release_dry
from site_fixtures import Facility, MakeFacility, catalogue_rows, rows_of, set_on, sha256_of


def file_ids(facility: Facility, slug: str) -> list[int]:
    """OMERO's numbers of a fileset's files."""
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        query = "SELECT originalfile FROM filesetentry WHERE fileset = %s ORDER BY fileset_index"
        return [row[0] for row in conn.execute(query, (facility.demo.fileset(slug).fileset_id,))]


def stamp_of(conn: tables.Connection, slug: str, facility: Facility) -> tables.Stamp:
    row = conn.execute(
        "SELECT owner_id, group_id FROM fileset WHERE id = %s", (facility.demo.fileset(slug).fileset_id,)
    ).fetchone()
    assert row is not None
    return tables.stamp(conn, row[0], row[1])


def gain_a_file(facility: Facility, slug: str, name: str, content: bytes = b"more") -> str:
    """OMERO's fileset gains a file, on disk and in the database; its key."""
    fileset = facility.demo.fileset(slug)
    home = facility.demo.path(fileset.keys[0]).parent
    (home / name).write_bytes(content)
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        conn.execute(
            """
            INSERT INTO originalfile (id, permissions, version, owner_id, group_id, creation_id, update_id,
                                      path, name, repo, size, mimetype)
            SELECT ome_nextval('seq_originalfile'), permissions, 0, owner_id, group_id, creation_id, update_id,
                   path, %s, repo, %s, mimetype FROM originalfile WHERE id = %s
            """,
            (name, len(content), file_ids(facility, slug)[0]),
        )
        conn.execute(
            """
            INSERT INTO filesetentry (id, permissions, version, owner_id, group_id, creation_id, update_id,
                                      clientpath, fileset, originalfile, fileset_index)
            SELECT ome_nextval('seq_filesetentry'), f.permissions, 0, f.owner_id, f.group_id, f.creation_id,
                   f.update_id, 'home/more', f.id, currval('seq_originalfile'), 1000
            FROM fileset AS f WHERE f.id = %s
            """,
            (fileset.fileset_id,),
        )
    return str(facility.demo.path(fileset.keys[0]).parent.relative_to(facility.demo.data_dir) / name)


def test_add_takes_every_file_and_every_image_of_a_fileset(facility: Facility) -> None:
    (added,) = facility.add("plate")
    assert (added.is_new, added.files, added.did) == (True, 7, "added")
    record = facility.record("plate")
    with facility.site.catalogue.begin() as connection:
        images = bundles.images(connection, record.id)
        files = bundles.files(connection, record.id)
    assert {image.id for image in images} == set(facility.demo.fileset("plate").image_ids)
    assert {file.key for file in files} == set(facility.demo.fileset("plate").keys)
    assert set(facility.copy_states("plate").values()) == {CopyState.PENDING}
    assert (record.decision, record.residency) == (Decision.APPROVED, Residency.RESIDENT)


def test_adding_again_changes_nothing(facility: Facility) -> None:
    facility.archive("ics", "omero4")
    before = catalogue_rows(facility.site.catalogue.dsn)
    assert [(added.is_new, added.did) for added in facility.add("ics", "omero4")] == [
        (False, "was there; nothing to do")
    ] * 2
    assert catalogue_rows(facility.site.catalogue.dsn) == before


def test_filesets_that_share_a_file_are_one_bundle(facility: Facility) -> None:
    shared = file_ids(facility, "ics")[0]
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        by = stamp_of(conn, "ics", facility)
        other = tables.add_fileset(conn, by, "alice_2/other/", [shared])
        (ids,) = tables.add_images(conn, by, [tables.ImageRow(name="the same bytes again", fileset=other)])
    found = facility.found("ics")
    assert found.fileset_ids == (facility.demo.fileset("ics").fileset_id, other)
    facility.archive("ics")
    facility.release("ics")
    assert facility.reads_as_before("ics")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        flags = conn.execute("SELECT archived FROM image WHERE fileset = ANY(%s)", (list(found.fileset_ids),))
        assert {row[0] for row in flags} == {True}
    assert ids.image in {image.id for image in found.images}
    facility.evict("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_a_bundle_whose_file_another_bundle_has_is_refused(facility: Facility) -> None:
    facility.add("ics", "dicom")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        tables.add_fileset(
            conn,
            stamp_of(conn, "ics", facility),
            "x/",
            [file_ids(facility, "ics")[0], file_ids(facility, "dicom")[0]],
        )
    before = catalogue_rows(facility.site.catalogue.dsn)
    with pytest.raises(WrongState, match=f"{facility.name('ics')} shares files with {facility.name('dicom')}"):
        facility.add("ics")
    assert catalogue_rows(facility.site.catalogue.dsn) == before


def test_adding_again_picks_up_files_that_omero_gained(facility: Facility) -> None:
    facility.archive("ics")
    key = gain_a_file(facility, "ics", "notes.txt", b"added later")
    with pytest.raises(WrongState, match="other files in OMERO"):
        release_dry(facility.site, facility.name("ics"))
    assert facility.add("ics")[0].is_new
    assert facility.copy_states("ics")[key, "tape"] is CopyState.PENDING
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert facility.archived_path(key).read_bytes() == b"added later"
    # The old manifest stays as it is; the new one has all three files.
    directory = facility.demo.service_path / "manifests"
    lines = [len((directory / name / "manifest-sha256.txt").read_text().splitlines()) for name in os.listdir(directory)]
    assert sorted(lines) == [2, 3]
    facility.release("ics")
    assert facility.reads_as_before("ics")
    assert sha256_of(facility.demo.data_dir / key) == sha256_of(facility.archived_path(key))


def test_a_file_that_a_released_fileset_gained_is_not_called_archived(facility: Facility) -> None:
    facility.released("ics")
    gain_a_file(facility, "ics", "notes.txt")
    before = catalogue_rows(facility.site.catalogue.dsn)
    with pytest.raises(
        WrongState, match=r"is ONLINE, and OMERO has 1 files .*/notes.txt; .* Unarchive it, then add it"
    ):
        facility.add("ics")
    assert catalogue_rows(facility.site.catalogue.dsn) == before
    facility.unarchive("ics")
    facility.archive("ics")
    facility.release("ics")


@pytest.mark.parametrize("is_released", [True, False])
def test_a_number_that_omero_gave_to_another_file_is_refused_by_name(facility: Facility, is_released: bool) -> None:
    """OMERO was restored from a dump of before the import; what was imported since got the same numbers."""
    facility.archive("ics", "dicom")
    if is_released:
        facility.release("ics")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        # The fileset after the restore: as many files, in a directory of its own.
        conn.execute("UPDATE originalfile SET path = 'alice_2/after/' WHERE id = ANY(%s)", (file_ids(facility, "ics"),))
    new = facility.demo.path(facility.found("ics").files[0].key).parent
    shutil.copytree(facility.demo.path(facility.demo.fileset("ics").keys[0]).parent, new)
    before = catalogue_rows(facility.site.catalogue.dsn)
    with pytest.raises(WrongState, match=r"alice_2/after/.* has the number .* restored from an older dump.* safe"):
        add(facility.site, facility.found("ics"), Request(by="tester"), decision=Decision.APPROVED)
    # The same numbers in a fileset of another number.
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        other = tables.add_fileset(conn, stamp_of(conn, "ics", facility), "alice_2/after/", file_ids(facility, "ics"))
        conn.execute("DELETE FROM filesetentry WHERE fileset = %s", (facility.demo.fileset("ics").fileset_id,))
        tables.add_images(conn, stamp_of(conn, "ics", facility), [tables.ImageRow(name="new", fileset=other)])
    (found,) = closure(facility.site.omero, [ObjectRef(type=ObjectType.FILESET, id=other)])
    assert isinstance(found, Bundle)
    with pytest.raises(WrongState, match=rf"{found.name} was not added.* of {facility.name('ics')}"):
        add(facility.site, found, Request(by="tester"), decision=Decision.APPROVED)
    assert catalogue_rows(facility.site.catalogue.dsn) == before


def test_images_that_omero_gained_are_marked_too(facility: Facility) -> None:
    facility.archive("ics")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        row = tables.ImageRow(name="new", fileset=facility.demo.fileset("ics").fileset_id)
        (ids,) = tables.add_images(conn, stamp_of(conn, "ics", facility), [row])
    facility.release("ics")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        assert conn.execute("SELECT archived FROM image WHERE id = %s", (ids.image,)).fetchone() == (True,)
    facility.unarchive("ics")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        assert conn.execute("SELECT archived FROM image WHERE id = %s", (ids.image,)).fetchone() == (None,)


def test_images_that_omero_gained_while_a_release_was_interrupted_get_their_flags_back(facility: Facility) -> None:
    facility.archive("ics")
    set_on(facility.demo.omero_dsn, "default_transaction_read_only", "on")
    with pytest.raises(DatabaseUnavailable):
        facility.release("ics")
    assert facility.record("ics").intent == "release"
    set_on(facility.demo.omero_dsn, "default_transaction_read_only", "off")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        rows = [
            tables.ImageRow(name="new", fileset=facility.demo.fileset("ics").fileset_id, archived=flag)
            for flag in (None, False, True)
        ]
        added = [ids.image for ids in tables.add_images(conn, stamp_of(conn, "ics", facility), rows)]
    facility.release("ics")
    facility.unarchive("ics")
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        query = "SELECT archived FROM image WHERE id = ANY(%s) ORDER BY id"
        assert conn.execute(query, (added,)).fetchall() == [(None,), (False,), (True,)]


def test_images_that_omero_has_in_another_fileset_now_are_no_other_bundles(facility: Facility) -> None:
    facility.archive("ics")
    facility.archive("plate")
    (moved, *_), known = facility.demo.fileset("ics").image_ids, ["bundle", "file", "image"]
    before = rows_of(facility.site.catalogue.dsn, only=known)
    for slug in ("dicom", "plate"):
        with psycopg.connect(facility.demo.omero_dsn) as conn:
            values = (facility.demo.fileset(slug).fileset_id, moved)
            conn.execute("UPDATE image SET fileset = %s WHERE id = %s", values)
        with pytest.raises(WrongState, match=r"those of Fileset-\d+ when that was added.*a person must look"):
            facility.add(slug)
    with pytest.raises(WrongState, match="a person must look"):
        facility.release("plate")
    assert rows_of(facility.site.catalogue.dsn, only=known) == before


@pytest.mark.parametrize(
    ("slug", "reason"),
    [("in-place", "an in-place import, a link to"), ("hard-linked", r"has 2 names \(hard links\)")],
)
def test_what_cannot_be_freed_is_refused_with_its_reason(facility: Facility, slug: str, reason: str) -> None:
    with pytest.raises(OriginalUnfit, match=reason):
        facility.add(slug)
    assert catalogue_rows(facility.site.catalogue.dsn)["bundle"] == []


def test_every_obstacle_is_named(facility: Facility) -> None:
    first, second, third, *_ = facility.paths("dicom")
    first.unlink()
    second.write_bytes(b"cut off")
    third.unlink()
    third.mkdir()
    with pytest.raises(OriginalUnfit) as refused:
        add(facility.site, facility.found("dicom"), Request(by="tester"), decision=Decision.APPROVED)
    for reason in ("not on its disk", "has 7 bytes, OMERO imported", "is a directory, not a file"):
        assert reason in str(refused.value)


def test_a_directory_that_became_a_link_leads_nowhere(facility: Facility) -> None:
    home = facility.paths("ics")[0].parent
    outside = facility.demo.directory / "outside"
    shutil.move(home, outside)
    home.symlink_to(outside)
    with pytest.raises(OriginalUnfit) as refused:
        facility.add("ics")
    assert "symbolic link" in str(refused.value) or UnsafePath.__name__ in str(refused.value)


def test_a_request_copies_nothing_before_it_is_approved(facility: Facility) -> None:
    facility.add("ics", decision=Decision.REQUESTED)
    assert facility.work().done == 0
    assert facility.copies("ics") == []
    assert facility.add("ics")[0].did == "was REQUESTED, is APPROVED now"
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}


def test_asking_for_what_is_approved_already_changes_nothing(facility: Facility) -> None:
    facility.archive("ics")
    before = catalogue_rows(facility.site.catalogue.dsn)
    assert facility.add("ics", decision=Decision.REQUESTED)[0].did == "under archiving already"
    assert catalogue_rows(facility.site.catalogue.dsn) == before


def test_a_second_service_gets_its_copies_when_the_bundle_is_added_again(make_facility: MakeFacility) -> None:
    make_facility().archive("ics")
    facility = make_facility(copies_on=("tape", "disk2"))
    facility.add("ics")
    facility.work()
    assert len(facility.copy_states("ics")) == 4
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
