"""A service around a service: passes everything on as it is. Decorators override what they change."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, Self

from omero_archive.errors import SettingsError
from omero_archive.model import Clock, Fixity, Key, ServiceName
from omero_archive.service import Finding, Incoming, Listed, Location, ObjectStatus, Outcome, Receipt, Service
from omero_archive.transfer import Reader


class Wrapped(Service):
    """Another service, unchanged. What it can do is what `inner` can do; a group is passed on whole."""

    def __init__(self, inner: Service) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities

    @classmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> Self:
        del settings, clock
        raise SettingsError(f"services.{name}: {cls.__name__} wraps another service; it cannot be configured.")

    def initialise(self) -> None:
        self.inner.initialise()

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        return self.inner.put(key, reader, expected)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        yield from self.inner.put_group(group)  # closing ours closes the other one

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        return self.inner.open(key, offset)

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        return self.inner.status(keys)

    def stage(self, keys: Iterable[Key]) -> None:
        self.inner.stage(keys)

    def delete(self, key: Key) -> None:
        self.inner.delete(key)

    def list(self, prefix: str) -> Iterator[Listed]:
        yield from self.inner.list(prefix)

    def locate(self, key: Key) -> Location | None:
        return self.inner.locate(key)

    def place(self) -> str:
        return self.inner.place()

    def unseen(self) -> str | None:
        return self.inner.unseen()

    def check(self) -> Sequence[Finding]:
        return self.inner.check()

    def close(self) -> None:
        self.inner.close()
