"""What the simulated appliance knows: the files on its mount, how far each has come, and what is being recalled.

A file's life begins anew whenever it changes (its ctime). All times are the appliance's own, in seconds
since the epoch.
"""

import contextlib
import hashlib
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omero_archive.testing.arkivum.tape import Stub, adopt, leave

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many seconds each thing takes, counted from the last change of a file or, for recalls, from the request."""

    quiet: float = 600  # nothing is known of it: documented
    final: float = 300  # after the quiet time
    amber: float = 3600  # after FINAL
    green: float = 86400  # after FINAL
    autoclear: float = 30 * 86400  # after FINAL, or after its recall
    recall: float = 900  # and two seconds for each MiB: the estimate of an older client of the vendor's
    recall_per_mib: float = 2


@dataclass(slots=True, kw_only=True)
class Record:
    """One file or directory that the appliance knows."""

    id: str
    path: bytes  # below the mount, without a slash at either end
    is_directory: bool
    identity: tuple[int, int]  # inode, ctime in ns
    size_bytes: int
    mtime: float
    since: float  # when its life began
    is_released: bool = False  # whoever wrote it said that it is whole: no quiet time
    md5: str | None = None
    cleared_not_before: float = 0
    stub: Stub | None = None
    is_awaited: bool = False  # somebody opened it while its bytes were on tape

    @property
    def is_local(self) -> bool:
        return self.stub is None and not self.is_directory

    def ingest_state(self, now: float, pace: Pace) -> str:
        """How far it is; "" while nothing is known of it."""
        age = now - self.since - (0 if self.is_released else pace.quiet)
        if self.is_directory:
            return "UNINIT"
        if age < 0:
            return ""
        steps = [(0.2, "UNINIT"), (0.4, "PRIMARY_IP"), (1.0, "PRIMARY")]
        return next((state for part, state in steps if age < part * pace.final), "FINAL")

    def final_since(self, pace: Pace) -> float:
        return self.since + pace.final + (0 if self.is_released else pace.quiet)

    def colour(self, now: float, pace: Pace) -> str:
        if self.ingest_state(now, pace) != "FINAL":
            return "red"
        age = now - self.final_since(pace)
        return "green" if age >= pace.green else "amber" if age >= pace.amber else "red"


@dataclass(slots=True, kw_only=True)
class Recall:
    """A request to bring bytes back. `mode`: "", "for ever" (Scheduled), "completed only" or "failed"."""

    id: str
    file: Record
    requested: float
    due: float
    mode: str = ""
    is_done: bool = False  # it brought the bytes once, and brings none again

    def status(self, now: float) -> str:
        if now < self.due or self.mode == "for ever":
            return "Scheduled"
        return "Failed" if self.mode == "failed" else "Completed"


@dataclass(slots=True)
class Appliance:
    """The appliance. Safe to use from several threads; `lock` is held by whoever looks at more than one thing."""

    directory: Path
    pace: Pace = field(default_factory=Pace)
    speed: float = 1.0
    has_leases: bool = False  # only in a process that ignores SIGIO
    lock: threading.RLock = field(default_factory=threading.RLock)
    reads_while_offline: int = 0
    recalls: dict[str, Recall] = field(default_factory=dict)
    _known: dict[bytes, Record] = field(default_factory=dict)
    _ahead: float = 0.0
    _began: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.mount.mkdir(parents=True, exist_ok=True)
        self.tape.mkdir(parents=True, exist_ok=True)
        self.scan()

    @property
    def mount(self) -> Path:
        return self.directory / "mount"

    @property
    def tape(self) -> Path:
        return self.directory / "tape"

    # ---- time

    def now(self) -> float:
        return self._time_of(time.time())

    def advance(self, seconds: float) -> None:
        """Let time leap. What lies on the mount is looked at before, so that it ages too."""
        with self.lock:
            self.scan()
            self._ahead += seconds
            self.scan()
            self.tick()

    def run_at(self, speed: float) -> None:
        """From now on so many seconds pass in one."""
        with self.lock:
            self.scan()
            real, now = time.time(), self.now()
            self.speed, self._began, self._ahead = speed, real, now - real

    def _time_of(self, real: float) -> float:
        return real + (real - self._began) * (self.speed - 1) + self._ahead

    # ---- looking

    def look(self, path: bytes) -> Record | None:
        """What is known of a path, known or not yet; None if nothing lies there."""
        with self.lock:
            try:
                return self._look(path)
            except OSError:  # it went, perhaps while we looked
                self._forget(path)
                return None

    def entry(self, path: bytes) -> Record | None:
        """What the appliance admits to know: nothing before the quiet time is over."""
        known = self.look(path)
        return known if known is not None and known.ingest_state(self.now(), self.pace) else None

    def by_id(self, identifier: str) -> Record | None:
        with self.lock:
            return next((record for record in self._known.values() if record.id == identifier), None)

    def below(self, path: bytes) -> list[Record]:
        """The entries directly in a directory, by name."""
        with self.lock:
            names = sorted(os.listdir(os.fsencode(self._on_mount(path))))
            found = (self.entry(path + b"/" + name if path else name) for name in names)
            return [record for record in found if record is not None]

    def scan(self) -> list[Record]:
        """Look at everything on the mount, move to tape what is due; all that lies there."""
        with self.lock:
            there = [record for path in self._paths() if (record := self.look(path)) is not None]
            for path in set(self._known) - {record.path for record in there}:
                self._forget(path)
            for record in there:
                if self._is_due(record):
                    self.clear(record)
            return there

    # ---- going and coming

    def clear(self, record: Record) -> bool:
        """Move the bytes of a file to tape, if it is FINAL and nobody has it open."""
        with self.lock:
            if not record.is_local or record.ingest_state(self.now(), self.pace) != "FINAL":
                return False
            path = self._on_mount(record.path)
            with contextlib.suppress(FileNotFoundError):
                record.stub = leave(path, self._on_tape(record.path), with_lease=self.has_leases)
            if record.stub is not None:
                _remember(record, os.lstat(path))
            return record.stub is not None

    def recall(self, record: Record, mode: str = "") -> Recall:
        """Begin to bring the bytes of a file back."""
        with self.lock:
            now = self.now()
            takes = 0.0 if record.is_local else self.pace.recall + self.pace.recall_per_mib * record.size_bytes / _MIB
            recall = Recall(id=str(uuid.uuid4()), file=record, requested=now, due=now + takes, mode=mode)
            self.recalls[recall.id] = recall
            self.tick()
            return recall

    def tick(self) -> None:
        """Bring back what is due, and begin to bring back what somebody is waiting for."""
        with self.lock:
            now = self.now()
            for recall in self.recalls.values():
                if recall.status(now) == "Completed" and not recall.mode and not recall.is_done:
                    recall.is_done = True
                    self._bring_back(recall)
            coming = {r.file.id for r in self.recalls.values() if not r.mode and r.status(now) == "Scheduled"}
            for record in self._known.values():
                if record.stub is not None and not record.is_awaited and record.stub.is_wanted:
                    record.is_awaited = True
                    self.reads_while_offline += 1
                    if record.id not in coming:
                        self.recall(record)

    def delete(self, path: bytes) -> bool:
        with self.lock:
            if self.look(path) is None:
                return False
            self._on_mount(path).unlink()
            self._forget(path)
            return True

    def damage(self, path: bytes) -> bool:
        """Change the last byte of a file that has any and is here; the appliance does not notice."""
        with self.lock:
            record = self.look(path)
            if record is None or not record.is_local or record.size_bytes == 0:
                return False
            with self._on_mount(path).open("r+b") as file:
                before = os.fstat(file.fileno())
                file.seek(-1, os.SEEK_END)
                last = file.read(1)
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last[0] ^ 1]))
            os.utime(self._on_mount(path), ns=(before.st_atime_ns, before.st_mtime_ns))
            _remember(record, os.lstat(self._on_mount(path)))
            return True

    def create_folder(self, path: bytes) -> None:
        self._on_mount(path).mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Let go of every file; bytes that are on tape stay there, and are found again by the next run."""
        with self.lock:
            for record in self._known.values():
                if record.stub is not None:
                    record.stub.close()
            self._known.clear()

    # ---- the inside

    def _look(self, path: bytes) -> Record | None:
        found = os.lstat(self._on_mount(path))
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return None
        known = self._known.get(path)
        if known is not None and not _is_same(known, found):
            self._forget(path)
            known = None
        if known is None:
            known = self._known[path] = self._new(path, found)
        self._go_on(known)
        return known

    def _new(self, path: bytes, found: os.stat_result) -> Record:
        record = Record(
            id=str(uuid.uuid4()),
            path=path,
            is_directory=stat.S_ISDIR(found.st_mode),
            identity=(found.st_ino, found.st_ctime_ns),
            size_bytes=found.st_size,
            mtime=found.st_mtime,
            since=self._time_of(found.st_ctime_ns / 1e9),
        )
        kept = self._on_tape(path)
        if not record.is_directory and kept.is_file() and kept.stat().st_size == found.st_size:
            record.since = 0
            record.md5 = _md5(kept)
            record.stub = adopt(self._on_mount(path), kept, with_lease=self.has_leases)
        return record

    def _go_on(self, record: Record) -> None:
        if record.md5 is None and record.ingest_state(self.now(), self.pace) == "FINAL":
            record.md5 = _md5(self._on_mount(record.path))

    def _bring_back(self, recall: Recall) -> None:
        record = recall.file
        if record.stub is not None:
            _remember(record, record.stub.come_back())
            record.stub = None
            record.is_awaited = False
            record.cleared_not_before = recall.due + self.pace.autoclear

    def _is_due(self, record: Record) -> bool:
        if record.is_directory:
            return False
        due = max(record.cleared_not_before, record.final_since(self.pace) + self.pace.autoclear)
        return record.is_local and self.now() >= due

    def _forget(self, path: bytes) -> None:
        known = self._known.pop(path, None)
        if known is not None and known.stub is not None:
            known.stub.close()
            known.stub = None
            self._on_tape(path).unlink(missing_ok=True)

    def _paths(self) -> Iterator[bytes]:
        top = os.fsencode(self.mount)
        for above, directories, files in os.walk(top):
            for name in (*directories, *files):
                yield os.path.relpath(above + b"/" + name, top)

    def _on_mount(self, path: bytes) -> Path:
        return self.mount / os.fsdecode(path)

    def _on_tape(self, path: bytes) -> Path:
        return self.tape / os.fsdecode(path)


def _is_same(record: Record, found: os.stat_result) -> bool:
    """Whether nobody changed it since. Nobody can change what is on tape: a new mode or name is none of its bytes."""
    inode, ctime_ns = record.identity
    if record.is_directory or stat.S_ISDIR(found.st_mode):
        return record.is_directory and stat.S_ISDIR(found.st_mode)
    return found.st_ino == inode and (record.stub is not None or found.st_ctime_ns == ctime_ns)


def _remember(record: Record, found: os.stat_result) -> None:
    """What the appliance itself does to a file is no change of it."""
    record.identity = (found.st_ino, found.st_ctime_ns)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
