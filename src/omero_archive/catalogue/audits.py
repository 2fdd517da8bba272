"""Audits in the catalogue: which copies are compared again, least recently compared first, and what that showed."""

import math
from array import array as numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger

from omero_archive.catalogue.arrays import array
from omero_archive.catalogue.copies import READ_BACK, CopyRecord, Failure, by_ids, failed, move
from omero_archive.catalogue.counts import count_rows
from omero_archive.catalogue.events import now, record
from omero_archive.catalogue.tables import bundle, copy, file, manifest
from omero_archive.model import BundleName, ServiceName
from omero_archive.states import CopyState, Decision

AUDITABLE = (CopyState.VERIFIED, CopyState.DURABLE)
"""The states in which a copy was compared once, so that it can be compared again."""

BROKEN = (CopyState.DAMAGED, CopyState.MISSING)
"""The states out of which a copy is healed."""

ASK_AGAIN = timedelta(days=1)
"""How soon a service that could not tell is asked by a scheduled audit again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where copies are looked for: on which services, and of which bundles (None: of all that are approved)."""

    services: tuple[ServiceName, ...]
    bundle_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which copies of a scope: those compared before a time, a random part of them, and at most so many."""

    scope: Scope
    compared_before: datetime | None = None
    part: float | None = None  # 0.01 is one in a hundred
    seed: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSlice:
    """Copies on one service that are audited together, by number."""

    service: ServiceName
    ids: Sequence[int]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Copies of a scope in one state."""

    service: ServiceName
    state: CopyState
    copies: int
    size_bytes: int


# ---- which copies


def chosen(connection: sa.Connection, choice: Choice, *, size_bytes: int, files: int) -> list[AuditSlice]:
    """The chosen copies in slices of at most that size, least recently compared first. Holds numbers only."""
    conditions = [_is_auditable(choice.scope)]
    if choice.compared_before is not None:
        conditions.append(_compared_before(choice.compared_before))
    wanted = _auditable(choice.scope).where(*conditions[1:])
    if choice.part is not None:
        wanted = wanted.where(copy.c.id.in_(_drawn(connection, conditions, choice.part, choice.seed)))
    if choice.limit is not None:
        # Of each service in its index's order, so that no more is read than is wanted.
        each = [_least_recent_first(wanted.where(copy.c.service == name), choice) for name in choice.scope.services]
        wanted = sa.select(sa.union_all(*(sa.select(one.subquery()) for one in each)).subquery())
    rows = _least_recent_first(wanted, choice)
    return list(_sliced(connection.execute(rows.execution_options(yield_per=5000)), size_bytes, files))


def due(connection: sa.Connection, service: ServiceName, *, before: datetime, needs_staging: bool) -> sa.Select[Any]:
    """The copies on a service that a scheduled audit compares: last compared before that time, and not failing."""
    at = now(connection)
    # Without `checked_at IS NULL`, which no verified copy has, the index gives them in their order, however many.
    wanted = _auditable(Scope(services=(service,))).where(
        copy.c.checked_at <= before, ~copy.c.needs_attention, sa.or_(copy.c.retry_at.is_(None), copy.c.retry_at <= at)
    )
    if needs_staging:
        # It may have been asked without being able to tell; then the copy stays the least recently compared one.
        wanted = wanted.where(sa.or_(copy.c.asked_at.is_(None), copy.c.asked_at <= at - ASK_AGAIN))
    return wanted


def is_any(connection: sa.Connection, wanted: sa.Select[Any]) -> bool:
    """Whether there is any of the copies that `due` describes."""
    return connection.execute(wanted.limit(1)).first() is not None


def first_slice(connection: sa.Connection, wanted: sa.Select[Any], *, size_bytes: int, files: int) -> AuditSlice | None:
    """The least recently compared of the copies that `due` describes, at most so many."""
    rows = connection.execute(wanted.order_by(copy.c.checked_at.asc().nulls_first(), copy.c.id).limit(files))
    return next(_sliced(rows, size_bytes, files), None)


def counts(connection: sa.Connection, scope: Scope, states: Sequence[CopyState]) -> list[Counted]:
    """The copies of a scope that are in one of these states, by service and state."""
    rows = _all_but_others(scope) if scope.bundle_ids is None else _each(scope)
    found = rows.subquery()
    copies, size = sa.func.sum(found.c.copies), sa.func.sum(found.c.size_bytes)
    query = (
        sa.select(found.c.service, found.c.state, copies.label("copies"), size.label("size"))
        .where(found.c.service.in_(scope.services), found.c.state.in_(states))
        .group_by(found.c.service, found.c.state)
        .having(copies > 0)
    )
    return [
        Counted(
            service=ServiceName(row.service),
            state=CopyState(row.state),
            copies=int(row.copies),
            size_bytes=int(row.size),
        )
        for row in connection.execute(query.order_by(found.c.service, found.c.state))
    ]


def _each(scope: Scope) -> sa.Select[Any]:
    query = sa.select(copy.c.service, copy.c.state, sa.literal(1).label("copies"), _size().label("size_bytes"))
    return _joined(query).where(_in_scope(scope))


def _all_but_others(scope: Scope) -> sa.CompoundSelect[Any]:
    """Of all approved bundles: the counts that are kept of all, less the copies of the few that are not approved."""
    others = sa.select(copy.c.service, copy.c.state, sa.literal(-1), -_size())
    not_approved = bundle.c.decision != sa.literal_column(f"'{Decision.APPROVED}'")  # as the index has it
    others = _joined(others).where(copy.c.service.in_(scope.services), not_approved)
    return sa.union_all(*count_rows(), others)


def broken(connection: sa.Connection, scope: Scope) -> list[CopyRecord]:
    """The DAMAGED and MISSING copies of a scope, by number."""
    query = _joined(sa.select(copy.c.id)).where(_in_scope(scope), copy.c.state.in_(BROKEN))
    return by_ids(connection, list(connection.scalars(query)), states=BROKEN)


def names(connection: sa.Connection, bundle_ids: Sequence[int]) -> dict[int, BundleName]:
    """The names of bundles, by number."""
    query = sa.select(bundle.c.id, bundle.c.name).where(bundle.c.id == sa.any_(array(bundle_ids, BigInteger)))
    return {row.id: BundleName(row.name) for row in connection.execute(query)}


def manifests(connection: sa.Connection, service: ServiceName, bundle_ids: Sequence[int]) -> dict[int, str]:
    """The directories of the bundles' manifests on a service, by the bundle's number; none where none was written."""
    mine = manifest.c.bundle_id == sa.any_(array(bundle_ids, BigInteger))
    rows = connection.execute(sa.select(manifest).where(mine, manifest.c.service == service))
    return {row.bundle_id: row.directory for row in rows}


def _auditable(scope: Scope) -> sa.Select[Any]:
    query = sa.select(copy.c.id, copy.c.service, copy.c.checked_at, _size().label("size_bytes"))
    return _joined(query).where(_is_auditable(scope))


def _is_auditable(scope: Scope) -> sa.ColumnElement[bool]:
    return sa.and_(_in_scope(scope), copy.c.state.in_(AUDITABLE))


def _joined(query: sa.Select[Any]) -> sa.Select[Any]:
    joined = copy.join(file, file.c.id == copy.c.file_id).join(bundle, bundle.c.id == copy.c.bundle_id)
    return query.select_from(joined)


def _size() -> sa.ColumnElement[Any]:
    return sa.func.coalesce(file.c.size_bytes, file.c.recorded_size, 0)


def _in_scope(scope: Scope) -> sa.ColumnElement[bool]:
    if scope.bundle_ids is None:
        mine: sa.ColumnElement[bool] = bundle.c.decision == Decision.APPROVED
    else:
        mine = copy.c.bundle_id == sa.any_(array(scope.bundle_ids, BigInteger))
    return sa.and_(copy.c.service.in_(scope.services), mine)


def _compared_before(time: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(copy.c.checked_at.is_(None), copy.c.checked_at <= time)


def _drawn(
    connection: sa.Connection, conditions: Sequence[sa.ColumnElement[bool]], part: float, seed: int
) -> sa.Select[Any]:
    """The numbers of that part of the copies, at least one; the same ones for the same seed and the same copies."""
    # Only what chooses is read of all of them, and no file.
    whole = sa.select(copy.c.id).join(bundle, bundle.c.id == copy.c.bundle_id).where(*conditions).subquery()
    number = connection.scalar(sa.select(sa.func.count()).select_from(whole)) or 0
    lot = sa.func.hashint8extended(whole.c.id, seed)
    return sa.select(whole.c.id).order_by(lot, whole.c.id).limit(math.ceil(number * part))


def _least_recent_first(wanted: sa.Select[Any], choice: Choice) -> sa.Select[Any]:
    inner = wanted.subquery()
    return sa.select(inner).order_by(inner.c.checked_at.asc().nulls_first(), inner.c.id).limit(choice.limit)


def _sliced(rows: sa.CursorResult[Any], size_bytes: int, files: int) -> Iterator[AuditSlice]:
    """Slices of one service each, bounded in bytes and files; a file that is larger is a slice of its own."""
    open_ones: dict[str, tuple[numbers[int], int]] = {}
    for row in rows:
        ids, size = open_ones.pop(row.service, (numbers("q"), 0))
        if ids and (len(ids) >= files or size + row.size_bytes > size_bytes):
            yield AuditSlice(service=ServiceName(row.service), ids=ids, size_bytes=size)
            ids, size = numbers("q"), 0
        ids.append(row.id)
        open_ones[row.service] = (ids, size + int(row.size_bytes))
    for service, (ids, size) in open_ones.items():
        yield AuditSlice(service=ServiceName(service), ids=ids, size_bytes=size)


# ---- what it showed


def checked(connection: sa.Connection, ids: Sequence[int], *, how: str = READ_BACK) -> int:
    """Write down that copies were compared and are good. No event for each: see `noted`. How many they were."""
    values = {"checked_at": now(connection), "checked_how": how, "attempts": 0, "last_error": None}
    good = sa.and_(copy.c.id == sa.any_(array(ids, BigInteger)), copy.c.state.in_(AUDITABLE))
    return connection.execute(copy.update().where(good).values(**values, retry_at=None, needs_attention=False)).rowcount


def could_not_tell(connection: sa.Connection, ids: Sequence[int]) -> None:
    """Write down that the service was asked about copies and could not tell: they stay as they are."""
    mine = copy.c.id == sa.any_(array(ids, BigInteger))
    connection.execute(copy.update().where(mine, copy.c.state.in_(AUDITABLE)).values(asked_at=now(connection)))


def broke(
    connection: sa.Connection, found: CopyRecord, new: CopyState, message: str, detail: Mapping[str, object]
) -> bool:
    """Move one copy to DAMAGED or MISSING, with the evidence in its event; False if somebody else moved it."""
    if not move(connection, [found.id], old=found.state, new=new, detail=detail):
        return False
    failed(connection, {found.id: Failure(message=message, retry_at=None, is_damage=True)}, state=new)
    return True


def noted(connection: sa.Connection, bundle_id: int, facts: Mapping[str, object]) -> None:
    """Write what an audit of a bundle's copies counted."""
    record(connection, bundle_id, "audit", detail=facts)


def set_aside(connection: sa.Connection, bundle_id: int, facts: Mapping[str, object]) -> None:
    """Write where damaged bytes are kept, before they are deleted from their own place."""
    record(connection, bundle_id, "set aside", detail=facts)


def healed(
    connection: sa.Connection, found: CopyRecord, proof: Mapping[str, object], *, digests: Mapping[str, str] | None
) -> bool:
    """Move one copy back to WRITTEN, to be verified and confirmed anew, with the proof; False if it was moved.

    `digests` are those of what was written anew, None if nothing was.
    """
    doubted = ("sha256", "verified_at", "confirmed_at", "asked_at", "word", "checked_at", "checked_how")
    new = CopyState.WRITTEN
    values: dict[str, Any] = dict.fromkeys(doubted)
    if digests is not None:
        values["digests"] = dict(digests)
    return bool(move(connection, [found.id], old=found.state, new=new, detail=proof, **values))


def heal_failed(connection: sa.Connection, found: CopyRecord, message: str) -> None:
    """Write beside the state why a copy was not healed; a person must look."""
    failed(connection, {found.id: Failure(message=message, retry_at=None)}, state=found.state)
