"""The faulty service keeps the contract while no fault is set, and each fault is what it says."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from omero_archive.errors import ObjectExists, ObjectMissing, ObjectOffline, ServiceUnavailable, SettingsError
from omero_archive.model import Key, ServiceName
from omero_archive.service import Answer, Incoming, Staged
from omero_archive.services.directory import DirectoryService
from omero_archive.testing.conformance import Bench
from omero_archive.testing.contents import Clock, content_of, reader, status_of
from omero_archive.testing.faulty_service import VERBS, Fault, FaultyService
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for

A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")
STAGING = timedelta(hours=3)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def service(tmp_path: Path, clock: Clock, slept: list[float]) -> Iterator[FaultyService]:
    (tmp_path / "archive").mkdir()
    settings = {"path": str(tmp_path / "archive")}
    inner = DirectoryService.from_settings(ServiceName("tape"), settings, clock=lambda: datetime.now(UTC))
    inner.initialise()
    with closing(FaultyService(inner, clock=clock, staging=STAGING, sleep=slept.append)) as faulty:
        yield faulty


@contextmanager
def unavailable(service: FaultyService) -> Iterator[None]:
    service.set(Fault.UNAVAILABLE)
    yield
    service.clear(Fault.UNAVAILABLE)


def bench_of(service: FaultyService, clock: Clock) -> Bench:
    """A bench that can do all that the faults can."""

    def stage_in(_: object) -> None:
        clock.advance(STAGING)

    return bench_for(
        service,
        make_readable=stage_in,
        take_offline=lambda key: service.set(Fault.OFFLINE, key=key),
        cut_off=lambda: unavailable(service),
    )


class TestFaultyService(ServiceConformance):
    """With no fault set."""

    @pytest.fixture
    def service(self, service: FaultyService) -> FaultyService:
        return service

    @pytest.fixture
    def bench(self, service: FaultyService, clock: Clock) -> Bench:
        return bench_of(service, clock)


class TestFaultyServiceWithAnotherFault(TestFaultyService):
    """With a fault set for a key that nobody uses: then objects go one by one."""

    @pytest.fixture
    def service(self, service: FaultyService) -> FaultyService:
        for fault in Fault:
            service.set(fault, key=Key("somebody else's"))
        return service


def use(service: FaultyService, verb: str) -> None:
    match verb:
        case "put":
            service.put(A, reader(b"bytes"), None)
        case "open":
            content_of(service, A)
        case "status":
            service.status([A])
        case "stage":
            service.stage([A])
        case "delete":
            service.delete(A)
        case "list":
            list(service.list(""))


@pytest.mark.parametrize("verb", VERBS)
def test_unavailable_is_so_at_the_verb_and_as_often_as_it_was_set(service: FaultyService, verb: str) -> None:
    service.put(A, reader(b"bytes"), None)
    service.set(Fault.UNAVAILABLE, verb=verb, times=2)
    for other in VERBS:
        if other not in (verb, "delete"):
            use(service, other)
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            use(service, verb)
    use(service, verb)


def test_unavailable_for_one_key_leaves_the_others_of_a_group(service: FaultyService) -> None:
    service.set(Fault.UNAVAILABLE, verb="put", key=A)
    outcomes = {
        each.key: each for each in service.put_group([Incoming(key=key, reader=reader(b"x")) for key in (A, B)])
    }
    assert isinstance(outcomes[A].error, ServiceUnavailable)
    assert outcomes[B].receipt is not None
    assert status_of(service, A).present is Answer.NO


def test_slow_takes_its_time_and_works(service: FaultyService, slept: list[float]) -> None:
    service.set(Fault.SLOW, verb="put", times=1)
    service.put(A, reader(b"bytes"), None)
    assert content_of(service, A) == b"bytes"
    assert slept == [0.05]


@pytest.mark.parametrize("content", [b"bytes", b"", b"b"])
def test_a_damaged_object_reads_as_other_bytes_until_it_is_mended(service: FaultyService, content: bytes) -> None:
    service.put(A, reader(content), None)
    service.set(Fault.DAMAGED, key=A)
    assert content_of(service, A) != content
    assert content_of(service, A)[1:] == content[1:]
    service.clear(Fault.DAMAGED)
    assert content_of(service, A) == content


def test_a_missing_object_is_gone_for_every_verb_and_may_be_stored_anew(service: FaultyService) -> None:
    service.put(A, reader(b"bytes"), None)
    service.set(Fault.MISSING, key=A)
    assert status_of(service, A).present is Answer.NO
    assert list(service.list("")) == []
    for verb in ("open", "delete"):
        with pytest.raises(ObjectMissing):
            use(service, verb)
    service.put(A, reader(b"bytes"), None)
    assert content_of(service, A) == b"bytes"
    assert status_of(service, A).present is Answer.YES


@pytest.mark.parametrize(
    ("fault", "answer", "word"),
    [(Fault.WITHDRAWN, Answer.NO, "amber"), (Fault.DOUBTFUL, Answer.CANNOT_TELL, "who knows")],
)
def test_durability_is_withdrawn_or_doubtful(service: FaultyService, fault: Fault, answer: Answer, word: str) -> None:
    service.put(A, reader(b"bytes"), None)
    service.set(fault)
    found = status_of(service, A)
    assert (found.present, found.durable, found.word) == (Answer.YES, answer, word)
    service.set(Fault.WITHDRAWN)
    assert status_of(service, A).word == "amber"
    service.clear()
    assert status_of(service, A).durable is Answer.YES


def test_a_lost_put_gives_a_receipt_and_stores_nothing(service: FaultyService) -> None:
    service.set(Fault.LOST_PUT, times=1)
    assert service.put(A, reader(b"bytes"), None).size_bytes == 5
    assert status_of(service, A).present is Answer.NO
    service.put(A, reader(b"bytes"), None)
    assert content_of(service, A) == b"bytes"


def test_a_half_put_gives_a_receipt_for_the_whole(service: FaultyService) -> None:
    service.set(Fault.HALF_PUT, times=1)
    assert service.put(A, reader(b"twelve bytes"), None).size_bytes == 12
    assert content_of(service, A) == b"twelve"
    assert status_of(service, A).size_bytes == 6
    with pytest.raises(ObjectExists):
        service.put(A, reader(b"twelve bytes"), None)


def test_an_offline_object_must_be_staged(service: FaultyService, clock: Clock) -> None:
    service.put(A, reader(b"bytes"), None)
    service.set(Fault.OFFLINE, key=A)
    assert status_of(service, A).staged is Staged.OFFLINE
    with pytest.raises(ObjectOffline):
        content_of(service, A)
    service.stage([A])
    clock.advance(timedelta(hours=2))
    service.stage([A])
    assert status_of(service, A).staged is Staged.STAGING
    with pytest.raises(ObjectOffline):
        content_of(service, A)
    clock.advance(timedelta(hours=1))
    assert status_of(service, A).staged is Staged.ONLINE
    assert content_of(service, A) == b"bytes"


def test_it_cannot_be_configured_and_knows_its_verbs(service: FaultyService, clock: Clock) -> None:
    with pytest.raises(SettingsError, match="wraps another"):
        FaultyService.from_settings(ServiceName("x"), {}, clock=clock)
    with pytest.raises(ValueError, match="no verb"):
        service.set(Fault.SLOW, verb="fly")
