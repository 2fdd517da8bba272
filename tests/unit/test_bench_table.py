"""The arithmetic of the benchmarks' table: pairs, medians, goals."""

import json

import pytest
from bench.table import Peak, Row, Times, render

TIMES = Times(ours=(1.0, 9.0, 3.0), peer=(2.0, 10.0, 4.0))


def test_the_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians() -> None:
    assert TIMES.ratio == 0.75
    assert Times(ours=(1.0, 4.0, 90.0), peer=(2.0, 2.0, 90.0)).ratio == 1.0


def test_rounds_that_are_not_in_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rounds of ours, 1 of the peer"):
        Times(ours=(1.0, 2.0), peer=(1.0,))
    with pytest.raises(ValueError, match="0 rounds"):
        Times(ours=(), peer=())


@pytest.mark.parametrize(("goal", "is_met"), [(0.75, True), (0.74, False), (None, None)])
def test_a_goal_is_met_by_a_ratio_that_is_not_above_it(goal: float | None, is_met: bool | None) -> None:
    assert Row(name="copy", peer="cp", times=TIMES, goal=goal).is_met is is_met


def test_a_goal_against_a_missing_program_is_not_met_and_says_why() -> None:
    row = Row(name="copy", peer="rclone", goal=0.5, missing="rclone is not installed")
    assert row.is_met is False
    assert row.as_json()["missing"] == "rclone is not installed"
    assert "rclone is not installed" in render([row])


def test_an_entry_has_the_medians_and_the_verdict() -> None:
    entry = Row(name="copy", peer="cp", times=TIMES, goal=1.2).as_json()
    assert json.loads(json.dumps(entry)) == {
        "name": "copy", "peer": "cp", "ours_s": 3.0, "peer_s": 4.0, "ratio": 0.75, "goal": 1.2, "met": True,
    }  # fmt: skip


def test_memory_is_met_up_to_its_limit() -> None:
    assert Peak(name="peak", size_bytes=300, limit_bytes=300).is_met
    peak = Peak(name="peak", size_bytes=301, limit_bytes=300)
    assert not peak.is_met
    assert peak.as_json()["met"] is False


def test_the_table_says_what_is_met_and_what_is_not() -> None:
    text = render([Row(name="a", peer="cp", times=TIMES, goal=1), Row(name="b", peer="cp", times=TIMES, goal=0.1)])
    lines = text.splitlines()
    assert lines[2].endswith("met")
    assert lines[3].endswith("NOT MET")
