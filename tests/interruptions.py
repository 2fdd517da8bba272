"""Stops a step, as a kill would, before any of its changes: a system call that changes a name, a sync, a commit."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from omero_archive import linux

_SYSTEM_CALLS = ((os, "rename"), (os, "link"), (os, "symlink"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"))
_OURS = ((linux, "rename_to_free_name"), (linux, "syncfs"))


class Stopped(BaseException):
    """The process was killed here, as far as the step can tell."""


@contextmanager
def stopped_before(number: int) -> Iterator[Callable[[], int]]:
    """Raise `Stopped` before change `number` (from 1); gives how many changes there were so far."""
    count = 0

    def change(*_: object) -> None:
        nonlocal count
        count += 1
        if count >= number:
            raise Stopped(f"before change {count}")

    def stopping(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            change()
            return call(*arguments, **named)

        return wrapped

    kept = [(module, name, getattr(module, name)) for module, name in (*_SYSTEM_CALLS, *_OURS)]
    sa.event.listen(sa.Engine, "commit", change)
    for module, name, call in kept:
        setattr(module, name, stopping(call))
    try:
        yield lambda: count
    finally:
        for module, name, call in kept:
            setattr(module, name, call)
        sa.event.remove(sa.Engine, "commit", change)
