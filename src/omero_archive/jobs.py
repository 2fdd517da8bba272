"""One job: its step, and what becomes of it. Whatever happens is written down; the next job goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from structlog.contextvars import bound_contextvars

from omero_archive.catalogue import bundles, copies, recalls, turns
from omero_archive.catalogue.claims import STATES, Claim
from omero_archive.catalogue.copies import Failure
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
from omero_archive.mover import Mover
from omero_archive.planning import STAGE, Job
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

_log = structlog.get_logger()

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


class Jobs:
    """Does the jobs of one site. `result` counts what was done, `looked_at` are bundles that were looked at together.

    Nothing is begun any more once `is_stopped`. May be called by several threads at once.
    """

    def __init__(self, site: Site, mover: Mover, may_serve: MayServe) -> None:
        self._site = site
        self._mover = mover
        self._may_serve = may_serve
        self.result = Result()
        self.looked_at: set[int] = set()
        self.is_stopped = False
        self.recall_ended: Callable[[], None] = lambda: None  # told after each job in the queue of recalls
        self.job_ended: Callable[[], None] = lambda: None  # told after each other job that did something
        self.told: Told = tells_nobody
        self._counting = threading.Lock()
        self._open_since: datetime | None = None
        self._rests_until: dict[str, datetime] = {}  # by service, whose audit failed, or `stage`

    def do(self, job: Job) -> None:
        """One job, with its ids in every line that is logged meanwhile."""
        mover = self._mover
        ids = {"host_label": mover.label, "worker": mover.worker_id, "step": job.step, "service": job.service}
        with bound_contextvars(**ids), self.told(job) as ended:
            ended(self._done(job))

    def moves(self) -> int:
        """How much happened so far: the same number again means that nothing did meanwhile."""
        return self.result.done + self.result.failed + len(self.looked_at)

    def rests(self) -> set[str]:
        """The services whose audits, and `stage` if it is so, are to be let alone for a while."""
        return {name for name, until in self._rests_until.items() if until > self._site.clock()}

    def close_breaker_after_a_while(self) -> None:
        """For a worker, which stays: it tries again after an hour. What failed has a time of its own beside it."""
        now = self._site.clock()
        if not self._site.breaker.is_open:
            self._open_since = None
        elif self._open_since is None:
            self._open_since = now
        elif now - self._open_since >= BREAKER_REST:
            self._site.close_breaker()
            self.result.stopped = None

    def _done(self, job: Job) -> Tally:
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
            return self._mover.claimed(job.step, job.service)
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
            self.looked_at.update(looked.settled, looked.waiting)

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
            self._bundle_failed(connection, job, error)

    def _bundle_failed(self, connection: sa.Connection, job: Job, error: ArchiveError) -> None:
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
