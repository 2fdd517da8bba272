"""Which job runs which step, on procrastinate over the catalogue's own database.

A job is one step on one slice, short, and safe to run again or twice at once: truth is in the catalogue, never in
the queue. `plan` looks what is due and puts jobs for it on the queue; a job that is queued already is not queued
again. Which copies a slice is, is found when it is its turn: they are claimed (see `mover.py`), so a job that is lost
with its worker holds nobody up. Failures are written beside the state by the steps, with the time of the next try, so
the queue itself never retries.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from structlog.contextvars import bound_contextvars

from omero_archive.catalogue import bundles, copies, recalls, turns
from omero_archive.catalogue.claims import STATES, Claim
from omero_archive.catalogue.copies import Failure
from omero_archive.catalogue.patience import lasting
from omero_archive.errors import (
    ArchiveError,
    BrokenInvariant,
    Busy,
    Damage,
    DatabaseUnavailable,
    NotMounted,
    ObjectOffline,
    RecallCancelled,
    Refused,
    WorkStopped,
)
from omero_archive.files import disk_errors
from omero_archive.model import BundleName, ServiceName
from omero_archive.mover import BEATS, Mover
from omero_archive.planning import OF_SERVICE, QUEUES, STAGE, Job, due, due_recalls, line
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
from omero_archive.wrapped.throttled import share_rates

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

_SLICE_STEPS: dict[str, Callable[[Site, Claim], Tally]] = {"copy": copy, "verify": verify, "confirm": confirm}

_BUNDLE_STEPS: dict[str, Callable[[Site, BundleName], object]] = {"recall": recall, "evict": evict}

Told = Callable[[Job], AbstractContextManager[Callable[[Tally], None]]]
"""Told of each job while it goes on; what it gives is called with what became of the job."""

MayServe = Callable[[str, ServiceName | None], bool]
"""Whether this host may do a step, on that service if the step has to do with one: whether it sees what it needs."""


@contextmanager
def tells_nobody(job: Job) -> Iterator[Callable[[Tally], None]]:
    """Nobody listens."""
    del job
    yield lambda _: None


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run did, counted in copies and bundles. `stopped` is why copying stopped by itself, None if it did not.

    `waiting` is how many copies and bundles waited, when they were last tried, for a service that brings bytes back.
    `unseen` is why work was left to other hosts: what this one does not see.
    """

    done: int = 0
    failed: int = 0
    damaged: int = 0
    waiting: int = 0
    stopped: str | None = None
    unseen: tuple[str, ...] = ()


class Engine:
    """The jobs of one site. `result` counts what was done while this engine worked.

    `label` names the host, `streams` is how many slices are worked on at once (default: `work.streams`).
    """

    def __init__(
        self,
        site: Site,
        *,
        label: str | None = None,
        streams: int | None = None,
        may_serve: MayServe | None = None,
    ) -> None:
        self._site = site
        self.result = Result()
        self.streams = streams or site.settings.work.streams
        self.mover = Mover(site, label=label)
        self._may_serve = may_serve or site.sight.may_try
        self.mover.told = lambda streams: share_rates(site.services, streams, mine=self.mover.own_streams())
        self.is_stopped = False
        self._counting = threading.Lock()  # a worker does several jobs at once
        self._looked_at: set[int] = set()  # bundles that were looked at together, by number
        self._open_since: datetime | None = None
        self._rests_until: dict[str, datetime] = {}  # by service, whose audit failed, or `stage`
        self.recall_ended: Callable[[], None] = lambda: None  # told after each job in the queue of recalls
        self.job_ended: Callable[[], None] = lambda: None  # told after each other job that did something
        self.told: Told = tells_nobody
        # Imported here and below: a tenth of a second, which commands without jobs would wait for too.
        import procrastinate

        self.queue = procrastinate.App(connector=_connector(site.catalogue.dsn))
        for step in (*QUEUES, STAGE):
            self.queue.task(name=step)(self._task(step))

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
        """Work off everything that is due, also what becomes due by that, and return; sooner after `stop`."""
        self._looked_at.clear()
        if self.is_stopped:
            return self.result
        with self.mover.at_work(steps, self.streams):
            while jobs := self.planned(steps):
                before = self._moves()
                with queue_reached():
                    asyncio.run(self._work_off(jobs, steps))
                self._site.catalogue.seal()
                if self._moves() == before or self.is_stopped:
                    break  # others are on it, or it cannot be done now: not a reason to spin
        self.result.waiting = self._waiting()
        return self.result

    def stop(self) -> None:
        """Stop soon: what is done is recorded, the rest handed back. May be called from any thread."""
        self.is_stopped = True
        self.mover.stop()

    def planned(self, steps: tuple[str, ...], *, recalls_alone: bool = False) -> list[Job]:
        """The work that is due of these steps, or the recalls among it, after turns were given to recalls."""
        if not recalls_alone:
            self.mover.look_after_others()
        if "recall" in steps:
            with self._site.catalogue.begin() as connection:
                turns.begin(connection, self._site.settings.recall)
        jobs = list(due_recalls(self._site, rests=self._rests())) if recalls_alone else self.plan()
        wanted = [job for job in jobs if job.queue in steps and not self._is_stopped(job.step)]
        served = [job for job in wanted if self._may_serve(job.queue, job.service)]
        left = {(job.queue, job.service) for job in wanted} - {(job.queue, job.service) for job in served}
        self.result.unseen = tuple(sorted({self._site.sight.reason(*each) for each in left} - {""}))
        return served

    def lines(self, steps: Sequence[str]) -> list[str]:
        """The queues in procrastinate whose jobs this host may do now."""
        services = self._site.settings.service_names
        wanted = [(step, service) for step in steps for service in (services if step in OF_SERVICE else (None,))]
        return [line(step, service) for step, service in wanted if self._may_serve(step, service)]

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
            await asyncio.gather(
                self.work(self.lines([step for step in steps if step != "recall"]), at_once=self.streams, wait=False),
                self.work(self.lines([step for step in steps if step == "recall"]), at_once=1, wait=False),
            )

    async def work(self, lines: Sequence[str], *, at_once: int, wait: bool) -> None:
        """Do the jobs on these queues, until there are none, or with `wait` for ever."""
        if not lines:
            return
        stalled_s = self._site.settings.work.stalled_after.total_seconds()
        await self.queue.run_worker_async(
            queues=list(lines),
            concurrency=at_once,
            wait=wait,
            listen_notify=wait,
            install_signal_handlers=False,
            delete_jobs="always",
            update_heartbeat_interval=stalled_s / BEATS,
            stalled_worker_timeout=stalled_s,
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
            arguments = {"service": job.service or "", "number": job.number}
            deferrer = self.queue.configure_task(
                job.step, queue=job.line, queueing_lock=job.lock, priority=job.priority
            )
            try:
                await deferrer.defer_async(**arguments)
            except AlreadyEnqueued:
                if job.queue == "recall":
                    await self.queue.connector.execute_query_async(_MORE_URGENT, lock=job.lock, priority=job.priority)

    async def rescue(self) -> None:
        """Forget jobs whose worker died: what they had not done is due still, and is planned anew."""
        from procrastinate.exceptions import ConnectorException
        from procrastinate.jobs import Status

        stalled_s = self._site.settings.work.stalled_after.total_seconds()
        for job in await self.queue.job_manager.get_stalled_jobs(seconds_since_heartbeat=stalled_s):
            try:
                await self.queue.job_manager.finish_job(job=job, status=Status.FAILED, delete_job=True)
            except ConnectorException as error:
                if "Job was not found" not in str(error.__cause__):
                    raise  # else another worker forgot it first

    # ---- one job

    def _task(self, step: str) -> Callable[..., None]:
        def run(service: str, number: int) -> None:
            job = Job(step=step, service=ServiceName(service) if service else None, number=number)
            mover = self.mover
            ids = {"host_label": mover.label, "worker": mover.worker_id, "step": step, "service": job.service}
            with bound_contextvars(**ids), self.told(job) as ended:
                ended(self._run(job))

        run.__name__ = step
        return run

    def _run(self, job: Job) -> Tally:
        """One job. Whatever happens is written down; the next job goes on."""
        if self.is_stopped or not self._may_serve(job.queue, job.service):
            return Tally()  # it is due still
        try:
            with self._claimed(job) as claim:
                tally = self._tried(job, claim)
        except DatabaseUnavailable as error:
            _log.warning("PostgreSQL cannot be reached", action=job.step, service=job.service, error=str(error))
            return Tally()  # nothing can be written down; what was begun is due still
        with self._counting:
            self.result.done += tally.done
            self.result.failed += tally.failed
            self.result.damaged += tally.damaged
            self.result.waiting += tally.waiting
        self._tell_breaker()
        _log.info("job done", action=job.step, service=job.service, number=job.number, done=tally.done)
        if job.queue == "recall":
            self.recall_ended()
        elif tally.done:
            self.job_ended()
        return tally

    def _claimed(self, job: Job) -> Any:
        if job.step in _SLICE_STEPS and job.service is not None:
            return self.mover.claimed(job.step, job.service)
        return nullcontext()

    def _tried(self, job: Job, claim: Claim | None) -> Tally:
        try:
            with disk_errors(job.step):
                return self._step(job, claim)
        except Busy:
            return Tally()  # somebody else is doing it
        except NotMounted as error:
            _log.warning("not seen", action=job.step, service=job.service, number=job.number, text=str(error))
            return Tally()  # nothing is known, so nothing is written down: it is due still, for a host that sees it
        except WorkStopped as error:
            _log.info("work stopped", action=job.step, service=job.service, text=str(error))
            return Tally()
        except RecallCancelled as error:
            _log.info("recall cancelled", action=job.step, number=job.number, text=str(error))
            return Tally()
        except ObjectOffline as error:
            self._failed(job, claim, error)
            return Tally(waiting=1)
        except ArchiveError as error:
            self._failed(job, claim, error)
            return Tally(failed=1, damaged=int(error.exit_code == Damage.exit_code))
        except Exception as error:  # noqa: BLE001 - one of the three places: a fault of ours must not stop the others
            _log.exception("step failed", action=job.step, service=job.service, number=job.number)
            self._failed(job, claim, BrokenInvariant(f"a fault in omero-archive: {error!r}; a person must look."))
            return Tally(failed=1)

    def _tell_breaker(self) -> None:
        reason = self._site.breaker.reason
        if reason is not None and self.result.stopped is None:
            _log.error("copying stopped by itself", action="copy", reason=reason)
        self.result.stopped = reason

    def _step(self, job: Job, claim: Claim | None) -> Tally:
        if job.step in _SLICE_STEPS:
            return Tally() if claim is None else _SLICE_STEPS[job.step](self._site, claim)
        match job.step, job.service:
            case "recall" | "evict", _:
                with self._site.catalogue.begin() as connection:
                    name = bundles.by_id(connection, job.number).name
                with bound_contextvars(bundle=name):
                    _BUNDLE_STEPS[job.step](self._site, name)
                return Tally(done=1)
            case "stage", _:
                self._stage_ahead()
                return Tally()
            case "manifest", str() as service:
                manifest(self._site, job.number, ServiceName(service))
                return Tally(done=1)
            case "audit", str() as service:
                return audit_due(self._site, ServiceName(service))
        raise BrokenInvariant(f"there is no step {job.step!r} without a service.")

    def _stage_ahead(self) -> None:
        with self._site.catalogue.begin() as connection:
            numbers = [each.bundle_id for each in turns.due(connection) if not each.is_settled]
        looked = stage_ahead(self._site, numbers)
        with self._counting:
            self._looked_at.update(looked.settled, looked.waiting)

    def _failed(self, job: Job, claim: Claim | None, error: ArchiveError) -> None:
        """A step on a bundle failed as a whole, or a slice did in a way that its step does not know."""
        _log.warning("step failed", action=job.step, service=job.service, number=job.number, error=str(error))
        if claim is not None:
            self._slice_failed(claim, error)
            return
        if job.step in ("audit", STAGE):
            # What an audit could not do it writes beside the copies itself; here it did not come that far. Where
            # nothing can be staged ahead, each recall asks for its own.
            self._rests_until[job.service or job.step] = self._site.clock() + self._site.settings.work.retry_after
            return
        with self._site.catalogue.begin() as connection:
            if job.step == "manifest" and job.number not in dict(
                copies.without_manifest(connection, ServiceName(job.service or ""))
            ):
                return  # it was done: only the answer to its commit was lost
            bundle = bundles.by_id(connection, job.number)
            since = recalls.turn_since(connection, job.number) if job.step == "recall" else None
            if job.step == "recall" and since is None and bundle.residency is not Residency.ONLINE:
                return  # it was cancelled meanwhile
            if since is not None and isinstance(error, ObjectOffline):
                bundles.waits(connection, job.number, str(error), self._site.look_again_at(since))
                return
            # No permit now, such as from a service that cannot be asked, may be one later: nothing is lost by waiting.
            may_pass = job.step == "evict" and isinstance(error, Refused)
            retry_at = self._site.retry_at(Busy() if may_pass else error, bundle.attempts)
            bundles.failed(connection, job.number, str(error), retry_at, needs_attention=retry_at is None)
            if job.step == "recall" and retry_at is None:
                turns.give_back(connection, job.number)

    def _slice_failed(self, claim: Claim, error: ArchiveError) -> None:
        if isinstance(error, DatabaseUnavailable):
            raise error  # it is due still
        failure = Failure(message=str(error), retry_at=self._site.retry_at(error, 0))
        failures = dict.fromkeys((copy.id for copy in claim.copies), failure)
        with self._site.catalogue.begin() as connection:
            copies.failed(connection, failures, state=STATES[claim.step], attempt=claim.attempt)


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

    return procrastinate.PsycopgConnector(conninfo=make_conninfo(lasting(dsn), application_name="omero-archive"))
