"""Where opens of away files are decided: a few threads, a line of bounded length, several opens at a time."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from omero_archive.access.waiters import Ticket

Decide = Callable[[Sequence[Ticket]], None]
"""Decides some opens. Must not raise, and must see to it that each is answered sooner or later."""

BATCH = 50


class Desk:
    """Threads that take tickets from a line. `limit` is the length of the line."""

    def __init__(self, decide: Decide, *, threads: int, limit: int) -> None:
        self._decide = decide
        self._limit = limit
        self._line: deque[Ticket] = deque()
        self._at_work: set[Ticket] = set()
        self._changed = threading.Condition()
        self._is_stopped = False
        # Daemons: one that waits for a disk that does not answer must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._work, name=f"decide-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def submit(self, ticket: Ticket) -> bool:
        """Put it in the line; False if that is full, or nobody works any more."""
        with self._changed:
            if len(self._line) >= self._limit:
                # Those whose time was up, or that were given up, need no place any more.
                self._line = deque(waiting for waiting in self._line if not waiting.is_over)
            if self._is_stopped or len(self._line) >= self._limit:
                return False
            self._line.append(ticket)
            self._changed.notify()
            return True

    def undecided(self) -> Sequence[Ticket]:
        """Those in the line and those that are being decided."""
        with self._changed:
            return (*self._at_work, *self._line)

    def stop(self, wait_s: float) -> Sequence[Ticket]:
        """Take no more, and wait so long for those that are being decided; those that were not."""
        with self._changed:
            self._is_stopped = True
            left = tuple(self._line)
            self._line.clear()
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(wait_s / len(self._threads))
        return (*left, *self.undecided())

    def _work(self) -> None:
        while batch := self._take():
            try:
                self._decide(batch)
            finally:
                with self._changed:
                    self._at_work.difference_update(batch)

    def _take(self) -> list[Ticket]:
        """The next in the line; none when it is time to go."""
        with self._changed:
            while not self._line and not self._is_stopped:
                self._changed.wait()
            # Shared fairly: with few in the line one thread must not take all of them.
            share = max(1, min(BATCH, len(self._line) // len(self._threads)))
            batch = [self._line.popleft() for _ in range(min(share, len(self._line)))]
            self._at_work.update(batch)
            return batch
