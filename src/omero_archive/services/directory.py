"""A directory as an archive: another disk, a NAS, or a mount from which the site's own job writes to tape.

Settings: `path` (must exist); then who says that a copy is safe: `durable_after` (a duration after which the
site's tape job is known to have run; default 0, a copy is safe as soon as it is synced) or `confirm_command` (a
program of the site's that is asked).

`confirm_command` is a list, run without a shell. It gets the absolute paths on standard input, each ended by a
NUL byte, and prints one line for each, in the same order: `durable`, `not yet`, or anything else, which counts as
"cannot tell" and is shown to people. An exit status other than 0 means that it could not be asked.
"""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict

from omero_archive.errors import ServiceUnavailable
from omero_archive.files import Entry, Tree
from omero_archive.model import Clock, Fixity, Key, ServiceName
from omero_archive.mount import Mount
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
from omero_archive.services.programs import Command, Feed, run, shown
from omero_archive.settings import AbsolutePath, Duration, parse_table
from omero_archive.transfer import Reader


class DirectorySettings(BaseModel):
    """The keys of a table `[services.NAME]` with `type = "directory"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: AbsolutePath
    durable_after: Duration = timedelta(0)
    confirm_command: tuple[str, ...] = ()
    confirm_timeout: Duration = timedelta(minutes=5)


class DirectoryService(Service):
    """A directory as an archive. See the module's docstring for the settings."""

    capabilities = Capabilities(has_paths=True, needs_staging=False)

    def __init__(self, name: ServiceName, settings: DirectorySettings, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._mount = Mount(name, settings.path, clock=clock)

    @classmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> "DirectoryService":
        return cls(name, parse_table(DirectorySettings, f"services.{name}", settings), clock)

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

    def stage(self, keys: Iterable[Key]) -> None:
        """Nothing to do: what is present is online."""
        del keys

    def delete(self, key: Key) -> None:
        self._mount.delete(key)

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = tuple(keys)
        with self._mount.mounted() as tree:
            found = {key: self._look(tree, key) for key in wanted}
            if not self._settings.confirm_command:
                return found
            asked = tuple(key for key in wanted if found[key].present is Answer.YES)
            words = self._ask(tuple(tree.path(key) for key in asked))
        return found | {key: _confirmed(found[key], word) for key, word in zip(asked, words, strict=True)}

    def _look(self, tree: Tree, key: Key) -> ObjectStatus:
        seen = self._mount.look(tree, key)
        if seen.present is Answer.CANNOT_TELL:
            unknown = Answer.CANNOT_TELL
            return ObjectStatus(present=unknown, durable=unknown, staged=Staged.CANNOT_TELL, word=seen.word)
        if seen.entry is None:
            return ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE, word=seen.word)
        return self._by_age(seen.entry)

    def _by_age(self, entry: Entry) -> ObjectStatus:
        # ctime is when the file got its name here; mtime is the original's.
        age = self._clock() - datetime.fromtimestamp(entry.identity.ctime_ns / 1e9, UTC)
        is_old_enough = age >= self._settings.durable_after
        left = (self._settings.durable_after - age).total_seconds()
        return ObjectStatus(
            present=Answer.YES,
            durable=Answer.YES if is_old_enough else Answer.NO,
            staged=Staged.ONLINE,
            size_bytes=entry.identity.size_bytes,
            word="safe" if is_old_enough else f"safe in {left:.0f} s",
        )

    def _ask(self, paths: tuple[Path, ...]) -> tuple[str, ...]:
        """The site's words, one for each path. Raises `ServiceUnavailable`."""
        if not paths:
            return ()
        command = Command(argv=self._settings.confirm_command, feed=Feed.NUL)
        who = f"{self._name}: confirm_command"
        try:
            said = run(command, [os.fsencode(path) for path in paths], timeout=self._settings.confirm_timeout)
        except ServiceUnavailable as error:
            raise ServiceUnavailable(f"{who} {error}") from error
        if said.failure:
            raise ServiceUnavailable(f"{who} {said.failure}")
        words = tuple(shown(line) for line in said.output.splitlines())
        if len(words) != len(paths):
            raise ServiceUnavailable(f"{who} {command} printed {len(words)} lines for {len(paths)} files.")
        return words

    def check(self) -> Sequence[Finding]:
        mount = self._mount.check()
        return [mount, *(self._mount.check_name() if mount.is_fine or mount.only_hinders_writing else ())]

    def close(self) -> None:
        self._mount.close()


def _confirmed(status: ObjectStatus, word: str) -> ObjectStatus:
    answers = {"durable": Answer.YES, "not yet": Answer.NO}
    # Both must agree: the age says that the job has run, the command that it took this file.
    answer = answers.get(word.strip(), Answer.CANNOT_TELL)
    if answer is Answer.YES and status.durable is not Answer.YES:
        return status
    return replace(status, durable=answer, word=word.strip() or "no answer")
