"""Try again, a few times, what a service could not be asked. What may not be done twice is never tried again."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import BinaryIO, TypeVar

from omero_archive.errors import ObjectMissing, ServiceUnavailable
from omero_archive.model import FileAttributes, Fixity, Key
from omero_archive.service import Incoming, Listed, ObjectStatus, Outcome, Receipt, Service
from omero_archive.transfer import Reader
from omero_archive.wrapped.base import Wrapped

_T = TypeVar("_T")


class Retrying(Wrapped):
    """Tries again after `ServiceUnavailable`, at most `retries` times for each call.

    Between the tries it waits `pause_s`, then twice as long each time, up to `longest_pause_s`. A `put` is tried again
    only if its reader had not begun to be read: bytes are read once. Of a group only such objects are tried again. A
    listing goes on after the last key that it gave, since keys come in order. `initialise` and `check` are not tried
    again: a person is waiting for what they say.
    """

    def __init__(
        self,
        inner: Service,
        *,
        retries: int,
        pause_s: float = 1.0,
        longest_pause_s: float = 30.0,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._retries, self._pause_s, self._longest_pause_s, self._sleep = retries, pause_s, longest_pause_s, sleep

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        watched = _Watched(reader)
        return self._again(lambda: self.inner.put(key, watched, expected), while_=lambda: not watched.was_begun)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        times = Counter(incoming.key for incoming in group)
        readers = {incoming.key: _Watched(incoming.reader) for incoming in group if times[incoming.key] == 1}
        # An outcome of a key that comes twice does not say which of the two it is of: it is not tried again.
        watched = [replace(each, reader=readers.get(each.key, each.reader)) for each in group]
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            again: set[Key] = set()
            done: set[Key] = set()
            try:
                with closing(self.inner.put_group(watched)) as outcomes:
                    for outcome in outcomes:
                        done.add(outcome.key)
                        if not is_last and _may_come_again(outcome, readers):
                            again.add(outcome.key)
                        else:
                            yield outcome
            except ServiceUnavailable:
                rest = {each.key for each in watched} - done
                if is_last or not rest or not all(key in readers and not readers[key].was_begun for key in rest):
                    raise
                again |= rest
            watched = [each for each in watched if each.key in again]
            if not watched:
                return
            self._pause(attempt)

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        return self._again(lambda: self.inner.open(key, offset))

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = tuple(keys)
        return self._again(lambda: self.inner.status(wanted))

    def stage(self, keys: Iterable[Key]) -> None:
        wanted = tuple(keys)
        self._again(lambda: self.inner.stage(wanted))

    def delete(self, key: Key) -> None:
        failed = False

        def delete() -> None:
            nonlocal failed
            try:
                self.inner.delete(key)
            except ServiceUnavailable:
                failed = True
                raise
            except ObjectMissing:
                if not failed:
                    raise  # else the first try did it, and only its answer was lost

        self._again(delete)

    def list(self, prefix: str) -> Iterator[Listed]:
        last: Key | None = None
        for attempt in range(self._retries + 1):
            try:
                for found in self.inner.list(prefix):
                    if last is None or found.key > last:
                        last = found.key
                        yield found
            except ServiceUnavailable:
                if attempt == self._retries:
                    raise
                self._pause(attempt)
            else:
                return

    def _again(self, act: Callable[[], _T], *, while_: Callable[[], bool] = lambda: True) -> _T:
        for attempt in range(self._retries):
            try:
                return act()
            except ServiceUnavailable:
                if not while_():
                    raise
            self._pause(attempt)
        return act()

    def _pause(self, attempt: int) -> None:
        self._sleep(min(self._pause_s * 2**attempt, self._longest_pause_s))


class _Watched:
    """A reader of which it is known whether somebody began to read it."""

    def __init__(self, inner: Reader) -> None:
        self._inner = inner
        self.was_begun = False

    @property
    def fixity(self) -> Fixity:
        return self._inner.fixity

    @property
    def attributes(self) -> FileAttributes:
        return self._inner.attributes

    def pieces(self) -> Generator[memoryview, None, None]:
        self.was_begun = True
        yield from self._inner.pieces()


def _may_come_again(outcome: Outcome, readers: dict[Key, _Watched]) -> bool:
    is_unavailable = isinstance(outcome.error, ServiceUnavailable)
    return is_unavailable and outcome.key in readers and not readers[outcome.key].was_begun
