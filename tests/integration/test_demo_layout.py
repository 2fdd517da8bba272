"""The demo's OMERO is what it says: its rows describe its files, and the unfit files are unfit in one way each."""

import os
import tomllib
from pathlib import Path

import psycopg
import pytest

from demo_fixtures import SMALL_MIB
from omero_archive.demo.filesets import Expected
from omero_archive.demo.services import DirectoryDemo
from omero_archive.demo.site import DemoFileset, DemoSite, PostgresServer, build_site, settings_toml
from omero_archive.digests import omero_checksum

_FILES = """
    SELECT o.path || o.name, o.size, a.value, o.hash FROM filesetentry AS e
    JOIN originalfile AS o ON o.id = e.originalfile JOIN checksumalgorithm AS a ON a.id = o.hasher
    WHERE e.fileset = %s ORDER BY e.fileset_index
"""


def test_every_fileset_has_its_files_in_order_with_their_sizes(demo_template: DemoSite) -> None:
    for fileset in _filesets(demo_template):
        rows = _files(demo_template, fileset)
        assert [f"ManagedRepository/{path}" for path, *_ in rows] == list(fileset.keys)
        assert [size for _, size, *_ in rows] == [path.stat().st_size for path in demo_template.paths(fileset)]


def test_only_the_rotted_file_does_not_match_omeros_checksum(demo_template: DemoSite) -> None:
    algorithms = set()
    for fileset in _filesets(demo_template):
        for path, _, algorithm, recorded in _files(demo_template, fileset):
            content = (demo_template.data_dir / "ManagedRepository" / path).read_bytes()
            matches = omero_checksum(algorithm, content) == recorded
            assert matches == (fileset.expected is not Expected.ROTTED), path
            algorithms.add(algorithm)
    assert len(algorithms) == 7


def test_the_omero4_image_has_its_pixels_file_and_its_upload(demo_template: DemoSite) -> None:
    fileset = demo_template.fileset("omero4")
    with psycopg.connect(demo_template.omero_dsn) as conn:
        row = conn.execute(
            """SELECT p.id, p.sha1, o.id, o.hash, o.repo, i.fileset FROM image AS i JOIN pixels AS p ON p.image = i.id
            JOIN pixelsoriginalfilemap AS m ON m.child = p.id JOIN originalfile AS o ON o.id = m.parent
            WHERE i.id = %s""",
            fileset.image_ids,
        ).fetchone()
    assert row is not None
    pixels, upload = demo_template.paths(fileset)
    assert fileset.keys == (f"Pixels/Dir-001/{row[0]}", f"Files/Dir-001/{row[2]}")
    assert omero_checksum("SHA1-160", pixels.read_bytes()) == row[1]
    assert omero_checksum("SHA1-160", upload.read_bytes()) == row[3]
    assert row[4:] == (None, None)


def test_each_unfit_file_is_unfit_in_one_way_only(demo_template: DemoSite) -> None:
    for fileset in demo_template.filesets:
        for path in demo_template.paths(fileset):
            assert path.is_symlink() == (fileset.expected is Expected.IN_PLACE)
            assert (path.stat().st_nlink > 1) == (fileset.expected is Expected.HARD_LINKED)


def test_every_image_has_a_thumbnail_at_the_place_its_id_names(demo_template: DemoSite) -> None:
    images = {image for fileset in demo_template.filesets for image in fileset.image_ids}
    with psycopg.connect(demo_template.omero_dsn) as conn:
        rows = conn.execute("SELECT p.image, t.id FROM thumbnail AS t JOIN pixels AS p ON p.id = t.pixels").fetchall()
    assert {image for image, _ in rows} == images
    for _, thumbnail in rows:
        path = demo_template.data_dir / f"Thumbnails/Dir-{thumbnail // 1000:03}/{thumbnail}"
        assert path.read_bytes().startswith(b"\x89PNG")


def test_every_file_has_an_old_modification_time_of_its_own(demo_template: DemoSite) -> None:
    paths = [path for fileset in demo_template.filesets for path in demo_template.paths(fileset)]
    times = [path.stat().st_mtime_ns for path in paths]
    assert len(set(times)) == len(times)
    assert all(time % 1000 != 0 for time in times), "nanoseconds, which a coarse copy would lose"
    assert all(path.stat().st_mode & 0o777 == 0o640 for path in paths)


def test_building_again_gives_the_same_bytes(demo_template: DemoSite, postgres: PostgresServer, tmp_path: Path) -> None:
    again = build_site(tmp_path, postgres=postgres, large_mib=SMALL_MIB, omero_database="built_again")
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        conn.execute("DROP DATABASE built_again")
    assert [fileset.keys for fileset in again.filesets] == [fileset.keys for fileset in demo_template.filesets]
    for fileset in again.filesets:
        for mine, theirs in zip(again.paths(fileset), demo_template.paths(fileset), strict=True):
            assert mine.read_bytes() == theirs.read_bytes()


def test_a_copied_site_is_independent_of_its_template(demo_template: DemoSite, demo_site: DemoSite) -> None:
    link = demo_site.path(demo_site.fileset("in-place").entry)
    assert link.readlink().is_relative_to(demo_site.directory)
    hard_linked = demo_site.path(demo_site.fileset("hard-linked").entry)
    assert os.path.samefile(hard_linked, demo_site.directory / "instrument" / hard_linked.name)
    with psycopg.connect(demo_site.omero_dsn) as conn:
        root = conn.execute("SELECT path || name FROM originalfile WHERE mimetype = 'Repository'").fetchone()
        conn.execute("UPDATE image SET archived = true")
    assert root == (str(demo_site.data_dir / "ManagedRepository"),)
    for fileset in demo_site.filesets:
        for mine, theirs in zip(demo_site.paths(fileset), demo_template.paths(fileset), strict=True):
            assert mine.stat().st_mtime_ns == theirs.stat().st_mtime_ns
            assert not mine.samefile(theirs)
    with psycopg.connect(demo_template.omero_dsn) as conn:
        marked = conn.execute("SELECT count(*) FROM image WHERE archived AND fileset IS NOT NULL").fetchone()
    assert marked == (0,)


def test_the_settings_of_a_site_are_toml_that_names_its_places(demo_site: DemoSite) -> None:
    table = DirectoryDemo(demo_site.service_path).settings()
    settings = tomllib.loads(settings_toml(demo_site, service=table))
    assert settings["omero"]["data_dir"] == str(demo_site.data_dir)
    assert settings["services"]["tape"] == table
    assert table["path"] == str(demo_site.service_path)


def test_an_unknown_slug_is_a_key_error(demo_template: DemoSite) -> None:
    with pytest.raises(KeyError):
        demo_template.fileset("no such")


def _filesets(site: DemoSite) -> list[DemoFileset]:
    return [fileset for fileset in site.filesets if fileset.fileset_id is not None]


def _files(site: DemoSite, fileset: DemoFileset) -> list[tuple[str, int, str, str]]:
    with psycopg.connect(site.omero_dsn) as conn:
        return conn.execute(_FILES, (fileset.fileset_id,)).fetchall()
