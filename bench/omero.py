"""An OMERO to measure on: two filesets, their rows in a PostgreSQL that syncs its commits, and the settings."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

from omero_archive.demo import omero_tables as tables
from omero_archive.demo.postgres import EmbeddedPostgres

CHECKSUM = "SHA1-160"
"""What OMERO takes unless it is told otherwise."""

CATALOGUE = "omero_archive"

_PIECE_BYTES = 4 << 20
_WELLS = (16, 24)  # rows, columns
_FIELDS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much to measure with."""

    large_files: int
    large_bytes: int
    small_files: int
    small_bytes: tuple[int, int]  # from, to
    small_in_directory: int = 100


FULL = Sizes(large_files=4, large_bytes=512 << 20, small_files=10_000, small_bytes=(20_000, 40_000))
QUICK = Sizes(large_files=2, large_bytes=32 << 20, small_files=500, small_bytes=(20_000, 40_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fileset:
    """One fileset that was imported. `directory` is what belongs to it alone, `repository` what is copied."""

    number: int
    directory: Path
    files: tuple[Path, ...]
    size_bytes: int

    @property
    def reference(self) -> str:
        """As the command line names it."""
        return f"Fileset:{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Omero:
    """The site. Every path lies in `directory`, on one file system."""

    directory: Path
    settings: Path
    postgres: EmbeddedPostgres
    large: Fileset
    small: Fileset

    @property
    def archive(self) -> Path:
        """The directory of the service."""
        return self.directory / "archive"

    @property
    def near(self) -> Path:
        """Where links point, and near bytes lie."""
        return self.directory / "OMERO" / "Archive"

    def key(self, path: Path) -> Path:
        """The path of an original below OMERO's directory, and of its near file below `near`."""
        return path.relative_to(self.directory / "OMERO")

    def forget_catalogue(self) -> None:
        """Let the next `omero-archive init` begin with nothing."""
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            name = sql.Identifier(CATALOGUE)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            connection.execute("CHECKPOINT")


def build(directory: Path, postgres: EmbeddedPostgres, sizes: Sizes) -> Omero:
    """Make the site. Its bytes are the same every time; takes some 20 s for the full sizes."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE omero")
    dsn = postgres.dsn("omero")
    tables.create_omero_tables(dsn)
    repository = directory / "OMERO" / "ManagedRepository"
    repository.mkdir(parents=True)
    with psycopg.connect(dsn) as connection:
        importer = _Importer(connection, repository)
        large = importer.large(sizes)
        small = importer.small(sizes)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")  # as autovacuum leaves a database that is not a minute old
    settings = directory / "omero-archive.toml"
    settings.write_text(_settings(directory, dsn, postgres.dsn(CATALOGUE)))
    return Omero(directory=directory, settings=settings, postgres=postgres, large=large, small=small)


def _settings(directory: Path, omero_dsn: str, catalogue_dsn: str) -> str:
    # Ports on which nothing listens: this OMERO is off.
    return f"""
[omero]
database = "{omero_dsn}"
data_dir = "{directory}/OMERO"
host = "127.0.0.1"
ports = [4, 6]

[catalogue]
database = "{catalogue_dsn}"

[archive]
root = "{directory}/OMERO/Archive"

[services.disk]
type = "directory"
path = "{directory}/archive"

[release]
copies = ["disk"]
keep_originals = "7d"
"""


class _Importer:
    def __init__(self, connection: tables.Connection, repository: Path) -> None:
        self._connection = connection
        self._root = repository
        group = tables.add_group(connection, "bench")
        user = tables.add_user(connection, "alice", groups=[group])
        self._stamp = tables.stamp(connection, user, group, at=datetime(2026, 11, 22, 20, tzinfo=UTC))
        self._repo = tables.add_repository(connection, self._stamp, str(repository))

    def large(self, sizes: Sizes) -> Fileset:
        random_ = random.Random(1)
        names = [(f"scan_{number}.tif", sizes.large_bytes) for number in range(sizes.large_files)]
        fileset = self._fileset("alice_2/2026-11/22/20-00-00.000", names, random_)
        rows = [tables.ImageRow(name=name, fileset=fileset.number, series=n) for n, (name, _) in enumerate(names)]
        dataset = tables.add_dataset(self._connection, self._stamp, "Scans")
        for ids in tables.add_images(self._connection, self._stamp, rows):
            tables.link(self._connection, self._stamp, tables.Link.DATASET_IMAGE, dataset, ids.image)
        return fileset

    def small(self, sizes: Sizes) -> Fileset:
        random_ = random.Random(2)
        names = [
            (
                f"plate/W{number // sizes.small_in_directory:03}/field_{number:05}.tif",
                random_.randint(*sizes.small_bytes),
            )
            for number in range(sizes.small_files)
        ]
        fileset = self._fileset("alice_2/2026-11/22/20-01-00.000", names, random_)
        connection, stamp = self._connection, self._stamp
        wells = [(row, column) for row in range(_WELLS[0]) for column in range(_WELLS[1])]
        rows = [
            tables.ImageRow(name=f"plate [Well {w}, Field {f}]", fileset=fileset.number, series=w * _FIELDS + f)
            for w in range(len(wells))
            for f in range(_FIELDS)
        ]
        images = iter(tables.add_images(connection, stamp, rows))
        plate = tables.add_plate(connection, stamp, "Plate", rows=_WELLS[0], columns=_WELLS[1])
        for row, column in wells:
            well = tables.add_well(connection, stamp, plate, row, column)
            for index in range(_FIELDS):
                tables.add_well_sample(connection, stamp, well, next(images).image, index=index)
        return fileset

    def _fileset(self, home: str, names: list[tuple[str, int]], random_: random.Random) -> Fileset:
        directory = self._root / home
        paths, rows = [], []
        for name, size_bytes in names:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            above = f"{path.parent.relative_to(self._root)}/"
            digest = _write(path, size_bytes, random_)
            row = tables.FileRow(
                path=above, name=path.name, repo=self._repo, size=size_bytes, hash=digest, hasher=CHECKSUM
            )
            paths.append(path)
            rows.append(row)
        for above in sorted({row.path for row in rows}):
            tables.add_directories(self._connection, self._stamp, self._repo, above)
        ids = tables.add_original_files(self._connection, self._stamp, rows)
        number = tables.add_fileset(self._connection, self._stamp, f"{home}/", ids)
        size_bytes = sum(size for _, size in names)
        return Fileset(number=number, directory=directory, files=tuple(paths), size_bytes=size_bytes)


def _write(path: Path, size_bytes: int, random_: random.Random) -> str:
    """Write bytes that no program can compress; their SHA1 as OMERO would have it."""
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("wb") as file:
        for piece in _pieces(size_bytes, random_):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _pieces(size_bytes: int, random_: random.Random) -> Iterator[bytes]:
    while size_bytes > 0:
        count = min(size_bytes, _PIECE_BYTES)
        yield random_.randbytes(count)
        size_bytes -= count
