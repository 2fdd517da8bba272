"""A few threads for what may take time, so that the loop never does."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

_Act = Callable[[], None]


class Pool:
    """Runs acts in the order in which they came. An act must not raise: it answers a request, whatever happens.

    The threads are daemons: one that waits for a database that does not answer must not keep the process alive.
    """

    def __init__(self, threads: int) -> None:
        self._queue: SimpleQueue[_Act | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, daemon=True, name=f"look-{n}") for n in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, act: _Act) -> None:
        self._queue.put(act)

    def stop(self) -> None:
        """Let the threads end when they are done with what was submitted; does not wait for them."""
        for _ in self._threads:
            self._queue.put(None)

    def _run(self) -> None:
        while (act := self._queue.get()) is not None:
            act()
