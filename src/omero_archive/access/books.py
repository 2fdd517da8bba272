"""The books of the mount in the catalogue: who waits is written there, and what became of their recalls is read."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from omero_archive.access.items import Caller, Opened, Reason, Refusal
from omero_archive.access.lately import Lately
from omero_archive.access.reach import Reach
from omero_archive.access.waiters import BundleWaiters, Ticket, Waiters, summed_up
from omero_archive.catalogue import recalls, waiting
from omero_archive.catalogue.waiting import WaitedFor, WaitingRow
from omero_archive.model import printable
from omero_archive.states import Residency

_AWAY = (Residency.OFFLINE, Residency.RECALLING)

End = Callable[[Ticket, Opened | Refusal], None]


class Books:
    """Kept by one thread. Each round is one query and at most two statements, however many wait."""

    def __init__(self, reach: Reach, *, mount: str, waiters: Waiters, lately: Lately, end: End) -> None:
        self._reach = reach
        self._mount = mount
        self._waiters = waiters
        self._lately = lately
        self._end = end
        self._lock = threading.Lock()  # a round that is going on ends before the books are closed
        self._is_closed = False
        self._written: dict[int, BundleWaiters] | None = None  # None: what an earlier life left was not yet removed

    def keep(self, now: float) -> None:
        """A round; `now` by the monotonic clock. Raises `DatabaseUnavailable`."""
        with self._lock:
            if self._is_closed:
                return
            self._look_after()
            self._write(summed_up(self._waiters.everyone()), now)
            with self._reach.asking():
                self._reach.catalogue.seal()

    def close(self) -> None:
        """Nobody waits here any more. Raises `DatabaseUnavailable`."""
        with self._lock:
            self._is_closed = True
            with self._reach.begin() as connection:
                waiting.drop_waiting(connection, self._mount)

    # ---- what became of them

    def _look_after(self) -> None:
        numbers = self._waiters.bundles()
        if not numbers:
            return
        with self._reach.begin() as connection:
            found = {one.bundle_id: one for one in waiting.waited_for(connection, numbers)}
        again = []
        for number in numbers:
            refusal = outcome(found.get(number))
            if refusal is not None:
                self._lately.forget(number)
                for one in self._waiters.of(number):
                    self._end(one.ticket, refusal)
            elif not found[number].is_asked_for and found[number].residency in _AWAY:
                again.append(number)
        self._ask_again(again)

    def _ask_again(self, numbers: Sequence[int]) -> None:
        """A bundle that came and went again before those that wait for it were answered."""
        if not numbers:
            return
        wishes = [
            recalls.Wish(
                bundle_id=number,
                by=asker(one.ticket.caller),
                reason="still waited for",
                priority=recalls.WAITED_FOR,
            )
            for number in numbers
            for one in self._waiters.of(number)[:1]
        ]
        with self._reach.begin() as connection:
            recalls.ask_all(connection, wishes)

    # ---- who waits

    def _write(self, now_waiting: dict[int, BundleWaiters], now: float) -> None:
        before = self._written
        if before == now_waiting:
            return
        calendar = self._reach.catalogue.clock()
        changed = [one for number, one in now_waiting.items() if before is None or before.get(number) != one]
        with self._reach.begin() as connection:
            if before is None:
                waiting.drop_waiting(connection, self._mount)
            elif gone := [number for number in before if number not in now_waiting]:
                waiting.drop_waiting(connection, self._mount, gone)
            waiting.put_waiting(connection, self._mount, [_row(one, now, calendar) for one in changed])
        self._written = now_waiting


def asker(caller: Caller) -> str:
    """Who asks, in the words of the event log."""
    return printable(f"{caller.user} ({caller.program or 'unknown program'})")


def outcome(found: WaitedFor | None) -> Refusal | None:
    """Why waiting for a bundle is over although it is not near; None if it goes on."""
    if found is None:
        return Refusal(reason=Reason.MOVED, text="the catalogue does not know its bundle any more")
    if found.residency is Residency.RESIDENT:
        return Refusal(reason=Reason.MOVED, text="it is not in the archive any more")
    if found.needs_attention:
        return Refusal(reason=Reason.FAILED, text=f"the recall failed: {found.last_error}")
    if not found.is_asked_for and found.last_outcome not in (None, "done"):
        return Refusal(reason=Reason.FAILED, text=f"the recall ended: {found.last_outcome}")
    return None


def _row(one: BundleWaiters, now: float, calendar: datetime) -> WaitingRow:
    return WaitingRow(
        bundle_id=one.bundle_id,
        waiters=one.count,
        who=one.who,
        since=calendar - timedelta(seconds=now - one.since),
        until=calendar + timedelta(seconds=one.until - now),
    )
