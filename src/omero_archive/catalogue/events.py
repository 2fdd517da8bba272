"""What happened, written in the transaction that made it so. Rows are only ever added."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from omero_archive.catalogue.tables import event
from omero_archive.model import printable

WROTE = "wrote events"
"""Set in `connection.info` by whoever writes an event, so that the catalogue knows that there is something to seal."""


def now(connection: sa.Connection) -> datetime:
    """The time, from the clock that was injected."""
    time: datetime = connection.info["clock"]()
    return time


def actor(connection: sa.Connection) -> str:
    """Who works on this connection."""
    return str(connection.info["actor"])


def record(
    connection: sa.Connection,
    bundle_id: int,
    what: str,
    *,
    old: str | None = None,
    new: str | None = None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write one event of a bundle."""
    connection.info[WROTE] = True
    connection.execute(
        event.insert().values(
            at=now(connection),
            actor=actor(connection),
            bundle_id=bundle_id,
            what=what,
            old=None if old is None else printable(old),
            new=None if new is None else printable(new),
            detail=None if detail is None else _told(detail),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What happened to one bundle among many."""

    bundle_id: int
    new: str
    detail: Mapping[str, object]


def record_each(connection: sa.Connection, what: str, happened: Sequence[Happened]) -> None:
    """Write one event for each of some bundles, in one statement."""
    connection.info[WROTE] = True
    common = {"at": now(connection), "actor": actor(connection), "what": what}
    rows = [
        common | {"bundle_id": one.bundle_id, "new": printable(one.new), "detail": _told(one.detail)}
        for one in happened
    ]
    connection.execute(event.insert(), rows)


def record_moved(
    connection: sa.Connection, moved: sa.CTE, *, old: str, new: str, detail: Mapping[str, object] | None = None
) -> int:
    """Write one event for each row of an UPDATE ... RETURNING bundle_id, file_id, service; how many there were."""
    connection.info[WROTE] = True
    rows = sa.select(
        sa.literal(now(connection)),
        sa.literal(actor(connection)),
        moved.c.bundle_id,
        moved.c.file_id,
        moved.c.service,
        sa.literal("copy"),
        sa.literal(old),
        sa.literal(new),
        sa.literal(None if detail is None else _told(detail), JSONB(none_as_null=True)),
    )
    columns = ["at", "actor", "bundle_id", "file_id", "service", "what", "old", "new", "detail"]
    return connection.execute(event.insert().from_select(columns, rows)).rowcount


def _told(value: Any) -> Any:
    """A detail as JSON in PostgreSQL takes it: file names in it may be no text."""
    match value:
        case str():
            return printable(value)
        case Mapping():
            return {printable(str(key)): _told(item) for key, item in value.items()}
        case list() | tuple():
            return [_told(item) for item in value]
    return value
