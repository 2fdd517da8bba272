"""The whole story on an Arkivum appliance, told by the command as a process, kept, looked at and removed."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx

from listening import expect_gone


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omero_archive", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_the_story_is_true_on_an_appliance_and_nothing_is_read_that_is_on_tape(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    told = run("--service", "arkivum", "--dir", str(place), "--large-mib", "4", "--keep", "--json")
    try:
        assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
        document = json.loads(told.stdout[told.stdout.rindex("\n{") :])
        assert document["lost"] == 0
        assert document["claims"] >= 20
        assert document["freed_bytes"] > 0
        if os.geteuid() == 0 and Path("/dev/fuse").exists():
            assert document["mounted"], told.stderr[-4000:]
            assert os.path.ismount(place / "OMERO" / "Archive")  # kept, with everything else
        else:
            assert "files are being staged by tape" in told.stdout  # the bytes really were away
        settings = tomllib.loads((place / "omero-archive.toml").read_text())["services"]["tape"]
        state = httpx.get(f"{settings['url']}/simulator").json()
        assert state["reads_while_offline"] == 0
        assert {file["replicationState"] for file in state["files"] if "/ManagedRepository/" in file["path"]} == {
            "green"
        }
        assert state["requests"]["restore"] > 0
    finally:
        removed = run("--remove", "--dir", str(place))
    assert removed.returncode == 0
    assert not place.exists()
    expect_gone(settings["url"])
