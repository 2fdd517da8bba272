"""Stops a step, as a kill would, before any of its changes: a system call that changes a name, a sync, a commit."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from omero_archive import disk

_CALLS = ("rename", "link", "symlink", "unlink", "rmdir", "mkdir", "rename_to_free_name", "syncfs")


class Stopped(BaseException):
    """The process was killed here, as far as the step can tell."""


@contextmanager
def stopped_before(number: int) -> Iterator[None]:  # noqa: C901
    """Raise `Stopped` before change `number` (from 1), and before every later one."""
    count = 0

    def change(*_: object) -> None:
        nonlocal count
        count += 1
        if count >= number:
            raise Stopped(f"before change {count}")

    def wrote(connection: Any, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE", "WITH")):
            connection.info["has written"] = True

    def committing(connection: Any) -> None:
        # A worker's beats come when they come, and are no part of the step.
        if connection.info.pop("has written", False) and threading.current_thread().name != "beats":
            change()

    def stopping(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            change()
            return call(*arguments, **named)

        return wrapped

    kept = [(name, getattr(disk, name)) for name in _CALLS]
    listeners = (("commit", committing), ("before_cursor_execute", wrote))
    for name, listener in listeners:
        sa.event.listen(sa.Engine, name, listener)
    for name, call in kept:
        setattr(disk, name, stopping(call))
    try:
        yield
    finally:
        for name, call in kept:
            setattr(disk, name, call)
        for name, listener in listeners:
            sa.event.remove(sa.Engine, name, listener)
