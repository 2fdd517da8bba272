"""Who opens a file: from the numbers that the kernel gives with a request to the names of program and user.

The kernel names the thread, not the process (`fuse_get_req` of fs/fuse/dev.c takes `task_pid(current)`), and threads
have names of their own: the opens of a Java server come from "Thread-3" or "blitz-pool-7". So the name is that of the
thread group's leader. A number is good only while its process waits for the answer; ask before answering.
"""

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from omero_archive.access.items import Caller

_USERS_KEPT = 1000
_USERS_KEPT_S = 300.0


class Callers:
    """Finds names. Users are remembered for some minutes: their names may come from a slow directory server."""

    def __init__(self, proc: Path = Path("/proc"), *, clock: Callable[[], float] = monotonic) -> None:
        self._proc = proc
        self._clock = clock
        self._users: dict[int, tuple[str, float]] = {}

    def find(self, pid: int, uid: int) -> Caller:
        """The process that thread `pid` belongs to. What cannot be found out, or is gone, has an empty name."""
        group = self._group_of(pid) if pid > 0 else None
        program = "" if group is None else self._name_of(group)
        return Caller(pid=pid if group is None else group, uid=uid, program=program, user=self._user(uid))

    def _group_of(self, pid: int) -> int | None:
        """The process of a thread: `Tgid` of proc_pid_status(5). None if it cannot be found out."""
        for line in self._read(pid, "status").splitlines():
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
        return None

    def _name_of(self, pid: int) -> str:
        """proc_pid_comm(5): any bytes but zero, at most 15, and a line feed."""
        return os.fsdecode(self._read(pid, "comm").removesuffix(b"\n"))

    def _read(self, pid: int, name: str) -> bytes:
        try:
            return (self._proc / str(pid) / name).read_bytes()
        except OSError:
            return b""  # gone meanwhile, or hidden from us

    def _user(self, uid: int) -> str:
        found = self._users.get(uid)
        if found is not None and self._clock() - found[1] < _USERS_KEPT_S:
            return found[0]
        if len(self._users) >= _USERS_KEPT:
            self._users.clear()
        try:
            name = pwd.getpwuid(uid).pw_name
        except (KeyError, OverflowError):
            name = str(uid)
        self._users[uid] = (name, self._clock())
        return name
