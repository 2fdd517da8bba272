"""Builds a small but real OMERO in a directory: its files, its thumbnails and its rows in PostgreSQL.

    with EmbeddedPostgres(directory / "postgres") as postgres:
        site = build_site(directory, postgres=postgres)

What lies where in `directory`: `OMERO` (the data directory, with the archive root `OMERO/Archive` still to be made),
`instrument` (the other end of the in-place import and of the hard link), `tape` (the archive service, still to be
made). No date, name or pixel is random; only the uuids are, because OMERO's database makes them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql

from omero_archive.demo import omero_tables as tables
from omero_archive.demo.filesets import fileset_plans
from omero_archive.demo.imports import DemoFileset, Importer
from omero_archive.model import Key

__all__ = ["DemoFileset", "DemoSite", "PostgresServer", "build_site", "settings_toml"]

# Not assigned to anything, and privileged: nobody listens there, which is what a stopped OMERO looks like.
_SILENT_PORTS = (4, 6)


class PostgresServer(Protocol):
    """A server on which databases may be made: `EmbeddedPostgres`, or a test's own."""

    def dsn(self, dbname: str = "postgres") -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSite:
    """Where everything is. `catalogue_dsn` names a database that nobody has made yet."""

    directory: Path
    omero_dsn: str
    catalogue_dsn: str
    filesets: tuple[DemoFileset, ...]

    @property
    def data_dir(self) -> Path:
        return self.directory / "OMERO"

    @property
    def archive_root(self) -> Path:
        return self.data_dir / "Archive"

    @property
    def near_directory(self) -> Path:
        """Where near bytes lie if the archive root is a mount."""
        return self.data_dir / "Near"

    @property
    def service_path(self) -> Path:
        return self.directory / "tape"

    def fileset(self, slug: str) -> DemoFileset:
        """The fileset called `slug`. Raises `KeyError`."""
        return {fileset.slug: fileset for fileset in self.filesets}[slug]

    def path(self, key: Key) -> Path:
        return self.data_dir / key

    def paths(self, fileset: DemoFileset) -> tuple[Path, ...]:
        """The files of a fileset on disk, in its order."""
        return tuple(map(self.path, fileset.keys))


def build_site(
    directory: Path,
    *,
    postgres: PostgresServer,
    large_mib: int = 220,
    omero_database: str = "omero",
    catalogue_database: str = "omero_archive",
) -> DemoSite:
    """Makes the whole site in `directory`, which may hold a `postgres` directory but no `OMERO` yet.

    The database `omero_database` is made, the catalogue's is only named. The pyramid takes at least `large_mib` MiB.
    """
    directory = directory.absolute()
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(omero_database)))
    dsn = postgres.dsn(omero_database)
    tables.create_omero_tables(dsn)
    with psycopg.connect(dsn) as conn:
        importer = Importer.start(conn, directory)
        filesets = [importer.add(plan) for plan in fileset_plans(large_mib=large_mib)]
        filesets.append(importer.add_omero4())
    return DemoSite(
        directory=directory,
        omero_dsn=dsn,
        catalogue_dsn=postgres.dsn(catalogue_database),
        filesets=tuple(filesets),
    )


def settings_toml(
    site: DemoSite,
    *,
    service: Mapping[str, object],
    near: Path | None = None,
    keep_originals: str = "0d",
    proof_lifetime: str = "1h",
) -> str:
    """The text of an `omero-archive.toml` for this site, with one service `tape` and an OMERO that is off.

    `near` is the directory of near bytes where a mount serves the archive root; else it is the root itself.
    """
    sections: Mapping[str, Mapping[str, object]] = {
        "omero": {
            "database": site.omero_dsn,
            "data_dir": str(site.data_dir),
            "host": "127.0.0.1",
            "ports": list(_SILENT_PORTS),
        },
        "catalogue": {"database": site.catalogue_dsn},
        "archive": {"root": str(site.archive_root), "near": str(near or site.archive_root)},
        "services.tape": service,
        "release": {
            "copies": ["tape"],
            "proof_lifetime": proof_lifetime,
            "keep_originals": keep_originals,
        },
    }
    return "\n".join(_section(name, values) for name, values in sections.items())


def _section(name: str, values: Mapping[str, object]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in values.items())


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    # JSON's strings, numbers and lists are TOML's too.
    return json.dumps(value, ensure_ascii=False)
