"""The three tables, their drawing, and the permit."""

import copy
import dataclasses
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import pytest
from making import NOW, fixity_of, permit_for

from omero_archive.errors import BrokenInvariant, PermitRefused, WrongState
from omero_archive.model import Key, ServiceName
from omero_archive.states import (
    COPY_MOVES,
    DECISION_MOVES,
    RESIDENCY_MOVES,
    CopyEvidence,
    CopyState,
    Decision,
    Permit,
    ReleasePolicy,
    Residency,
    Rule,
    check_move,
    permit,
)

_State = TypeVar("_State", bound=StrEnum)


def widened(table: Mapping[_State, frozenset[_State]]) -> Mapping[StrEnum, frozenset[StrEnum]]:
    return {old: frozenset[StrEnum](targets) for old, targets in table.items()}


TABLES = {
    "Copy": widened(COPY_MOVES),
    "Residency": widened(RESIDENCY_MOVES),
    "Decision": widened(DECISION_MOVES),
}
DRAWING = Path(__file__).parents[2] / "docs" / "design" / "states.md"
TAPE, DISK, CLOUD, VAULT = (ServiceName(name) for name in ("tape", "disk", "cloud", "vault"))
SHA256 = fixity_of(b"bytes").sha256


# ---- tables


def drawn() -> dict[str, dict[str, str]]:
    """For each machine of the drawing: the letter of each arrow and the arrow."""
    found: dict[str, dict[str, str]] = {}
    for section in DRAWING.read_text(encoding="utf-8").split("\n## ")[1:]:
        arrows = re.findall(r"^([a-z])\. (\w+ → \w+): [^.]+", section, flags=re.MULTILINE)
        if arrows:
            assert len(dict(arrows)) == len(arrows), "a letter is used twice"
            found[section.split(":")[0]] = dict(arrows)
    return found


def test_the_drawing_has_the_arrows_of_the_tables_and_no_other() -> None:
    expected = {
        name: {f"{old} → {new}" for old, targets in table.items() for new in targets} for name, table in TABLES.items()
    }
    assert {name: set(arrows.values()) for name, arrows in drawn().items()} == expected


def test_every_arrow_of_the_drawing_has_a_letter_of_its_own_in_order() -> None:
    letters = [letter for arrows in drawn().values() for letter in arrows]
    assert letters == [chr(ord("a") + number) for number in range(len(letters))]


@pytest.mark.parametrize("name", TABLES)
def test_the_pictures_show_every_state_and_every_letter(name: str) -> None:
    section = next(s for s in DRAWING.read_text(encoding="utf-8").split("\n## ") if s.startswith(f"{name}:"))
    picture = section.split("```")[1]
    for state in TABLES[name]:
        assert state.value in picture
    letters = set(re.findall(r"(?<![A-Za-z])[a-z](?![A-Za-z])", picture))
    assert letters == set(drawn()[name])


@pytest.mark.parametrize("name", TABLES)
def test_a_move_is_allowed_exactly_if_the_table_has_it(name: str) -> None:
    table = TABLES[name]
    assert set(table) == set(type(next(iter(table))))
    for old in table:
        for new in table:
            if new in table[old]:
                check_move(table, old=old, new=new, subject="x")
            else:
                with pytest.raises(WrongState, match=f"x is {old.value}; it cannot become {new.value}"):
                    check_move(table, old=old, new=new, subject="x")


def test_no_state_moves_to_itself() -> None:
    assert all(state not in targets for table in TABLES.values() for state, targets in table.items())


def test_links_are_only_swapped_while_the_bytes_are_near() -> None:
    around = {old for old, targets in RESIDENCY_MOVES.items() if Residency.RESIDENT in targets}
    assert around == {Residency.ONLINE}
    assert RESIDENCY_MOVES[Residency.RESIDENT] == {Residency.ONLINE}


def test_only_a_verified_copy_becomes_durable() -> None:
    assert [old for old, targets in COPY_MOVES.items() if CopyState.DURABLE in targets] == [CopyState.VERIFIED]


def test_a_damaged_copy_is_believed_again_only_after_it_was_written_and_verified_anew() -> None:
    assert COPY_MOVES[CopyState.DAMAGED] == {CopyState.WRITTEN}
    assert COPY_MOVES[CopyState.WRITTEN] & {CopyState.VERIFIED, CopyState.DURABLE} == {CopyState.VERIFIED}


def test_only_what_was_approved_is_returned() -> None:
    assert [old for old, targets in DECISION_MOVES.items() if Decision.RETURNED in targets] == [Decision.APPROVED]


# ---- policy


@pytest.mark.parametrize(("wanted", "of"), [(0, (TAPE,)), (-1, (TAPE,)), (2, (TAPE,)), (2, (TAPE, TAPE)), (1, ())])
def test_a_policy_that_permits_everything_or_nothing_cannot_be_written_down(
    wanted: int, of: tuple[ServiceName, ...]
) -> None:
    with pytest.raises(BrokenInvariant):
        Rule(wanted=wanted, of=of)


def test_a_policy_without_a_rule_would_permit_everything() -> None:
    with pytest.raises(BrokenInvariant):
        ReleasePolicy(rules=(), proof_lifetime=timedelta(hours=1))


@pytest.mark.parametrize(
    ("one", "other", "is_implied"),
    [
        ((1, (TAPE,)), (1, (TAPE, DISK)), True),
        ((1, (TAPE, DISK)), (1, (TAPE,)), False),
        ((2, (TAPE, DISK, CLOUD)), (1, (DISK, CLOUD)), True),  # one of the two must be there
        ((2, (TAPE, DISK, CLOUD)), (2, (DISK, CLOUD)), False),
        ((1, (TAPE,)), (1, (DISK,)), False),
        ((1, (TAPE, DISK)), (1, (TAPE, DISK)), True),
    ],
)
def test_a_rule_implies_another_if_its_copies_always_fulfil_it(
    one: tuple[int, tuple[ServiceName, ...]], other: tuple[int, tuple[ServiceName, ...]], is_implied: bool
) -> None:
    assert Rule(wanted=one[0], of=one[1]).implies(Rule(wanted=other[0], of=other[1])) is is_implied


# ---- permit


def evidence(
    service: ServiceName = TAPE,
    state: CopyState = CopyState.DURABLE,
    sha256: str | None = SHA256,
    age: timedelta | None = timedelta(0),
) -> CopyEvidence:
    confirmed_at = None if age is None else NOW - age
    return CopyEvidence(service=service, state=state, sha256=sha256, confirmed_at=confirmed_at)


def ask(*copies: CopyEvidence, wanted: int = 1, hold: str | None = None, sha256: str | None = SHA256) -> Permit:
    return ask_by(Rule(wanted=wanted, of=(TAPE, DISK)), copies=copies, hold=hold, sha256=sha256)


def ask_by(
    *rules: Rule, copies: Sequence[CopyEvidence], hold: str | None = None, sha256: str | None = SHA256
) -> Permit:
    policy = ReleasePolicy(rules=rules, proof_lifetime=timedelta(hours=1))
    return permit(Key("x"), size_bytes=5, sha256=sha256, copies=copies, policy=policy, hold=hold, now=NOW)


def reasons(*copies: CopyEvidence, wanted: int = 1, hold: str | None = None, sha256: str | None = SHA256) -> list[str]:
    with pytest.raises(PermitRefused) as refusal:
        ask(*copies, wanted=wanted, hold=hold, sha256=sha256)
    assert all(reason in str(refusal.value) for reason in refusal.value.reasons)
    return list(refusal.value.reasons)


def test_a_permit_names_the_copies_that_justify_it() -> None:
    granted = ask(evidence(), evidence(DISK, CopyState.VERIFIED))
    assert granted.justified_by == (evidence(),)
    assert (granted.key, granted.size_bytes, granted.sha256, granted.granted_at) == ("x", 5, SHA256, NOW)


def test_a_permit_ends_when_too_few_copies_would_still_be_fresh() -> None:
    young, old = evidence(age=timedelta(minutes=10)), evidence(DISK, age=timedelta(minutes=50))
    assert ask(young, old).expires_at == NOW + timedelta(minutes=50)
    assert ask(young, old, wanted=2).expires_at == NOW + timedelta(minutes=10)


def test_a_permit_covers_its_key_in_its_time_and_nothing_else() -> None:
    granted = permit_for("x", b"bytes")
    assert granted.covers(Key("x"), NOW)
    assert granted.covers(Key("x"), granted.expires_at)
    assert not granted.covers(Key("y"), NOW)
    assert not granted.covers(Key("x"), granted.expires_at + timedelta(microseconds=1))
    assert not granted.covers(Key("x"), NOW - timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        (evidence(CLOUD), "cloud: not named by the release policy"),
        (evidence(state=CopyState.VERIFIED), "tape: VERIFIED, not DURABLE"),
        (evidence(state=CopyState.DAMAGED), "tape: DAMAGED, not DURABLE"),
        (evidence(sha256="0" * 64), "tape: holds another digest"),
        (evidence(sha256=None), "tape: holds another digest"),
        (evidence(age=None), "tape: never confirmed"),
        (evidence(age=timedelta(hours=1, microseconds=1)), "tape: last confirmed"),
        (evidence(age=timedelta(microseconds=-1)), "tape: confirmed in the future"),
    ],
)
def test_a_copy_that_does_not_count_is_named_with_its_reason(unfit: CopyEvidence, reason: str) -> None:
    found = reasons(unfit)
    assert found[0] == "0 of 1 durable, freshly confirmed copies"
    assert found[1].startswith(reason)


def test_a_refusal_lists_every_reason() -> None:
    found = reasons(evidence(state=CopyState.MISSING), wanted=2, hold="ask Alice", sha256=None)
    assert found == [
        "0 of 2 durable, freshly confirmed copies",
        "on hold: ask Alice",
        "the original was never read and hashed",
        "tape: MISSING, not DURABLE",
        "disk: no copy",
    ]


def test_a_hold_is_the_only_reason_if_there_are_enough_copies() -> None:
    assert reasons(evidence(), hold="ask Alice") == ["on hold: ask Alice"]
    assert reasons(evidence(), hold="") == ["on hold: "]


ON_TAPE_AND_ELSEWHERE = (Rule(wanted=1, of=(TAPE,)), Rule(wanted=1, of=(DISK, CLOUD)))


def test_every_rule_must_be_fulfilled_and_those_that_are_not_are_named() -> None:
    assert ask_by(*ON_TAPE_AND_ELSEWHERE, copies=[evidence(), evidence(CLOUD)]).justified_by
    with pytest.raises(PermitRefused) as refusal:
        ask_by(*ON_TAPE_AND_ELSEWHERE, copies=[evidence(CLOUD), evidence(DISK)])
    assert list(refusal.value.reasons) == [
        "0 of 1 durable, freshly confirmed copies on tape",
        "tape: no copy",
    ]
    with pytest.raises(PermitRefused) as refusal:
        ask_by(*ON_TAPE_AND_ELSEWHERE, copies=[evidence(), evidence(CLOUD, state=CopyState.VERIFIED)])
    assert list(refusal.value.reasons) == [
        "0 of 1 durable, freshly confirmed copies on any 1 of disk, cloud",
        "cloud: VERIFIED, not DURABLE",
        "disk: no copy",
    ]


def test_a_copy_counts_in_every_rule_that_names_its_service() -> None:
    rules = (Rule(wanted=2, of=(TAPE, DISK, CLOUD, VAULT)), Rule(wanted=1, of=(CLOUD, VAULT)))
    assert len(ask_by(*rules, copies=[evidence(), evidence(CLOUD)]).justified_by) == 2
    with pytest.raises(PermitRefused, match=r"0 of 1 .* on any 1 of cloud, vault"):
        ask_by(*rules, copies=[evidence(), evidence(DISK)])


def test_a_permit_ends_when_the_first_rule_would_have_too_few() -> None:
    tape, disk, cloud = evidence(age=timedelta(minutes=10)), evidence(DISK, age=timedelta(minutes=50)), evidence(CLOUD)
    assert ask_by(*ON_TAPE_AND_ELSEWHERE, copies=[tape, disk]).expires_at == NOW + timedelta(minutes=10)
    assert ask_by(*ON_TAPE_AND_ELSEWHERE, copies=[tape, disk, cloud]).expires_at == NOW + timedelta(minutes=50)


def test_two_copies_on_one_service_are_one() -> None:
    assert reasons(evidence(), evidence(), wanted=2)[0] == "1 of 2 durable, freshly confirmed copies"


def test_a_permit_cannot_be_made_elsewhere() -> None:
    facts = {
        "key": Key("y"),
        "size_bytes": 5,
        "sha256": SHA256,
        "justified_by": (),
        "granted_at": NOW,
        "expires_at": NOW + timedelta(days=999),
    }
    for seal in ({}, {"seal": None}, {"seal": object()}, {"seal": True}):
        with pytest.raises(BrokenInvariant, match=r"not made by states\.permit"):
            Permit(**facts, **seal)  # type: ignore[arg-type]


def test_a_permit_cannot_be_altered() -> None:
    granted = permit_for("x", b"bytes")
    with pytest.raises(dataclasses.FrozenInstanceError):
        granted.key = Key("y")  # type: ignore[misc]
    with pytest.raises(BrokenInvariant):
        dataclasses.replace(granted, key=Key("y"))
    with pytest.raises(BrokenInvariant):
        dataclasses.replace(granted, expires_at=NOW + timedelta(days=999))
    assert copy.copy(granted) == granted
