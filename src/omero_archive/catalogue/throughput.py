"""Who works, how fast, how much is left and when it will be done: by step and service, for `status` and Prometheus.

It only looks. Its cost goes with the workers, the attempts of the last minutes and the copies that something keeps from
being worked on; not with those that wait or are durable, of which there may be millions: these are counted by
`counts.py` without being read. Beats and rates go by PostgreSQL's own clock, as what the workers tell does: the clocks
of hosts differ.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from omero_archive.catalogue import counts
from omero_archive.catalogue.events import now
from omero_archive.catalogue.tables import attempt, bundle, copy, file, worker
from omero_archive.states import CopyState, Decision, Residency

WINDOW = timedelta(minutes=5)
"""Rates are those of so long a time, or of the shorter time since the first attempt in it began."""

REMEMBERED = timedelta(days=1)
"""A worker that never said that it ended is shown for so long after its last beat."""

WORKERS = 200
"""So many workers are shown at most."""

STEPS: Mapping[str, CopyState] = {
    "copy": CopyState.PENDING,
    "verify": CopyState.WRITTEN,
    "confirm": CopyState.VERIFIED,
}
"""The steps on copies in their order, and the state of the copies that wait for them."""

_LEAST_TIME_S = 1.0  # an attempt that began this instant has no rate


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """One attempt that is going on: what it took, and what it had done at its last beat."""

    id: int
    step: str
    service: str
    files: int
    size_bytes: int
    done_files: int
    done_bytes: int
    begun_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """A worker that has not ended. `is_silent`: its last beat is so old that others take over what it had begun."""

    id: int
    host_label: str
    host: str
    pid: int
    queues: tuple[str, ...]
    streams: int
    started_at: datetime
    beat_at: datetime
    is_silent: bool
    at_work: tuple[AtWork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a step did a second on a service over the last minutes, all workers together."""

    files_per_s: float = 0.0
    bytes_per_s: float = 0.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepQueue:
    """A step on a service. `remaining_s`: when all is done that waits for it now or will come to it from the steps
    before, in seconds at the present rate; None where that cannot be said, as where nothing was done lately.
    """

    step: str
    service: str
    depth: Depth
    rate: Rate
    workers: int
    remaining_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """All of it, as of one moment. `at_fault`: how many copies are DAMAGED or MISSING, by service and state."""

    at: datetime
    movers: tuple[Mover, ...]
    queues: tuple[StepQueue, ...]
    at_fault: Mapping[tuple[str, CopyState], int]


def throughput(connection: sa.Connection, services: Sequence[str], *, stalled_after: timedelta) -> Throughput:
    """What is seen now. There is a queue for each step on each of `services`, and on others that have copies."""
    found = movers(connection, stalled_after)
    return Throughput(
        at=_clock(connection),
        movers=tuple(found),
        queues=tuple(_queues(services, depths(connection), rates(connection), found)),
        at_fault=at_fault(connection),
    )


def _clock(connection: sa.Connection) -> datetime:
    time: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return time


# ---- what is asked


def movers(connection: sa.Connection, stalled_after: timedelta) -> list[Mover]:
    """The workers that have not ended, with what they are at, by host label and number."""
    at = _clock(connection)
    rows = connection.execute(
        sa.select(worker)
        .where(worker.c.ended_at.is_(None), worker.c.beat_at > at - REMEMBERED)
        .order_by(worker.c.host_label, worker.c.id)
        .limit(WORKERS)
    ).all()
    going_on = _at_work(connection, [row.id for row in rows])
    return [
        Mover(
            id=row.id,
            host_label=row.host_label,
            host=row.host,
            pid=row.pid,
            queues=tuple(row.queues),
            streams=row.streams,
            started_at=row.started_at,
            beat_at=row.beat_at,
            is_silent=at - row.beat_at > stalled_after,
            at_work=tuple(going_on.get(row.id, ())),
        )
        for row in rows
    ]


def _at_work(connection: sa.Connection, workers: Sequence[int]) -> Mapping[int, list[AtWork]]:
    found: defaultdict[int, list[AtWork]] = defaultdict(list)
    open_ones = sa.select(attempt).where(attempt.c.ended_at.is_(None), attempt.c.worker_id.in_(workers))
    for row in connection.execute(open_ones.order_by(attempt.c.id)):
        found[row.worker_id].append(
            AtWork(
                id=row.id,
                step=row.step,
                service=row.service,
                files=row.files,
                size_bytes=row.size_bytes,
                done_files=row.done_files,
                done_bytes=row.done_bytes,
                begun_at=row.begun_at,
            )
        )
    return found


def rates(connection: sa.Connection, window: timedelta = WINDOW) -> dict[tuple[str, str], Rate]:
    """What was done a second, by step and service, for those on which somebody worked within the window.

    What an attempt did is spread evenly over its time; the part before the window is left out. What was taken over
    from a silent worker does not count: it is done again.
    """
    at = _clock(connection)
    since = sa.literal(at - window)
    # As far as it is known: what a beat has told.
    until = sa.func.coalesce(attempt.c.ended_at, attempt.c.beat_at)
    first = sa.func.greatest(attempt.c.begun_at, since)
    lasted = _seconds(until - attempt.c.begun_at)
    part = sa.case((lasted <= 0, 1.0), else_=_seconds(until - first) / sa.func.nullif(lasted, 0))
    rows = connection.execute(
        sa.select(
            attempt.c.step,
            attempt.c.service,
            sa.func.sum(attempt.c.done_files * part).label("files"),
            sa.func.sum(attempt.c.done_bytes * part).label("size_bytes"),
            sa.func.min(first).label("first"),
        )
        .where(
            sa.or_(attempt.c.ended_at.is_(None), attempt.c.ended_at > since),
            until > since,
            attempt.c.outcome.is_distinct_from("taken over"),
        )
        .group_by(attempt.c.step, attempt.c.service)
    )
    return {(row.step, row.service): _rate(row, at) for row in rows}


def _rate(row: Any, at: datetime) -> Rate:
    time_s = max(_LEAST_TIME_S, (at - row.first).total_seconds())
    return Rate(files_per_s=float(row.files) / time_s, bytes_per_s=float(row.size_bytes) / time_s)


def _seconds(interval: sa.ColumnElement[timedelta]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", interval), sa.Double)


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


# ---- what follows from it


def _queues(
    services: Sequence[str],
    depth: Mapping[tuple[str, str], Depth],
    rate: Mapping[tuple[str, str], Rate],
    found: Sequence[Mover],
) -> Iterator[StepQueue]:
    others = sorted({service for _, service in depth} - set(services))
    for service in (*services, *others):
        before = Depth()
        left: float | None = 0.0
        for step in STEPS:
            mine, speed = depth.get((step, service), Depth()), rate.get((step, service), Rate())
            before = _with(before, mine)
            left = remaining_s(before, speed, after_s=left)
            workers = sum(step in mover.queues and not mover.is_silent for mover in found)
            yield StepQueue(step=step, service=service, depth=mine, rate=speed, workers=workers, remaining_s=left)


def remaining_s(depth: Depth, rate: Rate, *, after_s: float | None) -> float | None:
    """The seconds until so much is done, and not before the step before it is: `after_s`. None: that cannot be said.

    Files and bytes are looked at apart, and what takes longer counts: what is left may be smaller than what was done.
    """
    if not depth.files:
        return 0.0
    if after_s is None or not rate.files_per_s or (depth.size_bytes and not rate.bytes_per_s):
        return None
    by_bytes = depth.size_bytes / rate.bytes_per_s if depth.size_bytes else 0.0
    return max(after_s, depth.files / rate.files_per_s, by_bytes)


def _with(one: Depth, other: Depth) -> Depth:
    return Depth(files=one.files + other.files, size_bytes=one.size_bytes + other.size_bytes)
