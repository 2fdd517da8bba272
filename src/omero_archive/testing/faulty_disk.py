"""A disk that goes wrong at a chosen call: it stands in the place of `disk.py`'s calls and does the real work.

    with FaultyDisk() as calm:                      # counts, and changes nothing
        work()
    for number, call in enumerate(calm.calls, 1): ...

    with FaultyDisk(Stop(after=7)): work()          # the process ends after its 7th call
    with FaultyDisk(Fail(at=7, code=errno.EIO)): work()

Calls are counted from 1, in the order in which they begin, over all threads. `disk.close`, `posix_fadvise` and
`fcntl` are not counted: they touch no byte and no name.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self, assert_never

from omero_archive import disk

WRITE_CODES = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.ESTALE)
"""The ways in which a call that changes a disk is made to fail: full, broken, read-only, over quota, gone."""

READ_CODES = (errno.EIO, errno.ESTALE)
"""The ways in which a call that only reads a disk is made to fail."""

STOPPED = 75
"""The exit code of a process that was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: its name in `disk.py` and the path it was about, as far as that is known."""

    name: str
    path: str

    @property
    def is_change(self) -> bool:
        """Whether it changes the disk."""
        return self.name in disk.CHANGES

    @property
    def codes(self) -> tuple[int, ...]:
        """The errors it can be made to fail with."""
        return WRITE_CODES if self.is_change else READ_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End the process after a call, at once: nothing is cleaned up. For a process that was forked for it."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Let one call fail; it does nothing then. Closing what was written closes it all the same, as on a real disk."""

    at: int
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shorten:
    """Let one `write` take only half of what it is given; any other call is left as it is."""

    at: int


Fault = Stop | Fail | Shorten


class FaultyDisk:
    """Stands in the place of the seam's calls from `__enter__` to `__exit__`. One at a time in a process."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.calls: list[Call] = []
        self._fault = fault
        self._lock = threading.Lock()
        self._real: dict[str, Callable[..., Any]] = {}

    @property
    def was_reached(self) -> bool:
        """Whether the work came as far as the call that was to go wrong."""
        match self._fault:
            case None:
                return False
            case Stop(after=number):
                return len(self.calls) >= number
            case Fail(at=number) | Shorten(at=number):
                return len(self.calls) >= number
            case _:
                assert_never(self._fault)

    def __enter__(self) -> Self:
        for name in (*disk.CHANGES, *disk.READS):
            self._real[name] = getattr(disk, name)
            self._put(name, self._standing_in(name, self._real[name]))
        return self

    def __exit__(self, *_: object) -> None:
        for name, call in self._real.items():
            self._put(name, call)
        self._real.clear()

    @staticmethod
    def _put(name: str, call: Callable[..., Any]) -> None:
        module: ModuleType = disk
        setattr(module, name, call)

    def _standing_in(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            number = self._count(name, arguments, named)
            match self._fault:
                case Stop(after=after) if after == number:
                    with contextlib.suppress(OSError):
                        real(*arguments, **named)
                    os._exit(STOPPED)
                case Fail(at=at, code=code) if at == number:
                    if name == "close_written":
                        real(*arguments, **named)
                    raise OSError(code, os.strerror(code))
                case Shorten(at=at) if at == number and name == "write":
                    fd, piece = arguments
                    return real(fd, piece[: (len(piece) + 1) // 2])
            return real(*arguments, **named)

        return call

    def _count(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> int:
        seen = Call(name=name, path=_path(name, arguments, named))
        with self._lock:
            self.calls.append(seen)
            return len(self.calls)


def _path(name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
    """The path a call is about; of two the new one."""
    match name:
        case "rename_to_free_name":
            _, _, to_name, to_fd = arguments
            return f"{_of(to_fd)}/{to_name}"
        case "rename" | "link":
            return f"{_of(named['dst_dir_fd'])}/{arguments[1]}"
        case "symlink":
            return f"{_of(named['dir_fd'])}/{arguments[1]}"
        case "open_beneath":
            return f"{arguments[3]}/{arguments[1]}"
        case _ if isinstance(arguments[0], int):
            return _of(arguments[0])
        case _ if "dir_fd" in named:
            return f"{_of(named['dir_fd'])}/{arguments[0]}"
        case _:
            return str(arguments[0])


def _of(fd: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return f"descriptor {fd}"
