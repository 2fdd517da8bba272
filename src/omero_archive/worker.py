"""A worker: works off what is due, now and later, until a signal says stop.

What becomes due is looked for every `work.poll`, when a job did something, and recalls at once when one is asked for.
Recalls have threads of their own, so that a program that waits at `open` never waits for a copy job. PostgreSQL may go
away: the jobs at work end as they can, and the worker begins anew when it is back.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import structlog

from omero_archive.catalogue.listening import listen_for_ever
from omero_archive.engine import Engine, queue_reached
from omero_archive.errors import ArchiveError
from omero_archive.mover import BEATS
from omero_archive.planning import QUEUES
from omero_archive.signals import told_to_stop

_log = structlog.get_logger()

RECALLS_AT_ONCE = 3
"""So many recalls of one worker bring files at a time: a large bundle must not hold up the small ones behind it."""

BREATH_S = 0.1
"""Between two looks at what is due, however often we are called: a thousand may ask in a second."""

_THREADS_BESIDE = 4
"""Beside those that do jobs: for looks at what is due."""

AGAIN_S = 2.0
"""How long to wait after PostgreSQL could not be reached."""


class Worker:
    """The worker of one process. `steps` are the queues that it works on."""

    def __init__(self, engine: Engine, steps: tuple[str, ...] = QUEUES) -> None:
        self._engine = engine
        self._steps = steps
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._called = asyncio.Event()  # a recall may be due
        self._plans = asyncio.Event()  # something else may be

    def work(self) -> None:
        """Work until SIGTERM or SIGINT, or until `stop`: what is done is recorded, the rest handed back."""
        with self._engine.mover.at_work(self._steps, self._engine.streams):
            asyncio.run(self._work())

    def stop(self) -> None:
        """Stop soon. May be called from any thread."""
        self._engine.stop()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _work(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(self._engine.streams + RECALLS_AT_ONCE + _THREADS_BESIDE))
        loop.set_exception_handler(_tell)
        engine = self._engine
        engine.jobs.recall_ended = lambda: _call(loop, self._called)
        engine.jobs.job_ended = engine.mover.freed = lambda: _call(loop, self._plans)
        with told_to_stop(self.stop):
            try:
                while not self._stop.is_set() and not await self._work_when_reached():
                    await self._rest()
            finally:
                engine.jobs.recall_ended = engine.jobs.job_ended = engine.mover.freed = lambda: None

    async def _work_when_reached(self) -> bool:
        """Work until told to stop; False if the queue could not be reached to begin with."""
        from procrastinate.exceptions import ConnectorException

        try:
            await self._engine.queue.open_async()
        except (ConnectorException, psycopg.Error) as error:
            _cannot_reach(error)
            await self._engine.queue.close_async()
            return False
        tasks = [asyncio.create_task(work) for work in self._tasks()]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()  # for workers that are ended while PostgreSQL is away
            problems = await _ended([*tasks, stopped])
            await self._engine.queue.close_async()
        for problem in problems:
            raise problem
        return True

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), AGAIN_S)

    def _tasks(self) -> "Iterator[asyncio._CoroutineLike[None]]":
        others = [step for step in self._steps if step != "recall"]
        if others:
            yield self._jobs(others, at_once=self._engine.streams)
        if "recall" in self._steps:
            yield self._jobs(["recall"], at_once=RECALLS_AT_ONCE)
            yield self._plan_when_called()
            yield listen_for_ever(self._engine.site.catalogue.dsn, self._called.set)
        yield self._plan_every_so_often()

    async def _jobs(self, steps: list[str], *, at_once: int) -> None:
        """Do jobs. Where PostgreSQL goes away those at work are ended first; other workers do not wait for them."""
        from procrastinate.exceptions import ConnectorException

        while not self._stop.is_set():
            try:
                await self._jobs_of_this_host(steps, at_once=at_once)
            except (ConnectorException, psycopg.Error) as error:
                _cannot_reach(error)
            await self._rest()

    async def _jobs_of_this_host(self, steps: list[str], *, at_once: int) -> None:
        """Do the jobs whose paths this host sees, until it sees others."""
        lines = await asyncio.to_thread(self._engine.lines, steps)
        work = asyncio.create_task(self._engine.work(lines, at_once=at_once, wait=True))
        try:
            while not work.done() or not lines:
                await asyncio.wait([work], timeout=self._look_s)
                if work.done():
                    await asyncio.sleep(self._look_s)
                if lines != await asyncio.to_thread(self._engine.lines, steps):
                    break
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    @property
    def _look_s(self) -> float:
        return self._engine.site.settings.work.stalled_after.total_seconds() / BEATS

    async def _plan_every_so_often(self) -> None:
        poll_s = max(0.2, self._engine.site.poll.total_seconds())
        # `wait_for` may take a cancellation for the end of what it waits for, where both come at once (Python 3.11).
        while not self._stop.is_set():
            self._plans.clear()
            took_s = await self._plan(recalls_alone=False)
            self._engine.jobs.close_breaker_after_a_while()
            # A look takes its time too: at most half of it is spent looking.
            rest_s = max(BREATH_S, took_s)
            await asyncio.sleep(rest_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._plans.wait(), max(0.0, poll_s - rest_s))

    async def _plan_when_called(self) -> None:
        """A look at everything may take its time: recalls have one of their own."""
        while True:
            await self._called.wait()
            self._called.clear()
            # Where the queue is long, a look takes its time: at most half of it is spent looking.
            await asyncio.sleep(max(BREATH_S, await self._plan(recalls_alone=True)))

    async def _plan(self, *, recalls_alone: bool) -> float:
        """Put on the queue what is due; how many seconds that took."""
        begun = time.monotonic()
        try:
            if not recalls_alone:
                await asyncio.to_thread(self._engine.site.catalogue.seal)
            jobs = await asyncio.to_thread(self._engine.planned, self._steps, recalls_alone=recalls_alone)
            with queue_reached():
                if not recalls_alone:
                    await self._engine.rescue()
                await self._engine.defer(jobs)
        except ArchiveError as error:
            _log.warning("could not plan", action="plan", error=str(error))
        return time.monotonic() - begun


def _call(loop: asyncio.AbstractEventLoop, called: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has ended: nobody plans any more
        loop.call_soon_threadsafe(called.set)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Of what nobody waited for. A job whose end procrastinate could not write down was done, or is due still."""
    del loop
    error = context.get("exception")
    _log.warning("the queue was not told", action="work", error=str(error or context.get("message", "")).strip())


def _cannot_reach(error: Exception) -> None:
    text = str(error.__cause__ or error).strip()
    _log.warning("the queue cannot be reached; it is tried again", action="work", error=text)


async def _ended(tasks: "Sequence[asyncio.Task[Any]]") -> list[Exception]:
    """End tasks, and wait until they have: what went wrong with them."""
    for task in tasks:
        task.cancel()
    return [each for each in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(each, Exception)]
