"""The marks in OMERO's database: one transaction, twice is once, and taken back without a trace."""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from omero_rows import Rows

from omero_archive.demo import omero_tables as t
from omero_archive.errors import Busy, UnknownObject
from omero_archive.model import Bundle, ObjectRef, ObjectType, ServiceName
from omero_archive.omero import marks
from omero_archive.omero.closure import bundles
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.marks import NAMESPACE, MarkFacts, mark, read_flags, unmark

FACTS = MarkFacts(
    services=(ServiceName("tape"), ServiceName("glacier")),
    date=datetime(2026, 11, 22, 20, 0, tzinfo=UTC),
    location="/OMERO/Archive/ManagedRepository/a/1",
    size_bytes=1234,
)
COUNTED = ("event", "annotation", "annotation_mapvalue", "filesetannotationlink", "imageannotationlink")


@pytest.fixture
def rows(omero_dsn: str) -> Iterator[Rows]:
    with psycopg.connect(omero_dsn, autocommit=True) as conn:
        yield Rows.begin(conn)


@pytest.fixture
def database(omero_dsn: str) -> OmeroDatabase:
    return OmeroDatabase(omero_dsn)


def bundle_of(database: OmeroDatabase, type_: ObjectType, id_: int) -> Bundle:
    (bundle,) = bundles(database, [ObjectRef(type=type_, id=id_)])
    assert isinstance(bundle, Bundle)
    return bundle


def flags(rows: Rows) -> list[bool | None]:
    return [row[0] for row in rows.conn.execute("SELECT archived FROM image ORDER BY id").fetchall()]


def counts(rows: Rows) -> dict[str, int]:
    return {table: len(rows.conn.execute(f"SELECT FROM {table}".encode()).fetchall()) for table in COUNTED}


def image_ids(bundle: Bundle) -> list[int]:
    return [image.id for image in bundle.images]


def test_a_mark_is_an_event_the_flags_and_one_annotation_on_all(rows: Rows, database: OmeroDatabase) -> None:
    fileset, images = rows.fileset("a/1/", ["x.tif"], images=3)
    rows.fileset("a/2/", ["y.tif"])
    record = mark(database, bundle_of(database, ObjectType.FILESET, fileset), FACTS)

    assert flags(rows) == [True, True, True, None]
    event = rows.conn.execute(
        """SELECT e.permissions, e.status, e.experimenter, e.experimentergroup, e.session, y.value
           FROM event e JOIN eventtype y ON y.id = e.type WHERE e.id = %s""",
        (record.event_id,),
    ).fetchone()
    assert event == (-52, "omero-archive", 0, 0, 0, "Internal")
    assert rows.conn.execute("SELECT id, update_id, version FROM image WHERE archived ORDER BY id").fetchall() == [
        (image, record.event_id, 1) for image in images
    ]
    annotation = rows.conn.execute(
        """SELECT discriminator, ns, owner_id, group_id, permissions, creation_id, version
           FROM annotation WHERE id = %s""",
        (record.annotation_id,),
    ).fetchone()
    by = rows.by
    assert annotation == ("/map/", NAMESPACE, by.owner, by.group, by.permissions, record.event_id, 0)
    pairs = rows.conn.execute('SELECT name, value FROM annotation_mapvalue ORDER BY "index"').fetchall()
    assert pairs == [
        ("Service", "tape, glacier"),
        ("Date", "2026-11-22T20:00:00+00:00"),
        ("Bundle", f"Fileset-{fileset}"),
        ("Location", "/OMERO/Archive/ManagedRepository/a/1"),
        ("Size", "1234 bytes"),
    ]
    assert rows.conn.execute("SELECT parent, child FROM filesetannotationlink").fetchall() == [
        (fileset, record.annotation_id)
    ]
    assert [row[0] for row in rows.conn.execute("SELECT parent FROM imageannotationlink ORDER BY id")] == images


def test_the_triggers_write_under_our_event_and_make_none_of_their_own(rows: Rows, database: OmeroDatabase) -> None:
    rows.fileset("a/1/", ["x.tif"], images=2)
    before = counts(rows)["event"]
    record = mark(database, bundle_of(database, ObjectType.FILESET, 1), FACTS)
    assert counts(rows)["event"] == before + 1
    reindexed = rows.conn.execute("SELECT DISTINCT event_id, entity_type FROM _reindexing_required ORDER BY 2")
    assert reindexed.fetchall() == [
        (record.event_id, "ome.model.core.Image"),
        (record.event_id, "ome.model.fs.Fileset"),
    ]
    assert rows.conn.execute("SELECT name FROM namespace").fetchall() == [(NAMESPACE,)]


def test_marking_twice_is_marking_once(rows: Rows, database: OmeroDatabase) -> None:
    rows.fileset("a/1/", ["x.tif"], images=2)
    bundle = bundle_of(database, ObjectType.FILESET, 1)
    first = mark(database, bundle, FACTS)
    before = counts(rows)
    assert mark(database, bundle, FACTS) == first
    assert counts(rows) == before
    assert rows.conn.execute("SELECT max(version) FROM image").fetchone() == (1,)


def test_marking_again_adds_what_is_missing(rows: Rows, database: OmeroDatabase) -> None:
    fileset, images = rows.fileset("a/1/", ["x.tif"], images=2)
    first = mark(database, bundle_of(database, ObjectType.FILESET, fileset), FACTS)
    rows.conn.execute("UPDATE image SET archived = false WHERE id = %s", (images[0],))
    t.add_image(rows.conn, rows.by, t.ImageRow(name="new", fileset=fileset, series=2))
    assert mark(database, bundle_of(database, ObjectType.FILESET, fileset), FACTS) == first
    assert flags(rows) == [True, True, True]
    assert counts(rows)["imageannotationlink"] == 3


def test_unmark_puts_back_null_true_and_false(rows: Rows, database: OmeroDatabase) -> None:
    fileset, images = rows.fileset("a/1/", ["x.tif"], images=3)
    for image, flag in zip(images, (None, True, False), strict=True):
        rows.conn.execute("UPDATE image SET archived = %s WHERE id = %s", (flag, image))
    bundle = bundle_of(database, ObjectType.FILESET, fileset)
    before = counts(rows)
    previous = read_flags(database, bundle)
    assert previous == dict(zip(images, (None, True, False), strict=True))
    mark(database, bundle, FACTS)
    assert flags(rows) == [True, True, True]
    for _ in range(2):  # twice is once
        unmark(database, bundle.name, image_ids(bundle), previous=previous)
        assert flags(rows) == [None, True, False]
        assert counts(rows) == before | {"event": before["event"] + 2}


def test_an_omero_4_image_is_annotated_and_keeps_its_flag(rows: Rows, database: OmeroDatabase) -> None:
    image, _ = rows.omero4([rows.upload("a.dv")], archived=False)
    bundle = bundle_of(database, ObjectType.IMAGE, image)
    assert read_flags(database, bundle) == {}
    mark(database, bundle, FACTS)
    assert flags(rows) == [False]
    assert counts(rows)["imageannotationlink"] == 1
    assert counts(rows)["filesetannotationlink"] == 0
    unmark(database, bundle.name, image_ids(bundle), previous={image: True})
    assert flags(rows) == [False]
    assert counts(rows)["annotation"] == 0


def test_unmark_takes_only_our_annotation_of_this_bundle(rows: Rows, database: OmeroDatabase) -> None:
    fileset, images = rows.fileset("a/1/", ["x.tif"])
    other, _ = rows.fileset("a/2/", ["y.tif"])
    for id_ in (fileset, other):
        mark(database, bundle_of(database, ObjectType.FILESET, id_), FACTS)
    foreign = t.AnnotationRow(discriminator="/map/", ns="somebody", values=(("Bundle", f"Fileset-{fileset}"),))
    tag = t.add_tag(rows.conn, rows.by, "keep", images=images)
    kept = t.add_annotation(rows.conn, rows.by, foreign)
    t.annotate(rows.conn, rows.by, "image", images[0], kept)
    unmark(database, bundle_of(database, ObjectType.FILESET, fileset).name, images, previous={images[0]: None})
    left = [row[0] for row in rows.conn.execute("SELECT child FROM imageannotationlink ORDER BY child").fetchall()]
    assert {tag, kept} <= set(left)
    assert rows.conn.execute("SELECT value FROM annotation_mapvalue WHERE name = 'Bundle' ORDER BY 1").fetchall() == [
        (f"Fileset-{fileset}",),
        (f"Fileset-{other}",),
    ]
    assert flags(rows) == [None, True]


def test_links_that_users_made_or_took_away_do_not_keep_the_annotation(rows: Rows, database: OmeroDatabase) -> None:
    _, images = rows.fileset("a/1/", ["x.tif"])
    bundle = bundle_of(database, ObjectType.FILESET, 1)
    record = mark(database, bundle, FACTS)
    dataset = t.add_dataset(rows.conn, rows.by, "d")
    t.annotate(rows.conn, rows.by, "dataset", dataset, record.annotation_id)
    rows.conn.execute("DELETE FROM imageannotationlink")
    rows.conn.execute("DELETE FROM filesetannotationlink")
    unmark(database, bundle.name, images, previous={images[0]: None})
    assert rows.conn.execute("SELECT FROM datasetannotationlink").fetchall() == []
    assert counts(rows)["annotation"] == 0


def test_each_link_belongs_to_whom_its_image_belongs_to(rows: Rows, database: OmeroDatabase) -> None:
    _, images = rows.fileset("a/1/", ["x.tif"], images=2)
    bob = t.add_user(rows.conn, "bob", groups=[rows.by.group])
    rows.conn.execute("UPDATE image SET owner_id = %s, permissions = -8 WHERE id = %s", (bob, images[1]))
    mark(database, bundle_of(database, ObjectType.FILESET, 1), FACTS)
    links = rows.conn.execute("SELECT owner_id, permissions FROM imageannotationlink ORDER BY parent").fetchall()
    assert links == [(rows.by.owner, rows.by.permissions), (bob, -8)]


def test_a_bundle_that_omero_deleted_is_not_marked_and_leaves_no_event(rows: Rows, database: OmeroDatabase) -> None:
    image, _ = rows.omero4()
    bundle = bundle_of(database, ObjectType.IMAGE, image)
    rows.conn.execute("DELETE FROM pixels")
    rows.conn.execute("DELETE FROM image")
    before = counts(rows)
    with pytest.raises(UnknownObject, match=bundle.name):
        mark(database, bundle, FACTS)
    assert counts(rows) == before
    unmark(database, bundle.name, image_ids(bundle), previous={image: None})
    assert counts(rows) == before


def test_a_running_omero_does_not_stop_the_mark_by_its_triggers(rows: Rows, database: OmeroDatabase) -> None:
    rows.fileset("a/1/", ["x.tif"])
    t.add_node(rows.conn)
    mark(database, bundle_of(database, ObjectType.FILESET, 1), FACTS)
    with pytest.raises(psycopg.errors.RaiseException):  # the trigger is there: a repository's rows are protected
        rows.files("a/1/", "z.tif")


def test_rows_that_somebody_else_keeps_locked_are_not_waited_for_for_ever(
    rows: Rows, database: OmeroDatabase, omero_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fileset, images = rows.fileset("a/1/", ["x.tif"], images=2)
    bundle, before = bundle_of(database, ObjectType.FILESET, fileset), counts(rows)
    monkeypatch.setattr(marks, "LOCK_WAIT_S", 0.3)
    with psycopg.connect(omero_dsn) as somebody:
        somebody.execute("SELECT FROM image WHERE id = %s FOR UPDATE", (images[1],))
        with pytest.raises(Busy, match="another session has kept its rows"):
            mark(database, bundle, FACTS)
        assert (flags(rows), counts(rows)) == ([None, None], before)
    mark(database, bundle, FACTS)
    with psycopg.connect(omero_dsn) as somebody:
        somebody.execute("LOCK TABLE annotation IN SHARE MODE")
        with pytest.raises(Busy, match="no mark was changed"):
            unmark(database, bundle.name, images, previous=dict.fromkeys(images))
        assert flags(rows) == [True, True]
    unmark(database, bundle.name, images, previous=dict.fromkeys(images))
    assert flags(rows) == [None, None]
