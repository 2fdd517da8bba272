"""What the queue of recalls looks like, for `status`: who waits for what, what is held back, how long others took."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from omero_archive.catalogue.events import now
from omero_archive.catalogue.recalls import OPENED
from omero_archive.catalogue.tables import bundle, copy, recall, waiting_open
from omero_archive.catalogue.turns import HOUR, is_away, is_under_way, what_began
from omero_archive.model import ServiceName
from omero_archive.settings import RecallSettings
from omero_archive.states import CopyState

PAST = 100
"""So many of a service's last recalls are looked at to say how long the next will take."""

ENOUGH = 3
"""Fewer recalls than these say nothing about the next."""

PINS = 100
"""So many pins are listed, those that end first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Open recalls: under way, and in the queue, with its oldest. `held_back`: those of opens beyond the hour's rate.

    `set_aside` are those that failed until a person has looked. `next_open_at` is when the next of those that are
    held back may begin.
    """

    under_way: int
    waiting: int
    set_aside: int
    oldest: str | None
    oldest_at: datetime | None
    held_back: int
    next_open_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiters:
    """Programs that wait at `open`: how many, for how many bundles, and one of them."""

    programs: int
    bundles: int
    who: str
    bundle: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A bundle that stays near until then."""

    bundle: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A service's last recalls: how many, in what time half of them was done, and nine of ten."""

    service: ServiceName
    recalls: int
    median: timedelta
    nine_of_ten: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRecall:
    """The open recall of a bundle. `ahead` is how many of the queue come before it, 0 when its turn has come."""

    requested_by: str
    requested_at: datetime
    reason: str | None
    priority: int
    started_at: datetime | None
    service: ServiceName | None
    ahead: int


def queue(connection: sa.Connection, limits: RecallSettings) -> Queue:
    """The queue of recalls."""
    in_queue = sa.and_(recall.c.started_at.is_(None), ~bundle.c.needs_attention)
    row = connection.execute(
        sa.select(
            sa.func.count().filter(is_under_way()).label("under_way"),
            sa.func.count().filter(in_queue).label("waiting"),
            sa.func.count().filter(bundle.c.needs_attention).label("set_aside"),
            sa.func.count().filter(in_queue, recall.c.priority >= OPENED).label("opens"),
            sa.func.min(recall.c.requested_at).filter(in_queue).label("oldest_at"),
        )
        .join(bundle, bundle.c.id == recall.c.bundle_id)
        .where(recall.c.finished_at.is_(None), is_away())
    ).one()
    allowed = limits.opens_per_hour - what_began(connection).opens
    held_back = max(0, row.opens - max(0, allowed))
    return Queue(
        under_way=row.under_way,
        waiting=row.waiting,
        set_aside=row.set_aside,
        oldest=None if row.oldest_at is None else _oldest(connection, row.oldest_at),
        oldest_at=row.oldest_at,
        held_back=held_back,
        next_open_at=_next_open(connection) if held_back and allowed <= 0 else None,
    )


def waiters(connection: sa.Connection, bundle_id: int | None = None) -> Waiters | None:
    """The programs that wait for one bundle or for any, None if there are none."""
    mine = sa.true() if bundle_id is None else waiting_open.c.bundle_id == bundle_id
    rows = connection.execute(
        sa.select(waiting_open, bundle.c.name)
        .join(bundle, bundle.c.id == waiting_open.c.bundle_id)
        .where(mine, waiting_open.c.until > now(connection), waiting_open.c.waiters > 0)
        .order_by(waiting_open.c.since, waiting_open.c.bundle_id)
    ).all()
    if not rows:
        return None
    return Waiters(
        programs=sum(row.waiters for row in rows),
        bundles=len({row.bundle_id for row in rows}),
        who=rows[0].who,
        bundle=rows[0].name,
        since=rows[0].since,
    )


def pins(connection: sa.Connection, bundle_id: int | None = None) -> list[Pin]:
    """The bundles that are pinned now, those whose pin ends first, at most `PINS`."""
    mine = sa.true() if bundle_id is None else bundle.c.id == bundle_id
    query = sa.select(bundle.c.name, bundle.c.pinned_until).where(mine, bundle.c.pinned_until > now(connection))
    rows = connection.execute(query.order_by(bundle.c.pinned_until, bundle.c.id).limit(PINS))
    return [Pin(bundle=row.name, until=row.pinned_until) for row in rows]


def past(connection: sa.Connection, service: ServiceName) -> Past | None:
    """How long the last recalls took of which this service brought most; None if there were too few to tell."""
    took = sa.extract("epoch", recall.c.finished_at - recall.c.started_at).label("took")
    last = (
        sa.select(took)
        .where(recall.c.service == service, recall.c.outcome == "done", recall.c.started_at.is_not(None))
        .order_by(recall.c.finished_at.desc())
        .limit(PAST)
        .subquery()
    )
    row = connection.execute(
        sa.select(
            sa.func.count().label("recalls"),
            sa.func.percentile_cont(0.5).within_group(last.c.took).label("median"),
            sa.func.percentile_cont(0.9).within_group(last.c.took).label("nine_of_ten"),
        ).select_from(last)
    ).one()
    if row.recalls < ENOUGH:
        return None
    return Past(
        service=service,
        recalls=row.recalls,
        median=timedelta(seconds=max(0.0, float(row.median))),
        nine_of_ten=timedelta(seconds=max(0.0, float(row.nine_of_ten))),
    )


def open_recall(connection: sa.Connection, bundle_id: int) -> OpenRecall | None:
    """The open recall of a bundle, None if there is none."""
    is_mine = sa.and_(recall.c.bundle_id == bundle_id, recall.c.finished_at.is_(None))
    row = connection.execute(sa.select(recall).where(is_mine)).one_or_none()
    if row is None:
        return None
    order = sa.tuple_(-recall.c.priority, recall.c.requested_at, recall.c.bundle_id)
    before = order < sa.tuple_(sa.literal(-row.priority), sa.literal(row.requested_at), sa.literal(bundle_id))
    ahead = (
        sa.select(sa.func.count())
        .select_from(recall.join(bundle, bundle.c.id == recall.c.bundle_id))
        .where(recall.c.finished_at.is_(None), recall.c.started_at.is_(None), ~bundle.c.needs_attention, before)
    )
    return OpenRecall(
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        reason=row.reason,
        priority=row.priority,
        started_at=row.started_at,
        service=None if row.service is None else ServiceName(row.service),
        ahead=0 if row.started_at is not None else int(connection.scalar(ahead) or 0),
    )


def holders(connection: sa.Connection, bundle_id: int) -> Sequence[ServiceName]:
    """The services that have copies of a bundle from which it could be recalled."""
    usable = (CopyState.DURABLE, CopyState.VERIFIED, CopyState.WRITTEN)
    found = sa.select(copy.c.service).where(copy.c.bundle_id == bundle_id, copy.c.state.in_(usable)).distinct()
    return [ServiceName(name) for name in connection.scalars(found)]


def _oldest(connection: sa.Connection, at: datetime) -> str | None:
    is_it = sa.and_(recall.c.requested_at == at, recall.c.finished_at.is_(None))
    found = sa.select(bundle.c.name).join(recall, recall.c.bundle_id == bundle.c.id).where(is_it)
    return connection.scalar(found.order_by(bundle.c.id).limit(1))


def _next_open(connection: sa.Connection) -> datetime | None:
    """When the first of the opens that began in the last hour no longer counts."""
    counts = sa.and_(recall.c.started_at > now(connection) - HOUR, recall.c.priority >= OPENED)
    first: datetime | None = connection.scalar(sa.select(sa.func.min(recall.c.started_at)).where(counts))
    return None if first is None else first + HOUR
