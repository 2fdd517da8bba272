"""Keeps the table of nodes small: asks the kernel to forget names that it knows and nobody uses.

In a thread of its own. The kernel may wait for a directory's lock before it takes such a notice, and a program that
holds that lock may be waiting for an answer of ours.
"""

import threading

from omero_archive.access.fuse import protocol
from omero_archive.access.fuse.channel import Channel
from omero_archive.access.fuse.nodes import Nodes

_BATCH = 500
_LEAST_PAUSE_S = 0.002  # for the FORGETs to arrive
_LONGEST_PAUSE_S = 1.0  # where nothing can be forgotten: everything is in use


class Pruning:
    """Starts when told that the table is over its limit, and goes on until it is a tenth below."""

    def __init__(self, channel: Channel, nodes: Nodes) -> None:
        self._channel = channel
        self._nodes = nodes
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="prune")
        self.has_prune = False  # set when the kernel knows FUSE_NOTIFY_PRUNE

    def start(self) -> None:
        self._thread.start()

    def want(self) -> None:
        """The table is over its limit."""
        self._wanted.set()

    def stop(self) -> None:
        """End the thread; does not wait for it."""
        self._stopping.set()
        self._wanted.set()

    def _run(self) -> None:
        pause_s = _LEAST_PAUSE_S
        while not self._stopping.is_set():
            self._wanted.wait()
            goal = self._nodes.limit * 9 // 10
            surplus = len(self._nodes) - goal
            if surplus <= 0:
                self._wanted.clear()
                if self._nodes.is_over_limit:
                    self._wanted.set()
                continue
            dropped = self._nodes.dropped
            self._prune(min(surplus, _BATCH))
            self._stopping.wait(pause_s)
            has_worked = self._nodes.dropped > dropped
            pause_s = _LEAST_PAUSE_S if has_worked else min(pause_s * 2, _LONGEST_PAUSE_S)

    def _prune(self, count: int) -> None:
        nodes = self._nodes.unused(count)
        if self.has_prune and nodes:
            self.has_prune = self._channel.notify(protocol.pack_prune([node.number for node in nodes]))
            return
        for node in nodes:
            if node.parent is not None:
                self._channel.notify(protocol.pack_stale_entry(node.parent.number, node.name))
