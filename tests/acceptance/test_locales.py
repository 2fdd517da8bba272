"""Whatever the locale says, names of files are UTF-8's or bytes: in words, in JSON, in the archive's manifests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from omero_archive.app import open_site
from omero_archive.errors import SettingsError
from omero_archive.settings import load_settings
from site_fixtures import CommandSite

ANCIENT = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""What an ISO-8859 locale is to Python, on a machine that need not have one: names of files are not read as UTF-8."""


def run(site: CommandSite, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """A command by the program that is installed."""
    program = str(Path(sys.executable).with_name("omero-archive"))
    own = {name: value for name, value in os.environ.items() if name not in {"LANG", "LC_CTYPE", "PYTHONIOENCODING"}}
    every = own | site.environment | ANCIENT | environment
    return subprocess.run([program, *arguments], env=every, capture_output=True, check=False)


def test_names_with_umlauts_go_the_whole_way(command_site: CommandSite) -> None:
    path = command_site.demo.path(command_site.demo.fileset("ome-tiff").keys[0])
    assert "Übersicht" in path.name
    told = run(command_site, "images", str(path))
    assert told.returncode == 0, told.stderr
    assert path.name in told.stdout.decode()
    assert json.loads(run(command_site, "images", str(path), "--json").stdout)["key"].endswith(path.name)
    assert run(command_site, "add", str(path)).returncode == 0
    assert run(command_site, "run").returncode == 0
    manifest = command_site.demo.service_path / "manifests" / "Fileset-1"
    files = json.loads((manifest / "omero.json").read_text())["files"]
    assert path.name in {file["key"].rpartition("/")[2] for file in files}
    checked = ["sha256sum", "--check", "--quiet", str(manifest / "manifest-sha256.txt")]
    subprocess.run(checked, cwd=command_site.demo.service_path, check=True)
    command_site.run("audit", "Fileset:1")


def test_output_that_lacks_a_letter_has_its_escape(command_site: CommandSite) -> None:
    path = command_site.demo.path(command_site.demo.fileset("ome-tiff").keys[0])
    told = run(command_site, "images", str(path), PYTHONIOENCODING="ascii")
    assert told.returncode == 0, told.stderr
    assert rb"Niere \xdcbersicht" in told.stdout


def test_a_program_of_another_encoding_is_told_before_it_writes_a_wrong_name(
    command_site: CommandSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(command_site.settings)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    with pytest.raises(SettingsError, match="PYTHONUTF8=1"), open_site(settings):
        pass
