"""Claims: which worker is at work on which copies, so that no two are, and others go on where one fell silent.

An attempt is one try of one worker at one step on some copies, which name it as long as it is open. What became of
them is recorded under the attempt alone: once it was taken over, nothing that it records changes any row. A worker is
known to be alive by its beats, and by a lock that its session holds: that goes at once when its process dies.

All times here are PostgreSQL's own, since the clocks of hosts differ.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import BigInteger, Integer

from omero_archive.catalogue import copies
from omero_archive.catalogue.arrays import array, rows_given
from omero_archive.catalogue.copies import Bounds, CopyRecord
from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.patience import be_brief
from omero_archive.catalogue.tables import attempt, copy, worker
from omero_archive.errors import DatabaseUnavailable, WorkStopped
from omero_archive.model import ServiceName
from omero_archive.states import CopyState

STREAMING = ("copy", "verify")
"""The steps that move a service's bytes: of these a service may be given no more than `streams` at once."""

KEPT = timedelta(days=30)
"""How long it is remembered who worked on what."""

AGAIN_S = 1.0
"""How long to wait before PostgreSQL is asked again to take what was done."""

PATIENCE = 4
"""So many times `work.stalled_after` what was done waits for PostgreSQL, to be recorded."""

# The first half of the two numbers of each lock; pg_locks shows both.
_WORKERS, _STREAMS = 0x6F610001, 0x6F610002

_T = TypeVar("_T")


class Outcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    HANDED_BACK = "handed back"  # its worker was told to stop
    TAKEN_OVER = "taken over"  # its worker fell silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where a worker runs: `label` is for people, and several workers may have the same."""

    label: str
    name: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a worker wants to claim. `streams`: the most there may be to the service, over all workers; None: any."""

    step: str
    service: ServiceName
    bounds: Bounds
    stalled_after: timedelta
    streams: int | None = None


def _tells_nobody(files: int, size_bytes: int) -> None:
    del files, size_bytes


@dataclass(slots=True, kw_only=True, eq=False)
class Claim:
    """The copies of one attempt, while it is worked on. Safe for several threads."""

    attempt: int
    step: str
    service: ServiceName
    copies: Sequence[CopyRecord]
    done_files: int = 0
    done_bytes: int = 0
    told: Callable[[int, int], None] = _tells_nobody
    _ended: str | None = None  # why nothing more is to be begun under it
    _counting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_ended(self) -> bool:
        """Whether nothing more is to be begun: it was taken over, or we were told to stop."""
        return self._ended is not None

    def end(self, why: str) -> None:
        """Let nothing more be begun under it. What was done may still be recorded, if others do not have it by now."""
        self._ended = self._ended or why

    def require(self) -> None:
        """Raise `WorkStopped` if nothing more is to be begun."""
        if self._ended is not None:
            raise WorkStopped(f"{self.step} on {self.service} stopped: {self._ended}.")

    def did(self, files: int, size_bytes: int) -> None:
        """So much more was done; others see it at the next beat."""
        with self._counting:
            self.done_files += files
            self.done_bytes += size_bytes
        self.told(files, size_bytes)


# ---- workers


def register(connection: sa.Connection, host: Host, queues: Sequence[str], streams: int) -> int:
    """A new worker, whose lock this session holds from now on; its number."""
    old = sa.func.clock_timestamp() - KEPT
    connection.execute(attempt.delete().where(attempt.c.ended_at < old))
    unnamed = ~sa.exists().where(attempt.c.worker_id == worker.c.id)
    connection.execute(worker.delete().where(worker.c.ended_at < old, unnamed))
    row = {"host_label": host.label, "host": host.name, "pid": host.pid, "queues": list(queues), "streams": streams}
    at = sa.func.clock_timestamp()
    # The lock in the same statement: nobody sees the row before it is held.
    made = worker.insert().values(**row, started_at=at, beat_at=at).returning(worker.c.id, _lock_of_worker())
    return int(connection.execute(made).one().id)


def resume(connection: sa.Connection, worker_id: int) -> None:
    """Hold the worker's lock in this session: the one before is lost."""
    connection.execute(sa.select(_lock_of_worker()).where(worker.c.id == worker_id))


def beat(connection: sa.Connection, worker_id: int, claims: Sequence[Claim]) -> set[int]:
    """Tell that the worker is alive and how far it is; the attempts that are its own still.

    A worker that others took for dead is alive again by this; the attempts that it lost are not.
    """
    at = sa.func.clock_timestamp()
    connection.execute(worker.update().where(worker.c.id == worker_id).values(beat_at=at, ended_at=None))
    if not claims:
        return set()
    given = rows_given(
        {
            "id": (BigInteger, [claim.attempt for claim in claims]),
            "done_files": (Integer, [claim.done_files for claim in claims]),
            "done_bytes": (BigInteger, [claim.done_bytes for claim in claims]),
        }
    )
    told = (
        attempt.update()
        .where(attempt.c.id == given.c.id, attempt.c.ended_at.is_(None))
        .values(beat_at=at, done_files=given.c.done_files, done_bytes=given.c.done_bytes)
        .returning(attempt.c.id)
    )
    return set(connection.scalars(told))


def leave(connection: sa.Connection, worker_id: int) -> None:
    """The worker ends; its attempts were ended before."""
    at = sa.func.clock_timestamp()
    connection.execute(worker.update().where(worker.c.id == worker_id).values(beat_at=at, ended_at=at))


def open_streams(connection: sa.Connection, stalled_after: timedelta) -> dict[ServiceName, int]:
    """How many attempts move bytes of each service now, over all workers that are not silent."""
    query = sa.select(attempt.c.service, sa.func.count().label("streams")).where(_streams(stalled_after))
    rows = connection.execute(query.group_by(attempt.c.service))
    return {ServiceName(row.service): row.streams for row in rows}


# ---- attempts


def take(connection: sa.Connection, worker_id: int, wanted: Wanted) -> Claim | None:
    """Claim the next copies that are due for a step, None if there are none or the service has all its streams."""
    step, service = wanted.step, wanted.service
    be_brief(connection, wanted.stalled_after)
    if step in STREAMING and wanted.streams is not None and not _may_begin(connection, wanted):
        return None
    found = copies.next_due(connection, service, STATES[step], bounds=wanted.bounds)
    if not found:
        return None
    at = sa.func.clock_timestamp()
    row = {"files": len(found), "size_bytes": sum(each.size_bytes for each in found)}
    made = attempt.insert().values(worker_id=worker_id, step=step, service=service, begun_at=at, beat_at=at, **row)
    number = int(connection.execute(made.returning(attempt.c.id)).scalar_one())
    mine = copy.c.id == sa.any_(array([each.id for each in found], BigInteger))
    connection.execute(copy.update().where(mine).values(attempt_id=number))
    return Claim(attempt=number, step=step, service=service, copies=found)


STATES: Mapping[str, CopyState] = {
    "copy": CopyState.PENDING,
    "verify": CopyState.WRITTEN,
    "confirm": CopyState.VERIFIED,
}
"""The steps that are done under claims, and the state of the copies that they take."""


def record(catalogue: Catalogue, claim: Claim, act: Callable[[sa.Connection], _T], *, stalled_after: timedelta) -> _T:
    """Record under a claim what was done, in one transaction: all of it, or nothing if others took the work over.

    Where PostgreSQL is away it is tried again for a while, since the work would have to be done anew: nobody can take
    it over meanwhile. Raises `WorkStopped` if somebody did, `DatabaseUnavailable`.
    """
    until = time.monotonic() + PATIENCE * stalled_after.total_seconds()
    while True:
        try:
            with catalogue.begin() as connection:
                _hold(connection, claim, stalled_after)
                return act(connection)
        except DatabaseUnavailable:
            # Where only the answer to the commit was lost, the second time finds nothing left to do.
            if time.monotonic() > until:
                raise
            time.sleep(AGAIN_S)


def finish(connection: sa.Connection, claim: Claim, outcome: Outcome) -> None:
    """End an attempt: what it did not record is free again. One that was taken over stays as it is."""
    at = sa.func.clock_timestamp()
    values = {"ended_at": at, "outcome": outcome, "done_files": claim.done_files, "done_bytes": claim.done_bytes}
    mine = sa.and_(attempt.c.id == claim.attempt, attempt.c.ended_at.is_(None))
    connection.execute(attempt.update().where(mine).values(**values))
    connection.execute(copy.update().where(copy.c.attempt_id == claim.attempt).values(attempt_id=None))


def take_over(connection: sa.Connection, worker_id: int | None, stalled_after: timedelta) -> int:
    """End the attempts of workers that died or fell silent; how many. Their copies are free for everybody.

    What is being recorded this moment is left alone: either that ends soon, or PostgreSQL ends its session.
    """
    be_brief(connection, stalled_after)
    others = sa.true() if worker_id is None else worker.c.id != worker_id
    lost = sa.or_(_is_silent(attempt.c.beat_at, stalled_after), sa.and_(others, _is_dead()))
    query = (
        sa.select(attempt.c.id)
        .join(worker, worker.c.id == attempt.c.worker_id)
        .where(attempt.c.ended_at.is_(None), lost)
        .order_by(attempt.c.id)
        .with_for_update(of=attempt, skip_locked=True)
    )
    numbers = array(list(connection.scalars(query)), BigInteger)
    at = sa.func.clock_timestamp()
    ended = attempt.update().where(attempt.c.id == sa.any_(numbers)).values(ended_at=at, outcome=Outcome.TAKEN_OVER)
    many = connection.execute(ended).rowcount
    if many:
        connection.execute(copy.update().where(copy.c.attempt_id == sa.any_(numbers)).values(attempt_id=None))
    gone = sa.or_(_is_silent(worker.c.beat_at, stalled_after), _is_dead())
    connection.execute(worker.update().where(worker.c.ended_at.is_(None), others, gone).values(ended_at=at))
    return many


def _hold(connection: sa.Connection, claim: Claim, stalled_after: timedelta) -> None:
    """Keep others from taking an attempt over while this transaction records. Raises `WorkStopped` if they did."""
    be_brief(connection, stalled_after)
    # A lock that a beat does not wait for, but a take-over does.
    mine = sa.select(attempt.c.id).where(attempt.c.id == claim.attempt, attempt.c.ended_at.is_(None))
    if connection.scalar(mine.with_for_update(read=True, key_share=True)) is None:
        claim.end("another worker took the work over, since this one had been silent")
        claim.require()


def _may_begin(connection: sa.Connection, wanted: Wanted) -> bool:
    """Whether the service has a stream left; nobody else begins one there before this transaction ends."""
    number = int.from_bytes(sha256(wanted.service.encode()).digest()[:4], "big", signed=True)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_STREAMS, number)))
    return open_streams(connection, wanted.stalled_after).get(wanted.service, 0) < (wanted.streams or 0)


def _streams(stalled_after: timedelta) -> sa.ColumnElement[bool]:
    fresh = ~_is_silent(attempt.c.beat_at, stalled_after)
    return sa.and_(attempt.c.ended_at.is_(None), attempt.c.step.in_(STREAMING), fresh)


def _is_silent(beat_at: sa.ColumnElement[Any], stalled_after: timedelta) -> sa.ColumnElement[bool]:
    """Nothing was heard for so long; while PostgreSQL was away nobody could be."""
    heard = sa.func.greatest(beat_at, sa.func.pg_postmaster_start_time())
    return heard < sa.func.clock_timestamp() - stalled_after


def _is_dead() -> sa.ColumnElement[bool]:
    """Its session is gone. Those from before PostgreSQL was started all are: such workers come back, or are silent."""
    unheld = sa.text(
        "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = :workers AND objid = worker.id::oid"
        " AND objsubid = 2 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    ).bindparams(workers=_WORKERS)
    return sa.and_(worker.c.beat_at > sa.func.pg_postmaster_start_time(), unheld)


def _lock_of_worker() -> sa.ColumnElement[Any]:
    return sa.func.pg_try_advisory_lock(_WORKERS, sa.cast(worker.c.id, Integer))
