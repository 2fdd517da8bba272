"""Opens that are not answered yet. One that waits for its bundle is an entry here and holds no thread."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from omero_archive.access.items import Answer, Caller, Opened, Refusal


class Ticket:
    """One open that was not answered at once. Times are seconds of the monotonic clock."""

    __slots__ = ("_answer", "_lock", "bundle", "caller", "path", "since")

    def __init__(self, path: str, caller: Caller, answer: Answer, since: float) -> None:
        self.path = path
        self.caller = caller
        self.since = since
        self.bundle = ""  # its name, as soon as it is known
        self._answer: Answer | None = answer
        self._lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        """Whether it was answered."""
        return self._answer is None

    def end(self, result: Opened | Refusal) -> bool:
        """Answer it; False, and a descriptor is closed again, if another thread has answered it already."""
        with self._lock:
            answer, self._answer = self._answer, None
        if answer is None:
            if isinstance(result, Opened):
                with suppress(OSError):
                    os.close(result.fd)
            return False
        answer(result)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An open that waits for its bundle, at most until `deadline` of the monotonic clock."""

    ticket: Ticket
    bundle_id: int
    deadline: float


class Waiters:
    """The opens that wait, by bundle. Safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._by_bundle: dict[int, dict[Ticket, Waiting]] = {}
        self._bundle_of: dict[Ticket, int] = {}
        self._turns: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._bundle_of)

    def add(self, waiting: Waiting) -> bool:
        """Let it wait; False if there are too many already."""
        with self._lock:
            if len(self._bundle_of) >= self._limit:
                return False
            if waiting.bundle_id not in self._by_bundle:
                self._by_bundle[waiting.bundle_id] = {}
                self._turns.append(waiting.bundle_id)
            self._by_bundle[waiting.bundle_id][waiting.ticket] = waiting
            self._bundle_of[waiting.ticket] = waiting.bundle_id
            return True

    def drop(self, ticket: Ticket) -> None:
        """It does not wait any more; nothing happens if it never did."""
        with self._lock:
            bundle_id = self._bundle_of.pop(ticket, None)
            if bundle_id is not None:
                mine = self._by_bundle[bundle_id]
                del mine[ticket]
                if not mine:
                    del self._by_bundle[bundle_id]  # its turn is dropped when it comes

    def next_bundles(self, most: int) -> list[int]:
        """The bundles whose turn it is to be looked at, each once."""
        with self._lock:
            found: list[int] = []
            for _ in range(min(most, len(self._turns))):
                bundle_id = self._turns.popleft()
                if bundle_id in self._by_bundle:
                    found.append(bundle_id)
            # A bundle that came back after its turn was left behind stands in the line twice; once is enough.
            unique = list(dict.fromkeys(found))
            self._turns.extend(unique)
            return unique

    def of(self, bundle_id: int) -> Sequence[Waiting]:
        """Those that wait for a bundle, the first to come first."""
        with self._lock:
            return tuple(self._by_bundle.get(bundle_id, {}).values())

    def bundles(self) -> Sequence[int]:
        """The bundles that are waited for."""
        with self._lock:
            return tuple(self._by_bundle)

    def everyone(self) -> Sequence[Waiting]:
        """All that wait."""
        with self._lock:
            return tuple(waiting for mine in self._by_bundle.values() for waiting in mine.values())

    def overdue(self, now: float) -> Sequence[Waiting]:
        """Those that have waited as long as they may."""
        return tuple(waiting for waiting in self.everyone() if waiting.deadline <= now)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleWaiters:
    """How many wait for one bundle, one of them, since when and until when, by the monotonic clock."""

    bundle_id: int
    count: int
    who: str
    since: float
    until: float


def summed_up(everyone: Iterable[Waiting]) -> dict[int, BundleWaiters]:
    """The waiting opens by bundle."""
    grouped: dict[int, list[Waiting]] = {}
    for one in everyone:
        grouped.setdefault(one.bundle_id, []).append(one)
    return {bundle_id: _sum_of(bundle_id, those) for bundle_id, those in grouped.items()}


def _sum_of(bundle_id: int, those: Sequence[Waiting]) -> BundleWaiters:
    first = min(those, key=lambda one: one.ticket.since)
    return BundleWaiters(
        bundle_id=bundle_id,
        count=len(those),
        who=str(first.ticket.caller),
        since=first.ticket.since,
        until=max(one.deadline for one in those),
    )
