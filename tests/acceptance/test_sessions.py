"""What an administrator set for other programs, on the databases or on our role, changes nothing of what we do."""

import psycopg
import pytest

from site_fixtures import CommandSite, set_on


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DateStyle", "German, DMY"),
        ("client_encoding", "SQL_ASCII"),
        ("standard_conforming_strings", "off"),
        ("array_nulls", "off"),
    ],
)
def test_whatever_is_set_for_the_databases_commands_do_what_they_did(
    command_site: CommandSite, name: str, value: str
) -> None:
    for dsn in (command_site.demo.omero_dsn, command_site.demo.catalogue_dsn):
        set_on(dsn, name, value)
    (reference, *_), before = command_site.references, command_site.originals()
    flags = archived(command_site.demo.omero_dsn)
    for arguments in (("check",), ("find",), ("add", reference, "--reason", "Überblick ☃"), ("run",)):
        command_site.run(*arguments)
    command_site.run("release", reference)
    assert archived(command_site.demo.omero_dsn) != flags
    assert "Überblick ☃" in command_site.run("history", reference).stdout
    for line in ("status", "audit --all", "reconcile", f"unarchive {reference}"):
        command_site.run(*line.split())
    assert command_site.originals() == before
    assert archived(command_site.demo.omero_dsn) == flags


def archived(dsn: str) -> list[tuple[int, bool | None]]:
    """The flag of each image."""
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT id, archived FROM image ORDER BY id").fetchall()
