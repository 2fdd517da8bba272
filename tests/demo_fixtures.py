"""The fixture `demo_site`: a whole small OMERO of its own for every test.

It is built once in a session and copied for each test: the files with their hard links, symbolic links and times,
the database as a PostgreSQL template. Needs a session fixture `postgres` with a `dsn(dbname)`.
"""

import dataclasses
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from omero_archive.catalogue.database import Catalogue
from omero_archive.demo.site import DemoSite, PostgresServer, build_site
from omero_archive.engine import apply_queue_schema

SMALL_MIB = 4


@pytest.fixture(scope="session")
def demo_template(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> DemoSite:
    """The site that all others are copied from. Never change it, never keep a connection to its database."""
    return build_site(
        tmp_path_factory.mktemp("demo"),
        postgres=postgres,
        large_mib=SMALL_MIB,
        omero_database=_fresh_name("omero"),
    )


@pytest.fixture
def demo_site(demo_template: DemoSite, postgres: PostgresServer, tmp_path: Path) -> Iterator[DemoSite]:
    """A fresh small site. Its catalogue's database is named but not made; both are dropped after the test.

    Most tests want the catalogue made: `facility` and `command_site` copy it from `catalogue_template`.
    """
    site = copy_site(demo_template, tmp_path / "site", postgres=postgres)
    yield site
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        for dsn in (site.omero_dsn, site.catalogue_dsn):
            name = sql.Identifier(_database(dsn))
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
    shutil.rmtree(site.directory)


def copy_site(site: DemoSite, directory: Path, *, postgres: PostgresServer) -> DemoSite:
    """The same site in another directory and in databases with other names."""
    subprocess.run(["cp", "--archive", "--", str(site.directory), str(directory)], check=True)
    for path in directory.rglob("*"):
        if path.is_symlink():
            _retarget(path, site.directory, directory)
    omero = _fresh_name("omero")
    copy_database(postgres, omero, template=_database(site.omero_dsn))
    copy = dataclasses.replace(
        site,
        directory=directory,
        omero_dsn=postgres.dsn(omero),
        catalogue_dsn=postgres.dsn(_fresh_name("catalogue")),
    )
    with psycopg.connect(copy.omero_dsn) as conn:
        # The only place where OMERO's database knows an absolute path.
        conn.execute("UPDATE originalfile SET path = %s WHERE mimetype = 'Repository'", (f"{copy.data_dir}/",))
    return copy


def copy_database(postgres: PostgresServer, name: str, *, template: str) -> None:
    """A new database as a copy of one that nobody is connected to."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        conn.execute(query.format(sql.Identifier(name), sql.Identifier(template)))


@pytest.fixture(scope="session")
def catalogue_template(postgres: PostgresServer) -> str:
    """The name of a database with an empty catalogue and job queue, as `init` makes them. Never connect to it."""
    name = _fresh_name("catalogue_template")
    catalogue = Catalogue(postgres.dsn(name), clock=lambda: datetime.now(UTC), actor="tester")
    catalogue.create()
    catalogue.migrate()
    apply_queue_schema(catalogue.dsn)
    catalogue.close()
    return name


def _retarget(link: Path, old: Path, new: Path) -> None:
    target = new / link.readlink().relative_to(old)
    link.unlink()
    os.symlink(target, link)


def _database(dsn: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])


def _fresh_name(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:12]}"
