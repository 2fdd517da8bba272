"""A service that does nothing and tells what it would have done. What is asked and read is the service's own."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing

from omero_archive.errors import ArchiveError, FixityMismatch
from omero_archive.model import Fixity, Key
from omero_archive.service import Incoming, Outcome, Receipt, Service
from omero_archive.transfer import Reader
from omero_archive.wrapped.base import Wrapped

Told = Callable[[str, Key | None, int | None], object]
"""Told of a verb that was not done: its name, the key (None where it has none), the bytes of a `put`."""


class DryRun(Wrapped):
    """`put` reads the bytes to their end and compares them, as the service would have, and stores nothing.

    Its receipt says that nothing lay there: whether the service had the object it was not asked.
    """

    def __init__(self, inner: Service, told: Told) -> None:
        super().__init__(inner)
        self._told = told

    def initialise(self) -> None:
        self._told("initialise", None, None)

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        with closing(reader.pieces()) as pieces:
            for _ in pieces:
                continue
        size_bytes = reader.fixity.size_bytes
        if expected not in (None, reader.fixity):
            raise FixityMismatch(f"{key} came with other bytes than expected; it would not have been stored.")
        self._told("put", key, size_bytes)
        return Receipt(key=key, size_bytes=size_bytes, was_there=False)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        for incoming in group:
            try:
                receipt = self.put(incoming.key, incoming.reader, incoming.expected)
            except ArchiveError as error:
                yield Outcome(key=incoming.key, error=error)
            else:
                yield Outcome(key=incoming.key, receipt=receipt)

    def stage(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._told("stage", key, None)

    def delete(self, key: Key) -> None:
        self._told("delete", key, None)
