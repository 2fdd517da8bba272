"""One line in the log for every open that was refused or slow, with program and user; a storm is summed up."""

import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic

import structlog

from omero_archive.access.items import Opened, Reason, Refusal
from omero_archive.access.waiters import Ticket
from omero_archive.errors import ArchiveError
from omero_archive.model import printable

_log = structlog.get_logger()

LINES_A_MINUTE = 100
"""So many lines are written in a minute; what comes after them is counted and told in one line for each kind."""

SLOW_S = 1.0
"""An open that took longer is told of even if it succeeded."""

_KINDS = 1000


class OpenLog:
    """Writes the lines. `lines` is how many a minute may have before the rest is summed up."""

    def __init__(self, *, lines: int = LINES_A_MINUTE, clock: Callable[[], float] = monotonic) -> None:
        self._lines = lines
        self._clock = clock
        self._lock = threading.Lock()
        self._minute_since = clock()
        self._written = 0
        self._fault_at: float | None = None
        self._left_out: Counter[tuple[str, ...]] = Counter()

    def ended(self, ticket: Ticket, result: Opened | Refusal) -> None:
        """Tell how an open ended, unless it was quick and good."""
        waited_s = self._clock() - ticket.since
        if isinstance(result, Opened) and waited_s <= SLOW_S:
            return
        reason = "slow" if isinstance(result, Opened) else result.reason.value
        if not self._may_write(printable(ticket.caller.program), ticket.caller.user, reason):
            return
        # The user's own wish, or at last a good end: nothing that anybody has to look at.
        is_calm = isinstance(result, Opened) or result.reason is Reason.INTERRUPTED
        (_log.info if is_calm else _log.warning)(
            "open was slow" if isinstance(result, Opened) else "open was refused",
            action="open",
            path=printable(ticket.path),
            reason=reason,
            program=printable(ticket.caller.program),
            user=ticket.caller.user,
            pid=ticket.caller.pid,
            bundle=ticket.bundle,
            waited_s=round(waited_s, 3),
            text=None if isinstance(result, Opened) else printable(result.text),
        )

    def could_not_look(self, path: str, error: ArchiveError) -> None:
        """Tell that the disk could not say whether a file is near. What becomes of the open is told later."""
        if self._may_write("any", "any", "near could not be looked at"):
            _log.warning("near could not be looked at", action="open", path=printable(path), error=str(error))

    def fault(self, error: Exception) -> None:
        """Tell a fault of ours with its traceback, once a minute: it may happen at every open."""
        with self._lock:
            if self._fault_at is not None and self._clock() - self._fault_at < 60:
                return
            self._fault_at = self._clock()
        _log.error("a fault in omero-archive", action="open", error=repr(error), exc_info=error)

    def sum_up(self, *, now: bool = False) -> None:
        """Tell what was left out, once a minute has passed, or `now`. Called from time to time."""
        with self._lock:
            if not now and self._clock() - self._minute_since < 60:
                return
            left_out, self._left_out = self._left_out, Counter()
            self._minute_since, self._written = self._clock(), 0
        for (program, user, reason), count in left_out.most_common():
            _log.warning(
                "more opens like those before", action="open", count=count, reason=reason, program=program, user=user
            )

    def _may_write(self, *kind: str) -> bool:
        """Whether the minute has room for a line; if not, it is counted by program, user and reason."""
        self.sum_up()
        with self._lock:
            self._written += 1
            if self._written <= self._lines:
                return True
            if kind not in self._left_out and len(self._left_out) >= _KINDS:
                kind = ("others", "others", kind[-1])
            self._left_out[kind] += 1
            return False
