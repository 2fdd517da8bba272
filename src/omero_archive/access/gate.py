"""The gate: decides about every open. What is near opens at once; what is away fails or waits, and is asked for.

Whether a file is near is decided by looking at the disk, never by the catalogue: so near files open while PostgreSQL
is gone. Whoever opens a file that is away is looked up, judged by the policy and answered by a few threads; those that
wait hold none. Two more threads serve all of them: one looks every tenth of a second what came near and whose time is
up, and asks nobody but the disk; the other keeps the books with the catalogue, which may take its time.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic

from omero_archive.access.books import Books
from omero_archive.access.desk import Desk
from omero_archive.access.items import Answer, Caller, Opened, Reason, Refusal
from omero_archive.access.judging import Files, Judge, Wish
from omero_archive.access.lately import Lately
from omero_archive.access.noted import NotedOpens
from omero_archive.access.openlog import OpenLog
from omero_archive.access.reach import Reach
from omero_archive.access.waiters import Ticket, Waiters, Waiting
from omero_archive.errors import ArchiveError
from omero_archive.settings import MountSettings, OnOpen


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often, how long and how many. Seconds."""

    tick_s: float = 0.1
    books_s: float = 1.0
    flush_s: float = 30.0
    decided_within_s: float = 30.0  # else whoever opens is told that it could not be found out
    threads: int = 4
    undecided: int = 4000
    waiting: int = 20_000
    looked_at: int = 200  # bundles in a tick


class Gate:
    """Decides about opens. `mount` is the name under which the catalogue knows this mount: host and directory."""

    def __init__(
        self,
        files: Files,
        reach: Reach,
        *,
        settings: MountSettings,
        mount: str,
        timing: Timing | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._files = files
        self._timing = timing or Timing()
        self._clock = clock
        self._reach = reach
        self._lately = Lately(clock)
        self._judge = Judge(files, settings, reach=self._reach, lately=self._lately)
        self._log = OpenLog(clock=clock)
        self._noted = NotedOpens(reach.catalogue.clock)
        self._waiters = Waiters(self._timing.waiting)
        self._desk = Desk(self._decide, threads=self._timing.threads, limit=self._timing.undecided)
        self._books = Books(self._reach, mount=mount, waiters=self._waiters, lately=self._lately, end=self._end)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._every, args=args, daemon=True, name=name)
            for name, args in {
                "look": (self._timing.tick_s, self._tick),
                "books": (self._timing.books_s, self._keep_books),
            }.items()
        ]
        self._flushed_at = clock()

    # ---- opens

    def open(self, path: str, caller: Caller, answer: Answer) -> Ticket | None:
        """Open a file; None if it was answered before this returns. Never blocks for longer than the disk takes.

        A caller without a program's name is looked up, where that is needed: near files do not wait for it.
        """
        try:
            opened = self._files.open_near(path)
        except ArchiveError as error:
            opened = None
            self._log.could_not_look(path, error)
        if opened is not None:
            self._noted.note(path)
            answer(opened)
            return None
        ticket = Ticket(path, caller, answer, self._clock())
        if self._desk.submit(ticket):
            return ticket
        stopping = self._stopping.is_set()
        self._refuse(ticket, Reason.UNKNOWN, "the mount is being stopped" if stopping else "too many opens at once")
        return None

    def give_up(self, ticket: Ticket) -> None:
        """The program was interrupted. The recall goes on."""
        self._refuse(ticket, Reason.INTERRUPTED, "the program was told to stop; the recall goes on")

    @property
    def waiting(self) -> int:
        """How many opens wait for their bundle."""
        return len(self._waiters)

    # ---- life

    def start(self) -> None:
        """Begin to decide."""
        self._desk.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Answer all that are not answered, and end the threads. Near files open still; stopping twice is once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for ticket in self._desk.stop(wait_s=2.0):
            self._refuse(ticket, Reason.UNKNOWN, "the mount was stopped before it was decided")
        for waiting in self._waiters.everyone():
            self._refuse(waiting.ticket, Reason.TIMED_OUT, "the mount was stopped; the recall goes on")
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(2.0)

    def close(self) -> None:
        """Stop, and tell the catalogue what it does not know yet, if it can be asked."""
        self.stop()
        self._log.sum_up(now=True)
        with suppress(ArchiveError):
            self._reach.require()
            self._books.close()
            self._noted.flush(self._reach.catalogue)

    # ---- deciding: in the threads of the desk

    def _decide(self, batch: Sequence[Ticket]) -> None:
        wishes = []
        for ticket in batch:
            with self._answering([ticket]):
                found = None if ticket.is_over else self._judge.judge(ticket)
                if isinstance(found, Wish):
                    wishes.append(found)
                elif found is not None:
                    self._end(ticket, found)
        with self._answering([wish.ticket for wish in wishes]):
            self._judge.ask(wishes)
            for wish in wishes:
                self._promise(wish)

    @contextmanager
    def _answering(self, tickets: Sequence[Ticket]) -> Iterator[None]:
        """Whatever goes wrong inside, whoever opened gets an answer: could not find out."""
        try:
            yield
        except ArchiveError as error:
            for ticket in tickets:
                self._refuse(ticket, Reason.UNKNOWN, str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave a program waiting for ever
            self._log.fault(error)
            for ticket in tickets:
                self._refuse(ticket, Reason.UNKNOWN, f"a fault in omero-archive: {error!r}")

    def _promise(self, wish: Wish) -> None:
        """The recall is asked for: fail, or wait."""
        bundle, ticket = wish.bundle, wish.ticket
        if bundle.needs_attention:
            self._refuse(ticket, Reason.FAILED, f"{bundle.name} could not be brought: {bundle.last_error}")
            return
        if wish.verdict.on_open is OnOpen.FAIL:
            why = wish.verdict.why
            self._refuse(ticket, Reason.OFFLINE, f"{bundle.name} is offline; its recall is asked for; {why}")
            return
        deadline = ticket.since + wish.verdict.wait.total_seconds()
        if not self._waiters.add(Waiting(ticket=ticket, bundle_id=bundle.id, deadline=deadline)):
            self._refuse(ticket, Reason.UNKNOWN, "too many opens wait already")
        elif ticket.is_over:
            self._waiters.drop(ticket)  # given up at this moment

    # ---- ending

    def _end(self, ticket: Ticket, result: Opened | Refusal) -> None:
        if ticket.end(result):
            if isinstance(result, Opened):
                self._noted.note(ticket.path)
            self._log.ended(ticket, result)
        self._waiters.drop(ticket)

    def _refuse(self, ticket: Ticket, reason: Reason, text: str) -> None:
        self._end(ticket, Refusal(reason=reason, text=text))

    # ---- the two threads

    def _every(self, interval_s: float, act: Callable[[], None]) -> None:
        while not self._stopping.wait(interval_s):
            with self._answering(()):
                act()

    def _tick(self) -> None:
        """Whose bundle came, whose time is up. Asks the disk only."""
        for bundle_id in self._waiters.next_bundles(self._timing.looked_at):
            self._look_for(bundle_id)
        now = self._clock()
        for waiting in self._waiters.overdue(now):
            self._refuse(waiting.ticket, Reason.TIMED_OUT, "waited as long as allowed; the recall goes on")
        for ticket in self._desk.undecided():
            if now - ticket.since >= self._timing.decided_within_s:
                self._refuse(ticket, Reason.UNKNOWN, "it could not be decided in time")
        self._log.sum_up()

    def _look_for(self, bundle_id: int) -> None:
        """Answer those that wait for a bundle, if it is near. It comes whole: one file that is not near says enough."""
        for waiting in self._waiters.of(bundle_id):
            with self._answering([waiting.ticket]):
                opened = self._files.open_near(waiting.ticket.path)
                if opened is None:
                    return
                self._end(waiting.ticket, opened)
        self._lately.forget(bundle_id)

    def _keep_books(self) -> None:
        """Tell and ask the catalogue. Where it is away the next round does what this could not."""
        with suppress(ArchiveError):
            self._books.keep(self._clock())
            if self._clock() - self._flushed_at >= self._timing.flush_s:
                self._flushed_at = self._clock()
                with self._reach.asking():
                    self._noted.flush(self._reach.catalogue)
