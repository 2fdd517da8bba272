"""The conformance checks catch services that break a rule, and say neither kept nor broken of what they cannot see."""

import re
from collections.abc import Callable
from datetime import timedelta

import broken_services
import pytest
from broken_services import (
    AnswersInTexts,
    DeletesNothing,
    DeletesWithAFault,
    HidesFromListings,
    KeepsAHiddenOne,
    ListsAndThenFails,
)

from omero_archive.model import Key
from omero_archive.testing.conformance import (
    CHECKS,
    SMALL_SIZES,
    Bench,
    Check,
    Judgement,
    Verdict,
    clean,
    judge,
    name_of,
    rule_of,
    sizes,
)
from omero_archive.testing.contents import Clock, reader
from omero_archive.testing.memory_service import MemoryService
from omero_archive.transfer import PIECE_BYTES

HOURS = timedelta(hours=3)
DISK = {
    "Overwrites": "other-content-is-refused-and-nothing-is-overwritten",
    "ShowsHalf": "nothing-is-visible-until-it-is-whole a-reader-that-raises-stores-nothing "
    "an-interrupted-put-leaves-nothing-visible",
    "AbandonsHalves": "nothing-of-a-group-is-visible-until-it-is-whole",
    "SaysMissingWhenCutOff": "unavailable-is-neither-present-nor-absent",
    "SaysPresentWhenCutOff": "unavailable-is-neither-present-nor-absent",
    "ListsNothingWhenCutOff": "unavailable-is-neither-present-nor-absent",
    "OpensNothingWhenCutOff": "unavailable-is-neither-present-nor-absent",
    "InOrderWhenCutOff": "unavailable-is-neither-present-nor-absent",
    "AcceptsWrongDigest": "other-bytes-than-expected-are-not-stored",
    "AcceptsNothingExpected": "what-is-expected-and-comes-is-stored",
    "ListsItsOwn": "the-services-own-is-not-listed",
    "ListsUnsorted": "a-listing-is-complete-and-sorted",
    "ListsDirectoriesOnly": "a-listing-is-complete-and-sorted",
    "NormalisesNames": "names-that-differ-little-are-different-keys",
    "WantsText": "any-file-name-is-a-key",
    "HidesFromListings": "any-file-name-is-a-key",
    "WantsShortPaths": "a-deep-path-is-a-key",
    "LosesKeysInStatus": "status-answers-for-each-of-many",
    "MissingIsUnknown": "what-was-never-stored-is-missing",
    "CutsTheEnd": "an-object-of-any-size-comes-back-whole",
    "IgnoresTheOffset": "an-object-is-read-from-an-offset",
    "SameAgainIsRefused": "the-same-content-again-is-a-no-op two-writers-of-one-object-leave-it-whole",
    "SwallowsErrors": "a-reader-that-raises-stores-nothing a-reader-that-raises-over-an-object-leaves-it",
    "DeletesWhatItCannotReplace": "a-reader-that-raises-over-an-object-leaves-it",
    "GroupStopsAtAnError": "a-group-stores-what-it-can-and-names-what-it-cannot",
    "EmptyGroupFails": "an-empty-group-has-no-outcomes",
    "GroupStoresTheLast": "a-group-that-names-a-key-twice-stores-the-first",
    "DigestsOfSomethingElse": "digests-are-those-of-the-content what-is-durable-has-a-digest-to-believe-it-by",
    "DigestsInCapitals": "digests-are-those-of-the-content",
    "ReceiptsWithoutDigests": "digests-are-those-of-the-content",
    "DurableWithoutDigests": "what-is-durable-has-a-digest-to-believe-it-by",
    "HasPathsUnasked": "a-service-with-paths-says-where-an-object-lies",
    "FindsFaultWithItself": "check-finds-a-service-that-works-in-order",
    "IsNeverSeen": "check-finds-a-service-that-works-in-order",
    "HasNoText": "check-finds-a-service-that-works-in-order",
    "ForgetsWhenPrepared": "preparing-the-place-twice-changes-nothing",
    "OfOneThread": "a-service-can-be-used-from-several-threads",
    "DeletesLater": "what-was-deleted-is-missing-and-may-be-stored-anew",
    "StageMakesObjects": "staging-what-is-not-there-makes-nothing",
}
TAPE = {
    "StageBlocks": "staging-twice-is-staging-once-and-does-not-block",
    "StageTwiceFails": "staging-twice-is-staging-once-and-does-not-block",
    "StageAgainBeginsAnew": "staging-twice-is-staging-once-and-does-not-block",
    "StageMakesObjects": "staging-what-is-not-there-makes-nothing",
    "StageBringsOtherBytes": "what-is-offline-comes-back-when-it-is-staged",
    "OpensOfflineBytes": "what-is-offline-is-known-and-refused-at-once",
    "OpenWaits": "what-is-offline-is-known-and-refused-at-once",
    "StatusBringsBack": "what-is-offline-is-known-and-refused-at-once",
    "ReplacesWhatIsOffline": "what-is-offline-is-not-overwritten",
    "Overwrites": "other-content-is-refused-and-nothing-is-overwritten",
}
CAUGHT = [
    (name, check, staging)
    for table, staging in ((DISK, None), (TAPE, HOURS))
    for name in table
    for check in table[name].split()
]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bench_of(clock: Clock) -> Callable[..., Bench]:
    """A bench whose time is the clock's."""

    def wait(seconds: float) -> None:
        clock.advance(timedelta(seconds=seconds))

    def make(service: MemoryService, **given: object) -> Bench:
        settings: dict[str, object] = {
            "sizes": SMALL_SIZES,
            "cut_off": service.cut_off,
            "may_list_all": True,
            "may_initialise": True,
            "sleep": wait,
            "monotonic": lambda: clock.now.timestamp(),
            "wait_s": timedelta(days=1).total_seconds(),
        }
        return Bench(service=service, prefix="test/1/", **settings | given)  # type: ignore[arg-type]

    return make


def named(name: str) -> Check:
    (check,) = [each for each in CHECKS if name_of(each) == name]
    return check


@pytest.mark.parametrize(("service", "check", "staging"), CAUGHT)
def test_a_broken_rule_is_seen(
    service: str, check: str, staging: timedelta | None, clock: Clock, bench_of: Callable[..., Bench]
) -> None:
    broken = getattr(broken_services, service)(clock=clock, staging=staging)
    judgement = judge(named(check), bench_of(broken))
    assert judgement.verdict is Verdict.BROKEN, judgement
    assert re.fullmatch(r"(?s)\S.{20,}[.)]", judgement.seen), judgement.seen


def test_there_is_a_broken_service_for_each_check() -> None:
    assert {check for _, check, _ in CAUGHT} >= {name_of(check) for check in CHECKS}


@pytest.mark.parametrize("staging", [None, HOURS])
def test_a_service_that_keeps_the_contract_is_cleared(
    staging: timedelta | None, clock: Clock, bench_of: Callable[..., Bench]
) -> None:
    """So that what is seen in the broken ones is what is broken."""
    bench = bench_of(MemoryService(clock=clock, staging=staging))
    judgements = [judge(check, bench) for check in CHECKS]
    wrong = [each for each in judgements if each.verdict not in (Verdict.KEPT, Verdict.DOES_NOT_APPLY)]
    assert wrong == []
    assert clean(bench) == []


def test_each_check_has_a_name_and_a_rule_of_its_own() -> None:
    for values in ([name_of(check) for check in CHECKS], [rule_of(check) for check in CHECKS]):
        assert len(set(values)) == len(CHECKS)
        assert all(len(value) > 10 for value in values)


def test_an_answer_of_another_type_is_called_that(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    """A text that reads like an answer is none: the steps compare by identity, and "no" would not be NO."""
    judgement = judge(named("what-was-never-stored-is-missing"), bench_of(AnswersInTexts(clock=clock)))
    assert judgement.verdict is Verdict.BROKEN
    assert "wants present and durable as Answer" in judgement.seen
    assert "present='no'" in judgement.seen


# ---- what cannot be seen


def test_what_needs_hours_of_staging_is_neither_kept_nor_broken(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    """Where the digests that status reports are enough, they are believed; what must be read is not done."""
    tape = MemoryService(clock=clock, staging=timedelta(days=2))
    found = {name_of(check): judge(check, bench_of(tape, wait_s=60.0)) for check in CHECKS}
    assert found["an-object-of-any-size-comes-back-whole"].verdict is Verdict.NOT_DONE
    assert "offline, staging takes its time" in found["an-object-is-read-from-an-offset"].seen
    assert found["what-is-offline-is-not-overwritten"].verdict is Verdict.NOT_DONE
    assert found["what-is-offline-is-known-and-refused-at-once"].verdict is Verdict.KEPT
    assert found["any-file-name-is-a-key"].verdict is Verdict.KEPT
    assert Verdict.BROKEN not in {each.verdict for each in found.values()}


def test_an_archive_that_cannot_be_reached_has_broken_no_rule(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    service = MemoryService(clock=clock)
    bench = bench_of(service, cut_off=None)
    with service.cut_off():
        judgements = [judge(check, bench) for check in CHECKS]
    verdicts: dict[Verdict, list[Judgement]] = {}
    for each in judgements:
        verdicts.setdefault(each.verdict, []).append(each)
    assert [each.name for each in verdicts.pop(Verdict.BROKEN)] == ["check-finds-a-service-that-works-in-order"]
    assert len(verdicts.pop(Verdict.UNAVAILABLE)) > 20
    assert {each.name for each in verdicts.pop(Verdict.KEPT, [])} <= {"an-empty-group-has-no-outcomes"}


def test_without_the_hook_a_rule_is_not_done(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(MemoryService(clock=clock), cut_off=None, may_initialise=False)
    for name in ("unavailable-is-neither-present-nor-absent", "preparing-the-place-twice-changes-nothing"):
        assert judge(named(name), bench).verdict is Verdict.NOT_DONE


# ---- cleaning up


def test_what_is_not_below_the_prefix_is_never_touched(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    service = MemoryService(clock=clock)
    bench = bench_of(service)
    for key in ("test/1", "test/10/x", "test/2/x", "x"):
        service.put(Key(key), reader(b"somebody's"), None)
    for check in CHECKS:
        judge(check, bench)
    assert clean(bench) == []
    assert sorted(service.objects) == ["test/1", "test/10/x", "test/2/x", "x"]


def test_what_a_service_refuses_to_delete_is_named(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(DeletesNothing(clock=clock))
    assert judge(named("a-deep-path-is-a-key"), bench).verdict is Verdict.KEPT
    assert judge(named("what-was-deleted-is-missing-and-may-be-stored-anew"), bench).verdict is Verdict.DOES_NOT_APPLY
    left = clean(bench)
    assert len(left) == 3
    assert {(each.is_refused, "under retention" in each.reason) for each in left} == {(True, True)}


def test_what_is_in_no_listing_is_cleaned_up_or_named(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    hiding = HidesFromListings(clock=clock)
    judge(named("any-file-name-is-a-key"), bench := bench_of(hiding))
    assert clean(bench) == []
    assert hiding.objects == {}
    keeping = KeepsAHiddenOne(clock=clock)
    judge(named("what-is-expected-and-comes-is-stored"), bench := bench_of(keeping))
    assert [each.key for each in clean(bench)] == sorted(keeping.objects)


def test_what_a_broken_service_can_delete_is_deleted(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    """Its listing fails, and then nobody knows what is left; what was stored is not left for that."""
    broken = ListsAndThenFails(clock=clock)
    bench = bench_of(broken)
    for check in CHECKS:
        judge(check, bench)
    assert broken.objects
    with pytest.raises(OSError, match="the library's own"):
        clean(bench)
    assert broken.objects == {}


def test_what_is_not_deleted_for_a_fault_is_named(clock: Clock, bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(DeletesWithAFault(clock=clock))
    judge(named("a-listing-is-complete-and-sorted"), bench)
    left = clean(bench)
    assert len(left) == 7
    assert {(each.is_refused, each.reason.split()[0]) for each in left} == {(False, "KeyError")}


@pytest.mark.parametrize("prefix", ["", "/", "x", "/x/", ".omero-archive/x/"])
def test_a_prefix_that_is_none_is_refused(prefix: str, clock: Clock) -> None:
    with pytest.raises(ValueError, match="no prefix to test below"):
        Bench(service=MemoryService(clock=clock), prefix=prefix)


def test_the_sizes_lie_around_what_is_cut_into_parts() -> None:
    part = 8 << 20
    assert {0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 7} < set(sizes())
    assert {part - 1, part, part + 1, 2 * part + 7} < set(sizes(part))
