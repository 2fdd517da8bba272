"""Summaries for `status`: counts and bytes by state, and why things wait. Aggregates only, whatever the size."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from omero_archive.catalogue import counts
from omero_archive.catalogue.bundles import in_window
from omero_archive.catalogue.tables import bundle, copy, event, file
from omero_archive.states import CopyState, Decision, Residency


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleCount:
    """Bundles in one state: how many, with how many files and bytes."""

    state: str
    bundles: int
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyCount:
    """Copies in one state on one service. `word` is the service's latest word on one that is not durable yet.

    `checked_at` is when the bytes of the one least recently compared were compared, by verify or by an audit.
    """

    service: str
    state: CopyState
    copies: int
    size_bytes: int
    word: str | None
    checked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why something waits: a sentence, how many, and one example with its error."""

    why: str
    count: int
    example: str
    error: str | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Bundles in their undo window: how many, the bytes they hold, and when the first and the last window is over."""

    bundles: int
    size_bytes: int
    first_over: datetime
    last_over: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One event of a bundle."""

    at: datetime
    actor: str
    what: str
    service: str | None
    old: str | None
    new: str | None


def by_residency(connection: sa.Connection) -> list[BundleCount]:
    """Approved bundles by residency."""
    return _bundle_counts(connection, bundle.c.residency, bundle.c.decision == Decision.APPROVED)


def by_decision(connection: sa.Connection) -> list[BundleCount]:
    """Bundles by decision."""
    return _bundle_counts(connection, bundle.c.decision, sa.true())


def _bundle_counts(
    connection: sa.Connection, state: sa.Column[str], condition: sa.ColumnElement[bool]
) -> list[BundleCount]:
    rows = connection.execute(
        sa.select(
            state,
            sa.func.count().label("bundles"),
            sa.func.coalesce(sa.func.sum(bundle.c.file_count), 0).label("files"),
            sa.func.coalesce(sa.func.sum(bundle.c.size_bytes), 0).label("size_bytes"),
        )
        .where(condition)
        .group_by(state)
        .order_by(state)
    )
    return [
        BundleCount(state=row[0], bundles=row.bundles, files=int(row.files), size_bytes=int(row.size_bytes))
        for row in rows
    ]


def copies(connection: sa.Connection, bundle_id: int | None = None) -> list[CopyCount]:
    """Copies by service and state, of one bundle or of all."""
    return _all_copies(connection) if bundle_id is None else _copies_of(connection, bundle_id)


def _all_copies(connection: sa.Connection) -> list[CopyCount]:
    """Of all: the counts that are kept, and one look at an index for each of them."""
    counted = counts.counted(connection)
    compared = counts.least_recently_compared(connection, counted)
    return [
        CopyCount(
            service=one.service,
            state=one.state,
            copies=one.copies,
            size_bytes=one.size_bytes,
            word=counts.word(connection, one) if one.state is CopyState.VERIFIED else None,
            checked_at=compared.get((one.service, one.state)),
        )
        for one in counted
    ]


def _copies_of(connection: sa.Connection, bundle_id: int) -> list[CopyCount]:
    query = (
        sa.select(
            copy.c.service,
            copy.c.state,
            sa.func.count().label("copies"),
            sa.func.coalesce(sa.func.sum(sa.func.coalesce(file.c.size_bytes, file.c.recorded_size)), 0).label("size"),
            sa.func.max(copy.c.word).label("word"),
            sa.func.min(copy.c.checked_at).label("checked_at"),
        )
        .join(file, file.c.id == copy.c.file_id)
        .where(copy.c.bundle_id == bundle_id)
        .group_by(copy.c.service, copy.c.state)
        .order_by(copy.c.service, copy.c.state)
    )
    return [
        CopyCount(
            service=row.service,
            state=CopyState(row.state),
            copies=row.copies,
            size_bytes=int(row.size),
            word=row.word if row.state == CopyState.VERIFIED else None,
            checked_at=row.checked_at,
        )
        for row in connection.execute(query)
    ]


def kept(connection: sa.Connection, keep: timedelta) -> Kept | None:
    """What the undo window of `keep` holds of the disk, None if nothing."""
    row = connection.execute(
        sa.select(
            sa.func.count().label("bundles"),
            sa.func.coalesce(sa.func.sum(bundle.c.size_bytes), 0).label("size_bytes"),
            sa.func.min(bundle.c.released_at).label("first"),
            sa.func.max(bundle.c.released_at).label("last"),
        ).where(in_window())
    ).one()
    if not row.bundles:
        return None
    return Kept(
        bundles=row.bundles,
        size_bytes=int(row.size_bytes),
        first_over=row.first + keep,
        last_over=row.last + keep,
    )


def freed_bytes(connection: sa.Connection) -> int:
    """The bytes of bundles that are only in the archive now."""
    away = bundle.c.residency.in_([Residency.OFFLINE, Residency.RECALLING])
    return int(connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(bundle.c.size_bytes), 0)).where(away)) or 0)


def waiting(connection: sa.Connection, bundle_id: int | None = None) -> list[Waiting]:
    """Everything that does not go on by itself now, and why. The queue of recalls is told by `queue.py`."""
    mine = sa.true() if bundle_id is None else bundle.c.id == bundle_id
    kinds: Sequence[tuple[str, sa.ColumnElement[bool]]] = (
        ("requests wait for a decision", bundle.c.decision == Decision.REQUESTED),
        ("bundles are on hold", bundle.c.hold_reason.is_not(None)),
        (
            "bundles: a release was begun and not finished; run it again, or unarchive to undo it",
            bundle.c.intent == "release",
        ),
        ("bundles: an unarchive was begun and not finished; run it again", bundle.c.intent == "unarchive"),
        ("bundles need attention", bundle.c.needs_attention),
        ("bundles are tried again later", sa.and_(~bundle.c.needs_attention, bundle.c.retry_at.is_not(None))),
    )
    reason = sa.func.coalesce(bundle.c.last_error, bundle.c.hold_reason)
    # One look at each bundle for all of them.
    columns = [
        column.filter(condition)
        for _, condition in kinds
        for column in _waiting_columns(bundle.c.name, reason, bundle.c.retry_at)
    ]
    values = iter(connection.execute(sa.select(*columns).where(mine)).one())
    found = [_waiting(why, [next(values) for _ in range(4)]) for why, _ in kinds]
    found += [_waiting(why, connection.execute(query).one()) for why, query in _copy_queries(mine)]
    return [entry for entry in found if entry.count]


def _copy_queries(mine: sa.ColumnElement[bool]) -> list[tuple[str, sa.Select[Any]]]:
    columns = _waiting_columns(bundle.c.name, copy.c.last_error, copy.c.retry_at)
    query = sa.select(*columns).select_from(copy).join(bundle, bundle.c.id == copy.c.bundle_id).where(mine)
    return [
        ("copies need attention", query.where(copy.c.needs_attention)),
        ("copies are tried again later", query.where(~copy.c.needs_attention, copy.c.retry_at.is_not(None))),
    ]


def _waiting_columns(
    name: sa.ColumnElement[Any], error: sa.ColumnElement[Any], retry_at: sa.ColumnElement[Any]
) -> tuple[sa.sql.functions.FunctionElement[Any], ...]:
    return (sa.func.count(), sa.func.min(name), sa.func.min(error), sa.func.min(retry_at))


def _waiting(why: str, values: Sequence[Any]) -> Waiting:
    number, example, error, retry_at = values
    return Waiting(why=why, count=number, example=example, error=error, retry_at=retry_at)


def last_events(connection: sa.Connection, bundle_id: int, *, limit: int) -> list[Happened]:
    """The latest events of a bundle, files left out, oldest first."""
    rows = connection.execute(
        sa.select(event)
        .where(event.c.bundle_id == bundle_id, event.c.file_id.is_(None))
        .order_by(event.c.id.desc())
        .limit(limit)
    ).all()
    return [
        Happened(at=row.at, actor=row.actor, what=row.what, service=row.service, old=row.old, new=row.new)
        for row in reversed(rows)
    ]
