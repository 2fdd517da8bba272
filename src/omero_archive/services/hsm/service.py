"""A mount whose files may be offline: a tape system that shows a file system, and brings bytes back when they are read.

Objects are files below `path`, as with the service `directory`. Whether one can be read now is never found out by
opening it: that would recall it, one tape mount for one file. The system's own command is asked, and only after it has
said "resident" does anything here open a file. Whoever reads by `locate` must ask `status` first.

Between the answer and the opening the system may release the file; then the read waits for a recall. Nothing worse.
"""

import os
import shutil
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import BinaryIO, assert_never

from omero_archive.errors import ArchiveError, ObjectMissing, ObjectOffline, ServiceUnavailable
from omero_archive.model import Clock, Fixity, Key, ServiceName, printable
from omero_archive.mount import MARKER, Mount, Seen
from omero_archive.service import (
    Answer,
    Capabilities,
    Finding,
    Incoming,
    Listed,
    Location,
    ObjectStatus,
    Outcome,
    Receipt,
    Service,
    Staged,
)
from omero_archive.services.hsm.asking import Asking
from omero_archive.services.hsm.durability import Copy, Judging, Verdict
from omero_archive.services.hsm.recalls import Recalls
from omero_archive.services.hsm.residency import Residency, State, doubt
from omero_archive.services.hsm.settings import HsmSettings
from omero_archive.services.programs import Command
from omero_archive.settings import parse_table
from omero_archive.transfer import Reader

_STAGED = {
    Residency.RESIDENT: Staged.ONLINE,
    Residency.OFFLINE: Staged.OFFLINE,
    Residency.RECALLING: Staged.STAGING,
    Residency.CANNOT_TELL: Staged.CANNOT_TELL,
}
_REMEMBERED = 100_000  # files; a worker lives for months
_ADVICE = (
    "Run the command by hand on the marker file, as the user of omero-archive: some systems answer only root "
    "(`prefix`), or only on some machines. If it answers, it is another system, or a version that is not known."
)


class HsmService(Service):
    """A mount whose files may be offline. See the module's docstring; the keys are in `settings`."""

    capabilities = Capabilities(has_paths=True, needs_staging=True)

    def __init__(self, name: ServiceName, settings: HsmSettings, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._system = settings.system()
        self._mount = Mount(name, settings.path, clock=clock, unreadable=self._unreadable)
        self._asking = Asking(
            self._system,
            marker=os.fsencode(settings.path / MARKER),
            batch=settings.batch,
            timeout=settings.timeout,
        )
        assert self._system.recall is not None  # noqa: S101 - the settings see to it
        self._recalls = Recalls(
            self._system.recall,
            at_most=settings.recall_batch,
            at_once=settings.recalls_at_once,
            ask_again=settings.ask_again,
            clock=clock,
            resident=self._resident,
        )
        self._judging = Judging(settings, clock=clock, tells=self._system.tells_durability)
        self._told = threading.Lock()
        self._resident_since: dict[Key, datetime] = {}

    @classmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> "HsmService":
        return cls(name, parse_table(HsmSettings, f"services.{name}", settings), clock)

    def initialise(self) -> None:
        self._mount.initialise()

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        return self._mount.put(key, reader, expected)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        yield from self._mount.put_group(group)

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        return self._mount.open(key, offset)

    def locate(self, key: Key) -> Location | None:
        return self._mount.locate(key)

    def unseen(self) -> str | None:
        return self._mount.unseen()

    def list(self, prefix: str) -> Iterator[Listed]:
        return self._mount.list(prefix)

    def delete(self, key: Key) -> None:
        self._mount.delete(key)
        with self._told:
            self._resident_since.pop(key, None)

    def close(self) -> None:
        self._recalls.close()
        self._mount.close()

    # ---- asking

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = tuple(dict.fromkeys(keys))
        with self._mount.mounted() as tree:
            seen = {key: self._mount.look(tree, key) for key in wanted}
            there = {key: one.entry for key, one in seen.items() if one.entry is not None}
            states = self._states(list(there))
            asked = self._recalls.asked(tree)
        copies = [Copy(path=tree.path(key), entry=entry, state=states[key]) for key, entry in there.items()]
        verdicts = dict(zip(there, self._judging.verdicts(copies), strict=True))
        failed = self._recalls.failures()
        found = {key: _not_there(one) for key, one in seen.items() if one.entry is None}
        for copy, (key, verdict) in zip(copies, verdicts.items(), strict=True):
            found[key] = _status(copy, verdict, asked=asked.get(key), failure=failed.get(key, ""))
        return {key: found[key] for key in wanted}

    def _states(self, keys: Sequence[Key]) -> dict[Key, State]:
        """What the system says of files that are there. Raises `ServiceUnavailable` with the service's name."""
        paths = {key: os.fsencode(self._settings.path / key) for key in keys}
        try:
            said = self._asking.states(list(paths.values())) if paths else {}
        except ServiceUnavailable as error:
            raise ServiceUnavailable(f"{self._name}: {error}") from error
        states = {key: said[path] for key, path in paths.items()}
        self._remember(states)
        return states

    def _remember(self, states: Mapping[Key, State]) -> None:
        now = self._clock()
        with self._told:
            if len(self._resident_since) > _REMEMBERED:
                self._resident_since.clear()
            for key, state in states.items():
                if state.residency is Residency.RESIDENT:
                    self._resident_since[key] = now
                else:
                    self._resident_since.pop(key, None)

    def _unreadable(self, keys: Sequence[Key]) -> Mapping[Key, ArchiveError]:
        """For the mount: why bytes must not be read now. "Resident" is believed for a while, nothing else is."""
        now = self._clock()
        with self._told:
            doubtful = [
                key
                for key in keys
                if key not in self._resident_since or now - self._resident_since[key] >= self._settings.resident_for
            ]
        try:
            states = self._states(doubtful)
        except ServiceUnavailable as error:
            return dict.fromkeys(doubtful, error)
        refused = {key: self._refusal(key, state) for key, state in states.items()}
        return {key: error for key, error in refused.items() if error is not None}

    def _refusal(self, key: Key, state: State) -> ArchiveError | None:
        subject = f"{self._name}: {printable(key)}"
        match state.residency:
            case Residency.RESIDENT:
                return None
            case Residency.OFFLINE | Residency.RECALLING:
                return ObjectOffline(
                    f"{subject} is {state.residency}, {self._system.status} says ({state.word}); it was not opened."
                )
            case Residency.CANNOT_TELL:
                return ServiceUnavailable(
                    f"{subject} was not opened: whether it is offline could not be found out. {state.evidence}"
                )
            case _:
                assert_never(state.residency)

    # ---- bringing back

    def stage(self, keys: Iterable[Key]) -> None:
        wanted = tuple(dict.fromkeys(keys))
        with self._mount.mounted() as tree:
            seen = {key: self._mount.look(tree, key) for key in wanted}
            states = self._states([key for key in wanted if seen[key].entry is not None])
            offline = [key for key, state in states.items() if state.residency is Residency.OFFLINE]
            try:
                self._recalls.ask(tree, offline)
            except ServiceUnavailable as error:
                raise ServiceUnavailable(f"{self._name}: {error}") from error
        for key, one in seen.items():
            if one.present is Answer.NO:
                raise ObjectMissing(f"{self._name}: there is no {self._settings.path / printable(key)}.")
            if one.present is Answer.CANNOT_TELL:
                raise ServiceUnavailable(f"{self._name}: {printable(key)}: {one.word}.")
            if states[key].residency is Residency.CANNOT_TELL:
                evidence = states[key].evidence
                raise ServiceUnavailable(
                    f"{self._name}: {printable(key)}: whether it is offline could not be found out. {evidence}"
                )

    def _resident(self, notes: Sequence[Key]) -> Sequence[Key]:
        """Which of our own notes can be read; none where that cannot be found out."""
        try:
            states = self._states(notes)
        except ServiceUnavailable:
            return ()
        return [key for key, state in states.items() if state.residency is Residency.RESIDENT]

    # ---- checking

    def check(self) -> Sequence[Finding]:
        mount = self._mount.check()
        if not (mount.is_fine or mount.only_hinders_writing):
            return [mount]
        commands = [self._system.status, self._system.recall, self._system.recalling, self._confirm_command()]
        programs = dict.fromkeys(command.argv[0] for command in commands if command is not None)
        findings = [self._check_program(program) for program in programs]
        missing = [finding for finding in findings if finding is not None]
        return [mount, *(missing or [self._check_answers()])]

    def _confirm_command(self) -> Command | None:
        argv = self._settings.confirm_command
        return Command(argv=argv) if argv else None

    def _check_program(self, program: str) -> Finding | None:
        if shutil.which(program) is not None:
            return None
        return Finding(
            subject=f"service {self._name}",
            is_fine=False,
            text=f"there is no program {program} that this user may run",
            advice="Install the system's client here, or name the directory of its programs by `bin`.",
        )

    def _check_answers(self) -> Finding:
        """Whether the system tells of our marker file what is understood."""
        subject = f"service {self._name}"
        try:
            state = self._asking.probe()
        except ServiceUnavailable as error:
            return Finding(subject=subject, is_fine=False, text=str(error), advice=_ADVICE)
        if state.residency is Residency.CANNOT_TELL:
            text = f"{self._system.status} was not understood: {state.evidence}"
            return Finding(subject=subject, is_fine=False, text=text, advice=_ADVICE)
        return Finding(
            subject=subject,
            is_fine=True,
            text=f"{self._system.status} says of the marker file: {state.residency} ({state.word})",
        )


def _not_there(seen: Seen) -> ObjectStatus:
    if seen.present is Answer.CANNOT_TELL:
        unknown = Answer.CANNOT_TELL
        return ObjectStatus(present=unknown, durable=unknown, staged=Staged.CANNOT_TELL, word=seen.word)
    return ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE, word=seen.word)


def _status(copy: Copy, verdict: Verdict, *, asked: datetime | None, failure: str) -> ObjectStatus:
    staged = _STAGED[copy.state.residency]
    word, attention = verdict.word, verdict.attention
    if staged is Staged.OFFLINE and asked is not None:
        staged, word = Staged.STAGING, f"{word}, recall asked {asked:%Y-%m-%d %H:%M}"
    elif staged is Staged.OFFLINE and failure:
        attention = attention or f"its recall failed: {failure}"
    elif staged is Staged.CANNOT_TELL:
        maybe = doubt(copy.entry.identity.size_bytes, copy.entry.disk_bytes)
        word = f"{word}; {maybe}" if maybe else word
    return ObjectStatus(
        present=Answer.YES,
        durable=verdict.durable,
        staged=staged,
        size_bytes=copy.entry.identity.size_bytes,
        word=word,
        attention=attention,
    )
