"""Services that break one rule each, to see that the conformance checks catch them."""

import io
import threading
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from omero_archive.errors import ArchiveError, ObjectExists, ObjectMissing, Refused, SourceRotted, UnsafePath
from omero_archive.model import Fixity, Key
from omero_archive.service import (
    Answer,
    Finding,
    Incoming,
    Listed,
    Location,
    ObjectStatus,
    Outcome,
    Receipt,
    Staged,
)
from omero_archive.testing.contents import Clock, reader
from omero_archive.testing.memory_service import MemoryService, Stored
from omero_archive.transfer import Reader


class _Memory(MemoryService):
    """With the clock at hand."""

    _clock: Clock


class Overwrites(_Memory):
    def _require_same(self, key: Key, content: bytes) -> None:
        self.objects[key] = Stored(content=content, digests={}, stored_at=self._clock())


class ShowsHalf(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        content = b""
        with closing(reader.pieces()) as pieces:
            for piece in pieces:
                content += bytes(piece)
                self.objects[key] = Stored(content=content, digests={}, stored_at=self._clock())
        return Receipt(key=key, size_bytes=len(content), was_there=False)


class AbandonsHalves(_Memory):
    """A group writes under the final names; closed early it leaves the half of one."""

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        try:
            yield from super().put_group(group)
        except GeneratorExit:
            self.objects[group[-1].key] = Stored(content=b"half", digests={}, stored_at=self._clock())
            raise


class SaysMissingWhenCutOff(_Memory):
    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        missing = ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE)
        return super().status(keys) if self._is_reachable else dict.fromkeys(keys, missing)


class SaysPresentWhenCutOff(_Memory):
    """It answers from what it remembers."""

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        return {key: self._status(self.objects.get(key)) for key in keys}


class ListsNothingWhenCutOff(_Memory):
    def list(self, prefix: str) -> Iterator[Listed]:
        return super().list(prefix) if self._is_reachable else iter(())


class OpensNothingWhenCutOff(_Memory):
    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        if not self._is_reachable:
            raise ObjectMissing("no answer, so it is not there")
        return super().open(key, offset)


class InOrderWhenCutOff(_Memory):
    def check(self) -> Sequence[Finding]:
        return ()


class AcceptsWrongDigest(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        return super().put(key, reader, None)


class AcceptsNothingExpected(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        return super().put(key, reader, None if expected is None else replace(expected, size_bytes=-1))


class StageBlocks(_Memory):
    def stage(self, keys: Iterable[Key]) -> None:
        super().stage(keys)
        assert self._staging is not None
        self._clock.now += self._staging


class StageTwiceFails(_Memory):
    def stage(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if self.objects[key].asked_at is not None:
                raise ArchiveError("restore is in progress already")
            super().stage([key])


class StageAgainBeginsAnew(_Memory):
    def stage(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.objects[key].asked_at = self._clock()


class StageMakesObjects(_Memory):
    def stage(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.objects.setdefault(key, Stored(content=b"", digests={}, stored_at=self._clock()))
        super().stage(keys)


class StageBringsOtherBytes(_Memory):
    def stage(self, keys: Iterable[Key]) -> None:
        super().stage(keys := list(keys))
        for key in keys:
            self.objects[key].content = self.objects[key].content[::-1]


class OpensOfflineBytes(_Memory):
    """As a mount of a tape library that gives zeros for what is on tape."""

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        found = self._find(key)
        is_online = self._staged(found) is Staged.ONLINE
        return io.BytesIO((found.content if is_online else bytes(len(found.content)))[offset:])


class OpenWaits(_Memory):
    """As a mount that brings bytes back when they are read."""

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        found = self._find(key)
        if self._staged(found) is not Staged.ONLINE and self._staging is not None:
            self._clock.now += self._staging
        return io.BytesIO(found.content[offset:])


class StatusBringsBack(_Memory):
    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        answers = super().status(keys := list(keys))
        self.stage([key for key in keys if key in self.objects])
        return answers


class ReplacesWhatIsOffline(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        if key in self.objects and self._staged(self.objects[key]) is not Staged.ONLINE:
            del self.objects[key]
        return super().put(key, reader, expected)


class ListsItsOwn(_Memory):
    def list(self, prefix: str) -> Iterator[Listed]:
        own = Listed(key=Key(".omero-archive/service"), size_bytes=1)
        return iter(([own] if own.key.startswith(prefix) else []) + list(super().list(prefix)))


class ListsUnsorted(_Memory):
    def list(self, prefix: str) -> Iterator[Listed]:
        return reversed(list(super().list(prefix)))


class ListsDirectoriesOnly(_Memory):
    """It takes a prefix for a directory."""

    def list(self, prefix: str) -> Iterator[Listed]:
        return super().list(prefix.rpartition("/")[0] + "/")


class NormalisesNames(_Memory):
    """As a file system that writes accents its own way."""

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        receipt = super().put(_nfc(key), reader, expected)
        return replace(receipt, key=key)

    def _find(self, key: Key) -> Stored:
        return super()._find(_nfc(key))

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        return {key: self._status(self.objects.get(_nfc(key))) for key in keys}


def _nfc(key: Key) -> Key:
    return Key(unicodedata.normalize("NFC", key))


class WantsText(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        key.encode()
        return super().put(key, reader, expected)


class WantsShortPaths(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        if len(key) > 500:
            raise UnsafePath("too long")
        return super().put(key, reader, expected)


class LosesKeysInStatus(_Memory):
    """As an API that answers in pages, of which only the first is read."""

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        return super().status(list(keys)[:100])


class MissingIsUnknown(_Memory):
    def _status(self, found: Stored | None) -> ObjectStatus:
        return super()._status(found) if found else replace(super()._status(None), durable=Answer.CANNOT_TELL)


class CutsTheEnd(_Memory):
    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        return io.BytesIO(super().open(key, offset).read()[:4096])


class IgnoresTheOffset(_Memory):
    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        return super().open(key)


class SameAgainIsRefused(_Memory):
    def _require_same(self, key: Key, content: bytes) -> None:
        raise ObjectExists("it is there")


class SwallowsErrors(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        try:
            return super().put(key, reader, expected)
        except SourceRotted:
            return Receipt(key=key, size_bytes=0, was_there=False)


class DeletesWhatItCannotReplace(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        try:
            return super().put(key, reader, expected)
        except SourceRotted:
            self.objects.pop(key, None)
            raise


class GroupStopsAtAnError(_Memory):
    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        for outcome in super().put_group(group):
            yield outcome
            if outcome.error is not None:
                return


class EmptyGroupFails(_Memory):
    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        group[0]
        yield from super().put_group(group)


class GroupStoresTheLast(_Memory):
    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        yield from super().put_group(list({each.key: each for each in group}.values()))


class DigestsOfSomethingElse(_Memory):
    """It gives an ETag for an MD5, and so does the receipt."""

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        return replace(super().put(key, reader, expected), digests={"md5": "0" * 32})

    def _status(self, found: Stored | None) -> ObjectStatus:
        return replace(super()._status(found), digests={"md5": "0" * 32} if found else {})


class DigestsInCapitals(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        receipt = super().put(key, reader, expected)
        return replace(receipt, digests={name: each.upper() for name, each in receipt.digests.items()})


class ReceiptsWithoutDigests(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        return replace(super().put(key, reader, expected), digests={})


class DurableWithoutDigests(_Memory):
    def _status(self, found: Stored | None) -> ObjectStatus:
        return replace(super()._status(found), digests={})


class HasPathsUnasked(_Memory):
    def locate(self, key: Key) -> Location | None:
        return Location(root=Path("/nowhere"), relative=key)


class FindsFaultWithItself(_Memory):
    def check(self) -> Sequence[Finding]:
        return [Finding(subject="memory", is_fine=False, text="who knows")]


class IsNeverSeen(_Memory):
    """Its check is in order, and yet no worker would ever do anything with it."""

    def unseen(self) -> str | None:
        return ""


class HasNoText(_Memory):
    def place(self) -> str:
        return None  # type: ignore[return-value]


class ForgetsWhenPrepared(_Memory):
    def initialise(self) -> None:
        self.objects.clear()


class OfOneThread(_Memory):
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("objects created in a thread can only be used in that same thread")
        return super().put(key, reader, expected)


class DeletesLater(_Memory):
    def delete(self, key: Key) -> None:
        self._find(key)


class DeletesNothing(_Memory):
    """A service that keeps for ever, and says so: that is no broken rule."""

    def delete(self, key: Key) -> None:
        raise Refused(f"{key} is under retention until 2036.")


class HidesFromListings(_Memory):
    """Objects whose names are no text are in no listing."""

    def list(self, prefix: str) -> Iterator[Listed]:
        return (each for each in super().list(prefix) if each.key.isprintable())


class KeepsAHiddenOne(_Memory):
    """What was stored under the key that is left cannot be deleted, and is in no listing."""

    def delete(self, key: Key) -> None:
        content = self._find(key).content
        super().delete(key)
        self.put(key, reader(content), None)

    def list(self, prefix: str) -> Iterator[Listed]:
        return iter(())


class ListsAndThenFails(_Memory):
    """A plugin that lets the error of its library out, half way through a listing."""

    def list(self, prefix: str) -> Iterator[Listed]:
        yield from super().list(prefix)
        raise OSError("the library's own")


class DeletesWithAFault(_Memory):
    def delete(self, key: Key) -> None:
        raise KeyError(key)


class AnswersInTexts(_Memory):
    """As a service does that hands on what it read from JSON."""

    def _status(self, found: Stored | None) -> ObjectStatus:
        status = super()._status(found)
        return replace(status, present=str(status.present))  # type: ignore[arg-type]
