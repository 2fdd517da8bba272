"""Files that were asked to come back: one command for many, running beside us, and nothing asked for twice.

A recall takes minutes to days, and some commands return only when it is done. So a command is started in a session of
its own, with nothing that ties it to us, and is looked at again with the next call. Only so many run at once; what
waits goes together with what comes later into the next command, so that the system can read its tapes in order.

What was asked for is also written down beside the objects, in `.omero-archive/recalls`: the next run of a command line,
or another machine, must not ask again while the tape is being mounted. After `ask_again` it may: systems forget.
"""

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO

from omero_archive.errors import ArchiveError, ServiceUnavailable
from omero_archive.files import EntryKind, Reading, Tree, remove_object, translated
from omero_archive.model import Clock, FileAttributes, Key, printable
from omero_archive.services.programs import Command, Feed, batches, shown, start
from omero_archive.transfer import BytesReader, write_temporary

RECALLS = ".omero-archive/recalls"

PROMPT_S = 1.0
"""How long a new command is waited for: one that fails at once should say so to whoever asked, not to nobody."""

_TAIL_BYTES = 200  # of what a command printed: its last words say why it failed

Resident = Callable[[Sequence[Key]], Sequence[Key]]
"""Which of some files are resident, by the system's own word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    process: subprocess.Popen[bytes]
    keys: tuple[Key, ...]
    note: Key  # where it is written down what was asked for
    output: IO[bytes]


class Recalls:
    """The recalls of one service. Safe for several threads."""

    def __init__(
        self, command: Command, *, at_most: int, at_once: int, ask_again: timedelta, clock: Clock, resident: Resident
    ) -> None:
        self._command = command
        self._at_most = at_most
        self._at_once = at_once
        self._ask_again = ask_again
        self._clock = clock
        self._resident = resident
        self.prompt_s = PROMPT_S
        self._lock = threading.Lock()
        self._waiting: dict[Key, None] = {}
        self._running: list[_Run] = []
        self._notes: dict[Key, tuple[Key, ...]] = {}  # what the notes say that were read or written
        self._unwritten: dict[Key, datetime] = {}  # notes that only we have: the mount is read-only
        self._failed: dict[Key, str] = {}

    def asked(self, tree: Tree) -> Mapping[Key, datetime]:
        """The files that were asked for less than `ask_again` ago, by this process or another, and when."""
        with self._lock:
            self._collect(tree)
            return self._asked(tree)

    def failures(self) -> Mapping[Key, str]:
        """What went wrong with the last recall of files that were not asked for again since."""
        with self._lock:
            return dict(self._failed)

    def ask(self, tree: Tree, keys: Sequence[Key]) -> None:
        """Ask for files that are offline; those that were asked for already are left out.

        Raises `ServiceUnavailable` if the command cannot be started or fails at once, or cannot take a name.
        """
        with self._lock:
            self._collect(tree)
            asked = self._asked(tree)
            fresh = [key for key in keys if key not in asked]
            odd = [key for key in fresh if "\n" in key and not self._command.feed.takes_any_name]
            for key in fresh:
                if key not in odd:
                    self._waiting[key] = None
                    self._failed.pop(key, None)
            self._begin(tree, prompt_s=self.prompt_s)
        if odd:
            raise ServiceUnavailable(
                f"{self._command} takes one name a line, and {printable(odd[0])!r} has a newline: recall it by hand."
            )

    def close(self) -> None:
        """Let go of the commands that are running. They go on."""
        with self._lock:
            for run in self._running:
                run.output.close()
            self._running.clear()

    # ---- with the lock held

    def _asked(self, tree: Tree) -> dict[Key, datetime]:
        found = dict.fromkeys(self._waiting, self._clock())
        try:
            notes = self._young_notes(tree)
        except OSError as error:
            raise ServiceUnavailable(f"{tree.path(RECALLS)}: {error.strerror}.") from error
        notes |= {note: since for note, since in self._unwritten.items() if self._is_young(since)}
        unread = [note for note in notes if note not in self._notes]
        for note in self._resident(unread) if unread else ():
            self._notes[note] = _read(tree, note)
        for note, since in notes.items():
            found |= dict.fromkeys(self._notes.get(note, ()), since)
        return found

    def _young_notes(self, tree: Tree) -> dict[Key, datetime]:
        """The notes that still count, and when they were made. The others go."""
        there = tree.look(RECALLS)
        if there is None or there.kind is not EntryKind.DIRECTORY:
            return {}
        found: dict[Key, datetime] = {}
        for name in list(tree.files_below(RECALLS)):
            entry = tree.look(name)
            if entry is None or entry.kind is not EntryKind.FILE:
                continue  # nothing of ours
            since = datetime.fromtimestamp(entry.identity.ctime_ns / 1e9, UTC)
            if self._is_young(since):
                found[Key(name)] = since
            else:
                self._forget(tree, Key(name))
        return found

    def _is_young(self, since: datetime) -> bool:
        return self._clock() - since < self._ask_again

    def _forget(self, tree: Tree, note: Key) -> None:
        self._notes.pop(note, None)
        self._unwritten.pop(note, None)
        with suppress(OSError):  # it counts for no longer than `ask_again` anyway
            remove_object(tree, note)

    def _collect(self, tree: Tree) -> None:
        """Look what became of the commands that were running, and let the next ones begin."""
        for run in [run for run in self._running if run.process.poll() is not None]:
            self._end(tree, run)
        with suppress(ArchiveError):  # noted as a failure of its files
            self._begin(tree, prompt_s=0.0)

    def _end(self, tree: Tree, run: _Run) -> str:
        """Note how a command ended; why it failed, empty if it did not."""
        self._running.remove(run)
        with run.output as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = shown(output.read())
        if run.process.returncode == 0:
            return ""
        problem = f"{self._command}: exit status {run.process.returncode}: {text}"
        self._failed |= dict.fromkeys(run.keys, problem)
        self._forget(tree, run.note)
        return problem

    def _begin(self, tree: Tree, *, prompt_s: float) -> None:
        while self._waiting and len(self._running) < self._at_once:
            paths = {os.fsencode(tree.path(key)): key for key in self._waiting}
            group = next(iter(batches(list(paths), self._command.feed, at_most=self._at_most, newlines_alone=False)))
            keys = tuple(paths[path] for path in group)
            for key in keys:
                del self._waiting[key]
            try:
                run = self._start(tree, group, keys)
            except ArchiveError as error:
                self._failed |= dict.fromkeys(keys, str(error))
                raise
            self._running.append(run)
            with suppress(subprocess.TimeoutExpired):
                run.process.wait(prompt_s)
                problem = self._end(tree, run)
                if problem:
                    raise ServiceUnavailable(problem)

    def _start(self, tree: Tree, group: Sequence[bytes], keys: tuple[Key, ...]) -> _Run:
        is_list = self._command.feed is Feed.LIST
        note = Key(f"{RECALLS}/{os.urandom(8).hex()}.{'list' if is_list else 'keys'}")
        parts, end = (group, b"\n") if is_list else ([os.fsencode(key) for key in keys], b"\0")
        try:
            self._write(tree, note, b"".join(part + end for part in parts))
        except ArchiveError:
            if is_list:
                raise
            self._unwritten[note] = self._clock()
        self._notes[note] = keys
        # Files without a name: the command may go on using them when we are gone.
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the command has ended
        try:
            with tempfile.TemporaryFile() as standard_input:
                standard_input.write(self._command.standard_input(group))
                standard_input.seek(0)
                line = self._command.line(group, list_file=tree.path(note) if is_list else None)
                process = start(line, standard_input=standard_input, output=output, what=str(self._command))
        except BaseException:
            output.close()
            self._forget(tree, note)
            raise
        return _Run(process=process, keys=keys, note=note, output=output)

    def _write(self, tree: Tree, note: Key, content: bytes) -> None:
        now_ns = int(self._clock().timestamp() * 1e9)
        attributes = FileAttributes(mtime_ns=now_ns, mode=0o644, uid=os.getuid(), gid=os.getgid())
        try:
            tree.make_directories(RECALLS)
            write_temporary(BytesReader(content, attributes), tree, note)
            tree.publish(note)
        except OSError as error:
            raise translated(error, str(tree.path(note))) from error


def _read(tree: Tree, note: Key) -> tuple[Key, ...]:
    """What a note says that another process wrote; nothing if it cannot be read: then its files are asked for again."""
    try:
        with Reading(tree.open_to_read(note)) as stream:
            content = stream.readall()
    except OSError:
        return ()
    if note.endswith(".list"):
        root = os.fsencode(tree.root) + b"/"
        return tuple(Key(os.fsdecode(path.removeprefix(root))) for path in content.split(b"\n") if path)
    return tuple(Key(os.fsdecode(key)) for key in content.split(b"\0") if key)
