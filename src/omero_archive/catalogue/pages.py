"""The catalogue page by page, for looks at everything: bounded in memory, each page a short transaction."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, LargeBinary, Text

from omero_archive.catalogue.arrays import array
from omero_archive.catalogue.bundles import BundleRecord, by_name, every_after
from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.tables import bundle, copy, file, manifest, recall
from omero_archive.model import BundleName, Key, ServiceName
from omero_archive.states import CopyState

PAGE = 500
"""Bundles to a page."""

PAGE_FILES = 20_000
"""A piece of a page is closed when its bundles have this many files; one bundle may have more."""

PAGE_COPIES = 5_000
"""Copies to a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCopy:
    """What the catalogue knows of one copy, or of a key that has none on the service (`id` and `state` None)."""

    bundle: BundleName
    key: Key
    id: int | None
    state: CopyState | None
    size_bytes: int | None  # as it was read; None until then


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownManifest:
    """A manifest that was written to a service: its directory there."""

    bundle: BundleName
    bundle_id: int
    directory: str


def bundles_in_pages(catalogue: Catalogue, names: Sequence[BundleName] | None) -> Iterator[list[BundleRecord]]:
    """All bundles by number, or those named, in pieces of a bounded number of files."""
    pages = _all_pages(catalogue) if names is None else _named_page(catalogue, names)
    for page in pages:
        piece: list[BundleRecord] = []
        for record in page:
            piece.append(record)
            if sum(one.file_count for one in piece) >= PAGE_FILES:
                yield piece
                piece = []
        if piece:
            yield piece


def _all_pages(catalogue: Catalogue) -> Iterator[list[BundleRecord]]:
    last = 0
    while True:
        with catalogue.begin() as connection:
            page = every_after(connection, last, limit=PAGE)
        if not page:
            return
        yield page
        last = page[-1].id


def _named_page(catalogue: Catalogue, names: Sequence[BundleName]) -> Iterator[list[BundleRecord]]:
    for name in names:
        with catalogue.begin() as connection:
            record = by_name(connection, name)
        if record is not None:
            yield [record]


def open_recalls(connection: sa.Connection, ids: Sequence[int]) -> set[int]:
    """Those of the bundles that have an open recall."""
    wanted = recall.c.bundle_id == sa.any_(array(ids, BigInteger))
    return set(connection.scalars(sa.select(recall.c.bundle_id).where(wanted, recall.c.finished_at.is_(None))))


def known_names(connection: sa.Connection, names: Sequence[BundleName]) -> set[BundleName]:
    """Those of the names that the catalogue has a bundle of."""
    wanted = bundle.c.name == sa.any_(array(names, Text))
    return {BundleName(name) for name in connection.scalars(sa.select(bundle.c.name).where(wanted))}


def known_keys(connection: sa.Connection, keys: Sequence[str]) -> set[Key]:
    """Those of the keys that the catalogue has a file of."""
    return {Key(key) for key in connection.scalars(sa.select(file.c.key).where(_is_one_of(keys)))}


def known_copies(
    connection: sa.Connection, service: ServiceName, *, keys: Sequence[str] | None = None, bundle_id: int | None = None
) -> dict[Key, KnownCopy]:
    """What the catalogue knows of these keys, or of a bundle's, on a service; keys it does not know are left out."""
    on_service = sa.and_(copy.c.file_id == file.c.id, copy.c.service == service)
    wanted = _is_one_of(keys) if keys is not None else file.c.bundle_id == bundle_id
    query = (
        sa.select(bundle.c.name, file.c.key, copy.c.id, copy.c.state, file.c.size_bytes)
        .join_from(file, bundle, bundle.c.id == file.c.bundle_id)
        .outerjoin(copy, on_service)
        .where(wanted)
    )
    return {Key(row.key): _known(row) for row in connection.execute(query)}


def copies_in_pages(
    catalogue: Catalogue, service: ServiceName, states: Sequence[CopyState], *, but: Callable[[int], bool]
) -> Iterator[list[KnownCopy]]:
    """The copies on a service in these states, by number, without those of which `but` says so."""
    numbers = (
        sa.select(copy.c.id)
        .where(copy.c.service == service, copy.c.state.in_(states))
        .order_by(copy.c.id)
        .limit(PAGE_COPIES)
    )
    last = 0
    while True:
        with catalogue.begin() as connection:
            page = connection.scalars(numbers.where(copy.c.id > last)).all()
            wanted = [number for number in page if not but(number)]
            found = _copies_with(connection, wanted) if wanted else []
        if found:
            yield found
        if not page:
            return
        last = page[-1]


def _copies_with(connection: sa.Connection, numbers: Sequence[int]) -> list[KnownCopy]:
    query = (
        sa.select(bundle.c.name, file.c.key, copy.c.id, copy.c.state, file.c.size_bytes)
        .join_from(copy, file, file.c.id == copy.c.file_id)
        .join(bundle, bundle.c.id == copy.c.bundle_id)
        .where(copy.c.id == sa.any_(array(numbers, BigInteger)))
        .order_by(copy.c.id)
    )
    return [_known(row) for row in connection.execute(query)]


def services_with_copies(connection: sa.Connection) -> list[ServiceName]:
    """The services on which the catalogue knows copies, configured now or not."""
    # A walk over the index, one look a service: a DISTINCT would read every row.
    found: list[ServiceName] = []
    while (name := connection.scalar(_next_service(found[-1] if found else ""))) is not None:
        found.append(ServiceName(name))
    return found


def _next_service(last: str) -> sa.Select[Any]:
    return sa.select(copy.c.service).where(copy.c.service > last).order_by(copy.c.service).limit(1)


def manifests_in(connection: sa.Connection, service: ServiceName, directories: Sequence[str]) -> dict[str, int]:
    """Which of these directories of a service are recorded manifests; the number of the bundle of each."""
    wanted = sa.and_(manifest.c.service == service, manifest.c.directory == sa.any_(array(directories, Text)))
    rows = connection.execute(sa.select(manifest.c.directory, manifest.c.bundle_id).where(wanted))
    return {row.directory: row.bundle_id for row in rows}


def manifests_in_pages(
    catalogue: Catalogue, service: ServiceName, *, bundle_id: int | None = None
) -> Iterator[list[KnownManifest]]:
    """The manifests that were written to a service, of one bundle or of all, by the number of the bundle."""
    mine = sa.true() if bundle_id is None else manifest.c.bundle_id == bundle_id
    query = (
        sa.select(bundle.c.name, manifest.c.bundle_id, manifest.c.directory)
        .join_from(manifest, bundle, bundle.c.id == manifest.c.bundle_id)
        .where(manifest.c.service == service, mine)
        .order_by(manifest.c.bundle_id)
        .limit(PAGE)
    )
    last = 0
    while True:
        with catalogue.begin() as connection:
            rows = connection.execute(query.where(manifest.c.bundle_id > last)).all()
        if not rows:
            return
        yield [KnownManifest(bundle=r.name, bundle_id=r.bundle_id, directory=r.directory) for r in rows]
        last = rows[-1].bundle_id


def _is_one_of(keys: Sequence[str]) -> sa.ColumnElement[bool]:
    # SQLAlchemy's parameter is in a cycle with its comparator, and commands look for cycles seldom (`cli/main.py`): a
    # listing of 10^6 files left 80 MB of keys. The young ones alone: the page before goes, and no more is looked at.
    gc.collect(0)
    wanted = array([os.fsencode(key) for key in keys], LargeBinary)
    return sa.type_coerce(file.c.key, sa.LargeBinary) == sa.any_(wanted)


def _known(row: Any) -> KnownCopy:
    return KnownCopy(
        bundle=BundleName(row[0]),
        key=Key(row[1]),
        id=row[2],
        state=None if row[3] is None else CopyState(row[3]),
        size_bytes=row[4],
    )
