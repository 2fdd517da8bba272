"""FUSE_OPEN and FUSE_INTERRUPT: from the kernel's question through the gate to the kernel's answer.

An open that waits costs an entry here and no thread. Whoever takes the entry out answers, so no request is answered
twice.
"""

import errno
import os
import threading
from collections import OrderedDict, deque
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import structlog

from omero_archive.access.fuse.backing import Backings, Replaced
from omero_archive.access.fuse.channel import Channel
from omero_archive.access.fuse.nodes import Node, Nodes
from omero_archive.access.fuse.served import ServedGate, errno_of
from omero_archive.access.items import Caller, Opened, Refusal
from omero_archive.model import printable

_log = structlog.get_logger()
_SENT_BACK_KEPT = 1000
_SENT_BACK_S = 1.0


class _Opening:
    """An open that is not answered yet. `ticket` comes a moment after the gate was asked."""

    __slots__ = ("interrupted", "node", "pid", "ticket", "unique")

    def __init__(self, unique: int, node: Node, pid: int) -> None:
        self.unique = unique
        self.node = node
        self.pid = pid
        self.ticket: Any = None
        self.interrupted = False


class _SentBack:
    """Which threads were told ESTALE a moment ago, for which path. One that never comes back is forgotten."""

    def __init__(self) -> None:
        self._paths: OrderedDict[int, tuple[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, pid: int, node: Node) -> None:
        with self._lock:
            self._paths[pid] = (node.path, monotonic())
            if len(self._paths) > _SENT_BACK_KEPT:
                self._paths.popitem(last=False)

    def take(self, pid: int, node: Node) -> bool:
        """Whether this one was; asked once."""
        if not self._paths or not pid:
            return False  # 0: a process of another container, which is all that can be told of it
        with self._lock:
            path, since = self._paths.pop(pid, ("", 0.0))
        return path == node.path and monotonic() - since < _SENT_BACK_S


class Opens:
    """The opens of a mount. Safe to use from several threads."""

    def __init__(self, channel: Channel, gate: ServedGate, nodes: Nodes, backings: Backings) -> None:
        self._channel = channel
        self._gate = gate
        self._nodes = nodes
        self._backings = backings
        self._openings: dict[int, _Opening] = {}
        # With several threads that read requests an INTERRUPT can overtake its OPEN. Numbers are not used twice.
        self._early: deque[int] = deque(maxlen=1000)
        self._sent_back = _SentBack()
        self._lock = threading.Lock()
        self.answered = 0

    @property
    def waiting(self) -> int:
        """How many opens are not answered yet."""
        return len(self._openings)

    def open(self, unique: int, node: Node, pid: int, uid: int) -> None:
        """Ask the gate; it answers when it can. A file that is near is answered before this returns."""
        opening = _Opening(unique, node, pid)
        self._openings[unique] = opening
        # Names are looked up by the gate, and only for opens that do not succeed at once: it takes longer than these.
        caller = Caller(pid=pid, uid=uid, program="", user=str(uid))
        try:
            ticket = self._gate.open(node.path, caller, partial(self._answer, opening))
        except BaseException:
            self._openings.pop(unique, None)
            raise
        if ticket is None:
            return
        with self._lock:
            opening.ticket = ticket
            interrupted = opening.interrupted or unique in self._early
        if interrupted:
            self._gate.give_up(ticket)

    def interrupt(self, unique: int) -> None:
        """The program that waits for the answer was told to stop."""
        with self._lock:
            opening = self._openings.get(unique)
            if opening is None:
                self._early.append(unique)  # or it was answered at this moment
                return
            opening.interrupted = True
            ticket = opening.ticket
        if ticket is not None:
            self._gate.give_up(ticket)

    def give_up_all(self) -> None:
        """The mount ends: tell everyone who waits, and the gate."""
        for unique in list(self._openings):
            opening = self._openings.pop(unique, None)
            if opening is None:
                continue
            self._channel.error(unique, errno.EREMOTEIO)
            if opening.ticket is not None:
                self._gate.give_up(opening.ticket)

    def _answer(self, opening: _Opening, result: Opened | Refusal) -> None:
        """How it ended, from whatever thread found out. Never raises."""
        if self._openings.pop(opening.unique, None) is None:
            if isinstance(result, Opened):
                with suppress(OSError):
                    os.close(result.fd)
            return
        self._channel.guarded(opening.unique, self._end_open, opening, result)

    def _end_open(self, opening: _Opening, result: Opened | Refusal) -> None:
        node = opening.node
        if isinstance(result, Refusal):
            self._channel.error(opening.unique, errno_of(result.reason))
            return
        was_sent_back = self._sent_back.take(opening.pid, node)
        try:
            # Sent back once already, and meanwhile it was exchanged again: what is open here was opened after this
            # program asked, so it is a right answer. The kernel would not walk a third time.
            body = self._backings.attach(node, result, join=was_sent_back)
        except Replaced:
            self._send_back(opening, again=was_sent_back)
            return
        self.answered += 1
        if not self._channel.reply(opening.unique, body):
            self.release(node.number)  # nobody waits for it any more

    def _send_back(self, opening: _Opening, *, again: bool) -> None:
        """Other bytes lie here than are open, or than the kernel was told: for them there is to be a new node.

        ESTALE lets the kernel walk the path anew, once, and ask for every name on the way (LOOKUP_REVAL of fs/namei.c).
        """
        node = opening.node
        self._nodes.renew(node)
        if again:
            _log.warning("the file is not as long as it is said to be", action="open", path=printable(node.path))
            self._channel.error(opening.unique, errno.EREMOTEIO)
            return
        _log.info("other bytes lie here than before", action="open", path=printable(node.path))
        self._sent_back.put(opening.pid, node)
        self._channel.error(opening.unique, errno.ESTALE)

    def release(self, handle: int) -> None:
        """FUSE_RELEASE: one descriptor less."""
        node = self._backings.release(handle)
        if node is not None:
            self._nodes.settle(node)
