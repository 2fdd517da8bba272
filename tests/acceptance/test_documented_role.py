"""The role that the documentation gives, made literally as it stands there: it is enough, and all of it is needed."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from omero_archive.demo.postgres import EmbeddedPostgres
from site_fixtures import CommandSite, use

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/configure-a-site.md"


@pytest.fixture
def archivist(command_site: CommandSite, postgres: EmbeddedPostgres) -> Iterator[str]:
    """The documented role, on a fresh site that uses it for both databases."""
    demo = command_site.demo
    (given,) = re.findall(r"```sql\n(CREATE ROLE archivist.*?)```", PAGE.read_text(), re.DOTALL)
    catalogue = str(conninfo_to_dict(demo.catalogue_dsn)["dbname"])
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{catalogue}"'.encode())
        with psycopg.connect(demo.omero_dsn, autocommit=True) as omero:
            omero.execute(given.encode())
        connection.execute(
            f"CREATE DATABASE \"{catalogue}\" OWNER archivist ENCODING 'UTF8' TEMPLATE template0".encode()
        )
        for section, dsn in (("omero", demo.omero_dsn), ("catalogue", demo.catalogue_dsn)):
            use(command_site, section, make_conninfo(dsn, user="archivist"))
        try:
            command_site.run("init")
            yield "archivist"
        finally:
            for dsn in (demo.omero_dsn, demo.catalogue_dsn):
                with psycopg.connect(dsn, autocommit=True) as there:
                    there.execute("DROP OWNED BY archivist")
            connection.execute(f'ALTER DATABASE "{catalogue}" OWNER TO CURRENT_USER'.encode())
            connection.execute("DROP ROLE archivist")


@pytest.mark.usefixtures("archivist")
def test_it_is_enough_for_every_command(command_site: CommandSite) -> None:
    one, other, *_ = command_site.references
    before, omero = command_site.originals(), command_site.omero()
    for line in (
        "check",
        "find --owner alice",
        f"files {one}",
        f"request {other}",
        f"approve {other}",
        f"add {one}",
        "run",
        f"release {one} {other}",
        f"evict {one}",
        f"recall {one}",
        "run",
        "audit --all",
        "reconcile",
        f"history {one}",
        "status",
        f"unarchive {one} {other}",
    ):
        assert "Traceback" not in command_site.run(*line.split()).stderr, line
    assert command_site.originals() == before
    for table in ("annotation", "annotation_mapvalue", "imageannotationlink", "originalfile", "fileset", "pixels"):
        assert command_site.omero()[table] == omero[table], table


MARKING = [
    "INSERT ON event",
    "INSERT ON annotation",
    "INSERT ON annotation_mapvalue",
    "INSERT ON filesetannotationlink",
    "INSERT ON imageannotationlink",
    "INSERT ON namespace",
    "INSERT ON _reindexing_required",
    "USAGE ON ALL SEQUENCES IN SCHEMA public",
    "UPDATE ON image",
]
UNMARKING = [
    "DELETE ON annotation",
    "DELETE ON annotation_mapvalue",
    "DELETE ON screenannotationlink",
    "UPDATE ON image",
]


def test_where_a_right_is_missing_it_is_named_and_nothing_is_half_done(
    command_site: CommandSite, archivist: str
) -> None:
    reference, before = command_site.references[0], command_site.originals()
    command_site.run("add", reference)
    command_site.run("run")
    for command, rights in (("release", MARKING), ("unarchive", UNMARKING)):
        omero, near = command_site.omero(), command_site.originals() if command == "release" else None
        for right in rights:
            change(command_site, f"REVOKE {right} FROM {archivist}")
            told = command_site.run(command, reference, exits=2).stdout
            assert re.search(r"the role may not do this: permission denied for (table|sequence) \w+", told), right
            assert command_site.omero() == omero, right
            assert near is None or command_site.originals() == near, right
            change(command_site, f"GRANT {right} TO {archivist}")
        command_site.run(command, reference)
    assert command_site.originals() == before


def change(site: CommandSite, statement: str) -> None:
    """As the administrator, who is gone again afterwards: his sessions would look like OMERO's."""
    with psycopg.connect(site.demo.omero_dsn) as connection:
        connection.execute(statement.encode())
