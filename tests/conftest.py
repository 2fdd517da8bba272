"""A real PostgreSQL for all tests of a session, and a fresh database with OMERO's tables for each that wants one.

`OMERO_ARCHIVE_TEST_POSTGRES_BIN` names the programs of another PostgreSQL than the wheel's, such as Debian's
/usr/lib/postgresql/15/bin.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from omero_archive.demo.omero_tables import create_omero_tables
from omero_archive.demo.postgres import EmbeddedPostgres

pytest_plugins = [
    *("demo_fixtures", "site_fixtures", "bioformats_fixtures", "s3_fixtures"),
    *("mount_fixtures", "fuse_fixtures", "reader_fixtures"),
]

_TEMPLATE = "omero_template"


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The server of this session (with pytest-xdist: of this worker)."""
    binaries = os.environ.get("OMERO_ARCHIVE_TEST_POSTGRES_BIN")
    # Not pytest's own temporary directory: a path of its length does not fit into a socket's name.
    directory = Path(tempfile.mkdtemp(prefix="oa-pg-", dir=_memory()))
    server = EmbeddedPostgres(directory / "postgres", binaries=Path(binaries) if binaries else None, durable=False)
    directory.chmod(0o755)
    try:
        server.start()
        yield server
    finally:
        server.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _memory() -> str | None:
    """A file system in memory, where there is one with room: databases are made and dropped by the hundred."""
    shared = Path("/dev/shm")
    try:
        space = os.statvfs(shared)
    except OSError:
        return None
    return str(shared) if space.f_bavail * space.f_frsize > 4 << 30 and os.access(shared, os.W_OK) else None


@pytest.fixture(scope="session")
def omero_template(postgres: EmbeddedPostgres) -> str:
    """The name of a database with OMERO's tables and bootstrap rows, to copy from. Never connect to it."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    create_omero_tables(postgres.dsn(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def omero_dsn(postgres: EmbeddedPostgres, omero_template: str) -> Iterator[str]:
    """The connection string of a fresh database with OMERO's tables and bootstrap rows."""
    with _database(postgres, template=omero_template) as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The connection string of a fresh, empty database."""
    with _database(postgres, template="template0") as dsn:
        yield dsn


@contextmanager
def _database(postgres: EmbeddedPostgres, *, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    create: LiteralString = "CREATE DATABASE {} TEMPLATE {}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL(create).format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield postgres.dsn(name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
