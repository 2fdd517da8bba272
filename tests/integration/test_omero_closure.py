"""From objects to bundles and back, on a real PostgreSQL with OMERO's tables."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from omero_rows import Rows

from omero_archive.demo import omero_tables as t
from omero_archive.errors import DatabaseUnavailable, UnknownObject, UnsupportedOmero
from omero_archive.model import Bundle, FileKind, Key, ObjectRef, ObjectType
from omero_archive.omero.closure import RefusedBundle, bundles
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.seeds import images_of


@pytest.fixture
def rows(omero_dsn: str) -> Iterator[Rows]:
    with psycopg.connect(omero_dsn, autocommit=True) as conn:
        yield Rows.begin(conn)


@pytest.fixture
def database(omero_dsn: str) -> OmeroDatabase:
    return OmeroDatabase(omero_dsn)


def ref(type_: ObjectType, id_: int) -> ObjectRef:
    return ObjectRef(type=type_, id=id_)


def closure(database: OmeroDatabase, *things: ObjectRef | Key) -> list[Bundle]:
    found = list(bundles(database, things))
    assert all(isinstance(bundle, Bundle) for bundle in found), found
    return [bundle for bundle in found if isinstance(bundle, Bundle)]


def names(database: OmeroDatabase, *things: ObjectRef | Key) -> list[str]:
    return [bundle.name for bundle in closure(database, *things)]


def test_one_image_brings_all_files_and_all_images_of_its_fileset(rows: Rows, database: OmeroDatabase) -> None:
    fileset, images = rows.fileset("alice_2/2026-11/22/20-00-00.000/", ["b.tif", "a.tif"], images=3)
    (bundle,) = closure(database, ref(ObjectType.IMAGE, images[1]))
    assert bundle.name == f"Fileset-{fileset}"
    assert bundle.fileset_ids == (fileset,)
    assert bundle.home == "ManagedRepository/alice_2/2026-11/22/20-00-00.000"
    assert [file.key for file in bundle.files] == [f"{bundle.home}/b.tif", f"{bundle.home}/a.tif"]
    assert [image.id for image in bundle.images] == images
    assert (bundle.owner, bundle.group, bundle.size_bytes) == ("alice", "lab", 20)
    checksum = bundle.files[0].checksum
    assert checksum is not None
    assert (checksum.algorithm, checksum.value) == ("SHA1-160", "ab")
    assert all(image.is_fileset_image and image.archived is None for image in bundle.images)


def test_every_way_of_naming_the_same_fileset_gives_the_same_bundle(rows: Rows, database: OmeroDatabase) -> None:
    fileset, (image, _) = rows.fileset("a/1/", ["x.tif"], images=2)
    rows.fileset("a/2/", ["y.tif"])
    dataset, project = t.add_dataset(rows.conn, rows.by, "Day 4"), t.add_project(rows.conn, rows.by, "Kidney")
    t.link(rows.conn, rows.by, t.Link.DATASET_IMAGE, dataset, image)
    t.link(rows.conn, rows.by, t.Link.PROJECT_DATASET, project, dataset)
    plate, screen = t.add_plate(rows.conn, rows.by, "P"), t.add_screen(rows.conn, rows.by, "S")
    well = t.add_well(rows.conn, rows.by, plate, 0, 1)
    t.add_well_sample(rows.conn, rows.by, well, image)
    t.link(rows.conn, rows.by, t.Link.SCREEN_PLATE, screen, plate)
    (expected,) = closure(database, ref(ObjectType.FILESET, fileset))
    for type_, id_ in (
        (ObjectType.IMAGE, image),
        (ObjectType.DATASET, dataset),
        (ObjectType.PROJECT, project),
        (ObjectType.WELL, well),
        (ObjectType.PLATE, plate),
        (ObjectType.SCREEN, screen),
    ):
        assert closure(database, ref(type_, id_)) == [expected], type_
    assert closure(database, Key("ManagedRepository/a/1/x.tif")) == [expected]
    assert expected.containers == (
        f"Project:{project} Kidney",
        f"Dataset:{dataset} Day 4",
        f"Screen:{screen} S",
        f"Plate:{plate} P",
    )


def test_a_user_and_a_group_stand_for_their_images(rows: Rows, database: OmeroDatabase) -> None:
    rows.fileset("a/1/", ["x.tif"])
    rows.fileset("a/2/", ["x.tif"])
    assert names(database, ref(ObjectType.EXPERIMENTER, rows.by.owner)) == ["Fileset-1", "Fileset-2"]
    assert names(database, ref(ObjectType.GROUP, rows.by.group)) == ["Fileset-1", "Fileset-2"]
    assert names(database, ref(ObjectType.EXPERIMENTER, 0)) == []


def test_filesets_that_share_a_file_move_together_to_the_fixed_point(rows: Rows, database: OmeroDatabase) -> None:
    one, two, three = rows.files("a/", "1.tif", "2.tif", "3.tif")
    for position, files in enumerate(([one], [one, two], [two, three], [three])):
        rows.fileset_of(f"a/{position}/", files)
    rows.fileset("b/", ["alone.tif"])
    (bundle,) = closure(database, ref(ObjectType.FILESET, 1))
    assert bundle.name == "Fileset-1"
    assert bundle.fileset_ids == (1, 2, 3, 4)
    assert [file.omero_id for file in bundle.files] == [one, two, three]
    assert len(bundle.images) == 4
    assert bundle.home is None
    assert names(database, ref(ObjectType.FILESET, 4)) == ["Fileset-1"]


def test_two_entries_for_one_file_give_one_file(rows: Rows, database: OmeroDatabase) -> None:
    (file,) = rows.files("a/", "x.tif")
    rows.fileset_of("a/", [file, file])
    (bundle,) = closure(database, ref(ObjectType.FILESET, 1))
    assert [f.omero_id for f in bundle.files] == [file]


def test_an_omero_4_image_brings_its_pixels_file_and_its_uploads(rows: Rows, database: OmeroDatabase) -> None:
    uploads = [rows.upload("a.dv"), rows.upload("a.log")]
    rows.conn.execute("SELECT setval('seq_pixels', 123455)")
    image, pixels = rows.omero4(uploads, archived=True)
    (bundle,) = closure(database, ref(ObjectType.IMAGE, image))
    assert bundle.name == f"Image-{image}"
    assert pixels == 123456
    assert [(f.kind, f.key) for f in bundle.files] == [
        (FileKind.PIXELS, "Pixels/Dir-123/123456"),
        *((FileKind.ORIGINAL, f"Files/{upload}") for upload in uploads),
    ]
    assert bundle.files[0].size_bytes is None
    assert not bundle.images[0].is_fileset_image
    assert bundle.images[0].archived is True
    assert (bundle.home, bundle.fileset_ids) == (None, ())
    assert closure(database, Key("Pixels/Dir-123/123456")) == [bundle]
    assert closure(database, Key(f"Files/{uploads[1]}")) == [bundle]


def test_omero_4_images_that_share_an_upload_move_together(rows: Rows, database: OmeroDatabase) -> None:
    upload = rows.upload("two_series.lif")
    first, _ = rows.omero4([upload])
    second, _ = rows.omero4([upload])
    (bundle,) = closure(database, ref(ObjectType.IMAGE, second))
    assert bundle.name == f"Image-{first}"
    assert [image.id for image in bundle.images] == [first, second]
    assert len(bundle.files) == 3


def test_directories_and_import_logs_are_left_out_and_join_nothing(rows: Rows, database: OmeroDatabase) -> None:
    t.add_directories(rows.conn, rows.by, rows.repo, "a/1/")
    (directory,) = rows.conn.execute("SELECT id FROM originalfile WHERE path = 'a/' AND name = '1'").fetchone() or (0,)
    for name in ("x.tif", "y.tif"):
        fileset, _ = rows.fileset_of(f"a/1/{name}/", [directory, *rows.files("a/1/", name)])
        t.add_import_log(rows.conn, rows.by, rows.repo, fileset)
    found = closure(database, ref(ObjectType.GROUP, rows.by.group))
    assert [[file.key for file in bundle.files] for bundle in found] == [
        ["ManagedRepository/a/1/x.tif"],
        ["ManagedRepository/a/1/y.tif"],
    ]


def test_a_fileset_without_images_or_without_files_is_no_bundle(rows: Rows, database: OmeroDatabase) -> None:
    running, _ = rows.fileset("a/1/", ["half.tif"], images=0)
    empty, _ = rows.fileset("a/2/", [])
    dataset = t.add_dataset(rows.conn, rows.by, "empty")
    assert names(database, ref(ObjectType.FILESET, running)) == []
    assert names(database, ref(ObjectType.FILESET, empty)) == []
    assert names(database, ref(ObjectType.DATASET, dataset)) == []


@pytest.mark.parametrize(
    "thing",
    [*(ref(type_, 4711) for type_ in ObjectType), "ManagedRepository/no/such.tif", "Files/4711", "Pixels/007"],
)
def test_what_omero_does_not_know_is_named(database: OmeroDatabase, rows: Rows, thing: ObjectRef | Key) -> None:
    with pytest.raises(UnknownObject, match=r"4711|such\.tif|007"):
        list(bundles(database, [thing]))


@pytest.mark.parametrize(
    ("path", "name"), [("a/../../", "x.tif"), ("/etc/", "passwd"), ("a/", "x" * 300), ("a/", "b/c.tif")]
)
def test_a_bundle_with_an_unsafe_path_is_refused_and_the_others_go_on(
    rows: Rows, database: OmeroDatabase, path: str, name: str
) -> None:
    rows.fileset_of("a/1/", [*rows.files("a/1/", "good.tif"), *rows.files(path, name)])
    rows.fileset("a/2/", ["good.tif"])
    refused, good = bundles(database, [ref(ObjectType.GROUP, rows.by.group)])
    assert isinstance(refused, RefusedBundle)
    assert refused.name == "Fileset-1"
    assert isinstance(good, Bundle)
    assert good.name == "Fileset-2"


def test_a_file_of_another_repository_is_refused(rows: Rows, database: OmeroDatabase) -> None:
    row = t.FileRow(path="a/", name="script.py", repo="another-repository")
    rows.fileset_of("a/1/", [*rows.files("a/1/", "x.tif"), t.add_original_file(rows.conn, rows.by, row)])
    (refused,) = bundles(database, [ref(ObjectType.FILESET, 1)])
    assert isinstance(refused, RefusedBundle)
    assert "another-repository" in str(refused.reason)


def test_two_rows_for_one_path_on_disk_are_refused(rows: Rows, database: OmeroDatabase) -> None:
    rows.fileset_of("a/b/", [*rows.files("a/b/", "x.tif"), *rows.files("a//b/", "x.tif")])
    (refused,) = bundles(database, [ref(ObjectType.FILESET, 1)])
    assert isinstance(refused, RefusedBundle)


def test_names_are_the_bytes_that_a_latin_1_site_has_on_disk(rows: Rows, omero_dsn: str) -> None:
    rows.fileset("a/ü/", ["é.tif"])
    database = OmeroDatabase(omero_dsn, filename_encoding="latin-1")
    (bundle,) = closure(database, ref(ObjectType.FILESET, 1))
    key = bundle.files[0].key
    assert key.encode("utf-8", "surrogateescape") == b"ManagedRepository/a/\xfc/\xe9.tif"
    assert bundle.home == key.rpartition("/")[0]
    assert closure(database, key) == [bundle]


@pytest.mark.parametrize("other", ["a/b/", "a/b", "a//b/", "a/", "a/b/c/", "a/b/c/d/"])
def test_a_directory_that_is_shared_is_no_home(rows: Rows, database: OmeroDatabase, other: str) -> None:
    rows.fileset("a/b/", ["x.tif"])
    rows.fileset(other, ["y.tif"])
    assert closure(database, ref(ObjectType.FILESET, 1))[0].home is None


@pytest.mark.parametrize("other", ["a/bc/", "a/c/", "b/", "a/b.c/"])
def test_a_directory_beside_is_not_shared(rows: Rows, database: OmeroDatabase, other: str) -> None:
    rows.fileset("a/b/", ["x.tif"])
    rows.fileset(other, ["y.tif"])
    assert closure(database, ref(ObjectType.FILESET, 1))[0].home == "ManagedRepository/a/b"


def test_who_needs_no_homes_gets_the_same_bundles_without_them(rows: Rows, database: OmeroDatabase) -> None:
    rows.fileset("a/b/", ["x.tif"], images=2)
    (known,) = closure(database, ref(ObjectType.FILESET, 1))
    assert known.home is not None
    assert list(bundles(database, [ref(ObjectType.FILESET, 1)], homes=False)) == [replace(known, home=None)]


def test_a_directory_that_not_all_files_lie_in_is_no_home(rows: Rows, database: OmeroDatabase) -> None:
    rows.fileset_of("a/b/", [*rows.files("a/b/", "x.tif"), *rows.files("a/bc/", "y.tif")])
    rows.fileset_of("/", rows.files("/", "root.tif"))
    assert [bundle.home for bundle in closure(database, ref(ObjectType.GROUP, rows.by.group))] == [None, None]


def test_unknown_sizes_checksums_and_times_are_none(rows: Rows, database: OmeroDatabase) -> None:
    hashless = t.FileRow(path="a/", name="x.tif", repo=rows.repo, hasher="MD5-128", mimetype=None)
    _, (image,) = rows.fileset_of("a/", [t.add_original_file(rows.conn, rows.by, hashless)])
    rows.conn.execute("UPDATE image SET acquisitiondate = '-infinity' WHERE id = %s", (image,))
    (bundle,) = closure(database, ref(ObjectType.FILESET, 1))
    assert (bundle.files[0].size_bytes, bundle.files[0].checksum, bundle.acquired_at) == (None, None, None)


def test_times_and_thumbnails_are_those_of_the_rows(rows: Rows, database: OmeroDatabase) -> None:
    imported = datetime(2020, 5, 6, 7, 8, tzinfo=UTC)
    by = t.stamp(rows.conn, rows.by.owner, rows.by.group, at=imported)
    fileset = t.add_fileset(rows.conn, by, "a/", rows.files("a/", "x.tif"))
    dates = [datetime(2019, 1, 1, tzinfo=UTC), datetime(2019, 3, 1, tzinfo=UTC)]
    images = [t.ImageRow(name="i", fileset=fileset, acquired_at=date) for date in dates]
    first, _ = t.add_images(rows.conn, by, images)
    t.add_thumbnail(rows.conn, by, first.pixels)
    (bundle,) = closure(database, ref(ObjectType.FILESET, fileset))
    assert (bundle.imported_at, bundle.acquired_at) == (imported, dates[1])
    assert [image.has_thumbnail for image in bundle.images] == [True, False]


def test_a_large_plate_is_read_in_seconds(rows: Rows, database: OmeroDatabase) -> None:
    for start in range(0, 3000, 3):
        rows.fileset(f"a/{start}/", ["x.tif", "y.tif"])
    files = [file.key for bundle in closure(database, ref(ObjectType.GROUP, rows.by.group)) for file in bundle.files]
    assert len(files) == len(set(files)) == 2000


def test_a_file_leads_back_to_its_images(rows: Rows, database: OmeroDatabase) -> None:
    fileset, images = rows.fileset("a/", ["x.tif"], images=2)
    found = images_of(database, Key("ManagedRepository/a/x.tif"))
    assert [(image.id, image.name, image.owner, image.fileset) for image in found] == [
        (images[0], "image 0", "alice", fileset),
        (images[1], "image 1", "alice", fileset),
    ]
    image, pixels = rows.omero4([upload := rows.upload("a.dv")])
    assert [found.id for found in images_of(database, Key(f"Pixels/{pixels}"))] == [image]
    assert [found.id for found in images_of(database, Key(f"Files/{upload}"))] == [image]
    with pytest.raises(UnknownObject):
        images_of(database, Key("ManagedRepository/a/y.tif"))


@pytest.mark.parametrize("path", ["a//b/", "a/b", "a/b//"])
def test_a_file_leads_back_to_its_images_however_its_slashes_are_written(
    rows: Rows, database: OmeroDatabase, path: str
) -> None:
    fileset, (image,) = rows.fileset_of("a/b/", rows.files(path, "x.tif"))
    rows.fileset("a/b/c/", ["x.tif"])
    (bundle,) = closure(database, ref(ObjectType.FILESET, fileset))
    assert [file.key for file in bundle.files] == ["ManagedRepository/a/b/x.tif"]
    assert [one.id for one in images_of(database, bundle.files[0].key)] == [image]
    assert closure(database, bundle.files[0].key) == [bundle]


def test_only_omero_5_4_is_taken(rows: Rows, database: OmeroDatabase, empty_dsn: str) -> None:
    database.check_version()
    with pytest.raises(UnsupportedOmero, match="dbpatch"):
        OmeroDatabase(empty_dsn).check_version()
    rows.conn.execute("UPDATE dbpatch SET currentversion = 'OMERO5.3'")
    with pytest.raises(UnsupportedOmero, match=r"OMERO5\.3"):
        database.check_version()


def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path: object) -> None:
    with pytest.raises(DatabaseUnavailable):
        OmeroDatabase(f"host={tmp_path} dbname=omero").check_version()


def test_the_connection_for_looking_cannot_write(rows: Rows, database: OmeroDatabase) -> None:
    with database.connect_read_only() as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        conn.execute("UPDATE image SET archived = true")
    with database.connect_read_only() as conn:
        assert conn.execute("SHOW application_name").fetchone() == ("omero-archive",)


def test_the_repository_and_the_uuid_are_those_of_the_rows(rows: Rows, database: OmeroDatabase) -> None:
    assert (database.repository().uuid, database.repository().root) == (rows.repo, "/OMERO/ManagedRepository")
    assert database.uuid() == t.database_uuid(rows.conn)
