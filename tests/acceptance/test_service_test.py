"""`service test` as a process: an archive that keeps the contract, some that do not, and one that is not there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PLUGIN = '''
from datetime import timedelta
from omero_archive.errors import Refused, ServiceUnavailable
from omero_archive.service import Finding, ObjectStatus
from omero_archive.services.directory import DirectoryService
from omero_archive.testing.memory_service import MemoryService, Stored

class Overwriting(MemoryService):
    """A vendor's gateway that takes whatever comes last."""
    @classmethod
    def from_settings(cls, name, settings, *, clock):
        return cls(clock=clock)
    def _require_same(self, key, content):
        self.objects[key] = Stored(content=content, digests={}, stored_at=self._clock())

class Slow(MemoryService):
    @classmethod
    def from_settings(cls, name, settings, *, clock):
        return cls(clock=clock, staging=timedelta(hours=3))

class Keeping(MemoryService):
    @classmethod
    def from_settings(cls, name, settings, *, clock):
        return cls(clock=clock)
    def delete(self, key):
        raise Refused(f"{key} is under retention until 2036.")

class Halving(MemoryService):
    @classmethod
    def from_settings(cls, name, settings, *, clock):
        return cls(clock=clock)
    def list(self, prefix):
        yield from super().list(prefix)
        raise OSError("the library's own")

class Unmade(MemoryService):
    @classmethod
    def from_settings(cls, name, settings, *, clock):
        return {}["bucket"]

class Nothing(MemoryService):
    @classmethod
    def from_settings(cls, name, settings, *, clock):
        cls(clock=clock)

class Breaking(DirectoryService):
    puts = 0
    def put(self, key, reader, expected):
        Breaking.puts += 1
        if self.is_broken:
            raise ServiceUnavailable("connection reset by peer")
        return super().put(key, reader, expected)
    is_broken = property(lambda self: Breaking.puts > 5)
    def check(self):
        return [Finding(subject="vendor", is_fine=not self.is_broken, text="connection reset", advice="Call them.")]
'''
ENTRY_POINTS = "[omero_archive.services]\n" + "".join(
    f"{name} = vendor_plugin:{name.capitalize()}\n"
    for name in ("overwriting", "slow", "keeping", "breaking", "halving", "unmade", "nothing")
)
ENTRY_POINTS += "unloadable = vendor_unloadable:Anything\n"


@dataclass(frozen=True)
class Archive:
    """Settings with one service and the directory it has."""

    settings: Path
    path: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "omero_archive", "service", "test", *arguments, "--settings", str(self.settings)]

    def test(self, *arguments: str, exits: int = 0) -> str:
        ended = subprocess.run(
            self.command("tape", *arguments), env=self.environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == exits, (ended.stdout, ended.stderr)
        return ended.stdout

    def report(self, *arguments: str, exits: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.test(*arguments, "--json", exits=exits))
        return found

    def objects(self) -> list[str]:
        found = []
        for directory, names, files in os.walk(self.path):  # not rglob, which fails if a directory goes meanwhile
            if ".omero-archive" in names:
                names.remove(".omero-archive")
            found += [os.path.relpath(os.path.join(directory, name), self.path) for name in files]
        return sorted(found)


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[str], Archive]:
    """A prepared directory, and settings that name it as a service `tape` of some type."""
    (tmp_path / "archive" / ".omero-archive").mkdir(parents=True)
    (tmp_path / "archive" / ".omero-archive" / "service").write_text("prepared")
    (tmp_path / "archive" / "x.tif").write_bytes(b"somebody's")
    (tmp_path / "plugin" / "vendor_plugin-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "plugin" / "vendor_plugin.py").write_text(PLUGIN)
    (tmp_path / "plugin" / "vendor_unloadable.py").write_text("class Anything(:\n")
    (tmp_path / "plugin" / "vendor_plugin-1.0.dist-info" / "METADATA").write_text("Name: vendor-plugin\nVersion: 1.0\n")
    (tmp_path / "plugin" / "vendor_plugin-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    python_path = os.pathsep.join([str(tmp_path / "plugin"), *sys.path])

    def make(type_name: str) -> Archive:
        (tmp_path / "settings.toml").write_text(f"""
[omero]
database = "host=/nowhere dbname=omero"
data_dir = "{tmp_path / "OMERO"}"
[catalogue]
database = "host=/nowhere dbname=omero_archive"
[archive]
root = "{tmp_path / "OMERO" / "Archive"}"
[services.tape]
type = "{type_name}"
path = "{tmp_path / "archive"}"
[release]
copies = ["tape"]
""")
        environment = os.environ | {"PYTHONPATH": python_path}
        return Archive(settings=tmp_path / "settings.toml", path=tmp_path / "archive", environment=environment)

    return make


def test_a_directory_keeps_every_rule_and_is_left_as_it_was(archive: Callable[[str], Archive]) -> None:
    """Neither OMERO's database nor the catalogue is needed for it."""
    directory = archive("directory")
    report = directory.report()
    assert {check["name"]: check["seen"] for check in report["checks"] if check["verdict"] == "broken"} == {}
    assert report["summary"]["kept"] > 25
    assert report["summary"]["unavailable"] == report["summary"]["leftovers"] == report["summary"]["not_tried"] == 0
    verdicts = {check["name"]: check["verdict"] for check in report["checks"]}
    assert verdicts["preparing-the-place-twice-changes-nothing"] == "not done", "a live archive is not prepared anew"
    assert directory.objects() == ["x.tif"]
    assert (directory.path / "x.tif").read_bytes() == b"somebody's"
    assert sorted(path.name for path in directory.path.iterdir()) == [".omero-archive", "x.tif"], "no directory stays"


def test_a_service_that_overwrites_fails_by_name(archive: Callable[[str], Archive]) -> None:
    text = archive("overwriting").test("--quick", exits=1)
    assert "FAIL" in text
    assert "other-content-is-refused-and-nothing-is-overwritten" in text
    assert "The rule: Other content under a key that is taken raises ObjectExists" in text
    assert "put of b'' over b'bytes' raised nothing, and not ObjectExists." in text
    assert "Cleaned up" in text


def test_what_needs_hours_of_staging_is_not_done_and_not_kept(archive: Callable[[str], Archive]) -> None:
    report = archive("slow").report("--quick", "--wait", "0s")
    verdicts = {check["name"]: (check["verdict"], check["seen"]) for check in report["checks"]}
    assert verdicts["an-object-is-read-from-an-offset"] == (
        "not done",
        "offline, staging takes its time: not online after 0 s",
    )
    assert verdicts["what-is-offline-is-known-and-refused-at-once"][0] == "kept"
    assert report["summary"]["not_done"] > 3


def test_what_may_not_be_deleted_is_named(archive: Callable[[str], Archive]) -> None:
    keeping = archive("keeping")
    report = keeping.report("--quick")
    left = [leftover["key"] for leftover in report["leftovers"]]
    assert len(left) > 80
    assert "x.tif" not in left
    assert {leftover["is_refused"] for leftover in report["leftovers"]} == {True}
    assert all(key.startswith(report["prefix"]) for key in left)
    text = keeping.test("--quick")
    assert f"{len(left)} objects are left below omero-archive-test/" in text
    assert "under retention until 2036" in text


def test_what_was_seen_of_a_plugin_whose_listing_fails_is_told_to_the_end(archive: Callable[[str], Archive]) -> None:
    text = archive("halving").test("--quick", exits=1)
    assert "FAIL" in text
    assert "NOT cleaned up: asked what is left, the plugin raised OSError: the library's own." in text
    assert re.search(r"^tape: \d+ kept, \d+ broken", text, re.MULTILINE), text


@pytest.mark.parametrize(
    ("type_name", "told"),
    [
        ("unmade", "services.tape.type: a fault in the plugin: vendor_plugin:Unmade, given its table, raised KeyError"),
        ("nothing", "services.tape.type: a fault in the plugin: vendor_plugin:Nothing made None, which has no"),
        ("unloadable", "services.tape.type: vendor_unloadable:Anything cannot be loaded: SyntaxError("),
    ],
)
def test_a_plugin_that_cannot_be_made_is_named(archive: Callable[[str], Archive], type_name: str, told: str) -> None:
    error = archive(type_name).report(exits=2)["error"]
    assert error["type"] == "SettingsError"
    assert error["text"].startswith(told)


def test_a_dry_run_stores_nothing_and_says_what_would_be_done(archive: Callable[[str], Archive]) -> None:
    directory = archive("directory")
    text = directory.test("--dry-run", "--slow")
    assert "objects of up to 33.6 MB" in text
    assert "nothing-is-visible-until-it-is-whole: Nothing is visible until it is whole:" in text
    assert len(directory.report("--dry-run")["checks"]) > 30
    assert not (directory.path / "omero-archive-test").exists()


def test_what_is_kept_stays_to_be_looked_at(archive: Callable[[str], Archive]) -> None:
    directory = archive("directory")
    prefix = directory.report("--quick", "--keep")["prefix"]
    kept = [key for key in directory.objects() if key.startswith(prefix)]
    assert len(kept) > 80


def test_an_archive_that_is_not_mounted_is_not_tested(archive: Callable[[str], Archive]) -> None:
    directory = archive("directory")
    (directory.path / ".omero-archive" / "service").unlink()
    text = directory.test(exits=4)
    assert "marker" in text or "not mounted" in text
    assert directory.report(exits=4)["error"]["type"] == "ServiceUnavailable"
    assert directory.objects() == ["x.tif"]


def test_an_archive_that_goes_away_ends_the_test(archive: Callable[[str], Archive]) -> None:
    breaking = archive("breaking")
    report = breaking.report("--quick", exits=4)
    assert [check["verdict"] for check in report["checks"]][-1] == "unavailable"
    assert report["checks"][-1]["seen"] == "ServiceUnavailable (connection reset by peer)"
    assert report["summary"]["not_tried"] > 20
    assert report["summary"]["broken"] == 0
    assert breaking.objects() == ["x.tif"]


def test_ctrl_c_cleans_up(archive: Callable[[str], Archive]) -> None:
    directory = archive("directory")
    # Slowly: however busy the machine is, it must not be over before it is interrupted.
    given = directory.settings.read_text()
    directory.settings.write_text(given.replace("[services.tape]", '[services.tape]\nrate = "4 MB"'))
    with subprocess.Popen(
        directory.command("tape"), env=directory.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while len(directory.objects()) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        try:
            stdout, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            # Python drops an interrupt that comes while it runs a finaliser. Then people press Ctrl-C again.
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Cleaned up" in stdout
    assert directory.objects() == ["x.tif"]


def test_a_service_that_is_only_read_is_not_tested(archive: Callable[[str], Archive]) -> None:
    directory = archive("directory")
    settings = directory.settings.read_text().replace('copies = ["tape"]', 'copies = ["disk"]')
    disk = f'\n[services.disk]\ntype = "directory"\npath = "{directory.path.parent / chr(120)}"\n'
    directory.settings.write_text(settings.replace("\n[release]", f"\nread_only = true\n{disk}[release]"))
    assert directory.report(exits=3)["error"]["type"] == "ServiceIsReadOnly"
    assert directory.objects() == ["x.tif"]


@pytest.mark.parametrize("arguments", [("--quick", "--slow"), ("--wait", "soon")])
def test_wrong_options_are_refused(archive: Callable[[str], Archive], arguments: tuple[str, ...]) -> None:
    assert archive("directory").report(*arguments, exits=2)["error"]["type"] == "WrongUse"


def test_a_service_that_is_not_there_is_told(archive: Callable[[str], Archive]) -> None:
    directory = archive("directory")
    ended = subprocess.run(
        directory.command("glacier"), env=directory.environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "there is no [services.glacier]; there are tape" in ended.stderr
