"""Before `init` a new administrator may try everything: what needs no catalogue works, all else says what to do."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from omero_archive.demo.site import DemoSite
from site_fixtures import CommandRunner, CommandSite, disk_below, write_settings

NEEDY = (
    ("add", "Fileset:1"),
    ("request", "Fileset:1"),
    ("approve", "Fileset:1"),
    ("decline", "Fileset:1", "--reason", "x"),
    ("hold", "Fileset:1", "--reason", "x"),
    ("run",),
    ("worker",),
    ("status",),
    ("release", "Fileset:1"),
    ("unarchive", "Fileset:1"),
    ("recall", "Fileset:1"),
    ("evict", "Fileset:1"),
    ("pin", "Fileset:1", "--off"),
    ("audit", "--all"),
    ("reconcile",),
    ("rebuild",),
    ("history", "Fileset:1"),
)


@pytest.fixture(params=["no database", "an empty database", "a catalogue of another version"])
def new_site(
    request: pytest.FixtureRequest, demo_site: DemoSite, command_runner: CommandRunner, empty_dsn: str
) -> Iterator[CommandSite]:
    """A site with settings, whose `init` is still to be run, by the state of its catalogue."""
    site = CommandSite(demo=demo_site, settings=write_settings(demo_site), runner=command_runner)
    if request.param != "no database":
        text = site.settings.read_text()
        line = r'(\[catalogue\]\ndatabase = )"[^"]*"'
        site.settings.write_text(re.sub(line, lambda found: f'{found[1]}"{empty_dsn}"', text))
    if request.param == "a catalogue of another version":
        with psycopg.connect(empty_dsn) as connection:
            connection.execute("CREATE TABLE alembic_version (version_num varchar(32))")
            connection.execute("INSERT INTO alembic_version VALUES ('0000')")
    before = disk_below(demo_site.directory)
    yield site
    assert disk_below(demo_site.directory) == before


def test_whatever_needs_a_catalogue_names_init(new_site: CommandSite) -> None:
    for arguments in NEEDY:
        assert "run `omero-archive init`" in new_site.run(*arguments, exits=2).stderr, arguments


def test_check_says_it_once_and_looks_at_all_that_it_can(new_site: CommandSite) -> None:
    found = new_site.run("check", "--json", exits=1).json["findings"]
    (catalogue,) = (one for one in found if one["subject"] == "catalogue")
    assert "run `omero-archive init`" in catalogue["text"]
    assert not catalogue["ok"]
    subjects = {one["subject"]: one["ok"] for one in found}
    assert subjects["OMERO's database"]
    assert subjects["OMERO.server"]
    assert {subject for subject, is_fine in subjects.items() if not is_fine} == {"catalogue", "service tape"}


def test_omero_may_be_looked_at(new_site: CommandSite) -> None:
    path = new_site.demo.path(new_site.demo.filesets[0].keys[0])
    assert "Fileset-1: " in new_site.run("files", "Fileset:1").stdout
    assert "Image:1" in new_site.run("images", str(path)).stdout
    assert new_site.run("init", "--dry-run").stdout
    assert new_site.run("units").stdout
