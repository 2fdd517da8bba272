"""Which job runs which step, on procrastinate over the catalogue's own database.

A job is one step on one slice, short, and safe to run again or twice at once: truth is in the catalogue, never in
the queue. `plan` looks what is due and puts jobs for it on the queue; a job that is queued already is not queued
again. Failures are written beside the state by the steps, with the time of the next try, so the queue itself
never retries.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from structlog.contextvars import bound_contextvars

from omero_archive.catalogue import bundles, copies, recalls, turns
from omero_archive.catalogue.copies import Failure, Slice
from omero_archive.errors import (
    ArchiveError,
    BrokenInvariant,
    Busy,
    Damage,
    DatabaseUnavailable,
    ObjectOffline,
    RecallCancelled,
    Refused,
)
from omero_archive.files import disk_errors
from omero_archive.model import BundleName, ServiceName
from omero_archive.planning import QUEUES, SLICE_STEPS, STAGE, Job, due, due_recalls
from omero_archive.states import Residency
from omero_archive.steps.audit_due import audit_due
from omero_archive.steps.confirm import confirm
from omero_archive.steps.copy import Tally, copy
from omero_archive.steps.evict import evict
from omero_archive.steps.manifest import manifest
from omero_archive.steps.recall import recall
from omero_archive.steps.site import Site
from omero_archive.steps.stage_ahead import stage_ahead
from omero_archive.steps.verify import verify

if TYPE_CHECKING:
    import procrastinate

_log = structlog.get_logger()

# procrastinate has no call for it: a job that is queued keeps the priority that it was put there with.
_MORE_URGENT = (
    "UPDATE procrastinate_jobs SET priority = %(priority)s"
    " WHERE queueing_lock = %(lock)s AND status = 'todo' AND priority < %(priority)s"
)

BREAKER_REST = timedelta(hours=1)
"""How long a worker copies nothing after the circuit breaker opened."""

_SLICE_STEPS: dict[str, Callable[[Site, Slice], Tally]] = {"copy": copy, "verify": verify, "confirm": confirm}

_BUNDLE_STEPS: dict[str, Callable[[Site, BundleName], object]] = {"recall": recall, "evict": evict}

Told = Callable[[Job], AbstractContextManager[Callable[[Tally], None]]]
"""Told of each job while it goes on; what it gives is called with what became of the job."""


@contextmanager
def tells_nobody(job: Job) -> Iterator[Callable[[Tally], None]]:
    """Nobody listens."""
    del job
    yield lambda _: None


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run did, counted in copies and bundles. `stopped` is why copying stopped by itself, None if it did not.

    `waiting` is how many copies and bundles waited, when they were last tried, for a service that brings bytes back.
    """

    done: int = 0
    failed: int = 0
    damaged: int = 0
    waiting: int = 0
    stopped: str | None = None


class Engine:
    """The jobs of one site. `result` counts what was done while this engine worked."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.result = Result()
        self._counting = threading.Lock()  # a worker does several jobs at once
        self._looked_at: set[int] = set()  # bundles that were looked at together, by number
        self._open_since: datetime | None = None
        self._rests_until: dict[str, datetime] = {}  # by service, whose audit failed, or `stage`
        self.recall_ended: Callable[[], None] = lambda: None  # told after each job in the queue of recalls
        self.told: Told = tells_nobody
        # Imported here and below: a tenth of a second, which commands without jobs would wait for too.
        import procrastinate

        self.queue = procrastinate.App(connector=_connector(site.catalogue.dsn))
        for step in (*QUEUES, STAGE):
            queue = Job(step=step, service=None, first=0, last=0).queue
            self.queue.task(name=step, queue=queue)(self._task(step))

    @property
    def site(self) -> Site:
        """The site whose jobs these are."""
        return self._site

    def plan(self) -> list[Job]:
        """All work that is due now. Raises `DiskFailed` if `near` cannot be looked at."""
        with disk_errors("what is due"):
            return list(due(self._site, rests=self._rests()))

    def waits_for_services(self) -> bool:
        """Whether a service has still to vouch for copies, or to bring bytes back for a recall or to be verified."""
        with self._site.catalogue.begin() as connection:
            return copies.unconfirmed(connection) or recalls.is_any_tried_again(connection)

    def run(self, *, steps: tuple[str, ...] = QUEUES) -> Result:
        """Work off everything that is due, also what becomes due by that, and return."""
        self._looked_at.clear()
        while jobs := self.planned(steps):
            before = self._moves()
            with queue_reached():
                asyncio.run(self._work_off(jobs, steps))
            self._site.catalogue.seal()
            if self._moves() == before:
                break  # others are on it, or it cannot be done now: not a reason to spin
        self.result.waiting = self._waiting()
        return self.result

    def planned(self, steps: tuple[str, ...], *, recalls_alone: bool = False) -> list[Job]:
        """The work that is due of these steps, or the recalls among it, after turns were given to recalls."""
        if "recall" in steps:
            with self._site.catalogue.begin() as connection:
                turns.begin(connection, self._site.settings.recall)
        jobs = list(due_recalls(self._site, rests=self._rests())) if recalls_alone else self.plan()
        return [job for job in jobs if job.queue in steps and not self._is_stopped(job.step)]

    def _moves(self) -> int:
        return self.result.done + self.result.failed + len(self._looked_at)

    def _waiting(self) -> int:
        with self._site.catalogue.begin() as connection:
            read_later = copies.number_to_read_later(connection) if self.result.waiting else 0
            return recalls.number_waiting(connection) + read_later

    def _rests(self) -> set[str]:
        return {name for name, until in self._rests_until.items() if until > self._site.clock()}

    def _is_stopped(self, step: str) -> bool:
        """Whether the circuit breaker forbids the step."""
        return step == "copy" and self._site.breaker.is_open

    # ---- the inside

    async def _work_off(self, jobs: list[Job], steps: tuple[str, ...]) -> None:
        async with self.queue.open_async():
            await self.rescue()
            await self.defer(jobs)
            await self.queue.run_worker_async(
                queues=list(steps),
                wait=False,
                listen_notify=False,
                install_signal_handlers=False,
                delete_jobs="always",
            )

    # ---- for a worker, which stays

    def close_breaker_after_a_while(self) -> None:
        """A worker stays: it tries again after an hour. What failed has its own time of the next try beside it."""
        now = self._site.clock()
        if not self._site.breaker.is_open:
            self._open_since = None
        elif self._open_since is None:
            self._open_since = now
        elif now - self._open_since >= BREAKER_REST:
            self._site.close_breaker()
            self.result.stopped = None

    async def defer(self, jobs: list[Job]) -> None:
        """Put jobs on the queue; one that is there already may become more urgent."""
        from procrastinate.exceptions import AlreadyEnqueued

        for job in jobs:
            arguments = {"service": job.service or "", "first": job.first, "last": job.last}
            deferrer = self.queue.configure_task(
                job.step, queue=job.queue, queueing_lock=job.lock, priority=job.priority
            )
            try:
                await deferrer.defer_async(**arguments)
            except AlreadyEnqueued:
                if job.queue == "recall":
                    await self.queue.connector.execute_query_async(_MORE_URGENT, lock=job.lock, priority=job.priority)

    async def rescue(self) -> None:
        """Forget jobs whose worker died: what they had not done is due still, and is planned anew."""
        from procrastinate.jobs import Status

        for job in await self.queue.job_manager.get_stalled_jobs():
            await self.queue.job_manager.finish_job(job=job, status=Status.FAILED, delete_job=True)

    # ---- one job

    def _task(self, step: str) -> Callable[..., None]:
        def run(service: str, first: int, last: int) -> None:
            job = Job(step=step, service=ServiceName(service) if service else None, first=first, last=last)
            with bound_contextvars(step=step, service=job.service), self.told(job) as ended:
                ended(self._run(job))

        run.__name__ = step
        return run

    def _run(self, job: Job) -> Tally:
        """One job. Whatever happens is written down; the next job goes on."""
        try:
            with disk_errors(job.step):
                tally = self._step(job)
        except Busy:
            tally = Tally()  # somebody else is doing it
        except RecallCancelled as error:
            _log.info("recall cancelled", action=job.step, first=job.first, text=str(error))
            tally = Tally()
        except ObjectOffline as error:
            self._failed(job, error)
            tally = Tally(waiting=1)
        except ArchiveError as error:
            self._failed(job, error)
            tally = Tally(failed=1, damaged=int(error.exit_code == Damage.exit_code))
        except Exception as error:  # noqa: BLE001 - one of the three places: a fault of ours must not stop the others
            _log.exception("step failed", action=job.step, first=job.first, last=job.last)
            self._failed(job, BrokenInvariant(f"a fault in omero-archive: {error!r}; a person must look."))
            tally = Tally(failed=1)
        with self._counting:
            self.result.done += tally.done
            self.result.failed += tally.failed
            self.result.damaged += tally.damaged
            self.result.waiting += tally.waiting
        self._tell_breaker()
        _log.info("job done", action=job.step, service=job.service, first=job.first, last=job.last, done=tally.done)
        if job.queue == "recall":
            self.recall_ended()
        return tally

    def _tell_breaker(self) -> None:
        reason = self._site.breaker.reason
        if reason is not None and self.result.stopped is None:
            _log.error("copying stopped by itself", action="copy", reason=reason)
        self.result.stopped = reason

    def _step(self, job: Job) -> Tally:
        match job.step, job.service:
            case "recall" | "evict", _:
                with self._site.catalogue.begin() as connection:
                    name = bundles.by_id(connection, job.first).name
                with bound_contextvars(bundle=name):
                    _BUNDLE_STEPS[job.step](self._site, name)
                return Tally(done=1)
            case "stage", _:
                self._stage_ahead()
                return Tally()
            case "manifest", str() as service:
                manifest(self._site, job.first, ServiceName(service))
                return Tally(done=1)
            case "audit", str() as service:
                return audit_due(self._site, ServiceName(service))
            case step, str() as service:
                return _SLICE_STEPS[step](
                    self._site, Slice(service=ServiceName(service), first_id=job.first, last_id=job.last)
                )
        raise BrokenInvariant(f"there is no step {job.step!r} without a service.")

    def _stage_ahead(self) -> None:
        with self._site.catalogue.begin() as connection:
            numbers = [each.bundle_id for each in turns.due(connection) if not each.is_settled]
        looked = stage_ahead(self._site, numbers)
        with self._counting:
            self._looked_at.update(looked.settled, looked.waiting)

    def _failed(self, job: Job, error: ArchiveError) -> None:
        """A step on a bundle failed as a whole, or a slice did in a way that its step does not know."""
        _log.warning("step failed", action=job.step, first=job.first, error=str(error))
        if job.step in ("audit", STAGE):
            # What an audit could not do it writes beside the copies itself; here it did not come that far. Where
            # nothing can be staged ahead, each recall asks for its own.
            self._rests_until[job.service or job.step] = self._site.clock() + self._site.settings.work.retry_after
            return
        with self._site.catalogue.begin() as connection:
            if job.step in _SLICE_STEPS:
                state = SLICE_STEPS[job.step]
                piece = Slice(service=ServiceName(job.service or ""), first_id=job.first, last_id=job.last)
                copies.slice_failed(connection, piece, state, _failure(error, self._site))
                return
            if job.step == "manifest" and job.first not in dict(
                copies.without_manifest(connection, ServiceName(job.service or ""))
            ):
                return  # it was done: only the answer to its commit was lost
            bundle = bundles.by_id(connection, job.first)
            since = recalls.turn_since(connection, job.first) if job.step == "recall" else None
            if job.step == "recall" and since is None and bundle.residency is not Residency.ONLINE:
                return  # it was cancelled meanwhile
            if since is not None and isinstance(error, ObjectOffline):
                bundles.waits(connection, job.first, str(error), self._site.look_again_at(since))
                return
            # No permit now, such as from a service that cannot be asked, may be one later: nothing is lost by waiting.
            may_pass = job.step == "evict" and isinstance(error, Refused)
            retry_at = self._site.retry_at(Busy() if may_pass else error, bundle.attempts)
            bundles.failed(connection, job.first, str(error), retry_at, needs_attention=retry_at is None)
            if job.step == "recall" and retry_at is None:
                turns.give_back(connection, job.first)


def _failure(error: ArchiveError, site: Site) -> Failure:
    return Failure(message=str(error), retry_at=site.retry_at(error, 0))


@contextmanager
def queue_reached() -> Iterator[None]:
    """Raise `DatabaseUnavailable` where the queue says that it cannot be reached."""
    from procrastinate.exceptions import ConnectorException

    try:
        yield
    except ConnectorException as error:
        cause = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise DatabaseUnavailable(f"the job queue in the catalogue's database cannot be reached: {cause[0]}") from error


def apply_queue_schema(dsn: str) -> bool:
    """Make procrastinate's tables in the catalogue's database, for `omero-archive init`; False if they are there."""
    from procrastinate.schema import SchemaManager

    with psycopg.connect(dsn, autocommit=True) as connection:
        found = connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
        if found is not None and found[0] is not None:
            return False
        connection.execute(SchemaManager.get_schema().encode())
        return True


def _connector(dsn: str) -> "procrastinate.PsycopgConnector":
    import procrastinate

    return procrastinate.PsycopgConnector(conninfo=make_conninfo(dsn, application_name="omero-archive"))
