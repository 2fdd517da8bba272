"""How many copies there are, by service and state, without reading a row for each: sums that triggers keep.

Whatever changes a copy adds, in the same transaction, how many there are more or less in `copy_count` (migration 0006).
What is counted never changes while a copy is there, and nobody adds to another's row; so the sums are exact in every
transaction's view, however many work at once, and nobody waits. `recounted` counts anew, for `check`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from omero_archive.catalogue.tables import copy, copy_count, file
from omero_archive.states import CopyState

_COMPARED = (CopyState.VERIFIED, CopyState.DURABLE, CopyState.DAMAGED, CopyState.MISSING)
"""States of copies whose bytes were compared, or asked for, since they were written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Copies in one state on one service, and the bytes of their files."""

    service: str
    state: CopyState
    copies: int
    size_bytes: int


def counted(connection: sa.Connection) -> list[Counted]:
    """All copies by service and state, in this order; states without any are left out."""
    return _counts(connection, sa.union_all(*count_rows()).subquery())


def count_rows() -> tuple[sa.Select[Any], sa.Select[Any]]:
    """Rows whose sums are the counts: `service`, `state`, `copies`, `size_bytes`."""
    kept = sa.select(copy_count.c.service, copy_count.c.state, copy_count.c.copies, copy_count.c.size_bytes)
    return kept, _unrecorded()


def recounted(connection: sa.Connection) -> list[Counted]:
    """The same, from the copies themselves: it reads every one of them."""
    each = (
        sa.select(
            copy.c.service,
            copy.c.state,
            sa.literal(1).label("copies"),
            sa.func.coalesce(file.c.recorded_size, file.c.size_bytes, 0).label("size_bytes"),
        )
        .join(file, file.c.id == copy.c.file_id)
        .subquery()
    )
    return _counts(connection, each)


def differences(connection: sa.Connection) -> list[str]:
    """Where the kept counts are not what counting gives, as sentences; none where nobody else wrote them.

    It must be the first that is asked in its transaction. It reads every copy, and keeps nobody waiting.
    """
    # Both counts see the same moment, whatever others commit in between.
    connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    kept = {(one.service, one.state): one for one in counted(connection)}
    found = {(one.service, one.state): one for one in recounted(connection)}
    return [
        f"{_told(kept.get(key))} {key[1]} on {key[0]} are kept in mind, {_told(found.get(key))} are there"
        for key in sorted({*kept, *found})
        if kept.get(key) != found.get(key)
    ]


def count_anew(connection: sa.Connection) -> None:
    """Put right what is kept in mind. Whoever changes a copy waits meanwhile."""
    connection.execute(sa.text("LOCK TABLE copy IN SHARE MODE"))
    connection.execute(copy_count.delete())
    size = sa.func.coalesce(sa.func.sum(file.c.recorded_size), 0)
    rows = sa.select(copy.c.service, copy.c.state, sa.func.count(), size).join(file, file.c.id == copy.c.file_id)
    columns = ["service", "state", "copies", "size_bytes"]
    connection.execute(copy_count.insert().from_select(columns, rows.group_by(copy.c.service, copy.c.state)))


def least_recently_compared(
    connection: sa.Connection, wanted: list[Counted]
) -> dict[tuple[str, CopyState], datetime | None]:
    """When the least recently compared copy was compared, for each service and state."""
    asked = [one for one in wanted if one.state in _COMPARED]
    return {(one.service, one.state): _first_compared(connection, one) for one in asked}


def left_on(connection: sa.Connection, service: str, *, named: Sequence[str], usable: Sequence[CopyState]) -> int:
    """How many usable copies on a service are the only usable ones, as far as the `named` services go."""
    other = copy.alias()
    is_elsewhere = sa.exists().where(
        other.c.file_id == copy.c.file_id, other.c.service.in_(named), other.c.state.in_(usable)
    )
    mine = sa.and_(copy.c.service == service, copy.c.state.in_(usable), ~is_elsewhere)
    return connection.scalar(sa.select(sa.func.count()).select_from(copy).where(mine)) or 0


def word(connection: sa.Connection, one: Counted) -> str | None:
    """What the service says of the copy in that state that it was given first, of those it was asked about."""
    mine = sa.and_(copy.c.service == one.service, copy.c.state == one.state, copy.c.word.is_not(None))
    found: str | None = connection.scalar(sa.select(copy.c.word).where(mine).order_by(copy.c.id).limit(1))
    return found


def _first_compared(connection: sa.Connection, one: Counted) -> datetime | None:
    mine = sa.and_(copy.c.service == one.service, copy.c.state == one.state)
    found: datetime | None = connection.scalar(sa.select(sa.func.min(copy.c.checked_at)).where(mine))
    return found


def _unrecorded() -> sa.Select[Any]:
    """The bytes of files whose size OMERO did not record (OMERO 4): they are known when they were read. Few."""
    return (
        sa.select(copy.c.service, copy.c.state, sa.literal(0), file.c.size_bytes)
        .join(file, file.c.id == copy.c.file_id)
        .where(file.c.recorded_size.is_(None), file.c.size_bytes.is_not(None))
    )


def _counts(connection: sa.Connection, rows: sa.Subquery) -> list[Counted]:
    copies, size_bytes = sa.func.sum(rows.c.copies), sa.func.sum(rows.c.size_bytes)
    query = (
        sa.select(rows.c.service, rows.c.state, copies.label("copies"), size_bytes.label("size_bytes"))
        .group_by(rows.c.service, rows.c.state)
        .having(copies != 0)
        .order_by(rows.c.service, rows.c.state)
    )
    return [
        Counted(
            service=row.service, state=CopyState(row.state), copies=int(row.copies), size_bytes=int(row.size_bytes or 0)
        )
        for row in connection.execute(query)
    ]


def _told(one: Counted | None) -> str:
    return "no copies" if one is None else f"{one.copies} copies ({one.size_bytes} bytes)"
