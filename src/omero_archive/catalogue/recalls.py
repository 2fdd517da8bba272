"""Recalls: who asked for a bundle's bytes, and what became of it. One open recall for a bundle, however many ask."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from omero_archive.catalogue.events import now, record
from omero_archive.catalogue.tables import bundle, event, recall
from omero_archive.model import ServiceName
from omero_archive.states import Residency


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRecall:
    """A recall that is not finished."""

    id: int
    bundle_id: int
    requested_by: str
    requested_at: datetime


def ask(connection: sa.Connection, bundle_id: int, by: str, reason: str | None) -> bool:
    """Register a recall; False if one is open already."""
    values = {"bundle_id": bundle_id, "requested_by": by, "requested_at": now(connection), "reason": reason}
    done = connection.execute(insert(recall).values(**values).on_conflict_do_nothing())
    if done.rowcount:
        record(connection, bundle_id, "recall", new="requested", detail={"by": by, "reason": reason})
    return bool(done.rowcount)


def finish(connection: sa.Connection, bundle_id: int, outcome: str) -> None:
    """Close the open recall of a bundle, if there is one."""
    open_one = sa.and_(recall.c.bundle_id == bundle_id, recall.c.finished_at.is_(None))
    done = connection.execute(recall.update().where(open_one).values(finished_at=now(connection), outcome=outcome))
    if done.rowcount:
        record(connection, bundle_id, "recall", new=outcome)


def asked_at(connection: sa.Connection, bundle_id: int) -> datetime | None:
    """When the open recall of a bundle was asked for; None if there is none."""
    is_open = sa.and_(recall.c.bundle_id == bundle_id, recall.c.finished_at.is_(None))
    found: datetime | None = connection.scalar(sa.select(recall.c.requested_at).where(is_open))
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


def is_any_waiting(connection: sa.Connection) -> bool:
    """Whether a recall is open that will be tried again by itself."""
    waits = sa.and_(recall.c.finished_at.is_(None), ~bundle.c.needs_attention, bundle.c.retry_at.is_not(None))
    query = sa.select(bundle.c.id).join(recall, recall.c.bundle_id == bundle.c.id).where(waits)
    return connection.scalar(query.limit(1)) is not None


def due(connection: sa.Connection) -> Sequence[int]:
    """The bundles whose recall is due, the oldest request first."""
    rows = connection.scalars(
        sa.select(bundle.c.id)
        .join(recall, recall.c.bundle_id == bundle.c.id)
        .where(
            recall.c.finished_at.is_(None),
            bundle.c.residency.in_([Residency.OFFLINE, Residency.RECALLING]),
            ~bundle.c.needs_attention,
            sa.or_(bundle.c.retry_at.is_(None), bundle.c.retry_at <= now(connection)),
        )
        .order_by(recall.c.requested_at)
    )
    return list(rows)
