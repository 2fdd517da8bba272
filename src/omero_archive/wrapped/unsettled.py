"""Settings that turn out wrong only when a service is used: then it could not be asked, and no copy is to blame.

A secret whose file is away while it is renewed, or is not mounted yet; a storage class that the server does not know.
Taken for a fault of each copy that was due it would stop all of them until a person asks for another try.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from omero_archive.errors import ServiceUnavailable, SettingsError
from omero_archive.model import Fixity, Key
from omero_archive.service import Incoming, Listed, ObjectStatus, Outcome, Receipt
from omero_archive.transfer import Reader
from omero_archive.wrapped.base import Wrapped


class Unsettled(Wrapped):
    """Makes `ServiceUnavailable` of the `SettingsError` of a verb; `initialise` and `check` are about the settings."""

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        with _asking():
            return self.inner.put(key, reader, expected)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        with _asking():
            for outcome in self.inner.put_group(group):
                if isinstance(outcome.error, SettingsError):
                    yield replace(outcome, error=_unavailable(outcome.error))
                else:
                    yield outcome

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        with _asking():
            return self.inner.open(key, offset)

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        with _asking():
            return self.inner.status(keys)

    def stage(self, keys: Iterable[Key]) -> None:
        with _asking():
            self.inner.stage(keys)

    def delete(self, key: Key) -> None:
        with _asking():
            self.inner.delete(key)

    def list(self, prefix: str) -> Iterator[Listed]:
        with _asking():
            yield from self.inner.list(prefix)


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise _unavailable(error) from error


def _unavailable(error: SettingsError) -> ServiceUnavailable:
    return ServiceUnavailable(f"{error} Nothing is known of the copies there.")
