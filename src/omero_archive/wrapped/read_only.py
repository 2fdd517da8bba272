"""A service that may be read and not changed: one that is being given up, or that belongs to somebody else."""

from collections.abc import Generator, Sequence
from dataclasses import replace

from omero_archive.errors import ServiceIsReadOnly
from omero_archive.model import Fixity, Key, ServiceName
from omero_archive.service import Finding, Incoming, Outcome, Receipt, Service
from omero_archive.transfer import Reader
from omero_archive.wrapped.base import Wrapped


class ReadOnly(Wrapped):
    """Refuses with `ServiceIsReadOnly` to store, to delete and to prepare the place. `stage` changes no bytes."""

    def __init__(self, inner: Service, name: ServiceName) -> None:
        super().__init__(inner)
        self._name = name

    def initialise(self) -> None:
        raise self._refusal("its place was not prepared")

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        del reader, expected
        raise self._refusal(f"{key} was not stored")

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        for incoming in group:
            yield Outcome(key=incoming.key, error=self._refusal(f"{incoming.key} was not stored"))

    def delete(self, key: Key) -> None:
        raise self._refusal(f"{key} was not deleted")

    def check(self) -> Sequence[Finding]:
        """What hinders only writing is as it should be: an old archive may well be mounted read-only."""
        return [
            replace(finding, is_fine=True, advice="") if finding.only_hinders_writing else finding
            for finding in self.inner.check()
        ]

    def _refusal(self, what: str) -> ServiceIsReadOnly:
        return ServiceIsReadOnly(f"{self._name}: {what}; services.{self._name}.read_only is true in the settings.")
