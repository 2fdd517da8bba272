"""A program for tests: mounts a plain directory with the server of `access.fuse`, and a gate that does as it is told.

    python plain_mount.py MOUNTPOINT STORE [passthrough=0] [nodes=1000] [threads=2] [allow_other=0] [prune=0] [user=1]

It says `ready passthrough=True` on standard output, then obeys lines on standard input and answers each with a line:

    away REASON PATH    opens of it are refused with that reason; `wait` lets them wait
    near PATH           its file is opened as it lies in STORE; all that wait for it are answered
    catalogue on|off    whether what is away can be looked up
    slow SECONDS        how long looking up takes
    stats               what the mount says of itself, as JSON

What is "away" lies in STORE all the same, so that the tree has its size.
"""

import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from omero_archive.access.fuse import Limits, Mounted, MountOptions, mount
from omero_archive.access.items import Answer, Caller, Item, ItemKind, Opened, Reason, Refusal
from omero_archive.errors import ArchiveError, DatabaseUnavailable
from omero_archive.model import FileAttributes, FileIdentity


@dataclass
class PlainTree:
    """The directory as it is. Paths in `away` are not near."""

    store: Path
    away: dict[str, Reason | None] = field(default_factory=dict)
    catalogue: bool = True
    slow_s: float = 0.0

    def look_near(self, path: str) -> Item | None:
        return None if path in self.away else self._item(path)

    def look(self, path: str) -> Item | None:
        time.sleep(self.slow_s)
        if not self.catalogue:
            raise DatabaseUnavailable("the catalogue is switched off")
        return self._item(path)

    def list(self, path: str) -> Iterator[tuple[str, Item]]:
        time.sleep(self.slow_s)
        if not self.catalogue:
            raise DatabaseUnavailable("the catalogue is switched off")
        with os.scandir(self.store / path) as entries:
            for entry in entries:
                yield entry.name, _item_of(entry.stat(follow_symlinks=False))

    def room(self) -> tuple[int, int]:
        space = os.statvfs(self.store)
        return space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize

    def open(self, path: str) -> Opened:
        fd = os.open(f"{self.store}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        seen = os.fstat(fd)
        identity = FileIdentity(
            device=seen.st_dev,
            inode=seen.st_ino,
            size_bytes=seen.st_size,
            mtime_ns=seen.st_mtime_ns,
            ctime_ns=seen.st_ctime_ns,
        )
        return Opened(fd=fd, identity=identity)

    def _item(self, path: str) -> Item | None:
        if path.endswith("fault"):
            raise RuntimeError("a fault, as tests want it")
        try:
            return _item_of(os.lstat(f"{self.store}/{path}"))
        except (FileNotFoundError, NotADirectoryError):
            return None


def _item_of(seen: os.stat_result) -> Item:
    is_directory = stat.S_ISDIR(seen.st_mode)
    return Item(
        kind=ItemKind.DIRECTORY if is_directory else ItemKind.FILE,
        size_bytes=0 if is_directory else seen.st_size,
        attributes=FileAttributes(
            mtime_ns=seen.st_mtime_ns, mode=stat.S_IMODE(seen.st_mode), uid=seen.st_uid, gid=seen.st_gid
        ),
    )


class _Ticket:
    def __init__(self, path: str, answer: Answer) -> None:
        self.path = path
        self.answer = answer


class ToldGate:
    """Waits until told, and knows no policy. What nobody told it within 60 seconds is TIMED_OUT."""

    def __init__(self, tree: PlainTree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self.waiting: set[_Ticket] = set()
        self.given_up = 0
        self.deadline_s = 60.0

    def open(self, path: str, caller: Caller, answer: Answer) -> _Ticket | None:
        if path not in self._tree.away:
            answer(self._tree.open(path))
            return None
        reason = self._tree.away[path]
        if reason is not None:
            answer(Refusal(reason=reason, text=f"told so, for {caller}"))
            return None
        ticket = _Ticket(path, answer)
        with self._lock:
            self.waiting.add(ticket)
        late = threading.Timer(self.deadline_s, self._end, (ticket, Reason.TIMED_OUT)) if self.deadline_s < 60 else None
        if late is not None:
            late.daemon = True
            late.start()
        return ticket

    def give_up(self, ticket: _Ticket) -> None:
        if self._end(ticket, Reason.INTERRUPTED):
            self.given_up += 1

    def came(self, path: str) -> None:
        with self._lock:
            ready = [ticket for ticket in self.waiting if ticket.path == path]
            self.waiting.difference_update(ready)
        for ticket in ready:
            ticket.answer(self._tree.open(path))

    def _end(self, ticket: _Ticket, reason: Reason) -> bool:
        with self._lock:
            if ticket not in self.waiting:
                return False
            self.waiting.remove(ticket)
        ticket.answer(Refusal(reason=reason, text="told so"))
        return True


def _obey(line: str, tree: PlainTree, gate: ToldGate, mounted: Mounted) -> str:
    word, _, rest = line.partition(" ")
    match word:
        case "away":
            reason, _, path = rest.partition(" ")
            tree.away[path] = None if reason == "wait" else Reason[reason.upper()]
        case "near":
            tree.away.pop(rest, None)
            gate.came(rest)
        case "catalogue":
            tree.catalogue = rest == "on"
        case "slow":
            tree.slow_s = float(rest)
        case "deadline":
            gate.deadline_s = float(rest)
        case "stats":
            told = {"gate_waiting": len(gate.waiting), "given_up": gate.given_up}
            return json.dumps(asdict(mounted.stats) | told)
        case _:
            return f"what is {word!r}?"
    return "done"


def main() -> int:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    mountpoint, store, *rest = sys.argv[1:]
    told = dict(argument.split("=") for argument in rest)
    if "user" in told:
        # Here and not by whoever starts it: the interpreter may lie where only root can read.
        os.setgroups([])
        os.setgid(int(told["user"]))
        os.setuid(int(told["user"]))
    tree = PlainTree(Path(store))
    gate = ToldGate(tree)
    options = MountOptions(
        allow_other=told.get("allow_other", "1") == "1",
        passthrough=told.get("passthrough", "1") == "1",
        threads=int(told.get("threads", "2")),
        limits=Limits(nodes=int(told.get("nodes", "100000"))),
    )
    try:
        mounted = mount(Path(mountpoint), tree, gate, options)
    except ArchiveError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return error.exit_code
    if told.get("prune") == "0":
        mounted._server._pruning.has_prune = False  # as with a kernel before 6.18
    signal.signal(signal.SIGTERM, lambda *_: mounted.stop())
    threading.Thread(target=_listen, args=(tree, gate, mounted), daemon=True).start()
    mounted.run()
    print("ended", flush=True)
    return 0


def _listen(tree: PlainTree, gate: ToldGate, mounted: Mounted) -> None:
    print(f"ready passthrough={mounted.stats.passthrough}", flush=True)
    for line in sys.stdin:
        print(_obey(line.rstrip("\n"), tree, gate, mounted), flush=True)


if __name__ == "__main__":
    sys.exit(main())
