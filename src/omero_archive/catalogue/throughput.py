"""Who works, how fast, how much is left and when it will be done: by step and service, for `status` and Prometheus.

It only looks, and its cost goes with the workers and the attempts of the last minutes. Beats and rates go by
PostgreSQL's own clock, as what the workers tell does: the clocks of hosts differ.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from omero_archive.catalogue.depths import STEPS, Depth, at_fault, depths
from omero_archive.catalogue.tables import attempt, worker
from omero_archive.states import CopyState

WINDOW = timedelta(minutes=5)
"""Rates are those of so long a time, or of the shorter time since the first attempt in it began."""

REMEMBERED = timedelta(days=1)
"""A worker that never said that it ended is shown for so long after its last beat, unless another took its place."""

LAST_BEAT = timedelta(milliseconds=100)
"""Between the last beat of a worker and the end that it tells in the same statement there is less than this."""

WORKERS = 200
"""So many workers are shown at most."""

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
    """A worker that never said that it ended. `is_silent`: its last beat is so old, or its session was seen to be gone,
    that others take over what it had begun, or did.
    """

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
    """The workers that never said that they ended, with what they are at, by host label and number.

    One that others found dead is shown until one with the same label and queues begins: somebody should know.
    """
    at = _clock(connection)
    rows = connection.execute(
        sa.select(worker)
        .where(sa.or_(worker.c.ended_at.is_(None), _was_found_dead()), worker.c.beat_at > at - REMEMBERED)
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
            is_silent=row.ended_at is not None or at - row.beat_at > stalled_after,
            at_work=tuple(going_on.get(row.id, ())),
        )
        for row in rows
    ]


def _was_found_dead() -> sa.ColumnElement[bool]:
    """Who ends by himself beats once more as he does; others end him later."""
    later = worker.alias("later")
    is_replaced = sa.exists().where(
        later.c.id > worker.c.id, later.c.host_label == worker.c.host_label, later.c.queues == worker.c.queues
    )
    return sa.and_(worker.c.ended_at > worker.c.beat_at + LAST_BEAT, ~is_replaced)


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
