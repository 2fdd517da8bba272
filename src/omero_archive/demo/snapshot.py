"""What the demo compares: files, pixels and database rows before and after. It really looks; nothing is assumed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from omero_archive.demo.site import DemoSite
from omero_archive.model import Key

_TABLES = (
    "image",
    "fileset",
    "filesetentry",
    "originalfile",
    "pixels",
    "pixelsoriginalfilemap",
    "thumbnail",
    "annotation",
    "annotation_mapvalue",
    "imageannotationlink",
    "filesetannotationlink",
)

_MOVES_ON = ("update_id", "version")
"""Columns that tell of the last change to a row; they go on counting, as they must (docs/explanation)."""

Rows = dict[str, list[dict[str, object]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSnapshot:
    """One original as it lies in its place. `sha256` of a link is that of what it leads to, None if it dangles."""

    is_link: bool
    sha256: str | None
    size_bytes: int
    mtime_ns: int
    mode: int
    owner: tuple[int, int]


def snapshot_files(site: DemoSite) -> dict[Key, FileSnapshot]:
    """Every original of the demo."""
    return {key: _file(site.path(key)) for fileset in site.filesets for key in fileset.keys}


def snapshot_rows(site: DemoSite) -> Rows:
    """The rows of OMERO's tables that archiving could touch, without the columns that only count changes."""
    rows: Rows = {}
    with psycopg.connect(site.omero_dsn, application_name="omero-archive demo", row_factory=dict_row) as connection:
        for table in _TABLES:
            query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
            found = [{k: v for k, v in row.items() if k not in _MOVES_ON} for row in connection.execute(query)]
            rows[table] = sorted(found, key=repr)
    return rows


def used_bytes(directory: Path) -> int:
    """The disk space below a directory, files with several names counted once, other file systems left out."""
    seen: set[tuple[int, int]] = set()
    total = 0
    device = directory.stat().st_dev
    for path in directory.rglob("*"):
        found = path.lstat()
        if found.st_dev != device:
            continue  # what a mount shows lies elsewhere too
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
    return total


def _file(path: Path) -> FileSnapshot:
    is_link = path.is_symlink()
    found = path.stat() if path.exists() else path.lstat()
    return FileSnapshot(
        is_link=is_link,
        sha256=_sha256(path) if path.exists() else None,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        mode=found.st_mode,
        owner=(found.st_uid, found.st_gid),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
