"""Waiting, not for ever, for what may never answer: a mount whose server hangs, a service that somebody else wrote."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

_T = TypeVar("_T")


class NoAnswer(Exception):
    """It did not answer in time; whether it ever does nobody knows."""


def answer_within(seconds: float, ask: Callable[[], _T]) -> _T:
    """What `ask` gives or raises. Raises `NoAnswer` when it takes longer; it goes on in a thread that is left behind.

    On a mount whose server hangs a system call ends for no signal but SIGKILL. Here that is another thread's, so that
    Ctrl-C is heard, and the process can end: its threads do not keep it, as they are daemons.
    """
    answer: Future[_T] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=work, name="asked", daemon=True).start()
    wait([answer], timeout=seconds)
    if not answer.done():
        raise NoAnswer(f"no answer within {seconds:g} s")
    return answer.result()
