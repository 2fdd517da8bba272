"""Keys from rows, paths from keys: nothing leads out of the repository."""

from pathlib import Path

import pytest

from omero_archive.errors import UnsafePath
from omero_archive.model import Key
from omero_archive.omero.repository import Repository, managed_key, omero_path

REPOSITORY = Repository(data_dir=Path("/OMERO"), managed_dir=Path("/OMERO/ManagedRepository"))


@pytest.mark.parametrize(
    ("id_", "path"),
    [
        (1, "Pixels/1"),
        (999, "Pixels/999"),
        (1000, "Pixels/Dir-001/1000"),
        (123456, "Pixels/Dir-123/123456"),
        (999001, "Pixels/Dir-999/999001"),
        (1234567, "Pixels/Dir-001/Dir-234/1234567"),
        (1000000, "Pixels/Dir-001/Dir-000/1000000"),
    ],
)
def test_ids_are_filed_three_digits_a_directory(id_: int, path: str) -> None:
    assert omero_path("Pixels", id_) == path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("alice_2/../../etc/", "passwd"),
        ("../", "x.tif"),
        ("alice_2/./", "x.tif"),
        ("alice_2/", ".."),
        ("alice_2/", "."),
        ("alice_2/", ""),
        ("alice_2/", "a/b.tif"),
        ("/etc/", "passwd"),
        ("//", "x.tif"),
        ("alice_2/", "x\0.tif"),
        ("alice_2/a\0b/", "x.tif"),
        ("alice_2/", "x" * 256),
        ("alice_2/", "é" * 128),
    ],
)
def test_an_unsafe_path_is_refused(path: str, name: str) -> None:
    with pytest.raises(UnsafePath):
        managed_key(path, name, encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "name", "key"),
    [
        ("alice_2/2026-11/22/", "x.tif", "ManagedRepository/alice_2/2026-11/22/x.tif"),
        ("/", "x.tif", "ManagedRepository/x.tif"),
        ("alice_2//2026-11/", "x.tif", "ManagedRepository/alice_2/2026-11/x.tif"),
        ("alice_2/..a/", "...", "ManagedRepository/alice_2/..a/..."),
        ("alice_2/", "x" * 255, "ManagedRepository/alice_2/" + "x" * 255),
        ("alice_2/", "Zelle ü.tif", "ManagedRepository/alice_2/Zelle ü.tif"),
    ],
)
def test_a_safe_path_becomes_a_key(path: str, name: str, key: str) -> None:
    assert managed_key(path, name, encoding="utf-8") == key


def test_names_of_a_latin_1_site_become_the_bytes_on_its_disk() -> None:
    key = managed_key("alice_2/", "Zelle ü.tif", encoding="latin-1")
    assert key.encode("utf-8", "surrogateescape") == b"ManagedRepository/alice_2/Zelle \xfc.tif"


def test_a_name_that_the_encoding_lacks_is_refused() -> None:
    with pytest.raises(UnsafePath, match="latin-1"):
        managed_key("alice_2/", "細胞.tif", encoding="latin-1")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("ManagedRepository/a/x.tif", "/OMERO/ManagedRepository/a/x.tif"),
        ("Files/Dir-001/1234", "/OMERO/Files/Dir-001/1234"),
        ("Pixels/12", "/OMERO/Pixels/12"),
    ],
)
def test_key_and_path_are_one_to_one(key: str, path: str) -> None:
    assert REPOSITORY.path_of(Key(key)) == Path(path)
    assert REPOSITORY.key_of(Path(path)) == key
    assert REPOSITORY.key_of(Path(key)) == key


def test_a_managed_repository_elsewhere_has_the_same_keys() -> None:
    elsewhere = Repository(data_dir=Path("/OMERO"), managed_dir=Path("/data/images"))
    assert elsewhere.key_of(Path("/data/images/a/x.tif")) == "ManagedRepository/a/x.tif"
    assert elsewhere.key_of(Path("ManagedRepository/a/x.tif")) == "ManagedRepository/a/x.tif"
    assert elsewhere.root_of(Key("ManagedRepository/a/x.tif")) == (Path("/data/images"), "a/x.tif")


def test_a_repository_reached_through_a_link_has_the_same_keys(tmp_path: Path) -> None:
    (tmp_path / "real" / "ManagedRepository").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    repository = Repository(data_dir=tmp_path / "real", managed_dir=tmp_path / "real" / "ManagedRepository")
    assert repository.key_of(tmp_path / "link" / "ManagedRepository" / "x.tif") == "ManagedRepository/x.tif"


def test_our_own_link_is_not_followed_on_the_way_to_its_key(tmp_path: Path) -> None:
    managed = tmp_path / "ManagedRepository"
    managed.mkdir()
    (managed / "x.tif").symlink_to("/elsewhere/x.tif")
    assert Repository(data_dir=tmp_path, managed_dir=managed).key_of(managed / "x.tif") == "ManagedRepository/x.tif"


@pytest.mark.parametrize("path", ["/etc/passwd", "/OMERO", "/OMERO/Thumbnails/1", "/OMERO/Files/../../etc/passwd"])
def test_a_path_outside_has_no_key(path: str) -> None:
    with pytest.raises(UnsafePath):
        REPOSITORY.key_of(Path(path))


@pytest.mark.parametrize(
    "key", ["", "ManagedRepository", "ManagedRepository/", "Thumbnails/1", "Files/../x", "/etc/passwd", "Files//1"]
)
def test_a_key_outside_has_no_path(key: str) -> None:
    with pytest.raises(UnsafePath):
        REPOSITORY.root_of(Key(key))


def test_thumbnails_and_the_lock_file_are_where_omero_keeps_them() -> None:
    assert REPOSITORY.thumbnail(1234) == Path("/OMERO/Thumbnails/Dir-001/1234")
    assert REPOSITORY.lock_file("u") == Path("/OMERO/ManagedRepository/.omero/repository/u/.lock")
