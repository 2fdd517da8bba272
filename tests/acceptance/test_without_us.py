"""The page about checking the archive without us, as an archivist follows it: its own commands, none of ours."""

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from omero_archive.model import Key
from omero_archive.services.s3.service import S3Service
from omero_archive.steps.manifest import manifest_line
from omero_archive.testing.contents import reader
from s3_servers import Bucket

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "check-the-archive-without-us.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
NAMES = (
    "plain.tif",
    "two\nlines",
    "back\\slash",
    os.fsdecode(b"caf\xe9.tif"),
    os.fsdecode(b"\xe9" * 200),
    "Icon\r",
    "a %41",
)
MTIME_NS = 1_652_778_764_118_000_001


def block(holding: str) -> str:
    """The one example of the page that holds this."""
    (found,) = [str(text) for _, text in BLOCKS if holding in text]
    return found


def shell(command: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", command], cwd=directory, capture_output=True, text=True, errors="surrogateescape", check=False
    )


def key_of(name: str) -> Key:
    return Key(f"ManagedRepository/alice_2/2022-05/17/{name}")


def manifests() -> dict[Key, bytes]:
    """The two files of a bundle with the names."""
    files = [{"key": key_of(name), "mtime_ns": MTIME_NS} for name in NAMES]
    lines = [manifest_line(key_of(name), reader(os.fsencode(name)).fixity.sha256) for name in NAMES]
    return {
        Key("manifests/Fileset-12/manifest-sha256.txt"): b"".join(lines),
        Key("manifests/Fileset-12/omero.json"): json.dumps({"files": files}).encode(),
    }


def contents() -> dict[Key, bytes]:
    return {key_of(name): os.fsencode(name) for name in NAMES} | manifests()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A directory with one bundle."""
    for key, content in contents().items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(content)
    return tmp_path


@pytest.fixture
def fetched(cold: Bucket, tmp_path: Path) -> Path:
    """What `aws s3 sync` makes of it, which is not here: every object below the prefix, as a file of its name."""
    below = Bucket(endpoint=cold.endpoint, name=cold.name, prefix="omero")
    with closing(below.service()) as service:
        service.initialise()
        _store(service)
    for name in below.names():
        path = tmp_path / name.removeprefix("omero/")
        path.parent.mkdir(parents=True, exist_ok=True)
        below.client.download_file(cold.name, name, str(path))
    return tmp_path


def _store(service: S3Service) -> None:
    for key, content in contents().items():
        service.put(key, reader(content), None)


def test_all_is_well(archive: Path) -> None:
    for command in (block("manifests/Fileset-12/manifest-sha256.txt").replace("cd /mnt/tape/omero", ""), block("done")):
        checked = shell(command, archive)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_file_that_rotted_and_one_that_is_gone_are_named(archive: Path) -> None:
    (archive / key_of("two\nlines")).write_bytes(b"two\nlinez")
    (archive / key_of("plain.tif")).unlink()
    checked = shell(block("done"), archive)
    assert "two\\nlines: FAILED" in checked.stdout
    assert "plain.tif: FAILED open or read" in checked.stdout
    assert "manifests/Fileset-12/manifest-sha256.txt" in checked.stdout


@pytest.mark.parametrize("change", [(b"", b"x"), (b"  Managed", b" ")], ids=["digest", "name"])
def test_a_manifest_whose_own_line_was_damaged_is_named(archive: Path, change: tuple[bytes, bytes]) -> None:
    """The file of that line is not looked at: that must not pass for "all is well"."""
    manifest = archive / "manifests/Fileset-12/manifest-sha256.txt"
    manifest.write_bytes(manifest.read_bytes().replace(*change, 1))
    assert "manifests/Fileset-12/manifest-sha256.txt" in shell(block("done"), archive).stdout
    one = block("manifests/Fileset-12/manifest-sha256.txt").replace("cd /mnt/tape/omero", "")
    assert shell(one, archive).returncode == 1


def test_from_s3_each_file_gets_its_name_and_time_back(fetched: Path) -> None:
    program = block("unquote_to_bytes")
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], cwd=fetched, check=True)
        checked = shell(block("done"), fetched)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert {(fetched / key_of(name)).stat().st_mtime_ns for name in NAMES} == {MTIME_NS}
