"""SIGTERM and SIGINT: the first asks to stop, so that work is handed back; the second does what it always does."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def told_to_stop(stop: Callable[[], object]) -> Iterator[list[signal.Signals]]:
    """Call `stop` at the first SIGTERM or SIGINT meanwhile; the list then holds which it was.

    Does nothing in other threads than the main one, to which signals do not come.
    """
    came: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {each: signal.getsignal(each) for each in SIGNALS}

    def told(number: int, frame: FrameType | None) -> None:
        del frame
        for each in SIGNALS:
            signal.signal(each, before[each])
        came.append(signal.Signals(number))
        stop()

    for each in SIGNALS:
        signal.signal(each, told)
    try:
        yield came
    finally:
        for each in SIGNALS:
            signal.signal(each, before[each])
