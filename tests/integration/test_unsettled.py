"""A secret that is away for a while, as it is renewed or its disk is not mounted: work goes on by itself."""

from collections.abc import Generator, Iterable, Sequence

import pytest

from omero_archive.errors import SettingsError
from omero_archive.model import Key, ServiceName
from omero_archive.service import Incoming, ObjectStatus, Outcome, Service
from omero_archive.states import CopyState
from omero_archive.wrapped.base import Wrapped
from omero_archive.wrapped.unsettled import Unsettled
from site_fixtures import Facility, MakeFacility, MovableClock

TAPE = ServiceName("tape")


class NeedsASecret(Wrapped):
    """A service that reads its secret at each use, as S3 and Arkivum do."""

    def __init__(self, inner: Service) -> None:
        super().__init__(inner)
        self.is_away = False

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        self._read()
        yield from self.inner.put_group(group)

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        self._read()
        return self.inner.status(keys)

    def _read(self) -> None:
        if self.is_away:
            raise SettingsError("services.tape.secret_key: /run/secret could not be read: No such file or directory.")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def facility(make_facility: MakeFacility, clock: MovableClock) -> Facility:
    made = make_facility(clock)
    made.site.services = {TAPE: Unsettled(NeedsASecret(made.site.services[TAPE]))}
    return made


def test_copies_go_on_by_themselves_when_a_secret_is_back(facility: Facility, clock: MovableClock) -> None:
    tape = facility.site.services[TAPE]
    assert isinstance(tape, Unsettled)
    assert isinstance(tape.inner, NeedsASecret)
    facility.add("ics")
    tape.inner.is_away = True
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.PENDING}
    assert all("could not be read" in error for error in facility.errors("ics"))
    assert not any(row["needs_attention"] for row in facility.copies("ics"))
    tape.inner.is_away = False
    clock.advance(hours=2)
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
