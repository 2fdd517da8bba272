"""The example of a plugin is installed as a third party's, passes its own tests, and its type is there for a site."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "content-store"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python that has the plugin besides omero-archive."""
    directory = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, directory / "source")
    target = str(directory / "installed")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", target]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options, str(directory / "source")]
    subprocess.run(command, check=True, timeout=300)
    return os.environ | {"PYTHONPATH": os.pathsep.join([target, *sys.path])}


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings of a site whose databases do not matter here."""
    for directory in ("shelf", "shelf/objects", "shelf/incoming", "shelf/names"):
        (tmp_path / directory).mkdir()
    (tmp_path / "settings.toml").write_text(f"""
[omero]
database = "host=/nowhere dbname=omero"
data_dir = "{tmp_path / "OMERO"}"
[catalogue]
database = "host=/nowhere dbname=omero_archive"
[archive]
root = "{tmp_path / "OMERO" / "Archive"}"
[services.shelf]
type = "content-store"
path = "{tmp_path / "shelf"}"
[release]
copies = ["shelf"]
""")
    return tmp_path / "settings.toml"


def run(environment: dict[str, str], *arguments: str, cwd: Path | None = None) -> str:
    command = [sys.executable, "-m", *arguments]
    ended = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    return ended.stdout


def test_it_passes_its_own_tests(installed: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    out = run(installed, "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "tests", cwd=tmp_path)
    assert " passed" in out
    assert "failed" not in out


def test_its_type_is_shown_and_its_service_tested(installed: dict[str, str], settings: Path) -> None:
    arguments = ("--settings", str(settings))
    listed = run(installed, "omero_archive", "service", "list", *arguments)
    assert "content-store" in listed
    tested = run(installed, "omero_archive", "service", "test", "shelf", "--quick", *arguments)
    assert "Cleaned up" in tested
    assert "FAIL" not in tested


def test_it_imports_nothing_but_what_is_public() -> None:
    source = (EXAMPLE / "omero_archive_content_store.py").read_text(encoding="utf-8")
    modules = {line.split()[1] for line in source.splitlines() if line.startswith("from omero_archive")}
    names = {module.removeprefix("omero_archive.") for module in modules}
    assert names == {"errors", "model", "service", "settings", "transfer"}
    assert len(source.splitlines()) < 160
