"""FUSE_OPEN and FUSE_INTERRUPT: from the kernel's question through the gate to the kernel's answer.

An open that waits costs an entry here and no thread. Whoever takes the entry out answers, so no request is answered
twice.
"""

import errno
import os
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from omero_archive.access.fuse.backing import Backings, Replaced
from omero_archive.access.fuse.channel import Channel
from omero_archive.access.fuse.nodes import Node, Nodes
from omero_archive.access.fuse.served import ServedGate, errno_of
from omero_archive.access.items import Caller, Opened, Refusal
from omero_archive.model import printable

_log = structlog.get_logger()


class _Opening:
    """An open that is not answered yet. `ticket` comes a moment after the gate was asked."""

    __slots__ = ("interrupted", "node", "ticket", "unique")

    def __init__(self, unique: int, node: Node) -> None:
        self.unique = unique
        self.node = node
        self.ticket: Any = None
        self.interrupted = False


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
        self._lock = threading.Lock()
        self.answered = 0

    @property
    def waiting(self) -> int:
        """How many opens are not answered yet."""
        return len(self._openings)

    def open(self, unique: int, node: Node, pid: int, uid: int) -> None:
        """Ask the gate; it answers when it can. A file that is near is answered before this returns."""
        opening = _Opening(unique, node)
        self._openings[unique] = opening
        # Names are for opens that do not succeed at once, see gate.py: reading them takes longer than a near open.
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
        try:
            body = self._backings.attach(node, result)
        except Replaced:
            # What is open here, or what the kernel was told, are other bytes. For them there is a new node: ESTALE lets
            # the kernel walk the path anew, and it asks for every name on the way (LOOKUP_REVAL of fs/namei.c).
            self._nodes.renew(node)
            _log.info("other bytes lie here than before", action="open", path=printable(node.path))
            self._channel.error(opening.unique, errno.ESTALE)
            return
        self.answered += 1
        if not self._channel.reply(opening.unique, body):
            self.release(node.number)  # nobody waits for it any more

    def release(self, handle: int) -> None:
        """FUSE_RELEASE: one descriptor less."""
        node = self._backings.release(handle)
        if node is not None:
            self._nodes.settle(node)
