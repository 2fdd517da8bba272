"""The verbs of the contract, as questions to a command.

Bytes go by files. What is to be stored is written to the spool directory first, and the command hears of it only
when all of it is there and was proved to be right; so it never gets part of an object, however we end. What is to be
read the command writes to a free path there; it is given out when its size is what the command says, and has lost its
name by then.

What the service can do stands in the settings and not only in the command's introduction, since steps ask for it
before anything is connected to; the two are compared at each start.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import BinaryIO

from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ServiceUnavailable,
    SettingsError,
    UnsafePath,
)
from omero_archive.files import EntryKind, Reading, Tree, Workbench, temporary_of, translated
from omero_archive.model import Clock, FileAttributes, Fixity, Key, ServiceName
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
from omero_archive.services.command import protocol
from omero_archive.services.command.conversation import Conversation
from omero_archive.services.command.protocol import (
    CommandFault,
    Counted,
    Entry,
    Fetched,
    Looked,
    Message,
    Status,
    Stored,
)
from omero_archive.services.command.settings import CommandSettings
from omero_archive.settings import parse_table
from omero_archive.transfer import Reader, write_temporary

SPOOL = "omero-archive-spool"
"""The directory below `spool` in which each question has a directory of its own."""


class CommandService(Service):
    """A command as an archive. See `docs/reference/command-protocol.md`."""

    def __init__(
        self, name: ServiceName, settings: CommandSettings, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._settings = settings
        self._talk = Conversation(name, settings, monotonic)
        self.capabilities = Capabilities(
            has_paths=settings.path is not None, needs_staging=settings.needs_staging, digests=settings.digests
        )

    @classmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> "CommandService":
        del clock
        return cls(name, parse_table(CommandSettings, f"services.{name}", settings))

    def initialise(self) -> None:
        if not self._settings.spool.is_dir():
            raise SettingsError(f"services.{self._name}.spool: {self._settings.spool} is not a directory.")
        self._talk.ask(protocol.INIT, {})

    # ---- storing and reading

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        with self._spool() as (tree, bench):
            return self._store(tree, bench.slot(0), Incoming(key=key, reader=reader, expected=expected))

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        """One after the other, as `put` does, but the spool is made ready once."""
        with self._spool() as (tree, bench):
            slot = bench.slot(0)
            for incoming in group:
                try:
                    receipt = self._store(tree, slot, incoming)
                except ArchiveError as error:
                    yield Outcome(key=incoming.key, error=error)
                else:
                    yield Outcome(key=incoming.key, receipt=receipt)
                tree.drop_temporary(slot)

    def _store(self, tree: Tree, slot: str, incoming: Incoming) -> Receipt:
        key, reader = incoming.key, incoming.reader
        name = protocol.encoded(key)
        kinds: list[str] = [kind for kind in self._settings.digests if kind != "sha256"]
        digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
        written = write_temporary(_Spooled(reader, list(digests.values())), tree, slot)
        fixity = reader.fixity
        if written != fixity.size_bytes or incoming.expected not in (None, fixity):
            raise FixityMismatch(f"{self._name}: {key} came with other bytes than expected; nothing was stored.")
        taken = {kind: digest.hexdigest() for kind, digest in digests.items()}
        fields = {"key": name, "file": _file(tree, slot), "size": written, "sha256": fixity.sha256, **taken}
        stored = self._talk.ask(protocol.PUT, fields)
        assert isinstance(stored, Stored)  # noqa: S101 - and below: `parse` has seen to it
        return Receipt(key=key, size_bytes=written, was_there=stored.was_there, digests=taken)

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        name = protocol.encoded(key)
        with self._spool() as (tree, bench):
            slot = bench.slot(0)
            fetched = self._talk.ask(protocol.OPEN, {"key": name, "file": _file(tree, slot)})
            assert isinstance(fetched, Fetched)  # noqa: S101
            place = temporary_of(slot)
            found = tree.look(place)
            if found is None or found.kind is not EntryKind.FILE:
                raise ServiceUnavailable(f"{self._name}: the command said that it wrote {key}, but there is no file.")
            if found.identity.size_bytes != fetched.size:
                raise ServiceUnavailable(
                    f"{self._name}: the command wrote {found.identity.size_bytes} bytes of {key} and said "
                    f"{fetched.size}; none were read."
                )
            fd = tree.open_to_read(place)
        os.lseek(fd, offset, os.SEEK_SET)
        return Reading(fd)

    @contextmanager
    def _spool(self) -> Iterator[tuple[Tree, Workbench]]:
        """Places for files, gone at the end; what a killed process left goes with the next."""
        try:
            with Tree(self._settings.spool) as tree, Workbench(tree, SPOOL) as bench:
                yield tree, bench
        except OSError as error:
            raise translated(error, f"{self._name}: the spool {self._settings.spool}") from error

    # ---- asking

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        answers: dict[Key, ObjectStatus] = {}
        for part in protocol.in_parts(self._askable(keys, answers)):
            asked = {protocol.decoded(name) for name in part}

            def take(said: Message, asked: set[Key] = asked) -> None:
                assert isinstance(said, Status)  # noqa: S101
                key = protocol.decoded(said.key)
                if key not in asked:
                    raise CommandFault("told of an object that was not asked about, or twice", said.key)
                asked.remove(key)
                answers[key] = self._status(said)

            self._talk.ask(protocol.STATUS, {"keys": part}, take)
            if asked:
                raise ServiceUnavailable(
                    f"{self._name}: the command answered for {len(part) - len(asked)} of {len(part)} objects; "
                    "nothing is concluded from it."
                )
        return answers

    def _askable(self, keys: Iterable[Key], answers: dict[Key, ObjectStatus]) -> Iterator[str]:
        """The keys as they are asked for, each once; what cannot be asked for is answered for at once."""
        for key in dict.fromkeys(keys):
            try:
                yield protocol.encoded(key)
            except UnsafePath as error:
                unknown = Answer.CANNOT_TELL
                answers[key] = ObjectStatus(
                    present=unknown, durable=unknown, staged=Staged.CANNOT_TELL, word=protocol.shown(str(error))
                )

    def _status(self, said: Status) -> ObjectStatus:
        """Raises `CommandFault` for what cannot be true at once."""
        if said.present is Answer.YES and said.size is None:
            raise CommandFault("told of an object that is present and has no size", said.key)
        if said.present is not Answer.YES and said.durable is Answer.YES:
            raise CommandFault("called an object durable of which it does not say that it is present", said.key)
        told = {"sha256": said.sha256, "sha512": said.sha512, "sha1": said.sha1, "md5": said.md5}
        digests = {name: digest for name, digest in told.items() if digest is not None}
        durable, word = said.durable, self._talk.public(said.word)
        if durable is Answer.YES and self._settings.digests and not digests.keys() & set(self._settings.digests):
            durable, word = Answer.CANNOT_TELL, f"{word or 'durable'}, but no digest was told"
        return ObjectStatus(
            present=said.present,
            durable=durable,
            staged=said.staged,
            size_bytes=said.size,
            digests=digests,
            word=word,
            staged_until=said.staged_until,
            attention=self._talk.public(said.attention),
        )

    def stage(self, keys: Iterable[Key]) -> None:
        for part in protocol.in_parts(map(protocol.encoded, dict.fromkeys(keys))):
            self._talk.ask(protocol.STAGE, {"keys": part})

    def delete(self, key: Key) -> None:
        self._talk.ask(protocol.DELETE, {"key": protocol.encoded(key)})

    def list(self, prefix: str) -> Iterator[Listed]:
        """It is held in memory, about 200 bytes for each object: the command lists in any order."""
        found: dict[Key, int] = {}

        def take(said: Message) -> None:
            assert isinstance(said, Entry)  # noqa: S101
            key = protocol.decoded(said.key)
            if key in found or not key.startswith(prefix):
                raise CommandFault(f"listed what does not begin with {prefix!r}, or twice", said.key)
            found[key] = said.size

        counted = self._talk.ask(protocol.LIST, {"prefix": protocol.encoded(prefix)}, take)
        assert isinstance(counted, Counted)  # noqa: S101
        if counted.count != len(found):
            raise ServiceUnavailable(
                f"{self._name}: the command listed {len(found)} objects and counted {counted.count}; nothing is "
                "concluded from it."
            )
        ours = (key for key in sorted(found) if not key.startswith(".omero-archive/"))
        return (Listed(key=key, size_bytes=found[key]) for key in ours)

    def locate(self, key: Key) -> Location | None:
        path = self._settings.path
        return None if path is None else Location(root=path, relative=key)

    def place(self) -> str:
        """The same program that is told the same stores in the same place; of others nothing is known."""
        told = (list(self._settings.command), dict(self._settings.options), dict(self._settings.environment))
        return "command:" + " ".join(json.dumps(part, sort_keys=True) for part in told)

    # ---- whether it is in order

    def check(self) -> Sequence[Finding]:
        return [*self._check_spool(), *self._check_command()]

    def _check_spool(self) -> Iterator[Finding]:
        subject = f"service {self._name}: spool"
        try:
            with self._spool() as (tree, _):
                free = f"{self._settings.spool}, {tree.free_bytes() / 1e9:.1f} GB free"
        except ArchiveError as error:
            advice = "Make the directory; this user must be able to write there."
            yield Finding(subject=subject, is_fine=False, text=str(error), advice=advice)
        else:
            yield Finding(subject=subject, is_fine=True, text=free)

    def _check_command(self) -> Iterator[Finding]:
        subject = f"service {self._name}"
        found: list[Finding] = []

        def take(said: Message) -> None:
            assert isinstance(said, Looked)  # noqa: S101
            text, advice = self._talk.public(said.text), self._talk.public(said.advice)
            found.append(Finding(subject=subject, is_fine=said.fine, text=text, advice=advice))

        try:
            hello = self._talk.introduction()
            self._talk.ask(protocol.CHECK, {}, take)
        except ArchiveError as error:
            advice = "Run the command by hand: docs/howto/external-command.md shows how."
            yield Finding(subject=subject, is_fine=False, text=str(error), advice=advice)
        else:
            text = f"{self._talk.public(hello.name)}, protocol version {hello.version}"
            yield from (Finding(subject=subject, is_fine=True, text=text), *found)

    def close(self) -> None:
        self._talk.close()


class _Spooled:
    """A reader on its way to the spool: more digests are taken, and the file is ours alone to read."""

    def __init__(self, reader: Reader, digests: "Sequence[hashlib._Hash]") -> None:
        self._reader = reader
        self._digests = digests

    @property
    def fixity(self) -> Fixity:
        return self._reader.fixity

    @property
    def attributes(self) -> FileAttributes:
        mtime_ns = self._reader.attributes.mtime_ns
        return FileAttributes(mtime_ns=mtime_ns, mode=0o600, uid=os.getuid(), gid=os.getgid())

    def pieces(self) -> Generator[memoryview, None, None]:
        with closing(self._reader.pieces()) as pieces:
            for piece in pieces:
                for digest in self._digests:
                    digest.update(piece)
                yield piece


def _file(tree: Tree, slot: str) -> str:
    """The path of the file of a place, for the command."""
    return str(tree.path(temporary_of(slot)))
