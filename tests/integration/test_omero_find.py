"""What could be archived: the filters, the sums and the order."""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from omero_rows import Rows

from omero_archive.demo import omero_tables as t
from omero_archive.errors import UnknownObject
from omero_archive.model import ObjectRef, ObjectType
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.find import Candidate, Filter, candidates


@pytest.fixture
def rows(omero_dsn: str) -> Iterator[Rows]:
    """Fileset 1: 2 images, 30 bytes; fileset 2: 1 image, 500 bytes; an OMERO 4 image of 512 x 512 x 1 + 5 bytes."""
    with psycopg.connect(omero_dsn, autocommit=True) as conn:
        rows = Rows.begin(conn)
        rows.fileset_of("a/1/", rows.files("a/1/", "x.tif", "y.tif", "z.tif"), images=2)
        rows.fileset_of("a/2/", rows.files("a/2/", "x.tif", size=500))
        rows.omero4([rows.upload("a.dv")])
        yield rows


@pytest.fixture
def database(omero_dsn: str) -> OmeroDatabase:
    return OmeroDatabase(omero_dsn)


def names(database: OmeroDatabase, wanted: Filter) -> list[str]:
    return [candidate.name for candidate in candidates(database, wanted)]


def test_without_a_filter_all_come_largest_first_with_their_sums(rows: Rows, database: OmeroDatabase) -> None:
    found = list(candidates(database, Filter()))
    assert [(c.name, c.size_bytes, c.file_count, c.image_count, c.missing_thumbnails) for c in found] == [
        ("Image-4", 512 * 512 + 5, 2, 1, 1),
        ("Fileset-2", 500, 1, 1, 1),
        ("Fileset-1", 30, 3, 2, 2),
    ]
    assert {(c.owner, c.group) for c in found} == {("alice", "lab")}
    assert [(c.fileset, c.image) for c in found] == [(None, 4), (2, None), (1, None)]
    assert all(c.imported_at is not None and c.imported_at.tzinfo is not None for c in found)


def test_import_logs_are_not_counted(rows: Rows, database: OmeroDatabase) -> None:
    before: list[Candidate] = list(candidates(database, Filter()))
    log = t.add_import_log(rows.conn, rows.by, rows.repo, 2, size=10_000)
    rows.conn.execute(
        """INSERT INTO filesetentry SELECT ome_nextval('seq_filesetentry'), '', permissions, 0, creation_id, NULL,
           group_id, owner_id, update_id, fileset, %s, 99 FROM filesetentry WHERE fileset = 2""",
        (log,),
    )
    assert list(candidates(database, Filter())) == before


def test_numbers_that_nobody_has_do_not_end_the_list(rows: Rows, database: OmeroDatabase) -> None:
    rows.conn.execute("UPDATE pixels SET sizex = 2147483647, sizey = 2147483647, sizez = 2147483647 WHERE image = 4")
    rows.conn.execute("UPDATE originalfile SET size = 9223372036854775807 WHERE path = 'a/1/'")
    found = {candidate.name: candidate.size_bytes for candidate in candidates(database, Filter())}
    assert found == {"Image-4": 2**63 - 1, "Fileset-1": 2**63 - 1, "Fileset-2": 500}
    assert names(database, Filter(larger_than=500)) == ["Fileset-1", "Image-4"]


def test_top_is_the_largest(rows: Rows, database: OmeroDatabase) -> None:
    assert names(database, Filter(top=2)) == ["Image-4", "Fileset-2"]


def test_larger_than_is_exclusive(rows: Rows, database: OmeroDatabase) -> None:
    assert names(database, Filter(larger_than=30)) == ["Image-4", "Fileset-2"]
    assert names(database, Filter(larger_than=29)) == ["Image-4", "Fileset-2", "Fileset-1"]


def test_import_and_acquisition_dates_select(rows: Rows, database: OmeroDatabase) -> None:
    old = t.stamp(rows.conn, rows.by.owner, rows.by.group, at=datetime(2020, 1, 1, tzinfo=UTC))
    rows.conn.execute("UPDATE fileset SET creation_id = %s WHERE id = 1", (old.event,))
    rows.conn.execute("UPDATE image SET acquisitiondate = '2019-05-01' WHERE id = 3")
    assert names(database, Filter(imported_before=datetime(2020, 1, 2, tzinfo=UTC))) == ["Fileset-1"]
    assert names(database, Filter(imported_before=datetime(2020, 1, 1, tzinfo=UTC))) == []
    assert names(database, Filter(acquired_before=datetime(2019, 5, 2, tzinfo=UTC))) == ["Fileset-2"]


def test_the_latest_acquisition_of_a_fileset_decides(rows: Rows, database: OmeroDatabase) -> None:
    rows.conn.execute("UPDATE image SET acquisitiondate = '2019-05-01' WHERE id = 1")
    rows.conn.execute("UPDATE image SET acquisitiondate = '2021-05-01' WHERE id = 2")
    assert names(database, Filter(acquired_before=datetime(2020, 1, 1, tzinfo=UTC))) == []


def test_owner_and_group_select_and_must_exist(rows: Rows, database: OmeroDatabase) -> None:
    bob = t.add_user(rows.conn, "bob", groups=[rows.by.group])
    rows.conn.execute("UPDATE fileset SET owner_id = %s WHERE id = 2", (bob,))
    rows.conn.execute("UPDATE image SET group_id = %s WHERE id = 4", (t.add_group(rows.conn, "other"),))
    assert names(database, Filter(owner="bob")) == ["Fileset-2"]
    assert names(database, Filter(group="other")) == ["Image-4"]
    for wrong in (Filter(owner="bobby"), Filter(group="labs"), Filter(under=ObjectRef(type=ObjectType.PLATE, id=9))):
        with pytest.raises(UnknownObject):
            names(database, wrong)


def test_under_a_container_selects_with_the_whole_fileset(rows: Rows, database: OmeroDatabase) -> None:
    dataset, project = t.add_dataset(rows.conn, rows.by, "d"), t.add_project(rows.conn, rows.by, "p")
    t.link(rows.conn, rows.by, t.Link.DATASET_IMAGE, dataset, 1)
    t.link(rows.conn, rows.by, t.Link.DATASET_IMAGE, dataset, 4)
    t.link(rows.conn, rows.by, t.Link.PROJECT_DATASET, project, dataset)
    plate, screen = t.add_plate(rows.conn, rows.by, "p"), t.add_screen(rows.conn, rows.by, "s")
    t.add_well_sample(rows.conn, rows.by, t.add_well(rows.conn, rows.by, plate, 0, 0), 3)
    t.link(rows.conn, rows.by, t.Link.SCREEN_PLATE, screen, plate)
    for type_, id_ in ((ObjectType.DATASET, dataset), (ObjectType.PROJECT, project)):
        found = list(candidates(database, Filter(under=ObjectRef(type=type_, id=id_))))
        assert [(c.name, c.image_count) for c in found] == [("Image-4", 1), ("Fileset-1", 2)]
    for type_, id_ in ((ObjectType.PLATE, plate), (ObjectType.SCREEN, screen)):
        assert names(database, Filter(under=ObjectRef(type=type_, id=id_))) == ["Fileset-2"]


def test_a_tag_on_image_fileset_or_dataset_selects(rows: Rows, database: OmeroDatabase) -> None:
    dataset = t.add_dataset(rows.conn, rows.by, "d")
    t.link(rows.conn, rows.by, t.Link.DATASET_IMAGE, dataset, 4)
    t.add_tag(rows.conn, rows.by, "image tag", images=[2])
    t.add_tag(rows.conn, rows.by, "fileset tag", filesets=[2])
    t.add_tag(rows.conn, rows.by, "dataset tag", datasets=[dataset])
    comment = t.AnnotationRow(discriminator="/basic/text/comment/", text="image tag")
    t.annotate(rows.conn, rows.by, "image", 3, t.add_annotation(rows.conn, rows.by, comment))
    assert names(database, Filter(tag="image tag")) == ["Fileset-1"]
    assert names(database, Filter(tag="fileset tag")) == ["Fileset-2"]
    assert names(database, Filter(tag="dataset tag")) == ["Image-4"]
    assert names(database, Filter(tag="image")) == []
    assert names(database, Filter(tag="image tag", larger_than=100)) == []


def test_a_thumbnail_is_missing_where_no_pixels_have_one(rows: Rows, database: OmeroDatabase) -> None:
    t.add_thumbnail(rows.conn, rows.by, 1)
    t.add_thumbnail(rows.conn, rows.by, 4)
    found = {c.name: c.missing_thumbnails for c in candidates(database, Filter())}
    assert found == {"Fileset-1": 1, "Fileset-2": 1, "Image-4": 0}
