"""What a rebuilt bundle is taken for, by what lies at its paths: the table of `docs/howto/rebuild-the-catalogue.md`."""

from collections import Counter
from itertools import product
from typing import Any

import pytest

from omero_archive.model import Key
from omero_archive.states import Decision, Residency
from omero_archive.steps.rebuild_disk import At, Near, Seen, Verdict, judge

RESIDENT, ONLINE, OFFLINE = Residency.RESIDENT, Residency.ONLINE, Residency.OFFLINE
LINK, ORIGINAL = At.LINK, At.ORIGINAL
ODD = (At.OTHER_FILE, At.OTHER_LINK, At.NOTHING, At.STRANGE)


def seen(*paths: At, near: Near = Near.NONE, **flags: Any) -> Seen:
    examples = {what: Key(f"ManagedRepository/{what.name}") for what in paths}
    return Seen(paths=Counter(paths), examples=examples, near=near, **flags)


def judged(found: Seen, *, is_marked: bool = False) -> Verdict:
    return judge(found, is_marked=is_marked)


@pytest.mark.parametrize(
    ("found", "is_marked", "residency", "intent"),
    [
        (seen(LINK, LINK, near=Near.ALL), True, ONLINE, None),
        (seen(LINK, LINK, near=Near.ALL), False, ONLINE, None),
        (seen(LINK, LINK), True, OFFLINE, None),
        (seen(LINK, LINK, is_taken_out=True), True, OFFLINE, None),
        (seen(LINK, LINK, is_prepared=True), True, OFFLINE, None),
        (seen(ORIGINAL, ORIGINAL), False, RESIDENT, None),
        (seen(LINK, ORIGINAL, near=Near.ALL), True, RESIDENT, "release"),
        (seen(LINK, ORIGINAL, near=Near.ALL, is_going=True), True, RESIDENT, "release"),
        (seen(LINK, ORIGINAL, near=Near.ALL, is_going_back=True), True, ONLINE, "unarchive"),
        (seen(LINK, LINK, near=Near.ALL, is_going_back=True), True, ONLINE, "unarchive"),
        (seen(ORIGINAL, ORIGINAL, near=Near.ALL, is_going=True), True, RESIDENT, "release"),
        (seen(ORIGINAL, ORIGINAL, near=Near.ALL), True, ONLINE, "unarchive"),
        (seen(ORIGINAL, ORIGINAL, near=Near.ALL), False, ONLINE, "unarchive"),
        (seen(ORIGINAL, ORIGINAL, near=Near.SOME), False, ONLINE, "unarchive"),
        (seen(ORIGINAL, ORIGINAL, is_taken_out=True), False, ONLINE, "unarchive"),
        (seen(ORIGINAL, ORIGINAL), True, RESIDENT, "release"),
        (seen(ORIGINAL, ORIGINAL, is_prepared=True), False, RESIDENT, "release"),
    ],
)
def test_what_can_be_explained_goes_on(found: Seen, is_marked: bool, residency: Residency, intent: str | None) -> None:
    verdict = judged(found, is_marked=is_marked)
    assert (verdict.residency, verdict.intent, verdict.attention) == (residency, intent, None)
    is_left_alone = residency is RESIDENT and intent is None
    assert verdict.decision is (Decision.RETURNED if is_left_alone else Decision.APPROVED)


@pytest.mark.parametrize(
    ("found", "residency"),
    [
        (seen(LINK, LINK, near=Near.SOME), ONLINE),
        (seen(LINK, ORIGINAL, near=Near.SOME), ONLINE),
        (seen(LINK, ORIGINAL), OFFLINE),
        (seen(LINK, At.NOTHING), OFFLINE),
        (seen(ORIGINAL, At.NOTHING), OFFLINE),
        (seen(At.NOTHING, At.NOTHING, near=Near.ALL), ONLINE),
        (seen(LINK, At.OTHER_FILE, near=Near.ALL), ONLINE),
        (seen(LINK, At.OTHER_LINK), OFFLINE),
        (seen(ORIGINAL, At.OTHER_FILE), RESIDENT),
        (seen(At.STRANGE), RESIDENT),
    ],
)
def test_what_cannot_be_explained_needs_a_person(found: Seen, residency: Residency) -> None:
    verdict = judged(found)
    assert verdict.residency is residency
    assert verdict.intent is None
    assert verdict.attention is not None


def test_no_step_goes_on_by_itself_where_anything_is_odd_and_offline_is_never_said_of_near_bytes() -> None:
    flags = list(product((False, True), repeat=5))
    for paths in product(At, repeat=2):
        for near, (marked, going, back, prepared, out) in product(Near, flags):
            found = seen(*paths, near=near, is_going=going, is_going_back=back, is_prepared=prepared, is_taken_out=out)
            verdict = judged(found, is_marked=marked)
            is_odd = any(what in ODD for what in paths)
            if is_odd:
                assert verdict.intent is None
                assert verdict.attention is not None
            if verdict.residency is OFFLINE:
                assert near is Near.NONE
            if verdict.residency is RESIDENT and LINK in paths:
                assert verdict.intent == "release"
            if verdict.decision is Decision.RETURNED:
                assert LINK not in paths
                assert At.NOTHING not in paths
