"""The archive as files and directories, as far as the catalogue knows it: those of bundles whose originals are links.

There is no table of directories: a directory is there if a key begins with its name and a slash. Keys are compared
bytewise, so all that lies below a directory stands together in the index of `file.key`, and one look at the index
leads past it: `directory/` is followed by `directory0`, since `0` is the byte after `/`.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Integer, LargeBinary

from omero_archive.catalogue.bundles import BundleRecord, FileRecord, by_key, file_record
from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.tables import bundle, copy, file
from omero_archive.model import FileAttributes, Key, ServiceName
from omero_archive.states import CopyState, Residency

SHOWN = (Residency.ONLINE, Residency.OFFLINE, Residency.RECALLING)
"""Bundles whose originals are links into the archive."""

PAGE = 2_000
"""Names to a page; each is a transaction of its own."""

USABLE = (CopyState.WRITTEN, CopyState.VERIFIED, CopyState.DURABLE)
"""Copies that a recall reads."""

_MODE = 0o444
"""Of a file whose mode nobody wrote down. There should be none: what was released was read before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """A file of the archive as it was when it was read."""

    key: Key
    size_bytes: int
    attributes: FileAttributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A name in a directory. `file` is None for a directory."""

    name: str
    file: KnownFile | None


def at_or_below(connection: sa.Connection, path: str) -> KnownFile | None:
    """The file with that key; else some file below the directory of that name; None if there is neither."""
    exactly = _files().where(_key() == os.fsencode(path))
    below = _files().where(_below(path)).order_by(_key()).limit(1)
    row = connection.execute(sa.union_all(exactly, below).limit(1)).first()
    return None if row is None else _known(row)


def children(catalogue: Catalogue, directory: str) -> Iterator[Child]:
    """The names in a directory (the empty text: the root), each once, in the order of their keys. In pages.

    The first page is read at once, so that whoever cannot ask knows it before anything was listed.
    """
    listing = _Listing(catalogue, directory)
    return listing.rest(listing.page())


def with_bundle(connection: sa.Connection, key: Key) -> tuple[BundleRecord, FileRecord, set[ServiceName]] | None:
    """The bundle that has the file, whatever its state, the file, and the services with a usable copy of it."""
    record = by_key(connection, key)
    if record is None:
        return None
    usable = sa.and_(copy.c.file_id == file.c.id, copy.c.state.in_(USABLE))
    query = sa.select(file, copy.c.service).outerjoin(copy, usable).where(file.c.key == key)
    rows = connection.execute(query).all()
    if not rows:
        return None  # purged between the two looks
    services = {ServiceName(row.service) for row in rows if row.service is not None}
    return record, file_record(rows[0]), services


def is_whole(connection: sa.Connection, bundle_id: int, service: ServiceName) -> bool:
    """Whether every file of the bundle has a copy on the service that was compared with the original."""
    good = sa.exists().where(
        copy.c.file_id == file.c.id,
        copy.c.service == service,
        copy.c.state.in_((CopyState.VERIFIED, CopyState.DURABLE)),
    )
    lacking = sa.select(sa.literal(1)).where(file.c.bundle_id == bundle_id, ~good).limit(1)
    return connection.scalar(lacking) is None


def keys(connection: sa.Connection, bundle_id: int) -> list[Key]:
    """The keys of a bundle's files."""
    found = connection.scalars(sa.select(file.c.key).where(file.c.bundle_id == bundle_id))
    return [Key(key) for key in found]


# ---- the inside


class _Listing:
    """The names in one directory, page by page.

    A directory of files is read as they stand in the index. Where many files collapse into few directories that would
    read them all: there each step is a look at the index, which leads past the directory before. Which of the two goes
    on depends on what the page before was like.
    """

    def __init__(self, catalogue: Catalogue, directory: str) -> None:
        self._catalogue = catalogue
        self._prefix = os.fsencode(f"{directory}/") if directory else b""
        self._after = self._prefix
        self._inside = _below(directory)
        self._skips = True
        self._is_over = False

    def page(self) -> list[Child]:
        """The next names; fewer than a page may be all of a page, and none means that there are no more."""
        query = self._by_steps() if self._skips else self._by_rows()
        with self._catalogue.begin() as connection:
            rows = connection.execute(query).all()
        self._is_over = len(rows) < PAGE
        found = list(self._collapsed(rows))
        files = sum(child.file is not None for child in found)
        self._skips = files * 4 < len(rows)
        return found

    def rest(self, page: Sequence[Child]) -> Iterator[Child]:
        """This page and all that follow."""
        yield from page
        while not self._is_over:
            yield from self.page()

    def _collapsed(self, rows: Sequence[Any]) -> Iterator[Child]:
        for row in rows:
            key = os.fsencode(row.key)
            if key < self._after:
                continue  # below a directory that was named already
            name, slash, _ = key[len(self._prefix) :].partition(b"/")
            # The least key that can follow: past all that lies below the directory, or past the file.
            self._after = self._prefix + name + (b"0" if slash else b"\0")
            yield Child(name=os.fsdecode(name), file=None if slash else _known(row))

    def _by_rows(self) -> sa.Select[Any]:
        return _files().where(_key() >= self._after, self._inside).order_by(_key()).limit(PAGE)

    def _by_steps(self) -> sa.Select[Any]:
        """One row of each name: a walk over the index, one look for each."""
        first = self._next(sa.literal(self._after, LargeBinary)).cte("step", recursive=True)
        following = self._next(self._past(first)).lateral("following")
        steps = first.union_all(sa.select(following).select_from(first.join(following, sa.true())))
        return sa.select(steps).limit(PAGE)

    def _next(self, at_least: sa.ColumnElement[bytes]) -> sa.Select[Any]:
        return _files().where(_key() >= at_least, self._inside).order_by(_key()).limit(1)

    def _past(self, step: sa.FromClause) -> sa.ColumnElement[bytes]:
        """The least key that can follow a row, as `_collapsed` has it."""
        key = sa.type_coerce(step.c.key, LargeBinary)
        inside = sa.func.substring(key, len(self._prefix) + 1, type_=LargeBinary)
        # Qualified, since the word alone has a grammar of its own.
        slash = sa.func.pg_catalog.position(inside, sa.literal(b"/", LargeBinary), type_=Integer)
        directory = sa.func.substring(key, 1, slash + (len(self._prefix) - 1), type_=LargeBinary)
        return sa.case((slash > 0, _then(directory, b"0")), else_=_then(key, b"\0"))


def _below(directory: str) -> sa.ColumnElement[bool]:
    """Whether a key lies below a directory; the empty text is the root."""
    if not directory:
        return sa.true()
    return sa.and_(_key() > os.fsencode(f"{directory}/"), _key() < os.fsencode(f"{directory}0"))


def _then(start: sa.ColumnElement[bytes], end: bytes) -> sa.ColumnElement[bytes]:
    return start.op("||", return_type=LargeBinary())(sa.literal(end, LargeBinary))


def _files() -> sa.Select[Any]:
    """The files that the archive shows."""
    return (
        sa.select(
            file.c.key,
            sa.func.coalesce(file.c.size_bytes, file.c.recorded_size, 0).label("size_bytes"),
            sa.func.coalesce(file.c.mtime_ns, 0).label("mtime_ns"),
            sa.func.coalesce(file.c.mode, _MODE).label("mode"),
            sa.func.coalesce(file.c.uid, 0).label("uid"),
            sa.func.coalesce(file.c.gid, 0).label("gid"),
        )
        .join_from(file, bundle, bundle.c.id == file.c.bundle_id)
        .where(bundle.c.residency.in_(SHOWN))
    )


def _key() -> sa.ColumnElement[bytes]:
    return sa.type_coerce(file.c.key, LargeBinary)


def _known(row: Any) -> KnownFile:
    return KnownFile(
        key=Key(row.key),
        size_bytes=row.size_bytes,
        attributes=FileAttributes(mtime_ns=row.mtime_ns, mode=row.mode, uid=row.uid, gid=row.gid),
    )
