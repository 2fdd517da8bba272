"""A mounted directory as a place for objects: what services have in common whose bytes go through a mount.

An object lies under the path of its key, with the mtime and mode of its original. It is written under a temporary name
and published when it is whole and synced; a group is synced twice, not twice a file. A marker file that `initialise`
makes tells a mounted archive from an empty mount point. What a service says about objects is not decided here.
"""

import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ObjectExists,
    ObjectMissing,
    ServiceUnavailable,
    SettingsError,
    UnsafePath,
)
from omero_archive.files import (
    TEMPORARY_SUFFIX,
    Entry,
    EntryKind,
    LastParent,
    Reading,
    Tree,
    Workbench,
    entry_of,
    remove_empty_directories,
    remove_object,
    translated,
)
from omero_archive.marked import MarkedTree
from omero_archive.model import Clock, FileAttributes, Fixity, Key, ServiceName, printable
from omero_archive.service import SCRATCH, Answer, Finding, Incoming, Listed, Location, Outcome, Receipt
from omero_archive.transfer import BytesReader, Lanes, Reader, read_back, write_slot, write_temporary

MARKER = Key(".omero-archive/service")
"""Lies in every directory that `omero-archive init` prepared; not there, the disk is not mounted."""

INCOMING = ".omero-archive/incoming"
"""Below it each process has a directory for what it has not finished writing."""

Unreadable = Callable[[Sequence[Key]], Mapping[Key, ArchiveError]]
"""Asked before bytes that lie on the mount are read: for each key that must not be read now, why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What lies at the path of a key. `entry` is there for a present object only, `word` says what was seen."""

    present: Answer
    entry: Entry | None = None
    word: str = ""


def _nothing_unreadable(keys: Sequence[Key]) -> Mapping[Key, ArchiveError]:
    del keys
    return {}


_NAMED = re.compile("The archive '.*' of omero-archive")


def _named(name: ServiceName) -> str:
    """How the marker of an archive begins."""
    return f"The archive {name!r} of omero-archive."


class Mount:
    """Objects as files below `root`. The verbs keep the guarantees of `Service`, as far as they concern bytes.

    `unreadable` is asked before any byte that lies there is read: by `open`, and by `put` over what is there. Where
    reading would bring bytes back from tape it must name those that are offline. `lanes` are its own to close.
    """

    def __init__(
        self,
        name: ServiceName,
        root: Path,
        *,
        clock: Clock,
        unreadable: Unreadable = _nothing_unreadable,
        lanes: Lanes | None = None,
    ) -> None:
        self.root = root
        self._name = name
        self._clock = clock
        self._unreadable = unreadable
        self._lanes = Lanes() if lanes is None else lanes

    def initialise(self) -> None:
        """Make the marker. Raises `SettingsError` where there is no directory: a mount makes it, not we."""
        if not self.root.is_dir():
            raise SettingsError(f"services.{self._name}.path: {self.root} is not a directory.")
        try:
            with Tree(self.root) as tree:
                if tree.look(MARKER) is None:
                    self._write_marker(tree)
        except OSError as error:
            raise translated(error, f"services.{self._name}.path: {self.root}") from error

    def _write_marker(self, tree: Tree) -> None:
        now_ns = int(self._clock().timestamp() * 1e9)
        content = BytesReader(
            f"{_named(self._name)} Do not delete this file: without it\n"
            "omero-archive takes the directory for a disk that is not mounted.\n".encode(),
            FileAttributes(mtime_ns=now_ns, mode=0o644, uid=os.getuid(), gid=os.getgid()),
        )
        tree.make_directories(MARKER.rpartition("/")[0])
        write_temporary(content, tree, MARKER)
        tree.sync()
        tree.publish(MARKER)
        tree.sync()

    # ---- storing

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        """As `Service.put`."""
        (outcome,) = self.put_group([Incoming(key=key, reader=reader, expected=expected)])
        if outcome.receipt is None:
            raise outcome.error or ServiceUnavailable(f"{self._name}: no answer for {key}.")
        return outcome.receipt

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        """As `Service.put_group`."""
        with self.mounted() as tree, self._workbench(tree) as bench:
            number = 0
            for part in _without_repeats(group):
                yield from self._put_part(tree, bench, list(enumerate(part, start=number)))
                number += len(part)

    def _put_part(self, tree: Tree, bench: Workbench, part: Sequence[tuple[int, Incoming]]) -> Iterator[Outcome]:
        """Store objects of different keys: write them, several at once, then publish them all."""
        places = self._prepare(tree, part)
        offline = self._offline(tree, part)

        def write(one: tuple[int, Incoming]) -> bool | ArchiveError:
            slot, incoming = one
            place = offline.get(incoming.key) or places[incoming.key.rpartition("/")[0]]
            if isinstance(place, ArchiveError):
                return place
            try:
                return self._write(tree, incoming, bench, slot, is_free=place)
            except ArchiveError as error:
                return error

        written: dict[int, Incoming] = {}
        there: list[Incoming] = []
        for (slot, incoming), became in zip(part, self._lanes.each(write, part), strict=True):
            if isinstance(became, ArchiveError):
                yield Outcome(key=incoming.key, error=became)
            elif became:
                written[slot] = incoming
            else:
                there.append(incoming)
        yield from self._publish(tree, bench, written, there)

    def _prepare(self, tree: Tree, part: Sequence[tuple[int, Incoming]]) -> dict[str, bool | ArchiveError]:
        """Make the directories; for each whether it is new, so that nothing can lie there, or what went wrong."""
        places: dict[str, bool | ArchiveError] = {}
        for directory in dict.fromkeys(incoming.key.rpartition("/")[0] for _, incoming in part):
            try:
                is_new = bool(directory) and tree.look(directory) is None
                tree.make_directories(directory)
                places[directory] = is_new
            except ArchiveError as error:
                places[directory] = error
            except OSError as error:
                places[directory] = translated(error, f"{self._name}: {directory}")
        return places

    def _offline(self, tree: Tree, part: Sequence[tuple[int, Incoming]]) -> Mapping[Key, ArchiveError]:
        """What lies there already and cannot be compared now, asked about at once."""
        if self._unreadable is _nothing_unreadable:
            return {}
        there = [incoming.key for _, incoming in part if self.look(tree, incoming.key).present is Answer.YES]
        return self._unreadable(there) if there else {}

    def _require_readable(self, key: Key) -> None:
        error = self._unreadable([key]).get(key)
        if error is not None:
            raise error

    @contextmanager
    def _workbench(self, tree: Tree) -> Iterator[Workbench]:
        """What cannot be removed at its end is swept by the next: whoever puts something is told to try again."""
        try:
            with Workbench(tree, INCOMING) as bench:
                yield bench
        except OSError as error:
            raise translated(error, f"{self._name}: {tree.path(INCOMING)}") from error

    def _write(self, tree: Tree, incoming: Incoming, bench: Workbench, slot: int, *, is_free: bool) -> bool:
        """Write the temporary file; False if the same content lies under the key already. Runs in a thread."""
        key = incoming.key
        try:
            there = None if is_free else tree.look(key)
            if there is not None:
                self._compare(tree, incoming, there)
                return False
            written = write_slot(incoming.reader, bench, slot)
        except OSError as error:
            raise translated(error, f"{self._name}: {key}") from error
        if written != incoming.reader.fixity.size_bytes or incoming.expected not in (None, incoming.reader.fixity):
            bench.drop(slot)
            raise FixityMismatch(f"{self._name}: {key} came with other bytes than expected; nothing was stored.")
        return True

    def _compare(self, tree: Tree, incoming: Incoming, there: Entry) -> None:
        """Raise `ObjectExists` unless what lies there is what was to be written."""
        with closing(incoming.reader.pieces()) as pieces:
            for _ in pieces:
                continue
        if incoming.expected not in (None, incoming.reader.fixity):
            raise FixityMismatch(f"{self._name}: {incoming.key} came with other bytes than expected.")
        self._require_same(tree, incoming, there)

    def _require_same(self, tree: Tree, incoming: Incoming, there: Entry | None) -> None:
        """Raise `ObjectExists` unless what lies there has the bytes that were read."""
        wanted = incoming.reader.fixity
        if there is None:
            raise ServiceUnavailable(f"{self._name}: {tree.path(incoming.key)} was there and went while we looked.")
        same_size = there.kind is EntryKind.FILE and there.identity.size_bytes == wanted.size_bytes
        if not same_size or read_back(tree, incoming.key, self._lanes)[1] != wanted.xxh3:
            raise ObjectExists(
                f"{self._name}: other content lies at {tree.path(incoming.key)} already; it was not overwritten. "
                "Find out whose it is; move it away by hand if it is nobody's."
            )

    def _publish(
        self, tree: Tree, bench: Workbench, written: Mapping[int, Incoming], there: Sequence[Incoming]
    ) -> Iterator[Outcome]:
        """Sync all that was written, give it its names, sync the names: two syncs for a whole group.

        What lay `there` already needs the second sync too: whoever wrote it may have been killed before his own.
        """
        if not written and not there:
            return
        try:
            if written:
                tree.sync()
            named = self._give_names(tree, bench, written)
            tree.sync()
        except OSError as error:
            for incoming in (*written.values(), *there):
                yield Outcome(key=incoming.key, error=translated(error, f"{self._name}: {incoming.key}"))
            return
        for incoming in there:
            yield _taken(incoming, was_there=True)
        for incoming, problem in named:
            yield _taken(incoming, was_there=False) if problem is None else Outcome(key=incoming.key, error=problem)

    def _give_names(
        self, tree: Tree, bench: Workbench, written: Mapping[int, Incoming]
    ) -> list[tuple[Incoming, ArchiveError | None]]:
        """Give what was written its names; for each why it did not get it, None if it did."""
        named: list[tuple[Incoming, ArchiveError | None]] = []
        with LastParent(tree) as parents:
            for slot, incoming in written.items():
                problem: ArchiveError | None = None
                try:
                    bench.publish(slot, incoming.key, parents)
                except OSError as error:
                    problem = self._not_published(tree, incoming, error)
                named.append((incoming, problem))
        return named

    def _not_published(self, tree: Tree, incoming: Incoming, error: OSError) -> ArchiveError | None:
        """Why a file did not get its name; None if another process gave it to the same bytes meanwhile."""
        if not isinstance(error, FileExistsError):
            return translated(error, f"{self._name}: {incoming.key}")
        try:
            self._require_readable(incoming.key)
            self._require_same(tree, incoming, tree.look(incoming.key))
        except ArchiveError as problem:
            return problem
        return None

    # ---- reading

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        """As `Service.open`."""
        with self.mounted() as tree:
            if self.look(tree, key).present is Answer.YES:
                self._require_readable(key)
            try:
                fd = tree.open_to_read(key)
            except FileNotFoundError as error:
                raise ObjectMissing(f"{self._name}: there is no {tree.path(key)}.") from error
            except OSError as error:
                raise ServiceUnavailable(f"{self._name}: {tree.path(key)}: {error.strerror}.") from error
            try:
                if entry_of(fd).kind is not EntryKind.FILE:
                    raise ObjectMissing(f"{self._name}: {tree.path(key)} is not a file.")
                os.lseek(fd, offset, os.SEEK_SET)
                return Reading(fd)
            except BaseException:
                os.close(fd)
                raise

    def list(self, prefix: str) -> Iterator[Listed]:
        """As `Service.list`."""
        top = prefix.rpartition("/")[0]
        with self.mounted() as tree:
            try:
                above = tree.look(top) if top else None
                if top and (above is None or above.kind is not EntryKind.DIRECTORY):
                    return
                for path in tree.files_below(top):
                    is_ours = path.startswith(prefix) and not path.startswith(".omero-archive/")
                    found = tree.look(path) if is_ours and not path.endswith(TEMPORARY_SUFFIX) else None
                    if found is not None and found.kind is EntryKind.FILE:
                        yield Listed(key=Key(path), size_bytes=found.identity.size_bytes)
            except OSError as error:
                raise ServiceUnavailable(f"{self._name}: {error.filename}: {error.strerror}.") from error

    def delete(self, key: Key) -> None:
        """As `Service.delete`."""
        with self.mounted() as tree:
            try:
                was_there = remove_object(tree, key)
                if key.startswith(SCRATCH):
                    # Elsewhere they stay: somebody may be about to publish a file in them.
                    remove_empty_directories(tree, key.rpartition("/")[0], top=SCRATCH.rstrip("/"))
            except OSError as error:
                raise translated(error, f"{self._name}: {key}") from error
            if not was_there:
                raise ObjectMissing(f"{self._name}: there is no {tree.path(key)}.")

    # ---- looking

    def locate(self, key: Key) -> Location:
        """As `Service.locate`."""
        return Location(root=self.root, relative=key)

    def look(self, tree: Tree, key: Key) -> Seen:
        """What lies at the path of a key; looked at, never opened."""
        try:
            found = tree.look(key)
        except (OSError, ArchiveError) as error:
            return Seen(present=Answer.CANNOT_TELL, word=str(error))
        if found is None or found.kind is not EntryKind.FILE:
            return Seen(present=Answer.NO, word="not there")
        return Seen(present=Answer.YES, entry=found)

    def unseen(self) -> str | None:
        """As `Service.unseen`."""
        try:
            with self.mounted():
                return None
        except ServiceUnavailable as error:
            return str(error)

    def check(self) -> Finding:
        """Whether the mount is there and can be written."""
        subject = f"service {self._name}"
        try:
            with self.mounted() as tree:
                free = f"{tree.free_bytes() / 1e9:.1f} GB free"
        except ServiceUnavailable as error:
            advice = "Mount it; if it is new, run `omero-archive init`."
            return Finding(subject=subject, is_fine=False, text=str(error), advice=advice)
        if (hindrance := self._hindrance()) is not None:
            text, advice = hindrance
            return Finding(subject=subject, is_fine=False, text=text, advice=advice, only_hinders_writing=True)
        return Finding(subject=subject, is_fine=True, text=f"{self.root}, {free}")

    def check_name(self) -> Iterator[Finding]:
        """Whether it was prepared as another archive than this one. Reads the marker: not where it may be on tape."""
        try:
            with self.mounted() as tree:
                content = tree.marker(MARKER) or b""
        except (ArchiveError, OSError) as error:
            text = f"{self.root / MARKER} cannot be read: {error}"
            yield Finding(subject=f"service {self._name}", is_fine=False, text=text, advice="Look at that disk.")
            return
        first = printable(content.partition(b"\n")[0].decode("utf-8", "surrogateescape"))
        if _NAMED.match(first) and not first.startswith(_named(self._name)):
            yield Finding(
                subject=f"service {self._name}",
                is_fine=False,
                text=f"another archive lies at {self.root}, or it was another: its marker says {first!r}",
                advice="Mount the right disk: with another one every copy would be called missing. If the service was "
                f"renamed, or its files were copied from there, begin {MARKER} with: {_named(self._name)}",
            )

    def _hindrance(self) -> tuple[str, str] | None:
        """Why nothing can be written there, and what to do; None if it can."""
        if os.access(self.root, os.W_OK | os.X_OK):
            return None
        if os.statvfs(self.root).f_flag & os.ST_RDONLY:
            advice = "Look for what went wrong with that disk; if it is to be read only, set `read_only = true`."
            return f"{self.root} is mounted read-only", advice
        return f"{self.root} cannot be written by this user", "Run as a user who may write there."

    def close(self) -> None:
        """Stop the threads."""
        self._lanes.close()

    @contextmanager
    def mounted(self) -> Iterator[MarkedTree]:
        """The directory, opened anew each time: a mount may have come or gone. Raises `ServiceUnavailable`."""
        try:
            tree = MarkedTree(self.root, self._prove)
        except OSError as error:
            raise ServiceUnavailable(f"{self._name}: {self.root}: {error.strerror}.") from error
        with tree:
            tree.prove()
            yield tree

    def _prove(self, tree: MarkedTree) -> None:
        """Raise `ServiceUnavailable` unless the marker is there: asked again before anything counts as not there."""
        try:
            is_there = tree.has_marker(MARKER)
        except (OSError, UnsafePath) as error:
            raise ServiceUnavailable(f"{self._name}: {tree.path(MARKER)}: {error}.") from error
        if not is_there:
            raise ServiceUnavailable(
                f"{self._name}: {tree.path(MARKER)} is missing; the archive is not mounted, or `omero-archive "
                "init` was never run."
            )


def _without_repeats(group: Sequence[Incoming]) -> Iterator[list[Incoming]]:
    """The group in parts in which no key is named twice: the second must be compared with the first."""
    part: dict[Key, Incoming] = {}
    for incoming in group:
        if incoming.key in part:
            yield list(part.values())
            part = {}
        part[incoming.key] = incoming
    yield list(part.values())


def _taken(incoming: Incoming, *, was_there: bool) -> Outcome:
    size_bytes = incoming.reader.fixity.size_bytes
    return Outcome(key=incoming.key, receipt=Receipt(key=incoming.key, size_bytes=size_bytes, was_there=was_there))
