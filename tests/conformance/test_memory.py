"""The memory service keeps the contract, as a disk and as a tape library."""

from datetime import timedelta

import pytest

from omero_archive.errors import ObjectMissing, ObjectOffline, SettingsError
from omero_archive.model import Key, ServiceName
from omero_archive.service import Answer, Staged
from omero_archive.testing.conformance import Bench
from omero_archive.testing.contents import Clock, content_of, reader, status_of
from omero_archive.testing.memory_service import MemoryService
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for

A = Key("a/b.tif")
HOURS = timedelta(hours=3)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tape(clock: Clock) -> MemoryService:
    return MemoryService(clock=clock, staging=HOURS, durable_after=timedelta(days=1))


class TestMemory(ServiceConformance):
    @pytest.fixture
    def service(self, clock: Clock) -> MemoryService:
        return MemoryService(clock=clock)

    @pytest.fixture
    def bench(self, service: MemoryService) -> Bench:
        return bench_for(service, cut_off=service.cut_off)


class TestMemoryAsTape(ServiceConformance):
    """Objects are offline as soon as they are stored; the clock moves only while somebody waits."""

    @pytest.fixture
    def service(self, tape: MemoryService) -> MemoryService:
        return tape

    @pytest.fixture
    def bench(self, service: MemoryService, clock: Clock) -> Bench:
        def wait(seconds: float) -> None:
            clock.advance(timedelta(seconds=seconds))

        return bench_for(
            service,
            cut_off=service.cut_off,
            sleep=wait,
            monotonic=lambda: clock.now.timestamp(),
            wait_s=timedelta(days=2).total_seconds(),
        )


class TestMemoryAsTapeThatKeepsThemOnline(TestMemoryAsTape):
    """Objects are online once they are stored, and go offline when the tester says so."""

    @pytest.fixture
    def bench(self, service: MemoryService, clock: Clock) -> Bench:
        def move_on(_: object) -> None:
            clock.advance(timedelta(days=1))

        return bench_for(service, make_readable=move_on, make_durable=move_on, take_offline=service.evict)


def test_an_object_comes_online_so_long_after_it_was_asked_for_first(tape: MemoryService, clock: Clock) -> None:
    tape.put(A, reader(b"bytes"), None)
    assert (status_of(tape, A).staged, status_of(tape, A).durable) == (Staged.OFFLINE, Answer.NO)
    tape.stage([A])
    clock.advance(timedelta(hours=2))
    tape.stage([A])
    assert status_of(tape, A).staged is Staged.STAGING
    with pytest.raises(ObjectOffline):
        tape.open(A)
    clock.advance(timedelta(hours=1))
    assert content_of(tape, A) == b"bytes"
    tape.evict(A)
    assert status_of(tape, A).staged is Staged.OFFLINE
    clock.advance(timedelta(days=1))
    assert status_of(tape, A).durable is Answer.YES


def test_it_is_no_archive_of_a_site_and_knows_no_other_objects(tape: MemoryService, clock: Clock) -> None:
    with pytest.raises(SettingsError, match="in memory only"):
        MemoryService.from_settings(ServiceName("x"), {}, clock=clock)
    with pytest.raises(ObjectMissing):
        tape.stage([A])
