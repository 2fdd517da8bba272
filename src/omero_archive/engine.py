"""Which job runs which step, on procrastinate over the catalogue's own database.

A job is one step on one slice, short, and safe to run again or twice at once: truth is in the catalogue, never in
the queue. `plan` looks what is due and puts jobs for it on the queue; a job that is queued already is not queued
again. Which copies a slice is, is found when it is its turn: they are claimed (see `mover.py`), so a job that is lost
with its worker holds nobody up. Failures are written beside the state by the steps, with the time of the next try, so
the queue itself never retries.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

from omero_archive.catalogue import copies, recalls, turns
from omero_archive.catalogue.database import ONE_INIT, reached
from omero_archive.catalogue.patience import connect
from omero_archive.errors import DatabaseUnavailable
from omero_archive.files import disk_errors
from omero_archive.jobs import Jobs, MayServe, Result
from omero_archive.model import ServiceName
from omero_archive.mover import BEATS, Mover
from omero_archive.planning import OF_SERVICE, QUEUES, STAGE, Job, due, due_recalls, line
from omero_archive.sessions import lasting, settle_async
from omero_archive.steps.site import Site
from omero_archive.wrapped.throttled import share_rates

if TYPE_CHECKING:
    import procrastinate

# procrastinate has no call for it: a job that is queued keeps the priority that it was put there with.
_MORE_URGENT = (
    "UPDATE procrastinate_jobs SET priority = %(priority)s"
    " WHERE queueing_lock = %(lock)s AND status = 'todo' AND priority < %(priority)s"
)


class Engine:
    """The queue of one site: what is due is put on it, and worked off.

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
        self.streams = streams or site.settings.work.streams
        self.mover = Mover(site, label=label)
        self.mover.told = lambda streams: share_rates(site.services, streams, mine=self.mover.own_streams())
        self._may_serve = may_serve or site.sight.may_try
        self.jobs = Jobs(site, self.mover, self._may_serve)
        # Imported here and below: a tenth of a second, which commands without jobs would wait for too.
        import procrastinate

        self.queue = procrastinate.App(connector=_connector(site.catalogue.dsn))
        for step in (*QUEUES, STAGE):
            self.queue.task(name=step)(self._task(step))

    @property
    def site(self) -> Site:
        """The site whose jobs these are."""
        return self._site

    @property
    def result(self) -> Result:
        """What was done while this engine worked."""
        return self.jobs.result

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self.jobs.is_stopped

    def plan(self) -> list[Job]:
        """All work that is due now. Raises `DiskFailed` if `near` cannot be looked at."""
        with disk_errors("what is due"):
            return list(due(self._site, rests=self.jobs.rests()))

    def waits_for_services(self) -> bool:
        """Whether a service has still to vouch for copies, or to bring bytes back for a recall or to be verified."""
        with self._site.catalogue.begin() as connection:
            return copies.unconfirmed(connection) or recalls.is_any_tried_again(connection)

    def run(self, *, steps: tuple[str, ...] = QUEUES) -> Result:
        """Work off everything that is due, also what becomes due by that, and return; sooner after `stop`."""
        self.jobs.looked_at.clear()
        if self.is_stopped:
            return self.result
        with self.mover.at_work(steps, self.streams):
            while jobs := self.planned(steps):
                before = self.jobs.moves()
                with queue_reached():
                    asyncio.run(self._work_off(jobs, steps))
                self._site.catalogue.seal()
                if self.jobs.moves() == before or self.is_stopped:
                    break  # others are on it, or it cannot be done now: not a reason to spin
        self.result.waiting = self._waiting()
        return self.result

    def stop(self) -> None:
        """Stop soon: what is done is recorded, the rest handed back. May be called from any thread."""
        self.jobs.is_stopped = True
        self.mover.stop()

    def planned(self, steps: tuple[str, ...], *, recalls_alone: bool = False) -> list[Job]:
        """The work that is due of these steps, or the recalls among it, after turns were given to recalls."""
        if not recalls_alone:
            self.mover.look_after_others()
        if "recall" in steps:
            with self._site.catalogue.begin() as connection:
                turns.begin(connection, self._site.settings.recall)
        jobs = list(due_recalls(self._site, rests=self.jobs.rests())) if recalls_alone else self.plan()
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

    def _waiting(self) -> int:
        with self._site.catalogue.begin() as connection:
            read_later = copies.number_to_read_later(connection) if self.result.waiting else 0
            return recalls.number_waiting(connection) + read_later

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

    def _task(self, step: str) -> Callable[..., None]:
        def run(service: str, number: int) -> None:
            self.jobs.do(Job(step=step, service=ServiceName(service) if service else None, number=number))

        run.__name__ = step
        return run


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

    with reached(), connect(dsn, None) as connection:
        connection.execute(ONE_INIT)
        found = connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
        if found is not None and found[0] is not None:
            return False
        connection.execute(SchemaManager.get_schema().encode())
        return True


def _connector(dsn: str) -> "procrastinate.PsycopgConnector":
    import procrastinate

    conninfo = make_conninfo(lasting(dsn), application_name="omero-archive")
    return procrastinate.PsycopgConnector(conninfo=conninfo, configure=settle_async)
