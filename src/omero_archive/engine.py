"""Which job runs which step, on procrastinate over the catalogue's own database.

A job is one step on one slice, short, and safe to run again or twice at once: truth is in the catalogue, never in
the queue. `plan` looks what is due and puts jobs for it on the queue; a job that is queued already is not queued
again. Failures are written beside the state by the steps, with the time of the next try, so the queue itself
never retries.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa
import structlog
from psycopg.conninfo import make_conninfo

from omero_archive.catalogue import bundles, copies, recalls
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.copies import Failure, Slice
from omero_archive.errors import (
    ArchiveError,
    BrokenInvariant,
    Busy,
    Damage,
    DatabaseUnavailable,
    ObjectOffline,
    Refused,
)
from omero_archive.files import disk_errors
from omero_archive.model import BundleName, ServiceName
from omero_archive.states import CopyState, Residency
from omero_archive.steps.audit_due import audit_due, is_audit_due
from omero_archive.steps.confirm import confirm
from omero_archive.steps.copy import Tally, copy
from omero_archive.steps.evict import evict
from omero_archive.steps.manifest import manifest
from omero_archive.steps.recall import recall
from omero_archive.steps.room import windows_over
from omero_archive.steps.site import Site, place_of
from omero_archive.steps.verify import verify

if TYPE_CHECKING:
    import procrastinate

_log = structlog.get_logger()

QUEUES = ("recall", "evict", "copy", "manifest", "verify", "confirm", "audit")
"""The steps that jobs run, each a queue of its own, so that a data mover can be given some of them."""

BREAKER_REST = timedelta(hours=1)
"""How long a worker copies nothing after the circuit breaker opened."""

_SLICE_STEPS: dict[str, tuple[CopyState, Callable[[Site, Slice], Tally]]] = {
    "copy": (CopyState.PENDING, copy),
    "verify": (CopyState.WRITTEN, verify),
    "confirm": (CopyState.VERIFIED, confirm),
}


_BUNDLE_STEPS: dict[str, Callable[[Site, BundleName], object]] = {"recall": recall, "evict": evict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One step on one piece of work: a slice of copies, or a bundle."""

    step: str
    service: ServiceName | None
    first: int  # number of the first copy, or of the bundle
    last: int

    @property
    def lock(self) -> str:
        """By it a job that is queued already is known."""
        return f"{self.step}:{self.service or ''}:{self.first}-{self.last}"


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run did, counted in copies and bundles. `stopped` is why copying stopped by itself, None if it did not.

    `waiting` counts how often something had to wait for a service that is bringing bytes back.
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
        self._open_since: datetime | None = None
        self._audit_rests_until: dict[ServiceName, datetime] = {}
        # Imported here and below: a tenth of a second, which commands without jobs would wait for too.
        import procrastinate

        self._app = procrastinate.App(connector=_connector(site.catalogue.dsn))
        for step in QUEUES:
            self._app.task(name=step, queue=step)(self._task(step))

    def plan(self) -> list[Job]:
        """All work that is due now. Raises `DiskFailed` if `near` cannot be looked at."""
        with disk_errors("what is due"):
            return list(self._due())

    def waits_for_services(self) -> bool:
        """Whether a service has still to vouch for copies, or to bring bytes back for a recall or to be verified."""
        with self._site.catalogue.begin() as connection:
            return copies.unconfirmed(connection) or recalls.is_any_waiting(connection)

    def run(self, *, steps: tuple[str, ...] = QUEUES) -> Result:
        """Work off everything that is due, also what becomes due by that, and return."""
        while jobs := [job for job in self.plan() if job.step in steps and not self._is_stopped(job.step)]:
            before = self.result.done + self.result.failed
            with _queue_reached():
                asyncio.run(self._work_off(jobs, steps))
            self._site.catalogue.seal()
            if self.result.done + self.result.failed == before:
                break  # others are on it, or it cannot be done now: not a reason to spin
        return self.result

    def _is_stopped(self, step: str) -> bool:
        """Whether the circuit breaker forbids the step."""
        return step == "copy" and self._site.breaker.is_open

    def work(self, *, steps: tuple[str, ...] = QUEUES) -> None:
        """Go on until a signal says stop; what becomes due is looked for every `work.poll`."""
        with _queue_reached():
            asyncio.run(self._work_on(steps))

    # ---- the inside

    def _due(self) -> Iterator[Job]:
        site, work = self._site, self._site.settings.work
        with site.catalogue.begin() as connection:
            for number in recalls.due(connection):
                yield Job(step="recall", service=None, first=number, last=number)
            for name in site.near.taken_out():
                bundle = bundles.by_name(connection, name)
                step = None if bundle is None else _after_eviction(site, connection, bundle)
                if bundle is not None and step is not None:
                    yield Job(step=step, service=None, first=bundle.id, last=bundle.id)
            for bundle in windows_over(site):
                yield Job(step="evict", service=None, first=bundle.id, last=bundle.id)
            for service in site.settings.service_names:
                for number, _ in copies.without_manifest(connection, service):
                    yield Job(step="manifest", service=service, first=number, last=number)
                for step, (state, _) in _SLICE_STEPS.items():
                    slices = copies.due_slices(
                        connection,
                        service,
                        state,
                        size_bytes=work.slice_size,
                        files=work.slice_files,
                        poll=site.poll,
                    )
                    for piece in slices:
                        yield Job(step=step, service=service, first=piece.first_id, last=piece.last_id)
            for service in site.settings.service_names:
                rests_until = self._audit_rests_until.get(service)
                if (rests_until is None or rests_until <= site.clock()) and is_audit_due(site, connection, service):
                    # One slice, found when it is its turn: the next is planned when all else has had its own.
                    yield Job(step="audit", service=service, first=0, last=0)

    async def _work_off(self, jobs: list[Job], steps: tuple[str, ...]) -> None:
        async with self._app.open_async():
            await self._rescue()
            await self._defer(jobs)
            await self._app.run_worker_async(
                queues=list(steps),
                wait=False,
                listen_notify=False,
                install_signal_handlers=False,
                delete_jobs="always",
            )

    async def _work_on(self, steps: tuple[str, ...]) -> None:
        async with self._app.open_async():
            planning = asyncio.create_task(self._plan_for_ever(steps))
            try:
                await self._app.run_worker_async(queues=list(steps), wait=True, delete_jobs="always")
            finally:
                planning.cancel()

    async def _plan_for_ever(self, steps: tuple[str, ...]) -> None:
        while True:
            try:
                await asyncio.to_thread(self._site.catalogue.seal)
                jobs = await asyncio.to_thread(self.plan)
                self._close_breaker_after_a_while()
                with _queue_reached():
                    await self._rescue()
                    await self._defer([job for job in jobs if job.step in steps and not self._is_stopped(job.step)])
            except ArchiveError as error:
                _log.warning("could not plan", action="plan", error=str(error))
            await asyncio.sleep(max(0.2, self._site.poll.total_seconds()))

    def _close_breaker_after_a_while(self) -> None:
        """A worker stays: it tries again after an hour. What failed has its own time of the next try beside it."""
        now = self._site.clock()
        if not self._site.breaker.is_open:
            self._open_since = None
        elif self._open_since is None:
            self._open_since = now
        elif now - self._open_since >= BREAKER_REST:
            self._site.close_breaker()
            self.result.stopped = None

    async def _defer(self, jobs: list[Job]) -> None:
        from procrastinate.exceptions import AlreadyEnqueued

        for job in jobs:
            arguments = {"service": job.service or "", "first": job.first, "last": job.last}
            priority = -1 if job.step == "audit" else 0
            deferrer = self._app.configure_task(job.step, queue=job.step, queueing_lock=job.lock, priority=priority)
            try:
                await deferrer.defer_async(**arguments)
            except AlreadyEnqueued:
                continue

    async def _rescue(self) -> None:
        """Forget jobs whose worker died: what they had not done is due still, and is planned anew."""
        from procrastinate.jobs import Status

        for job in await self._app.job_manager.get_stalled_jobs():
            await self._app.job_manager.finish_job(job=job, status=Status.FAILED, delete_job=True)

    def _task(self, step: str) -> Callable[..., None]:
        def run(service: str, first: int, last: int) -> None:
            self._run(Job(step=step, service=ServiceName(service) if service else None, first=first, last=last))

        run.__name__ = step
        return run

    def _run(self, job: Job) -> None:
        """One job. Whatever happens is written down; the next job goes on."""
        try:
            with disk_errors(job.step):
                tally = self._step(job)
        except Busy:
            tally = Tally()  # somebody else is doing it
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
        self.result.done += tally.done
        self.result.failed += tally.failed
        self.result.damaged += tally.damaged
        self.result.waiting += tally.waiting
        self._tell_breaker()
        _log.info("job done", action=job.step, service=job.service, first=job.first, last=job.last, done=tally.done)

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
                _BUNDLE_STEPS[job.step](self._site, name)
                return Tally(done=1)
            case "manifest", str() as service:
                manifest(self._site, job.first, ServiceName(service))
                return Tally(done=1)
            case "audit", str() as service:
                return audit_due(self._site, ServiceName(service))
            case step, str() as service:
                _, act = _SLICE_STEPS[step]
                return act(self._site, Slice(service=ServiceName(service), first_id=job.first, last_id=job.last))
        raise BrokenInvariant(f"there is no step {job.step!r} without a service.")

    def _failed(self, job: Job, error: ArchiveError) -> None:
        """A step on a bundle failed as a whole, or a slice did in a way that its step does not know."""
        _log.warning("step failed", action=job.step, first=job.first, error=str(error))
        if job.step == "audit" and job.service is not None:
            # What an audit could not do it writes beside the copies itself; here it did not come that far.
            self._audit_rests_until[job.service] = self._site.clock() + self._site.settings.work.retry_after
            return
        with self._site.catalogue.begin() as connection:
            if job.step in _SLICE_STEPS:
                state, _ = _SLICE_STEPS[job.step]
                piece = Slice(service=ServiceName(job.service or ""), first_id=job.first, last_id=job.last)
                copies.slice_failed(connection, piece, state, _failure(error, self._site))
                return
            if job.step == "manifest" and job.first not in dict(
                copies.without_manifest(connection, ServiceName(job.service or ""))
            ):
                return  # it was done: only the answer to its commit was lost
            bundle = bundles.by_id(connection, job.first)
            asked_at = recalls.asked_at(connection, job.first) if isinstance(error, ObjectOffline) else None
            if asked_at is not None:
                bundles.waits(connection, job.first, str(error), self._site.look_again_at(asked_at))
                return
            # No permit now, such as from a service that cannot be asked, may be one later: nothing is lost by waiting.
            may_pass = job.step == "evict" and isinstance(error, Refused)
            retry_at = self._site.retry_at(Busy() if may_pass else error, bundle.attempts)
            bundles.failed(connection, job.first, str(error), retry_at, needs_attention=retry_at is None)


def _after_eviction(site: Site, connection: sa.Connection, bundle: BundleRecord) -> str | None:
    """What has to be done about a bundle that an interrupted eviction took out, None if nothing now by itself."""
    if bundle.needs_attention or (bundle.retry_at is not None and bundle.retry_at > site.clock()):
        return None
    if bundle.residency is Residency.OFFLINE and bundle.hold_reason is None:
        return "evict"  # interrupted after it was recorded: its bytes are still to go
    if bundle.residency is Residency.ONLINE:
        # Interrupted before: it counts as readable and is not. Putting it back is always right, and needs no permit.
        place = place_of(bundle, bundles.files(connection, bundle.id))
        return None if site.near.is_in(place) else "recall"
    return None


def _failure(error: ArchiveError, site: Site) -> Failure:
    return Failure(message=str(error), retry_at=site.retry_at(error, 0))


@contextmanager
def _queue_reached() -> Iterator[None]:
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
