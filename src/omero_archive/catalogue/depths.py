"""How much waits for each step on each service, without reading it.

All copies are counted by `counts.py`; what does not wait is looked for and taken off. The cost goes with the copies
that something keeps from being worked on, not with those that wait or are durable, of which there may be millions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from omero_archive.catalogue import counts
from omero_archive.catalogue.events import now
from omero_archive.catalogue.tables import bundle, copy, file
from omero_archive.states import CopyState, Decision, Residency

STEPS: Mapping[str, CopyState] = {
    "copy": CopyState.PENDING,
    "verify": CopyState.WRITTEN,
    "confirm": CopyState.VERIFIED,
}
"""The steps on copies in their order, and the state of the copies that wait for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """Copies that wait for a step on a service: how many and how large.

    Of the files `later_files` failed and are tried again at a later time. `attention_files` are not among `files`:
    they wait for a person.
    """

    files: int = 0
    size_bytes: int = 0
    later_files: int = 0
    attention_files: int = 0


def depths(connection: sa.Connection) -> dict[tuple[str, str], Depth]:
    """What waits, by step and service: copies of approved bundles without a hold; those that failed for good aside.

    All copies are counted without being read, and what does not wait is taken off: there is little of that.
    """
    aside = _summed(connection, _of_bundles_aside())
    away = _summed(connection, _of_bundles_away())
    attention = _summed(connection, _for_a_person())
    later = _summed(connection, _later(now(connection)))
    step_of = {state: step for step, state in STEPS.items()}
    found = {}
    for all_of_them in counts.counted(connection):
        if step := step_of.get(all_of_them.state):
            key = (all_of_them.service, str(all_of_them.state))
            failed = attention.get(key, _NONE)
            less = [aside.get(key, _NONE), away.get(key, _NONE), failed]
            # Each is counted at a moment of its own: what moves meanwhile must not make less than none.
            found[step, all_of_them.service] = Depth(
                files=max(0, all_of_them.copies - sum(each.files for each in less)),
                size_bytes=max(0, all_of_them.size_bytes - sum(each.size_bytes for each in less)),
                later_files=later.get(key, _NONE).files,
                attention_files=failed.files,
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Some of the copies of a service in a state."""

    files: int = 0
    size_bytes: int = 0


_NONE = _Part()

_APPROVED = sa.and_(bundle.c.decision == Decision.APPROVED, bundle.c.hold_reason.is_(None))
_SIZE = sa.func.coalesce(file.c.recorded_size, file.c.size_bytes, 0)


def _is_in(*states: CopyState) -> sa.ColumnElement[bool]:
    """Written out, not as parameters: else PostgreSQL could not tell that the index of what is not durable serves."""
    return copy.c.state.in_(sa.bindparam(None, list(map(str, states)), expanding=True, literal_execute=True))


def _of_bundles_aside() -> sa.Select[Any]:
    """Copies of bundles that are not approved or on hold; from these, which are few, not from the copies."""
    piles = (
        sa.select(copy.c.service, copy.c.state, sa.func.count().label("files"), sa.func.sum(_SIZE).label("size"))
        .join(file, file.c.id == copy.c.file_id)
        .where(copy.c.bundle_id == bundle.c.id, _is_in(*STEPS.values()))
        .group_by(copy.c.service, copy.c.state)
        .lateral("piles")
    )
    return _totals(piles).select_from(bundle).join(piles, sa.true()).where(sa.not_(_APPROVED))


def _of_bundles_away() -> sa.Select[Any]:
    """Copies that cannot be written now, since their originals were released before."""
    return (
        sa.select(copy.c.service, copy.c.state, sa.func.count().label("files"), sa.func.sum(_SIZE).label("size"))
        .join_from(copy, bundle, bundle.c.id == copy.c.bundle_id)
        .join(file, file.c.id == copy.c.file_id)
        .where(_is_in(CopyState.PENDING), _APPROVED, bundle.c.residency != Residency.RESIDENT)
        .group_by(copy.c.service, copy.c.state)
    )


def _for_a_person() -> sa.Select[Any]:
    """Copies that would wait, but for a person."""
    size = sa.func.sum(_SIZE).label("size")
    return _of_queues(_piles(size).join(file, file.c.id == copy.c.file_id).where(copy.c.needs_attention))


def _later(at: datetime) -> sa.Select[Any]:
    """Copies that wait and are tried again later; their bytes are not asked for."""
    return _of_queues(_piles(sa.literal(0).label("size")).where(copy.c.retry_at > at, ~copy.c.needs_attention))


def _piles(size: sa.ColumnElement[int]) -> sa.Select[Any]:
    """By bundle first, so that each bundle is looked at once."""
    by = (copy.c.bundle_id, copy.c.service, copy.c.state)
    return sa.select(*by, sa.func.count().label("files"), size).where(_is_in(*STEPS.values())).group_by(*by)


def _of_queues(query: sa.Select[Any]) -> sa.Select[Any]:
    piles = query.subquery("piles")
    is_away = sa.and_(piles.c.state == CopyState.PENDING, bundle.c.residency != Residency.RESIDENT)
    joined = _totals(piles).join_from(piles, bundle, bundle.c.id == piles.c.bundle_id)
    return joined.where(_APPROVED, sa.not_(is_away))


def _totals(piles: sa.FromClause) -> sa.Select[Any]:
    files, size = sa.func.sum(piles.c.files).label("files"), sa.func.sum(piles.c.size).label("size")
    return sa.select(piles.c.service, piles.c.state, files, size).group_by(piles.c.service, piles.c.state)


def _summed(connection: sa.Connection, query: sa.Select[Any]) -> dict[tuple[str, str], _Part]:
    rows = connection.execute(query)
    return {(row.service, row.state): _Part(files=int(row.files), size_bytes=int(row.size)) for row in rows}


def at_fault(connection: sa.Connection) -> dict[tuple[str, CopyState], int]:
    """How many copies are DAMAGED or MISSING, by service and state."""
    rows = connection.execute(
        sa.select(copy.c.service, copy.c.state, sa.func.count().label("copies"))
        .where(_is_in(CopyState.DAMAGED, CopyState.MISSING))
        .group_by(copy.c.service, copy.c.state)
    )
    return {(row.service, CopyState(row.state)): row.copies for row in rows}
