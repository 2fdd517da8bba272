"""A manifest is believed as a whole or not at all, whoever wrote it."""

import copy
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from omero_archive.errors import FixityMismatch, ObjectMissing
from omero_archive.model import BundleName, ServiceName
from omero_archive.service import Service, load_service
from omero_archive.steps.manifest import manifest_line
from omero_archive.steps.manifest_reading import directory_of, list_manifests, read_manifest

NAME = BundleName("Fileset-12")
HOME = "ManagedRepository/alice_2/2022-05/17"
ODD = f"{HOME}/k \\ \n \udcfc.tif"


def file_of(key: str, number: int) -> dict[str, Any]:
    return {
        "key": key,
        "kind": "original",
        "omero_id": number,
        "omero_checksum": {"algorithm": "SHA1-160", "value": "00" * 20},
        "size_bytes": 3,
        "sha256": hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest(),
        "xxh3_128": "0f" * 16,
        "mtime_ns": -1,
        "mode": 0o640,
        "uid": 0,
        "gid": 0,
    }


def good() -> dict[str, Any]:
    return {
        "format": "omero-archive bundle 1",
        "bundle": NAME,
        "home": HOME,
        "filesets": [12],
        "owner": "alice",
        "group": "lab",
        "containers": ["Project:1 Kidney", "Dataset:3 Day 4"],
        "imported": "2022-05-17T09:12:44.118000+00:00",
        "images": [{"id": 7, "name": "Übersicht", "is_fileset_image": True, "archived": None}],
        "files": [file_of(f"{HOME}/a b.tif", 100), file_of(ODD, 101)],
    }


def lines_of(says: dict[str, Any]) -> bytes:
    return b"".join(manifest_line(one["key"], one["sha256"]) for one in says["files"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "manifests").mkdir()
    return tmp_path


@pytest.fixture
def service(directory: Path) -> Service:
    settings = {"path": str(directory)}
    made = load_service(ServiceName("tape"), "directory", settings, clock=lambda: datetime.now(UTC))
    made.initialise()
    return made


def lay(directory: Path, says: dict[str, Any] | bytes, *, lines: bytes | None = None, name: str = NAME) -> None:
    place = directory / "manifests" / name
    place.mkdir()
    raw = says if isinstance(says, bytes) else json.dumps(says).encode()
    (place / "omero.json").write_bytes(raw)
    told = lines if lines is not None or isinstance(says, bytes) else lines_of(says)
    (place / "manifest-sha256.txt").write_bytes(told or b"")


def test_what_was_written_is_read(directory: Path, service: Service) -> None:
    lay(directory, good())
    found = read_manifest(service, NAME, 1)
    assert found.directory == "manifests/Fileset-12"
    assert [file.key for file in found.says.files] == [f"{HOME}/a b.tif", ODD]
    assert found.says.imported == datetime(2022, 5, 17, 9, 12, 44, 118000, UTC)
    assert found.says.images[0].tells_flag
    assert found.sha256 == hashlib.sha256(lines_of(good())).hexdigest()


def test_a_manifest_without_flags_or_with_keys_of_a_later_version_is_read(directory: Path, service: Service) -> None:
    says = good() | {"licence": "CC0"}
    del says["images"][0]["archived"]
    lay(directory, says)
    assert not read_manifest(service, NAME, 1).says.images[0].tells_flag


def first_file(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda says: says["files"][0].update(values)


def set_to(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda says: says.update(values)


@pytest.mark.parametrize(
    "change",
    [
        set_to(format="omero-archive bundle 2"),
        set_to(bundle="Fileset-13", filesets=[13]),
        set_to(bundle="Fileset-12/../x"),
        set_to(filesets=[13]),
        set_to(filesets=[11, 12]),
        set_to(filesets=["12"]),
        set_to(home="ManagedRepository"),
        set_to(home="/ManagedRepository/alice_2"),
        set_to(home="ManagedRepository/bob_3"),
        set_to(home=HOME + "/"),
        set_to(owner="ali\0ce"),
        set_to(owner="\udcff"),
        set_to(owner=None),
        set_to(imported="yesterday"),
        set_to(imported="2022-05-17T09:12:44"),
        set_to(files=[]),
        set_to(images=[{"id": 7, "name": "x", "is_fileset_image": True}] * 2),
        set_to(images=[{"id": 7, "name": "x", "is_fileset_image": "yes"}]),
        first_file(key="/etc/passwd"),
        first_file(key=f"{HOME}/../../../etc/passwd"),
        first_file(key=f"{HOME}/./a.tif"),
        first_file(key=f"{HOME}//a.tif"),
        first_file(key="manifests/Fileset-12/omero.json"),
        first_file(key=".omero-archive/service"),
        first_file(key=f"{HOME}/a\0b"),
        first_file(key=f"{HOME}/{'x' * 256}"),
        first_file(key=f"{HOME}/\ud800"),
        first_file(key=ODD),
        first_file(omero_id=101),
        first_file(omero_id=-1),
        first_file(omero_id=1 << 63),
        first_file(omero_id=True),
        first_file(kind="thumbnail"),
        first_file(size_bytes=-1),
        first_file(size_bytes=3.0),
        first_file(size_bytes="3"),
        first_file(sha256="0f" * 31),
        first_file(sha256="0F" * 32),
        first_file(sha256="0f" * 32 + "\n"),
        first_file(xxh3_128="0f" * 15),
        first_file(mode=0o10000),
        first_file(uid=-1),
        first_file(mtime_ns=1 << 63),
        first_file(omero_checksum={"algorithm": "SHA1-160"}),
        lambda says: says["files"][0].pop("sha256"),
        lambda says: says.pop("format"),
    ],
)
def test_what_is_not_as_we_write_it_is_not_believed(
    directory: Path, service: Service, change: Callable[[dict[str, Any]], None]
) -> None:
    says = copy.deepcopy(good())
    change(says)
    try:
        lines = lines_of(says)
    except (KeyError, UnicodeEncodeError):
        lines = b""
    lay(directory, says, lines=lines)
    with pytest.raises(FixityMismatch):
        read_manifest(service, NAME, 1)


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}'])
def test_what_is_no_description_is_damage(directory: Path, service: Service, raw: bytes) -> None:
    lay(directory, raw)
    with pytest.raises(FixityMismatch):
        read_manifest(service, NAME, 1)


@pytest.mark.parametrize(
    "lines",
    [
        lambda good: good[:-1],
        lambda good: good[:70],
        lambda good: b"",
        lambda good: good + b"0" * 64 + b"  x\n",
        lambda good: good.replace(b"a", b"b", 1),
    ],
)
def test_the_two_files_must_say_the_same(directory: Path, service: Service, lines: Callable[[bytes], bytes]) -> None:
    lay(directory, good(), lines=lines(lines_of(good())))
    with pytest.raises(FixityMismatch, match="do not say the same"):
        read_manifest(service, NAME, 1)


@pytest.mark.parametrize("name", ["omero.json", "manifest-sha256.txt"])
def test_half_a_manifest_is_none(directory: Path, service: Service, name: str) -> None:
    lay(directory, good())
    (directory / "manifests" / NAME / name).unlink()
    with pytest.raises(ObjectMissing):
        read_manifest(service, NAME, 1)


def test_generations_are_listed_and_what_is_not_ours_is_named(directory: Path, service: Service) -> None:
    for name in (NAME, "Fileset-12.2", "Fileset-12.10", "Image-7"):
        lay(directory, good(), name=name)
    strange = ["Fileset-12.1", "Fileset-12.02", "Fileset-x", "Fileset-012", "notes", "Fileset-" + "9" * 30]
    for name in strange:
        lay(directory, b"", name=name)
    (directory / "manifests" / "README").write_text("x")
    (directory / "manifests" / NAME / "notes.txt").write_text("x")
    found = list_manifests(service)
    assert found.generations == {NAME: (1, 2, 10), BundleName("Image-7"): (1,)}
    assert len(found.strangers) == 2 * len(strange) + 2
    assert directory_of(NAME, 10) == "manifests/Fileset-12.10"
