"""This process as one of the site's data movers: it claims work, beats while it works, and hands back when it stops.

The beats come from a thread with a session of its own, so they go on while a slice takes hours. Each of them also
looks after the others: what a dead or silent worker had claimed is given free.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Self

import sqlalchemy as sa
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars

from omero_archive.catalogue import claims
from omero_archive.catalogue.claims import Claim, Host, Outcome, Wanted
from omero_archive.catalogue.copies import Bounds
from omero_archive.catalogue.database import Catalogue, reached
from omero_archive.errors import DatabaseUnavailable, SettingsError
from omero_archive.model import ServiceName
from omero_archive.steps.site import Site

_log = structlog.get_logger()

BEATS = 6
"""So many beats in the time after which a worker counts as silent: some of them may be lost."""

_LEAST_PATIENCE_S = 1.0

Did = Callable[[str, ServiceName, int, int], None]
"""Told of so many files and bytes that are done of a step on a service."""

Told = Callable[[Mapping[ServiceName, int]], None]
"""Told at each beat how many streams there are to each service, over all workers."""


def _tells_nobody(streams: Mapping[ServiceName, int]) -> None:
    del streams


def _counts_nothing(step: str, service: ServiceName, files: int, size_bytes: int) -> None:
    del step, service, files, size_bytes


def bounds(site: Site) -> Bounds:
    """How much is claimed at once."""
    work = site.settings.work
    return Bounds(size_bytes=work.slice_size, files=work.slice_files, poll=work.poll)


class Mover:
    """The worker of this process, from `__enter__` to `__exit__`; it may be entered again, as another worker.

    `freed` is called when others' work became free, `told` at each beat. Both from another thread.
    """

    def __init__(self, site: Site, *, label: str | None = None) -> None:
        name = socket.gethostname()
        self._site = site
        self._host = Host(label=label or name, name=name, pid=os.getpid())
        self._queues: tuple[str, ...] = ()
        self._streams = 1
        self._stalled_after = site.settings.work.stalled_after
        self._claims: dict[int, Claim] = {}
        self._lock = threading.RLock()  # a signal may come to the thread that holds it
        self._id: int | None = None
        self._pulse: _Pulse | None = None
        self._stopped: str | None = None
        self.freed: Callable[[], None] = lambda: None
        self.told: Told = _tells_nobody
        self.did: Did = _counts_nothing

    @contextmanager
    def at_work(self, queues: Sequence[str], streams: int) -> Iterator[Self]:
        """Be a worker meanwhile. Raises `DatabaseUnavailable` only later, when something is claimed."""
        self._queues, self._streams, self._stopped = tuple(queues), streams, None
        self._site.catalogue.be_brief(self._stalled_after)
        self._pulse = _Pulse(self, self._site.catalogue, self._stalled_after)
        self._pulse.start()
        try:
            yield self
        finally:
            self.stop("it ended")
            self._pulse.end()
            self._pulse = None
            self._id = None

    @property
    def label(self) -> str:
        """What the host is called."""
        return self._host.label

    @property
    def worker_id(self) -> int | None:
        """The number of the worker in the catalogue, None as long as it has none."""
        return self._id

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is to be begun."""
        return self._stopped is not None

    def stop(self, why: str = "it was told to stop") -> None:
        """Begin nothing more; what is at work ends soon. May be called from any thread."""
        with self._lock:
            self._stopped = self._stopped or why
            for claim in self._claims.values():
                claim.end(why)

    # ---- work

    @contextmanager
    def claimed(self, step: str, service: ServiceName) -> Iterator[Claim | None]:
        """The next copies that are due for a step, for as long as they are worked on; None if there are none.

        Raises `DatabaseUnavailable`.
        """
        claim = self._take(step, service)
        if claim is None:
            yield None
            return
        claim.told = partial(self.did, step, service)
        with bound_contextvars(worker=self._id, attempt=claim.attempt):
            _log.debug("claimed", action=step, service=service, files=len(claim.copies))
            try:
                yield claim
            finally:
                self._let_go(claim)

    def _take(self, step: str, service: ServiceName) -> Claim | None:
        if self.is_stopped or self._pulse is None:
            return None
        worker_id = self._pulse.worker_id()
        wanted = Wanted(
            step=step,
            service=service,
            bounds=bounds(self._site),
            stalled_after=self._stalled_after,
            streams=self._site.settings.common(service).streams,
        )
        with self._site.catalogue.begin() as connection:
            claim = claims.take(connection, worker_id, wanted)
            if claim is not None:
                with self._lock:
                    self._claims[claim.attempt] = claim
                self.told(claims.open_streams(connection, self._stalled_after))  # others learn it at their next beat
        if claim is not None and self._stopped is not None:
            claim.end(self._stopped)
        return claim

    def _let_go(self, claim: Claim) -> None:
        with self._lock:  # first: a beat must not take an attempt that we ended for one that was taken from us
            self._claims.pop(claim.attempt, None)
        outcome = Outcome.HANDED_BACK if claim.is_ended else Outcome.DONE
        try:
            with self._site.catalogue.begin() as connection:
                claims.finish(connection, claim, outcome)
        except DatabaseUnavailable as error:
            # It is beaten for no more, so that others take it over.
            _log.warning("could not hand back", action=claim.step, attempt=claim.attempt, error=str(error))

    # ---- beats

    def register(self, connection: sa.Connection) -> int:
        """Become a worker of the catalogue, or be it again in another session."""
        if self._id is None:
            self._id = claims.register(connection, self._host, self._queues, self._streams)
        else:
            claims.resume(connection, self._id)
        return self._id

    def beat(self, connection: sa.Connection) -> None:
        """Tell that we are alive, and learn what was taken from us meanwhile."""
        with self._lock:
            mine = list(self._claims.values())
        assert self._id is not None  # noqa: S101 - registered before the first beat
        open_ones = claims.beat(connection, self._id, mine)
        for claim in mine:
            if claim.attempt not in open_ones and not self._is_let_go(claim):
                _log.warning("taken over", action=claim.step, service=claim.service, attempt=claim.attempt)
                claim.end("another worker took the work over, since this one had been silent")
        self.told(claims.open_streams(connection, self._stalled_after))

    def own_streams(self) -> dict[ServiceName, int]:
        """How many attempts of ours move bytes of each service now."""
        with self._lock:
            return Counter(claim.service for claim in self._claims.values() if claim.step in claims.STREAMING)

    def _is_let_go(self, claim: Claim) -> bool:
        with self._lock:
            return claim.attempt not in self._claims

    def fell_silent(self) -> None:
        """No beat got through for as long as others wait: they may be at our work by now."""
        with self._lock:
            for claim in self._claims.values():
                claim.end("PostgreSQL was not reached for longer than work.stalled_after")

    def look_after_others(self) -> None:
        """Give free what dead or silent workers had claimed. Raises `DatabaseUnavailable`."""
        with self._site.catalogue.begin() as connection:
            self._take_over(connection)

    def _take_over(self, connection: sa.Connection) -> None:
        many = claims.take_over(connection, self._id, self._stalled_after)
        if many:
            _log.warning("gave free what silent workers had claimed", action="take over", attempts=many)
            self.freed()


class _Pulse:
    """The thread that beats."""

    def __init__(self, mover: Mover, catalogue: Catalogue, stalled_after: timedelta) -> None:
        self._mover = mover
        self._stalled_s = stalled_after.total_seconds()
        patience_s = max(_LEAST_PATIENCE_S, self._stalled_s / 3)
        self._catalogue = Catalogue(catalogue.dsn, clock=catalogue.clock, actor=catalogue.actor, patience_s=patience_s)
        self._catalogue.be_brief(stalled_after)
        self._session: sa.Connection | None = None
        self._using = threading.Lock()
        self._over = threading.Event()
        self._heard_at = time.monotonic()
        self._is_away = False
        self._thread = threading.Thread(target=self._beat_for_ever, name="beats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def worker_id(self) -> int:
        """The number of the worker, who is registered now if not before. Raises `DatabaseUnavailable`."""
        if self._mover.worker_id is None:
            with self._using:
                self._connected()
        number = self._mover.worker_id
        assert number is not None  # noqa: S101 - just registered
        return number

    def end(self) -> None:
        """Stop beating, and tell that the worker ended."""
        self._over.set()
        self._thread.join()
        with self._using, suppress(DatabaseUnavailable, SettingsError):
            if self._mover.worker_id is not None:
                with reached():
                    claims.leave(self._connected(), self._mover.worker_id)
        self._disconnect()
        self._catalogue.close()

    def _beat_for_ever(self) -> None:
        bind_contextvars(host_label=self._mover.label)  # a thread begins without what others bound
        while True:
            self._beat()
            if self._over.wait(self._stalled_s / BEATS):
                return

    def _beat(self) -> None:
        try:
            with self._using, reached():
                self._mover.beat(self._connected())
            with self._catalogue.begin() as connection:
                self._mover._take_over(connection)
        except (DatabaseUnavailable, SettingsError) as error:
            if not self._is_away:
                _log.warning("no beat; it is tried again", action="beat", error=str(error))
            self._is_away = True
            with self._using:
                self._disconnect()
            if time.monotonic() - self._heard_at > self._stalled_s:
                self._mover.fell_silent()
        else:
            self._heard_at, self._is_away = time.monotonic(), False

    def _connected(self) -> sa.Connection:
        if self._session is None:
            session = self._catalogue.session()
            try:
                with reached():
                    self._mover.register(session)
            except BaseException:
                session.invalidate()
                session.close()
                raise
            self._session = session
        return self._session

    def _disconnect(self) -> None:
        """The session ends, and with it its lock: it must not go back to a pool."""
        if self._session is not None:
            session, self._session = self._session, None
            with suppress(sa.exc.SQLAlchemyError):
                session.invalidate()
                session.close()
