"""A worker: works off what is due, now and later, until a signal says stop.

What becomes due is looked for every `work.poll`, and recalls at once when one is asked for. Recalls have threads of
their own, so that a program that waits at `open` never waits for a copy job. PostgreSQL may go away: the jobs at work
end as they can, and the worker begins anew when it is back.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog

from omero_archive.catalogue.listening import listen_for_ever
from omero_archive.engine import Engine, queue_reached
from omero_archive.errors import ArchiveError
from omero_archive.planning import QUEUES

_log = structlog.get_logger()

RECALLS_AT_ONCE = 3
"""So many recalls of one worker bring files at a time: a large bundle must not hold up the small ones behind it."""

BREATH_S = 0.1
"""Between two looks at what is due, however often we are called: a thousand may ask in a second."""

AGAIN_S = 2.0
"""How long to wait after PostgreSQL could not be reached."""


class Worker:
    """The worker of one process. `steps` are the queues that it works on."""

    def __init__(self, engine: Engine, steps: tuple[str, ...] = QUEUES) -> None:
        self._engine = engine
        self._steps = steps
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._called = asyncio.Event()

    def work(self) -> None:
        """Work until SIGTERM or SIGINT, or until `stop`; the jobs at work are finished first."""
        asyncio.run(self._work())

    def stop(self) -> None:
        """Stop soon. May be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _work(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._engine.recall_ended = lambda: _call(loop, self._called)
        with _told_to_stop(self._stop.set):
            try:
                while not self._stop.is_set() and not await self._work_when_reached():
                    await self._rest()
            finally:
                self._engine.recall_ended = lambda: None

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
            yield self._jobs(others, at_once=1)
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
                await self._engine.queue.run_worker_async(
                    queues=steps, concurrency=at_once, wait=True, install_signal_handlers=False, delete_jobs="always"
                )
            except (ConnectorException, psycopg.Error) as error:
                _cannot_reach(error)
            await self._rest()

    async def _plan_every_so_often(self) -> None:
        poll_s = max(0.2, self._engine.site.poll.total_seconds())
        while True:
            await self._plan(recalls_alone=False)
            self._engine.close_breaker_after_a_while()
            await asyncio.sleep(poll_s)

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


def _cannot_reach(error: Exception) -> None:
    text = str(error.__cause__ or error).strip()
    _log.warning("the queue cannot be reached; it is tried again", action="work", error=text)


async def _ended(tasks: "Sequence[asyncio.Task[Any]]") -> list[Exception]:
    """End tasks, and wait until they have: what went wrong with them."""
    for task in tasks:
        task.cancel()
    return [each for each in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(each, Exception)]


@contextmanager
def _told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT; the second one does what it always does."""
    signals = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def told() -> None:
        for each in signals:
            loop.remove_signal_handler(each)
        stop()

    for each in signals:
        loop.add_signal_handler(each, told)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
