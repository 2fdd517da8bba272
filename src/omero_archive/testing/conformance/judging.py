"""Running the checks one by one, saying what became of each, and taking away what they stored."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from omero_archive.errors import ArchiveError, ObjectMissing, ObjectOffline, Refused, Unavailable
from omero_archive.model import Key
from omero_archive.service import Answer
from omero_archive.testing.conformance import asking, naming, staging, storing
from omero_archive.testing.conformance.bench import Bench, ConformanceFailure, DoesNotApply, NotDone
from omero_archive.testing.conformance.seeing import told

Check = Callable[[Bench], None]
"""One rule of the contract. Raises `ConformanceFailure`, `NotDone`, or what the service raised unasked."""

CHECKS: tuple[Check, ...] = (
    asking.check_check_finds_a_service_that_works_in_order,
    asking.check_what_was_never_stored_is_missing,
    storing.check_what_is_expected_and_comes_is_stored,
    storing.check_an_object_of_any_size_comes_back_whole,
    storing.check_nothing_is_visible_until_it_is_whole,
    storing.check_nothing_of_a_group_is_visible_until_it_is_whole,
    storing.check_an_interrupted_put_leaves_nothing_visible,
    storing.check_the_same_content_again_is_a_no_op,
    storing.check_other_content_is_refused_and_nothing_is_overwritten,
    storing.check_a_reader_that_raises_stores_nothing,
    storing.check_a_reader_that_raises_over_an_object_leaves_it,
    storing.check_other_bytes_than_expected_are_not_stored,
    storing.check_two_writers_of_one_object_leave_it_whole,
    storing.check_a_group_stores_what_it_can_and_names_what_it_cannot,
    storing.check_an_empty_group_has_no_outcomes,
    storing.check_a_group_that_names_a_key_twice_stores_the_first,
    asking.check_status_answers_for_each_of_many,
    asking.check_digests_are_those_of_the_content,
    asking.check_what_is_durable_has_a_digest_to_believe_it_by,
    asking.check_an_object_is_read_from_an_offset,
    asking.check_a_listing_is_complete_and_sorted,
    asking.check_the_services_own_is_not_listed,
    naming.check_any_file_name_is_a_key,
    naming.check_names_that_differ_little_are_different_keys,
    naming.check_a_deep_path_is_a_key,
    asking.check_a_service_with_paths_says_where_an_object_lies,
    asking.check_a_service_can_be_used_from_several_threads,
    staging.check_staging_twice_is_staging_once_and_does_not_block,
    staging.check_staging_what_is_not_there_makes_nothing,
    staging.check_what_is_offline_is_known_and_refused_at_once,
    staging.check_what_is_offline_is_not_overwritten,
    staging.check_what_is_offline_comes_back_when_it_is_staged,
    storing.check_what_was_deleted_is_missing_and_may_be_stored_anew,
    asking.check_preparing_the_place_twice_changes_nothing,
    asking.check_unavailable_is_neither_present_nor_absent,
)
"""All the rules, in the order in which they are best read when something is wrong."""


class Verdict(StrEnum):
    """What became of a check."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_DONE = "not done"  # neither kept nor broken: it could not be checked here
    DOES_NOT_APPLY = "does not apply"
    UNAVAILABLE = "unavailable"  # the archive could not be reached any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of one check. `seen` says what was seen where the rule was not kept, or why it was not done."""

    name: str
    rule: str
    verdict: Verdict
    seen: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An object that a check stored and that is still there, or may be."""

    key: Key
    reason: str
    is_refused: bool  # the service deletes nothing, and says so


def name_of(check: Check) -> str:
    """`nothing-is-visible-until-it-is-whole`"""
    return check.__name__.removeprefix("check_").replace("_", "-")


def rule_of(check: Check) -> str:
    """The rule that a check is about, in a sentence."""
    return (check.__doc__ or "").strip().splitlines()[0]


def judge(check: Check, bench: Bench) -> Judgement:
    """Run one check below a prefix of its own. Raises nothing that the service raises."""
    began = bench.monotonic()
    verdict, seen = _verdict(check, bench.below(name_of(check)))
    seconds = bench.monotonic() - began
    return Judgement(name=name_of(check), rule=rule_of(check), verdict=verdict, seen=seen, seconds=seconds)


def _verdict(check: Check, bench: Bench) -> tuple[Verdict, str]:
    try:
        check(bench)
    except ConformanceFailure as failure:
        return Verdict.BROKEN, str(failure)
    except DoesNotApply as reason:
        return Verdict.DOES_NOT_APPLY, str(reason)
    except NotDone as reason:
        return Verdict.NOT_DONE, str(reason)
    except Unavailable as error:
        # Bytes are staged before they are read: nothing may be offline where a check does not ask for it.
        return Verdict.BROKEN if isinstance(error, ObjectOffline) else Verdict.UNAVAILABLE, told(error)
    except Exception as error:  # noqa: BLE001 - whatever somebody else's service raises unasked breaks the contract
        return Verdict.BROKEN, f"{told(error)} was raised where nothing should have gone wrong."
    return Verdict.KEPT, ""


def clean(bench: Bench) -> Sequence[Leftover]:
    """Delete everything below the prefix; what is left, or may be, by a listing and by asking about every key used.

    Raises what the service raises when it is asked what is left: all that it deletes by its key was deleted then.
    """
    left: dict[Key, Leftover] = {}
    for key in _to_delete(bench):
        problem = _delete(bench, key)
        if problem is not None:
            left[key] = problem
    still = _there(bench)
    unsaid = "still there after it was deleted, or the service cannot tell"
    return [left.get(key, Leftover(key=key, reason=unsaid, is_refused=False)) for key in sorted(still)]


def _to_delete(bench: Bench) -> Sequence[Key]:
    try:
        return _there(bench)
    except ArchiveError:
        raise
    except Exception:  # noqa: BLE001 - a service whose listings or answers are broken may delete well
        return _used(bench)


def _there(bench: Bench) -> Sequence[Key]:
    return list(dict.fromkeys([*_present(bench), *(each.key for each in bench.service.list(bench.prefix))]))


def _used(bench: Bench) -> Sequence[Key]:
    return sorted(key for key in bench.used if key.startswith(bench.prefix))


def _present(bench: Bench) -> Iterator[Key]:
    """Of the keys that were given out, those of which the service does not say that they are not there."""
    used = _used(bench)
    answers = bench.service.status(used)
    for key in used:
        if key not in answers or answers[key].present is not Answer.NO:
            yield key


def _delete(bench: Bench, key: Key) -> Leftover | None:
    try:
        bench.service.delete(key)
    except ObjectMissing:
        return None
    except ArchiveError as error:
        return Leftover(key=key, reason=told(error), is_refused=isinstance(error, Refused))
    except Exception as error:  # noqa: BLE001 - the others are to be deleted nevertheless
        return Leftover(key=key, reason=told(error), is_refused=False)
    return None
