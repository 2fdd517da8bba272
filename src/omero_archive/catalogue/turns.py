"""Turns: which recalls are under way, and which begin next. A recall waits in a queue until its turn.

`begins` is the rule, and pure; `begin` reads what it needs and writes down whose turn came. The queue's order is the
priority, then the time at which it was asked for. At most `at_once` are under way, and of those that opening files
asked for at most `opens_per_hour` begin in an hour: what is held back stays in the queue. A recall by command is
neither counted nor held back, and `PATIENCE` keeps opens from passing it over for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from omero_archive.catalogue.events import now
from omero_archive.catalogue.recalls import OPENED
from omero_archive.catalogue.tables import bundle, recall
from omero_archive.settings import RecallSettings
from omero_archive.states import Residency

HOUR = timedelta(hours=1)

PATIENCE = timedelta(minutes=10)
"""So long opens may pass over a recall by command that waits: then one of these begins first, and so on."""

_LOCK = 0x0A_7E_CA_11
"""The number of PostgreSQL's advisory lock by which one at a time gives turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """A recall in the queue."""

    bundle_id: int
    priority: int
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What has begun: how many are under way, how many opens began in the last hour, and the last by command."""

    under_way: int
    opens: int
    last_by_command: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A recall whose turn it is and that can be gone on with now. `is_settled`: its bundle can be brought as it is.

    If not, nobody looked yet what of it can be read, or not since it last failed or had to wait.
    """

    bundle_id: int
    priority: int
    is_settled: bool


def begins(queue: Sequence[Waits], begun: Begun, limits: RecallSettings, at: datetime) -> list[Waits]:
    """The recalls whose turn comes now, in their order. `queue` may be in any order."""
    order = sorted(queue, key=lambda waits: (-waits.priority, waits.requested_at, waits.bundle_id))
    by_command = [waits for waits in order if waits.priority < OPENED]
    opens = [waits for waits in order if waits.priority >= OPENED]
    opens = opens[: max(0, limits.opens_per_hour - begun.opens)]
    turns = opens + by_command
    if by_command and opens and _is_passed_over(by_command[0], begun, at):
        turns = [by_command[0], *opens, *by_command[1:]]
    return turns[: max(0, limits.at_once - begun.under_way)]


def _is_passed_over(waits: Waits, begun: Begun, at: datetime) -> bool:
    last = begun.last_by_command
    return at - waits.requested_at >= PATIENCE and (last is None or at - last >= PATIENCE)


# ---- in the catalogue


def next_turns(connection: sa.Connection, limits: RecallSettings) -> list[Waits]:
    """Whose turn it is now, without giving it."""
    begun = what_began(connection)
    free = limits.at_once - begun.under_way
    if free <= 0:
        return []
    # No more of either kind can begin, and the queue may be long.
    queue = _first(connection, recall.c.priority >= OPENED, free) + _first(connection, recall.c.priority < OPENED, free)
    return begins(queue, begun, limits, now(connection))


def begin(connection: sa.Connection, limits: RecallSettings) -> int:
    """Give turns to those whose turn it is; how many. Two processes at once give no more than one."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    ids = [waits.bundle_id for waits in next_turns(connection, limits)]
    if not ids:
        return 0
    waiting = sa.and_(recall.c.bundle_id.in_(ids), recall.c.finished_at.is_(None), recall.c.started_at.is_(None))
    return connection.execute(recall.update().where(waiting).values(started_at=now(connection))).rowcount


def begin_alone(connection: sa.Connection, bundle_id: int) -> None:
    """Give a turn to the open recall of a bundle that is brought now, whoever else waits."""
    mine = sa.and_(recall.c.bundle_id == bundle_id, recall.c.finished_at.is_(None), recall.c.started_at.is_(None))
    connection.execute(recall.update().where(mine).values(started_at=now(connection)))


def give_back(connection: sa.Connection, bundle_id: int) -> None:
    """Take the turn of a recall that a person must look at first: others may have it meanwhile."""
    mine = sa.and_(recall.c.bundle_id == bundle_id, recall.c.finished_at.is_(None))
    connection.execute(recall.update().where(mine).values(started_at=None))


def due(connection: sa.Connection) -> list[Due]:
    """The recalls whose turn it is and that can be gone on with now, in their order."""
    rows = connection.execute(
        sa.select(recall.c.bundle_id, recall.c.priority, recall.c.looked_at, bundle.c.retry_at)
        .join(bundle, bundle.c.id == recall.c.bundle_id)
        .where(recall.c.started_at.is_not(None), *_may_go_on(connection))
        .order_by(*_order())
    )
    return [
        Due(
            bundle_id=row.bundle_id,
            priority=row.priority,
            is_settled=row.looked_at is not None and row.retry_at is None,
        )
        for row in rows
    ]


def settle(connection: sa.Connection, bundle_ids: Sequence[int]) -> None:
    """Write down that these bundles' recalls can go on now."""
    mine = sa.and_(recall.c.bundle_id.in_(bundle_ids), recall.c.finished_at.is_(None))
    connection.execute(recall.update().where(mine).values(looked_at=now(connection)))
    connection.execute(bundle.update().where(bundle.c.id.in_(bundle_ids)).values(retry_at=None))


def what_began(connection: sa.Connection) -> Begun:
    """What has begun, as far as it matters for whose turn it is."""
    at = now(connection)
    under_way = sa.select(sa.func.count()).select_from(recall.join(bundle, bundle.c.id == recall.c.bundle_id))
    row = connection.execute(
        sa.select(
            under_way.where(is_under_way()).scalar_subquery().label("under_way"),
            sa.select(sa.func.count())
            .where(recall.c.started_at > at - HOUR, recall.c.priority >= OPENED)
            .scalar_subquery()
            .label("opens"),
            sa.select(sa.func.max(recall.c.started_at))
            .where(recall.c.started_at > at - PATIENCE, recall.c.priority < OPENED)
            .scalar_subquery()
            .label("last_by_command"),
        )
    ).one()
    return Begun(under_way=row.under_way, opens=row.opens, last_by_command=row.last_by_command)


def is_under_way() -> sa.ColumnElement[bool]:
    """Whether a recall, joined with its bundle, has its turn."""
    goes_on = sa.and_(is_away(), ~bundle.c.needs_attention)
    return sa.and_(recall.c.finished_at.is_(None), recall.c.started_at.is_not(None), goes_on)


def is_away() -> sa.ColumnElement[bool]:
    """Whether a bundle's bytes are not near: where they are, an open recall is closed by whoever looks next."""
    return bundle.c.residency.in_([Residency.OFFLINE, Residency.RECALLING])


def _may_go_on(connection: sa.Connection) -> tuple[sa.ColumnElement[bool], ...]:
    is_time = sa.or_(bundle.c.retry_at.is_(None), bundle.c.retry_at <= now(connection))
    return recall.c.finished_at.is_(None), is_away(), ~bundle.c.needs_attention, is_time


def _order() -> tuple[sa.ColumnElement[Any], ...]:
    return recall.c.priority.desc(), recall.c.requested_at, recall.c.bundle_id


def _first(connection: sa.Connection, kind: sa.ColumnElement[bool], limit: int) -> list[Waits]:
    rows = connection.execute(
        sa.select(recall.c.bundle_id, recall.c.priority, recall.c.requested_at)
        .join(bundle, bundle.c.id == recall.c.bundle_id)
        .where(recall.c.started_at.is_(None), kind, *_may_go_on(connection))
        .order_by(*_order())
        .limit(limit)
    )
    return [Waits(bundle_id=row.bundle_id, priority=row.priority, requested_at=row.requested_at) for row in rows]
