"""Recalls: who asked for a bundle's bytes, and what became of it. One open recall for a bundle, however many ask.

Whoever asks says how urgent it is, and tells all who listen on `CHANNEL` when the transaction is committed: a worker
then looks at once what is due. Nothing is lost where nobody listens, since workers look by themselves too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from omero_archive.catalogue.arrays import rows_given
from omero_archive.catalogue.events import Happened, now, record, record_each
from omero_archive.catalogue.tables import bundle, event, recall
from omero_archive.model import BundleName, ServiceName
from omero_archive.states import Residency

CHANNEL = "omero_archive_recall"
"""PostgreSQL's channel on which it is told that a recall was asked for, is wanted more, or ended."""

BATCH = 0
"""Priority of what a person asked for by command."""

OPENED = 10
"""Priority of a file whose opening failed: somebody will try again soon."""

WAITED_FOR = 20
"""Priority of a file that a program waits for now, in `open`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A recall that somebody wants."""

    bundle_id: int
    by: str
    reason: str | None
    priority: int = BATCH


def ask(connection: sa.Connection, bundle_id: int, by: str, reason: str | None, *, priority: int = BATCH) -> bool:
    """Register a recall; False if one is open already. That one becomes more urgent if this one is."""
    return bundle_id in ask_all(connection, [Wish(bundle_id=bundle_id, by=by, reason=reason, priority=priority)])


def ask_all(connection: sa.Connection, wishes: Sequence[Wish]) -> set[int]:
    """As `ask` for many bundles, each named once, in three statements; those for which no recall was open."""
    wanted = {wish.bundle_id: wish for wish in wishes}
    if not wanted:
        return set()
    columns = ["bundle_id", "requested_by", "reason", "priority", "requested_at"]
    added = insert(recall).from_select(columns, _rows(wanted, now(connection)))
    # One statement: a recall that ends at this moment is either still the one, or a new one is begun.
    asked = added.on_conflict_do_update(
        index_elements=[recall.c.bundle_id],
        index_where=recall.c.finished_at.is_(None),
        set_={"priority": added.excluded.priority},
        where=recall.c.priority < added.excluded.priority,
    ).returning(
        recall.c.bundle_id, sa.literal_column("xmax = 0", sa.Boolean).label("is_new")
    )  # a row that was there already is locked by us, a new one is not
    changed = {row.bundle_id: bool(row.is_new) for row in connection.execute(asked)}
    if changed:
        record_each(connection, "recall", [_asked(wanted[number], is_new) for number, is_new in changed.items()])
        notify(connection)
    return {number for number, is_new in changed.items() if is_new}


def _rows(wanted: Mapping[int, Wish], at: datetime) -> sa.Select[Any]:
    # In the order of their numbers: two that ask for the same must not wait for each other in a circle.
    wishes = [wanted[number] for number in sorted(wanted)]
    given = rows_given(
        {
            "bundle_id": (sa.BigInteger, [wish.bundle_id for wish in wishes]),
            "requested_by": (sa.Text, [wish.by for wish in wishes]),
            "reason": (sa.Text, [wish.reason for wish in wishes]),
            "priority": (sa.Integer, [wish.priority for wish in wishes]),
        }
    )
    return sa.select(given.c.bundle_id, given.c.requested_by, given.c.reason, given.c.priority, sa.literal(at))


def _asked(wish: Wish, is_new: bool) -> Happened:
    detail = {"by": wish.by, "reason": wish.reason, "priority": wish.priority}
    return Happened(bundle_id=wish.bundle_id, new="requested" if is_new else "more urgent", detail=detail)


def notify(connection: sa.Connection) -> None:
    """Tell those who listen that there may be something to do, when this transaction is committed."""
    connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))


def finish(connection: sa.Connection, bundle_id: int, outcome: str) -> bool:
    """Close the open recall of a bundle; False if there is none. Its turn is free for another, who is told."""
    ended = recall.update().where(_is_open(bundle_id)).values(finished_at=now(connection), outcome=outcome)
    if not connection.execute(ended).rowcount:
        return False
    record(connection, bundle_id, "recall", new=outcome)
    notify(connection)
    return True


def turn_since(connection: sa.Connection, bundle_id: int) -> datetime | None:
    """Since when it is the open recall's turn, or when it was asked for; None if no recall is open."""
    since = sa.func.coalesce(recall.c.started_at, recall.c.requested_at)
    found: datetime | None = connection.scalar(sa.select(since).where(_is_open(bundle_id)))
    return found


def staged_since(connection: sa.Connection, bundle_id: int, service: ServiceName, *, files: int) -> datetime:
    """When a service was first asked to stage files of the bundle, since its recall began; now, if it never was.

    Then it is written down, with how many files.
    """
    mine = event.c.bundle_id == bundle_id
    begun = sa.select(sa.func.max(event.c.id)).where(
        mine, event.c.what == "residency", event.c.new == Residency.RECALLING
    )
    asked = sa.select(sa.func.min(event.c.at)).where(
        mine,
        event.c.what == "stage",
        event.c.detail["service"].astext == service,
        event.c.id > sa.func.coalesce(begun.scalar_subquery(), 0),
    )
    since: datetime | None = connection.scalar(asked)
    if since is None:
        record(connection, bundle_id, "stage", detail={"service": service, "files": files})
    return now(connection) if since is None else since


def is_any_tried_again(connection: sa.Connection) -> bool:
    """Whether a recall is open that will be tried again by itself."""
    query = sa.select(bundle.c.id).join(recall, recall.c.bundle_id == bundle.c.id).where(*_is_tried_again())
    return connection.scalar(query.limit(1)) is not None


def number_waiting(connection: sa.Connection) -> int:
    """How many recalls wait for bytes that a service brings back, without having failed since they last waited."""
    query = sa.select(sa.func.count()).select_from(bundle.join(recall, recall.c.bundle_id == bundle.c.id))
    return int(connection.scalar(query.where(*_is_tried_again(), bundle.c.attempts == 0)) or 0)


def _is_tried_again() -> tuple[sa.ColumnElement[bool], ...]:
    return recall.c.finished_at.is_(None), ~bundle.c.needs_attention, bundle.c.retry_at.is_not(None)


def open_ones(connection: sa.Connection) -> list[BundleName]:
    """The bundles whose recall is open, in the order in which they were asked for."""
    query = sa.select(bundle.c.name).join(recall, recall.c.bundle_id == bundle.c.id)
    rows = connection.scalars(query.where(recall.c.finished_at.is_(None)).order_by(recall.c.requested_at, bundle.c.id))
    return list(map(BundleName, rows))


def is_open(connection: sa.Connection, bundle_id: int, *, keep: bool = False) -> bool:
    """Whether a recall of the bundle is open; with `keep` it stays so until the end of this transaction."""
    query = sa.select(recall.c.id).where(_is_open(bundle_id))
    return connection.scalar(query.with_for_update() if keep else query) is not None


def brought_by(connection: sa.Connection, bundle_id: int, service: ServiceName, *, for_sure: bool) -> None:
    """Write down which service brings most of a bundle's bytes. Not `for_sure`: only if nothing was said before."""
    mine = _is_open(bundle_id) if for_sure else sa.and_(_is_open(bundle_id), recall.c.service.is_(None))
    connection.execute(recall.update().where(mine).values(service=service))


def _is_open(bundle_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(recall.c.bundle_id == bundle_id, recall.c.finished_at.is_(None))
