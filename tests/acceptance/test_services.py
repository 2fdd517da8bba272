"""Several services, and a plugin of somebody else's that does all of it wrong: what a site sees, as processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from omero_archive.demo.site import DemoSite
from site_fixtures import CommandSite, Ended

SECRET = "correct-horse-battery"

PLUGIN = '''
"""A plugin as a person in a hurry writes it: the password is in every word that it says."""

import logging

from omero_archive.errors import ServiceUnavailable
from omero_archive.service import Finding
from omero_archive.services.directory import DirectoryService, DirectorySettings
from omero_archive.settings import Secret, parse_table


class BlabSettings(DirectorySettings):
    password: Secret
    fault: str = ""


class BlabService(DirectoryService):
    @classmethod
    def from_settings(cls, name, settings, *, clock):
        made = cls(name, parse_table(BlabSettings, f"services.{name}", settings), clock)
        return made

    def _refuse(self, *_, **__):
        password = self._settings.password.read("services.blab.password")
        url = f"https://omero:{password}@store.example/x?X-Amz-Signature=5160f00dcafe&y=1"
        logging.getLogger("httpx").info("GET %s", url)
        if self._settings.fault:
            raise RuntimeError(f"{password} in {self._settings.fault}")
        try:
            raise OSError(f"401 for {url}")
        except OSError as error:
            raise ServiceUnavailable(f"blab: wrong password {password!r} for {url}") from error

    put = put_group = open = status = _refuse

    def check(self):
        if self._settings.fault:
            self._refuse()
        password = self._settings.password.read("services.blab.password")
        return [Finding(subject="service blab", is_fine=False, text=f"401, {password}", advice=f"not {password}")]
'''


def run(site: CommandSite, plugins: Path, *arguments: str, exits: int | None = None) -> Ended:
    """A command in a process of its own, with the plugin installed and everything logged."""
    environment = os.environ | site.environment | {"OMERO_ARCHIVE_LOG": "debug", "BLAB_PASSWORD": SECRET}
    environment["PYTHONPATH"] = os.pathsep.join([str(plugins), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "omero_archive", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert exits is None or ended.returncode == exits, (arguments, ended)
    return Ended(code=ended.returncode, stdout=ended.stdout, stderr=ended.stderr)


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory from which a plugin is found as an installed one is."""
    where = tmp_path / "plugins"
    (where / "blab-1.0.dist-info").mkdir(parents=True)
    (where / "blab-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: blab\nVersion: 1.0\n")
    (where / "blab-1.0.dist-info" / "entry_points.txt").write_text(
        "[omero_archive.services]\nblab = blab_plugin:BlabService\n"
    )
    (where / "blab_plugin.py").write_text(PLUGIN)
    return where


def with_blab(demo: DemoSite, settings: Path, *, more: str = "") -> None:
    """Another service in the settings, whose place is made."""
    where = demo.directory / "blab"
    (where / ".omero-archive").mkdir(parents=True, exist_ok=True)
    (where / ".omero-archive" / "service").touch()
    text = settings.read_text().replace('copies = ["tape"]', 'copies = ["tape", "blab"]')
    table = f'[services.blab]\ntype = "blab"\npath = "{where}"\npassword = {{ env = "BLAB_PASSWORD" }}\nretries = 0\n'
    settings.write_text(text.replace("[release]", f"{table}{more}\n[release]"))


def test_a_wrong_secret_is_shown_by_no_command(command_site: CommandSite, plugins: Path) -> None:
    with_blab(command_site.demo, command_site.settings)
    said = []
    for arguments in (
        ("add", "Fileset:1"),
        ("check",),
        ("check", "--json"),
        ("service", "list"),
        ("service", "list", "--json"),
        ("run",),
        ("run", "--retry", "--json"),
        ("status",),
        ("status", "Fileset:1", "--json"),
        ("release", "Fileset:1", "--json"),
        ("history", "Fileset-1", "--json"),
        ("--verbose", "audit", "--all"),
    ):
        ended = run(command_site, plugins, *arguments)
        assert ended.code in (0, 1, 3, 4), (arguments, ended)
        said.append(ended.stdout + ended.stderr)
        for part in (SECRET, "5160f00dcafe"):  # no digits alone: times of the log have six
            assert part not in said[-1], (arguments, said[-1])
    assert sum("***" in text for text in said) > 5, "the plugin did say it"
    assert "action=put_group" in "".join(said)
    rows = repr(command_site.catalogue())
    assert "wrong password" in rows
    assert SECRET not in rows


def test_a_plugin_with_a_fault_is_a_finding_and_the_rest_is_looked_at(command_site: CommandSite, plugins: Path) -> None:
    with_blab(command_site.demo, command_site.settings, more='fault = "line 5"')
    ended = run(command_site, plugins, "check", exits=1)
    assert "FAIL  service blab: a fault in the plugin 'blab': RuntimeError: *** in line 5" in ended.stdout
    assert "ok    service tape" in ended.stdout
    assert "ok    OMERO.server" in ended.stdout
    assert "Traceback" not in ended.stderr
    (tape, blab) = run(command_site, plugins, "service", "list", "--json", exits=0).json["services"]
    assert (tape["ok"], blab["ok"], blab["advice"]) == (True, False, ["Tell those who wrote the plugin."])


def test_a_secret_that_is_not_there_is_named_by_its_place(command_site: CommandSite, plugins: Path) -> None:
    with_blab(command_site.demo, command_site.settings)
    text = command_site.settings.read_text()
    command_site.settings.write_text(text.replace("BLAB_PASSWORD", "NO_SUCH_PASSWORD"))
    ended = run(command_site, plugins, "check", exits=1)
    assert "service blab: services.blab.password: the environment has no NO_SUCH_PASSWORD." in ended.stdout
    command_site.settings.write_text(text.replace('{ env = "BLAB_PASSWORD" }', f'"{SECRET}"'))
    ended = run(command_site, plugins, "check", exits=2)
    assert "services.blab.password: name a file or a variable that holds it" in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr


def test_an_unknown_level_of_the_log_is_wrong_use(command_site: CommandSite) -> None:
    environment = command_site.environment | {"OMERO_ARCHIVE_LOG": "loud"}
    ended = command_site.runner.run(["status"], environment)
    assert ended.code == 2
    assert "there is no level 'loud'; there are debug, info, warning, error" in ended.stderr


# ---- the rules, and the nearest copy

MIXED = '["tape", { any = 1, of = ["disk2", "vault"] }]'


def test_a_rule_that_is_not_met_is_named_and_the_nearest_service_that_answers_is_read(
    command_site: CommandSite,
) -> None:
    site = command_site
    services = {"copies_on": ("tape", "disk2", "vault"), "copies": MIXED, "distances": {"tape": 2, "vault": 1}}
    site.set_up(**services)
    site.run("init")
    site.run("add", "Fileset:1")
    site.run("run")
    disk2, vault, tape = (site.demo.directory / name for name in ("disk2", "vault", "tape"))
    for place in (disk2, vault):
        place.rename(place.with_suffix(".away"))
    site.set_up(**services, proof_lifetime="1ms")  # what they said before is stale
    for place in (disk2, vault):
        place.rmdir()  # which the fixture made anew
    refused = site.run("release", "Fileset:1", exits=3)
    assert "0 of 1 durable, freshly confirmed copies on any 1 of disk2, vault" in refused.stdout + refused.stderr
    site.set_up(**services)
    for place in (disk2, vault):
        place.rmdir()
    vault.with_suffix(".away").rename(vault)
    before = site.originals()
    site.run("release", "Fileset:1")
    site.run("evict", "Fileset:1")
    told = site.run("history", "Fileset-1", "--json").stdout
    assert '"rules"' in told
    away = site.run("check", exits=1).stdout
    assert "FAIL  service disk2" in away
    assert "ok    service vault" in away
    tape.rename(tape.with_suffix(".away"))
    site.run("recall", "Fileset:1")  # only the vault is left
    tape.with_suffix(".away").rename(tape)
    assert site.originals().keys() == before.keys()
    site.run("unarchive", "Fileset:1")
    assert site.originals() == before


def test_a_service_that_is_only_read_is_left_as_it_is(command_site: CommandSite) -> None:
    site = command_site
    site.set_up(copies_on=("tape", "old"), copies='["tape"]')
    text = site.settings.read_text()
    head, _, tail = text.rpartition("distance = 0\n")
    site.settings.write_text(f"{head}distance = 0\nread_only = true\n{tail}")
    assert "service old is read-only; it was left as it is" in site.run("init").stdout
    assert list((site.demo.directory / "old").iterdir()) == []
    services = {row["name"]: row for row in site.run("service", "list", "--json").json["services"]}
    assert (services["old"]["read_only"], services["old"]["is_wanted"]) == (True, False)
    site.settings.write_text(site.settings.read_text().replace('copies = ["tape"]', 'copies = ["tape", "old"]'))
    refused = site.run("check", exits=2)
    assert "release.copies: services.old is read_only and can get no copies" in refused.stderr
