"""A synthetic site of 10^3 to 10^6 originals, and a plate of up to 10^5 real files.

    python -m bench.scale_site --dir D --files 100000 --plate 10000    make it, and leave its PostgreSQL running
    python -m bench.scale_site --dir D --stop                          stop it; without --files, start it again
    python -m bench.scale_site --dir D --remove                        stop it and delete everything

The settings are `D/omero-archive.toml`. Rows are written in bulk, originals, links, near files and copies are sparse
files (`--rows-only`: none at all, for looking at queries). 10^6 originals take some minutes and 3 GB, mostly of inodes
and rows. The site is true: `check`, `status` and `reconcile` find what `scale_shape.py` says, and nothing else.
"""

import argparse
import hashlib
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from bench.omero import CATALOGUE, CHECKSUM, Fileset
from bench.scale_files import Laid, Layout, invented
from bench.scale_rows import first_file, write_catalogue, write_omero
from bench.scale_shape import Unit, units
from omero_archive.app import initialise, open_site
from omero_archive.catalogue.counts import count_anew
from omero_archive.catalogue.seals import seal_new
from omero_archive.demo import omero_tables as tables
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.settings import load_settings

PLATE_BYTES = 512
PLATE_IN_DIRECTORY = 100
_WELLS = (16, 24)  # rows, columns
_FIELDS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSite:
    """The site. Its PostgreSQL must run."""

    directory: Path
    files: int
    units: Sequence[Unit]
    postgres: EmbeddedPostgres

    @property
    def settings(self) -> Path:
        """The settings file."""
        return settings_of(self.directory)

    @property
    def layout(self) -> Layout:
        """Where its files lie."""
        return Layout(self.directory)


def settings_of(directory: Path) -> Path:
    """The settings file of a site."""
    return directory / "omero-archive.toml"


def server(directory: Path, *, durable: bool = True) -> EmbeddedPostgres:
    """The PostgreSQL of a site, not started."""
    return EmbeddedPostgres(directory / "postgres", durable=durable)


def build(directory: Path, files: int, *, has_files: bool = True) -> ScaleSite:
    """Make the site, and its PostgreSQL, which runs afterwards and syncs its commits."""
    directory.mkdir(parents=True, exist_ok=True)
    some = list(units(files))
    layout = Layout(directory)
    (layout.repository / ".omero").mkdir(parents=True)
    (layout.near / ".omero-archive" / "incoming").mkdir(parents=True)  # as the first release makes it
    layout.archive.mkdir()
    with server(directory, durable=False) as postgres:
        _fill(directory, postgres, some, has_files=has_files)
    postgres = server(directory)
    postgres.start()
    return ScaleSite(directory=directory, files=files, units=some, postgres=postgres)


def _fill(directory: Path, postgres: EmbeddedPostgres, some: Sequence[Unit], *, has_files: bool) -> None:
    layout = Layout(directory)
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE omero")
    dsn = postgres.dsn("omero")
    tables.create_omero_tables(dsn)
    with psycopg.connect(dsn) as connection:
        write_omero(connection, some, str(layout.repository))
        first = first_file(connection)
    path = settings_of(directory)
    path.write_text(_settings(directory, dsn, postgres.dsn(CATALOGUE)))
    with open_site(load_settings(path)) as site:
        initialise(site)
        facts = {
            "first_file": first,
            "device": layout.repository.stat().st_dev,
            "uid": os.getuid(),
            "gid": os.getgid(),
        }
        with psycopg.connect(postgres.dsn(CATALOGUE)) as connection:
            archived = [unit for unit in some if unit.kind is not None]
            lay = _laid(layout, some) if has_files else _invented(archived)
            write_catalogue(connection, archived, lay, facts, now=datetime.now(UTC))
        with site.catalogue.begin() as written:
            count_anew(written)  # triggers were left out
            seal_new(written)
        initialise(site)  # marks the repository, now that OMERO's files are in it
    for name in ("omero", CATALOGUE):
        with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")  # as autovacuum leaves a database that is not a minute old
            connection.execute("CHECKPOINT")


def _laid(layout: Layout, some: Sequence[Unit]) -> Iterator[Laid]:
    for unit in some:
        laid = layout.lay(unit)
        if unit.kind is not None:
            yield from laid


def _invented(some: Sequence[Unit]) -> Iterator[Laid]:
    for unit in some:
        yield from invented(unit)


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


# ---- the plate


def add_plate(site: ScaleSite, files: int, *, seed: int = 1) -> Fileset:
    """A plate of so many real files of half a kilobyte, imported as one fileset: rows and files."""
    at = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=seed)
    home = f"user_0/{at:%Y-%m}/{at:%d}/{at:%H-%M-%S}.plate_{seed}"
    with psycopg.connect(site.postgres.dsn("omero")) as connection:
        user, group = _first_user(connection)
        stamp = tables.stamp(connection, user, group, at=at)
        repo = _repository(connection)
        paths, rows = _plate_files(site.layout.repository, home, files, repo=repo, seed=seed)
        for above in sorted({row.path for row in rows}):
            tables.add_directories(connection, stamp, repo, above)
        ids = tables.add_original_files(connection, stamp, rows)
        number = tables.add_fileset(connection, stamp, f"{home}/", ids)
        _plate_images(connection, stamp, number, wells=min(_WELLS[0] * _WELLS[1], max(1, files // _FIELDS)))
    with psycopg.connect(site.postgres.dsn("omero"), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    directory = site.layout.repository / home
    return Fileset(number=number, directory=directory, files=tuple(paths), size_bytes=files * PLATE_BYTES)


def _plate_files(root: Path, home: str, files: int, *, repo: str, seed: int) -> tuple[list[Path], list[tables.FileRow]]:
    source = random.Random(seed)
    paths, rows = [], []
    for number in range(files):
        above = f"{home}/plate/W{number // PLATE_IN_DIRECTORY:04}/"
        name = f"field_{number:06}.tif"
        if number % PLATE_IN_DIRECTORY == 0:
            (root / above).mkdir(parents=True)
        content = source.randbytes(PLATE_BYTES)
        path = root / above / name
        path.write_bytes(content)
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        paths.append(path)
        rows.append(tables.FileRow(path=above, name=name, repo=repo, size=PLATE_BYTES, hash=digest, hasher=CHECKSUM))
    return paths, rows


def _plate_images(connection: tables.Connection, stamp: tables.Stamp, fileset: int, *, wells: int) -> None:
    rows = [
        tables.ImageRow(name=f"plate [Well {w}, Field {f}]", fileset=fileset, series=w * _FIELDS + f)
        for w in range(wells)
        for f in range(_FIELDS)
    ]
    images = iter(tables.add_images(connection, stamp, rows))
    plate = tables.add_plate(connection, stamp, f"Plate {fileset}", rows=_WELLS[0], columns=_WELLS[1])
    for place in range(wells):
        well = tables.add_well(connection, stamp, plate, *divmod(place, _WELLS[1]))
        for index in range(_FIELDS):
            tables.add_well_sample(connection, stamp, well, next(images).image, index=index)


def _first_user(connection: tables.Connection) -> tuple[int, int]:
    row = connection.execute("SELECT owner_id, group_id FROM fileset ORDER BY id LIMIT 1").fetchone()
    if row is None:
        raise LookupError("the site has no fileset")
    return row[0], row[1]


def _repository(connection: tables.Connection) -> str:
    row = connection.execute("SELECT hash FROM originalfile WHERE mimetype = 'Repository'").fetchone()
    if row is None:
        raise LookupError("the site has no repository")
    return str(row[0])


# ---- as a program


def remove(directory: Path) -> None:
    """Stop the site's server and delete everything. Nothing is deleted that has not a site's settings."""
    if settings_of(directory).exists():
        server(directory).remove()
        shutil.rmtree(directory)


def main() -> int:
    """Make a site, start or stop its server, or remove it."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale_site", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True, help="where it is, or is to be made")
    parser.add_argument("--files", type=int, help="make it, with so many originals: a multiple of 1000")
    parser.add_argument("--plate", type=int, action="append", default=[], help="and a plate of so many real files")
    parser.add_argument("--rows-only", action="store_true", help="no files, only rows")
    parser.add_argument("--stop", action="store_true", help="stop its server")
    parser.add_argument("--remove", action="store_true", help="stop its server and delete everything")
    options = parser.parse_args()
    directory = options.dir.absolute()
    if options.remove:
        remove(directory)
    elif options.stop:
        server(directory).stop()
    elif options.files is None:
        server(directory).start()
    else:
        started = time.perf_counter()
        site = build(directory, options.files, has_files=not options.rows_only)
        for number, files in enumerate(options.plate, start=1):
            plate = add_plate(site, files, seed=number)
            print(f"plate of {files} files: {plate.reference}, below {plate.directory}")
        print(f"settings: {site.settings}; made in {time.perf_counter() - started:.0f} s; its PostgreSQL runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
