"""The archive as files and directories, as far as the catalogue knows it: those of bundles whose originals are links.

These are all but the RESIDENT ones. What a bundle's decision is does not matter: links must lead somewhere.

There is no table of directories: a directory is there if a key begins with its name and a slash. Keys are compared
bytewise, so all that lies below a directory stands together in the index of `file.key`, and one look at the index
leads past it: `directory/` is followed by `directory0`, since `0` is the byte after `/`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Integer, LargeBinary, Text

from omero_archive.catalogue.arrays import array
from omero_archive.catalogue.bundles import BundleRecord, FileRecord, by_key, file_record
from omero_archive.catalogue.tables import bundle, copy, file
from omero_archive.model import FileAttributes, Key, ServiceName
from omero_archive.states import CopyState, Residency

Begin = Callable[[], AbstractContextManager[sa.Connection]]
"""Begins a transaction, as `Catalogue.begin` does."""

STEPS = 1_000
"""Names to a page where each is looked for. Every page is a transaction of its own."""

ROWS = 10_000
"""Files to a page where they are read as they come."""

USABLE = (CopyState.WRITTEN, CopyState.VERIFIED, CopyState.DURABLE)
"""Copies that a recall reads."""

_MODE = 0o444
"""Of a file whose mode nobody wrote down. There should be none: what was released was read before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A file as it was when it was read, or a directory, of which nothing is known but that it has files below it."""

    name: str
    size_bytes: int
    attributes: FileAttributes | None  # None: a directory


def at(connection: sa.Connection, path: str) -> Known | None:
    """The file with that key; else the directory of that name, if a file lies below it; else None."""
    key = os.fsencode(path)
    row = connection.execute(_AT, {"key": key, "start": key + b"/", "end": key + b"0"}).first()
    return None if row is None else _known(key.rpartition(b"/")[2], row, is_file=row.key == key)


def children(begin: Begin, directory: str) -> Iterator[Known]:
    """The names in a directory (the empty text: the root), each once, in the order of their keys. In pages.

    The first page is read at once, so that whoever cannot ask knows it before anything was listed.
    """
    listing = _Listing(begin, directory)
    return listing.rest(listing.page())


def with_bundle(connection: sa.Connection, key: Key) -> tuple[BundleRecord, FileRecord, set[ServiceName]] | None:
    """The bundle that has the file, whatever its state, the file, and the services with a usable copy of it."""
    record = by_key(connection, key)
    if record is None:
        return None
    rows = connection.execute(_WITH_SERVICES, {"key": key}).all()
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
    """The names in one directory, page by page. Each statement reads a bounded number of rows.

    A directory of files is read as they stand in the index. Where many files collapse into few directories that would
    read them all: there each step is a look at the index, which leads past the directory before. Which of the two goes
    on depends on what the page before was like. Rows of bundles that are not shown are walked over by both: it cannot
    be known that nothing else lies between them.
    """

    def __init__(self, begin: Begin, directory: str) -> None:
        self._begin = begin
        self._prefix = os.fsencode(f"{directory}/") if directory else b""
        self._end = os.fsencode(f"{directory}0") if directory else _BEYOND
        self._after = self._prefix  # the least key that can follow
        self._by_steps = True
        self._is_over = False

    def page(self) -> list[Known]:
        """The next names; fewer than a page may be all of a page, or none of it."""
        limit = STEPS if self._by_steps else ROWS
        values = {"after": self._after, "end": self._end, "skipped": len(self._prefix), "limit": limit}
        with self._begin() as connection:
            rows = connection.execute(_BY_STEPS if self._by_steps else _BY_ROWS, values).all()
        found = list(self._named(rows))
        if self._by_steps:
            self._is_over = len(rows) < limit
            self._by_steps = 4 * sum(known.attributes is None for known in found) >= len(rows)
        else:
            # The last row that was read is among them, shown or not.
            self._is_over = not rows or rows[-1].number < limit
            self._by_steps = 4 * len(found) < sum(row.is_shown for row in rows)
        return found

    def rest(self, page: Sequence[Known]) -> Iterator[Known]:
        """This page and all that follow."""
        yield from page
        while not self._is_over:
            yield from self.page()

    def _named(self, rows: Iterable[Any]) -> Iterator[Known]:
        for row in rows:
            key = row.key
            if key < self._after:
                continue  # below a directory that was named already
            if not row.is_shown:
                self._after = key + b"\0"
                continue
            name, slash, _ = key[len(self._prefix) :].partition(b"/")
            # Past all that lies below the directory, or past the file.
            self._after = self._prefix + name + (b"0" if slash else b"\0")
            yield _known(name, row, is_file=not slash)


_BEYOND = b"\xff" * 4097
"""No key is beyond it: Linux has no longer paths."""


def _known(name: bytes, row: Any, *, is_file: bool) -> Known:
    if not is_file:
        return Known(name=os.fsdecode(name), size_bytes=0, attributes=None)
    _, _, size_bytes, mtime_ns, mode, uid, gid, *_ = row
    attributes = FileAttributes(mtime_ns=mtime_ns, mode=mode, uid=uid, gid=gid)
    return Known(name=os.fsdecode(name), size_bytes=size_bytes, attributes=attributes)


# ---- the statements: made once, since making one takes longer than PostgreSQL takes to answer it


def _files(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Files, shown or not, with their attributes. Of what nobody wrote down the first that is sensible."""
    return sa.select(
        _key().label("key"),
        file.c.bundle_id,
        sa.func.coalesce(file.c.size_bytes, file.c.recorded_size, 0).label("size_bytes"),
        sa.func.coalesce(file.c.mtime_ns, 0).label("mtime_ns"),
        sa.func.coalesce(file.c.mode, _MODE).label("mode"),
        sa.func.coalesce(file.c.uid, 0).label("uid"),
        sa.func.coalesce(file.c.gid, 0).label("gid"),
        *more,
    )


def _at() -> sa.CompoundSelect[Any]:
    shown = _files().join(bundle, bundle.c.id == file.c.bundle_id).where(_is_shown())
    exactly = shown.where(_key() == _given("key"))
    below = shown.where(_key() > _given("start"), _key() < _given("end")).limit(1)
    return sa.union_all(exactly, below).limit(1)


def _with_services() -> sa.Select[Any]:
    """A file, once for each service that has a usable copy, or once for none."""
    usable = sa.and_(copy.c.file_id == file.c.id, copy.c.state == sa.any_(array(USABLE, Text)))
    return sa.select(file, copy.c.service).outerjoin(copy, usable).where(file.c.key == sa.bindparam("key"))


def _by_rows() -> sa.Select[Any]:
    """The next rows as they stand in the index: those that are shown, and the last."""
    limit = sa.bindparam("limit", type_=Integer)
    number = sa.func.row_number().over(order_by=_key()).label("number")
    # Fenced off: files are to be read in the order of their keys, never in that of their bundles.
    read = _from(_files(number), _given("after")).limit(limit).cte("read")
    read = read.prefix_with("MATERIALIZED", dialect="postgresql")
    joined = sa.select(read, _is_shown().label("is_shown")).join(bundle, bundle.c.id == read.c.bundle_id)
    return joined.where(sa.or_(_is_shown(), read.c.number == limit)).order_by(read.c.number)


def _by_steps() -> sa.Select[Any]:
    """The next names by a walk over the index: one look for each name, and for each row that is not shown."""
    is_shown = sa.select(_is_shown()).where(bundle.c.id == file.c.bundle_id).scalar_subquery()
    columns = _files(is_shown.label("is_shown"))
    first = _from(columns, _given("after")).limit(1).cte("step", recursive=True)
    following = _from(columns, _past(first)).limit(1).lateral("following")
    steps = first.union_all(sa.select(following).select_from(first.join(following, sa.true())))
    return sa.select(steps).limit(sa.bindparam("limit", type_=Integer))


def _from(columns: sa.Select[Any], at_least: sa.ColumnElement[bytes]) -> sa.Select[Any]:
    return columns.where(_key() >= at_least, _key() < _given("end")).order_by(_key())


def _past(step: sa.FromClause) -> sa.ColumnElement[bytes]:
    """The least key that can follow a row, as `_Listing` has it."""
    key, skipped = step.c.key, sa.bindparam("skipped", type_=Integer)
    inside = sa.func.substring(key, skipped + 1, type_=LargeBinary)
    # Qualified, since the word alone has a grammar of its own.
    slash = sa.func.pg_catalog.position(inside, sa.literal(b"/", LargeBinary), type_=Integer)
    directory = sa.func.substring(key, 1, slash + skipped - 1, type_=LargeBinary)
    return sa.case((sa.and_(step.c.is_shown, slash > 0), _then(directory, b"0")), else_=_then(key, b"\0"))


def _then(start: sa.ColumnElement[bytes], end: bytes) -> sa.ColumnElement[bytes]:
    return start.op("||", return_type=LargeBinary())(sa.literal(end, LargeBinary))


def _is_shown() -> sa.ColumnElement[bool]:
    return bundle.c.residency != Residency.RESIDENT


def _key() -> sa.ColumnElement[bytes]:
    return sa.type_coerce(file.c.key, LargeBinary)


def _given(name: str) -> sa.BindParameter[bytes]:
    return sa.bindparam(name, type_=LargeBinary)


_AT = _at()
_WITH_SERVICES = _with_services()
_BY_ROWS = _by_rows()
_BY_STEPS = _by_steps()
