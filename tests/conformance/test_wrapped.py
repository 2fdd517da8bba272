"""Each decorator keeps the contract of what it wraps, and does what it is for."""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest
import structlog
from structlog.testing import capture_logs

import mounts
from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ObjectExists,
    ObjectMissing,
    ServiceIsReadOnly,
    ServiceUnavailable,
    SettingsError,
    SourceRotted,
)
from omero_archive.model import Key, ServiceName
from omero_archive.mount import MARKER
from omero_archive.service import Answer, Finding, Incoming, Listed, ObjectStatus, Outcome, Service
from omero_archive.services.directory import DirectoryService
from omero_archive.settings import Secret
from omero_archive.testing.conformance import SMALL_SIZES, Bench
from omero_archive.testing.contents import SteppedReader, content_of, reader, status_of
from omero_archive.testing.faulty_service import Fault, FaultyService
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for
from omero_archive.wrapped.base import Wrapped
from omero_archive.wrapped.configured import configured_service
from omero_archive.wrapped.dry_run import DryRun
from omero_archive.wrapped.logged import Logged
from omero_archive.wrapped.read_only import ReadOnly
from omero_archive.wrapped.redacted import Redacted, Redaction, secrets_of
from omero_archive.wrapped.retrying import Retrying
from omero_archive.wrapped.throttled import Throttled
from omero_archive.wrapped.unsettled import Unsettled

TAPE = ServiceName("tape")
A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")
SECRET = "hunter2/ and=more"
A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DirectoryService]:
    (tmp_path / "archive").mkdir()
    service = DirectoryService.from_settings(TAPE, {"path": str(tmp_path / "archive")}, clock=now)
    service.initialise()
    with closing(service):
        yield service


@pytest.fixture
def faulty(directory: DirectoryService) -> FaultyService:
    return FaultyService(directory, clock=now)


@pytest.fixture
def slept() -> list[float]:
    return []


# ---- the contract


class DecoratorConformance(ServiceConformance):
    """What decorators do does not depend on the size: small objects, so that the rules are soon tried."""

    @pytest.fixture
    def bench(self, service: Service) -> Bench:
        return bench_for(service, sizes=SMALL_SIZES)


class TestWrapped(DecoratorConformance):
    @pytest.fixture
    def service(self, directory: DirectoryService) -> Service:
        return Wrapped(directory)


class TestRetrying(DecoratorConformance):
    @pytest.fixture
    def service(self, directory: DirectoryService, slept: list[float]) -> Service:
        return Retrying(directory, retries=2, sleep=slept.append)


class TestThrottled(DecoratorConformance):
    @pytest.fixture
    def service(self, directory: DirectoryService) -> Service:
        return Throttled(directory, rate=10 << 30)


class TestLoggedAndRedacted(DecoratorConformance):
    @pytest.fixture
    def service(self, directory: DirectoryService) -> Service:
        return Logged(Redacted(directory, Redaction([])), TAPE)


class TestConfigured(DecoratorConformance):
    """As a site has it, with every common key that allows to store."""

    @pytest.fixture
    def service(self, tmp_path: Path, directory: DirectoryService) -> Iterator[Service]:
        table = {"type": "directory", "path": str(tmp_path / "archive"), "rate": "10 GiB", "retries": 1, "distance": 3}
        with closing(configured_service(TAPE, table, clock=now)) as service:
            yield service


def test_a_wrapped_service_cannot_be_configured() -> None:
    with pytest.raises(SettingsError, match=r"services\.tape: Throttled wraps another"):
        Throttled.from_settings(TAPE, {}, clock=now)


def test_a_group_is_passed_on_whole(directory: DirectoryService) -> None:
    groups: list[int] = []

    class Counting(Wrapped):
        def put_group(self, group: Sequence[Incoming]) -> Iterator[Outcome]:  # type: ignore[override]
            groups.append(len(group))
            yield from super().put_group(group)

    service: Service = Counting(directory)
    service = Throttled(Retrying(Logged(Redacted(service, Redaction([])), TAPE), retries=1), rate=1 << 30)
    outcomes = list(service.put_group([Incoming(key=key, reader=reader(b"x")) for key in (A, B)]))
    assert {outcome.key for outcome in outcomes} == {A, B}
    assert groups == [2]


# ---- retrying


@pytest.mark.parametrize("verb", ["open", "status", "stage", "delete", "list"])
def test_what_cannot_be_asked_is_asked_again_after_longer_and_longer_pauses(
    faulty: FaultyService, slept: list[float], verb: str
) -> None:
    faulty.put(A, reader(b"bytes"), None)
    service = Retrying(faulty, retries=4, pause_s=2, longest_pause_s=5, sleep=slept.append)
    use: Mapping[str, Callable[[], object]] = {
        "open": lambda: content_of(service, A),
        "status": lambda: status_of(service, A),
        "stage": lambda: service.stage(iter([A])),
        "delete": lambda: service.delete(A),
        "list": lambda: list(service.list("")),
    }
    faulty.set(Fault.UNAVAILABLE, verb=verb, times=3)
    use[verb]()
    assert slept == [2, 4, 5]
    assert sum(happened.verb == verb for happened in faulty.happened) == 3


def test_it_gives_up_after_so_many_tries(faulty: FaultyService, slept: list[float]) -> None:
    faulty.set(Fault.UNAVAILABLE, verb="status")
    with pytest.raises(ServiceUnavailable):
        Retrying(faulty, retries=2, sleep=slept.append).status([A])
    assert (len(faulty.happened), slept) == (3, [1, 2])


def test_other_errors_are_not_tried_again(directory: DirectoryService, slept: list[float]) -> None:
    service = Retrying(directory, retries=2, sleep=slept.append)
    service.put(A, reader(b"bytes"), None)
    with pytest.raises(ObjectExists):
        service.put(A, reader(b"other"), None)
    for act in (service.open, service.delete):
        with pytest.raises(ObjectMissing):
            act(B)
    assert slept == []


def test_a_put_that_had_not_begun_to_read_is_tried_again(faulty: FaultyService, slept: list[float]) -> None:
    faulty.set(Fault.UNAVAILABLE, verb="put", times=2)
    assert Retrying(faulty, retries=2, sleep=slept.append).put(A, reader(b"bytes"), None).size_bytes == 5
    assert content_of(faulty, A) == b"bytes"
    assert len(slept) == 2


class BreaksOff(Wrapped):
    """Reads some, then cannot go on; `times` it does so."""

    def __init__(self, inner: Service, *, times: int = 1) -> None:
        super().__init__(inner)
        self.times = times
        self.tries = 0

    def put(self, key, reader, expected):  # type: ignore[no-untyped-def]
        self.tries += 1
        if self.tries <= self.times:
            next(reader.pieces())
            raise ServiceUnavailable("the line is dead")
        return super().put(key, reader, expected)

    put_group = Service.put_group


def test_a_put_that_had_begun_to_read_is_never_tried_again(directory: DirectoryService, slept: list[float]) -> None:
    breaks = BreaksOff(directory)
    with pytest.raises(ServiceUnavailable):
        Retrying(breaks, retries=5, sleep=slept.append).put(A, SteppedReader([b"one", b"two"]), None)
    assert (breaks.tries, slept) == (1, [])
    outcomes = list(
        Retrying(BreaksOff(directory), retries=5, sleep=slept.append).put_group(
            [Incoming(key=key, reader=SteppedReader([b"one", b"two"])) for key in (A, B)]
        )
    )
    assert [type(outcome.error) for outcome in outcomes] == [ServiceUnavailable, type(None)]
    assert slept == []


def test_of_a_group_only_what_was_not_begun_is_tried_again(faulty: FaultyService, slept: list[float]) -> None:
    keys = [Key(f"x/{number}") for number in range(5)]
    faulty.set(Fault.UNAVAILABLE, verb="put", key=keys[1], times=1)
    faulty.set(Fault.UNAVAILABLE, verb="put", key=keys[3], times=9)
    service = Retrying(faulty, retries=2, sleep=slept.append)
    group = [Incoming(key=key, reader=reader(key.encode())) for key in keys]
    group.append(Incoming(key=keys[0], reader=reader(b"other")))  # named twice
    outcomes = list(service.put_group(group))
    assert len(outcomes) == len(group)
    wrong = {outcome.key: type(outcome.error) for outcome in outcomes if outcome.error is not None}
    assert wrong == {keys[3]: ServiceUnavailable, keys[0]: ObjectExists}
    assert {found.key for found in faulty.list("")} == set(keys) - {keys[3]}
    assert sum(happened.key == keys[3] for happened in faulty.happened) == 3


def test_a_service_that_refuses_a_group_as_a_whole_is_asked_again(
    tmp_path: Path, directory: DirectoryService, slept: list[float]
) -> None:
    away = tmp_path / "away"
    (tmp_path / "archive").rename(away)

    def mount(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            away.rename(tmp_path / "archive")

    group = [Incoming(key=key, reader=reader(b"x")) for key in (A, B)]
    outcomes = list(Retrying(directory, retries=2, sleep=mount).put_group(group))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert slept == [1, 2]


def test_a_delete_whose_answer_was_lost_is_done(directory: DirectoryService, slept: list[float]) -> None:
    class LosesAnswer(Wrapped):
        def delete(self, key: Key) -> None:
            super().delete(key)
            raise ServiceUnavailable("the answer was lost")

    directory.put(A, reader(b"bytes"), None)
    service = Retrying(LosesAnswer(directory), retries=1, sleep=slept.append)
    service.delete(A)
    assert status_of(directory, A).present is Answer.NO
    with pytest.raises(ObjectMissing):
        service.delete(A)


def test_a_listing_that_breaks_off_goes_on_where_it_was(directory: DirectoryService, slept: list[float]) -> None:
    keys = [Key(f"x/{number}") for number in range(9)]
    list(directory.put_group([Incoming(key=key, reader=reader(b"x")) for key in keys]))

    class Breaks(Wrapped):
        def list(self, prefix: str):  # type: ignore[no-untyped-def]
            for number, found in enumerate(super().list(prefix)):
                yield found
                if number == 4 and not slept:
                    raise ServiceUnavailable("the line is dead")

    assert [each.key for each in Retrying(Breaks(directory), retries=1, sleep=slept.append).list("")] == keys
    assert slept == [1]


# ---- throttled


class Seconds:
    """A clock that only sleeping moves. Safe for several threads."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


def test_bytes_pass_no_faster_than_the_rate(directory: DirectoryService) -> None:
    seconds = Seconds()
    service = Throttled(directory, rate=100, clock=seconds, sleep=seconds.sleep)
    service.put(A, SteppedReader([b"x" * 50] * 4), None)
    assert seconds.now == pytest.approx(1.5)  # the first piece goes at once
    list(service.put_group([Incoming(key=B, reader=SteppedReader([b"x" * 50] * 4))]))
    assert seconds.now == pytest.approx(3.5)
    assert len(content_of(service, A)) == 200
    assert content_of(service, B, 150) == b"x" * 50
    service.status([A])
    assert seconds.now == pytest.approx(6.0)
    seconds.now += 100  # time in which nothing passed is not saved up
    service.put(Key("c"), SteppedReader([b"x" * 100] * 2), None)
    assert seconds.now == pytest.approx(107.0)


def test_all_threads_share_one_rate(directory: DirectoryService) -> None:
    slept: list[float] = []
    service = Throttled(directory, rate=100, clock=lambda: 0.0, sleep=slept.append)
    threads = [
        threading.Thread(target=service.put, args=(Key(f"t/{number}"), SteppedReader([b"x" * 25] * 2), None))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # By a clock that stands still each piece waits for all before it.
    assert sorted(slept) == [pytest.approx(0.25 * number) for number in range(1, 8)]


# ---- read only


def test_a_service_that_is_only_read_refuses_every_change(directory: DirectoryService, tmp_path: Path) -> None:
    directory.put(A, reader(b"bytes"), None)
    before = {path: path.stat().st_ctime_ns for path in (tmp_path / "archive").rglob("*")}
    service = ReadOnly(directory, TAPE)
    changes: list[Callable[[], object]] = [
        lambda: service.put(B, reader(b"x"), None),
        lambda: service.delete(A),
        service.initialise,
    ]
    for change in changes:
        with pytest.raises(ServiceIsReadOnly, match=r"tape: .*services\.tape\.read_only") as refusal:
            change()
        assert (refusal.value.exit_code, refusal.value.retryable) == (3, False)
    (outcome,) = service.put_group([Incoming(key=B, reader=reader(b"x"))])
    assert isinstance(outcome.error, ServiceIsReadOnly)
    assert {path: path.stat().st_ctime_ns for path in (tmp_path / "archive").rglob("*")} == before


def test_a_service_that_is_only_read_is_read_asked_and_staged(directory: DirectoryService) -> None:
    directory.put(A, reader(b"bytes"), None)
    service = ReadOnly(directory, TAPE)
    service.stage([A])
    assert content_of(service, A) == b"bytes"
    assert status_of(service, A).present is Answer.YES
    assert [each.key for each in service.list("")] == [A]
    assert service.locate(A) == directory.locate(A)
    assert all(finding.is_fine for finding in service.check())


def test_an_archive_that_is_mounted_read_only_is_in_order_where_it_is_only_read(
    directory: DirectoryService, tmp_path: Path
) -> None:
    """As one that is being given up. Where copies are to go there, it is told what it is."""
    with mounts.read_only(tmp_path / "archive"):
        (found,) = directory.check()
        (old,) = ReadOnly(directory, TAPE).check()
    assert not found.is_fine
    assert "is mounted read-only" in found.text
    assert "`read_only = true`" in found.advice
    assert (old.is_fine, old.advice) == (True, "")
    (tmp_path / "archive" / MARKER).unlink()
    (gone,) = ReadOnly(directory, TAPE).check()
    assert not gone.is_fine, "it must be the archive all the same"


# ---- settings that turn out wrong when they are used


class _Unsettled(Wrapped):
    """Each verb finds that a secret is not there; of a group, the second object does."""

    def _refuse(self, *given: object) -> NoReturn:
        raise SettingsError(f"services.tape.secret_key: /run/secret could not be read, for {given}.")

    put = open = status = stage = delete = _refuse  # type: ignore[assignment]

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        yield from self.inner.put_group(group[:1])
        yield Outcome(key=group[1].key, error=SettingsError("services.tape.storage_class: COLD."))

    def list(self, prefix: str) -> Iterator[Listed]:
        yield from self.inner.list(prefix)
        self._refuse(prefix)


def test_a_setting_that_is_wrong_when_it_is_used_is_no_fault_of_a_copy(directory: DirectoryService) -> None:
    """Whoever is told `SettingsError` gives the copy up; what could not be asked is asked again."""
    service = Unsettled(_Unsettled(directory))
    verbs: list[Callable[[], object]] = [
        lambda: service.put(A, reader(b"x"), None),
        lambda: service.open(A),
        lambda: service.status([A]),
        lambda: service.stage([A]),
        lambda: service.delete(A),
        lambda: list(service.list("")),
    ]
    for verb in verbs:
        with pytest.raises(ServiceUnavailable, match=r"services\.tape\.secret_key: /run/secret could not be read"):
            verb()
    first, second = service.put_group([Incoming(key=key, reader=reader(b"x")) for key in (A, B)])
    assert first.receipt is not None
    assert isinstance(second.error, ServiceUnavailable)
    assert "services.tape.storage_class" in str(second.error)


# ---- dry run


def test_a_dry_run_reads_and_compares_and_tells_and_changes_nothing(directory: DirectoryService) -> None:
    directory.put(A, reader(b"bytes"), None)
    told: list[tuple[str, Key | None, int | None]] = []
    service = DryRun(directory, lambda *what: told.append(what))
    receipt = service.put(B, reader(b"more bytes"), reader(b"more bytes").fixity)
    assert (receipt.key, receipt.size_bytes, receipt.was_there) == (B, 10, False)
    with pytest.raises(FixityMismatch):
        service.put(B, reader(b"bytes"), reader(b"other").fixity)
    with pytest.raises(SourceRotted):
        service.put(B, SteppedReader([b"x"], problem=SourceRotted("rotten")), None)
    group = [
        Incoming(key=B, reader=reader(b"x")),
        Incoming(key=A, reader=SteppedReader([], problem=SourceRotted("rotten"))),
    ]
    assert [type(each.error) for each in service.put_group(group)] == [type(None), SourceRotted]
    service.delete(A)
    service.stage([A, B])
    service.initialise()
    assert told == [
        ("put", B, 10),
        ("put", B, 1),
        ("delete", A, None),
        ("stage", A, None),
        ("stage", B, None),
        ("initialise", None, None),
    ]
    assert [found.key for found in service.list("")] == [A]
    assert content_of(service, A) == b"bytes"


# ---- logged and redacted


class Blabs(Wrapped):
    """Says what it knows wherever it can."""

    text = f"401 for https://me:{SECRET[:7]}@store.example/x?X-Amz-Signature=abcdef12&list-type=2, with {SECRET}"

    def _raise(self, *_: object, **__: object) -> None:
        try:
            raise ValueError(self.text)
        except ValueError as error:
            raise ServiceUnavailable(f"tape: {self.text}") from error

    put = delete = stage = open = initialise = _raise  # type: ignore[assignment]

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        self._raise()
        yield

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        found = status_of(self.inner, A)
        return {
            key: ObjectStatus(
                present=found.present, durable=found.durable, staged=found.staged, word=self.text, attention=self.text
            )
            for key in keys
        }

    def put_group(self, group: Sequence[Incoming]):  # type: ignore[no-untyped-def]
        for incoming in group:
            yield Outcome(key=incoming.key, error=ServiceUnavailable(self.text))

    def check(self) -> Sequence[Finding]:
        return [Finding(subject="service tape", is_fine=False, text=self.text, advice=self.text)]


def shows_nothing(text: str) -> bool:
    return not any(part in text for part in (SECRET, "hunter2", "abcdef12"))


@pytest.mark.parametrize("kind", ["file", "env"])
def test_no_secret_leaves_a_service_whatever_it_says(
    directory: DirectoryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    monkeypatch.setenv("TAPE_SECRET", SECRET)
    where = {"file": str(tmp_path / "secret")} if kind == "file" else {"env": "TAPE_SECRET"}
    table = {"endpoint": "x", "login": {"user": "me", "password": where}}
    assert secrets_of(table) == [Secret.model_validate(where)]
    directory.put(A, reader(b"bytes"), None)
    service = Logged(Redacted(Blabs(directory), Redaction(secrets_of(table))), TAPE)
    uses: list[Callable[[], object]] = [
        lambda: service.put(B, reader(b"x"), None),
        lambda: service.open(A),
        lambda: service.stage([A]),
        lambda: service.delete(A),
        lambda: list(service.list("")),
        service.initialise,
    ]
    with capture_logs() as lines:
        for use in uses:
            with pytest.raises(ServiceUnavailable) as refusal:
                use()
            error: BaseException | None = refusal.value
            assert str(error).startswith("tape: 401 for https://***@store.example/x?X-Amz-Signature=***&list-type=2")
            while error is not None:
                assert shows_nothing(repr(error))
                error = error.__cause__
        (outcome,) = service.put_group([Incoming(key=A, reader=reader(b"x"))])
        found = status_of(service, A)
        (finding,) = service.check()
    for text in (str(outcome), str(found), str(finding), str(lines), repr(service), str(vars(service))):
        assert shows_nothing(text)
    assert "list-type=2" in found.word
    assert "list-type=2" in found.attention
    assert "list-type=2" in finding.advice
    assert [line["log_level"] for line in lines] == ["warning"] * 6 + ["info", "debug"]


def test_a_secret_that_was_changed_stays_one(directory: DirectoryService, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    redaction = Redaction([Secret(file=file), Secret(env="NO_SUCH_VARIABLE_HERE")])
    assert redaction.now()("old-password") == "old-password"  # nobody said yet that it is one
    file.write_text("old-password")
    redaction.now()
    file.write_text("-----BEGIN KEY-----\nc2VjcmV0c2VjcmV0\n-----END KEY-----")
    assert redaction.now()("old-password, and c2VjcmV0c2VjcmV0 alone") == "***, and *** alone"
    os.unlink(file)
    assert redaction.now()("old-password") == "***"


def test_each_verb_is_a_line_with_its_service_its_keys_and_its_time(directory: DirectoryService) -> None:
    seconds = iter(range(100))
    service = Logged(directory, TAPE, clock=lambda: next(seconds))
    structlog.reset_defaults()
    with capture_logs() as lines:
        list(service.put_group([Incoming(key=A, reader=reader(b"x")), Incoming(key=A, reader=reader(b"y"))]))
        service.put(B, reader(b"x"), None)
        content_of(service, A)
        service.status(iter([A, B]))
        service.stage([A])
        list(service.list(""))
        service.delete(A)
        with pytest.raises(ArchiveError):
            service.delete(A)
    told = [(line["action"], line["keys"], line["log_level"]) for line in lines]
    assert told == [
        ("put_group", 2, "info"),
        ("put", 1, "debug"),
        ("open", 1, "debug"),
        ("status", 2, "debug"),
        ("stage", 1, "info"),
        ("list", 2, "debug"),
        ("delete", 1, "info"),
        ("delete", 1, "warning"),
    ]
    assert lines[0]["failed"] == 1
    assert "there is no" in lines[-1]["error"]
    assert lines[-1]["kind"] == "ObjectMissing"
    assert all(line["service"] == "tape" and line["duration_s"] == 1 for line in lines)


# ---- as it is configured


def test_the_common_keys_are_taken_out_before_the_plugin_sees_its_table(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    table = {"type": "directory", "path": str(tmp_path / "archive")}
    with closing(configured_service(TAPE, table | {"read_only": True, "rate": 5, "distance": 2}, clock=now)) as service:
        assert isinstance(service, ReadOnly)
        assert isinstance(service.inner, Throttled)
        assert isinstance(service.inner.inner, Retrying)
    with closing(configured_service(TAPE, table | {"retries": 0}, clock=now)) as service:
        assert isinstance(service, Logged)
    with pytest.raises(SettingsError, match=r"services\.tape\.speed: there is no such setting"):
        configured_service(TAPE, table | {"speed": 5}, clock=now)
    with pytest.raises(SettingsError, match=r"services\.tape\.type: 'tap' is not installed; there are: .*directory"):
        configured_service(TAPE, table | {"type": "tap"}, clock=now)
