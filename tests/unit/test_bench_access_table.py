"""The arithmetic of the mount's table: ratios of speed, microseconds more, goals."""

import json

import pytest
from bench.access_table import Access, Figure, Goal, render

FAST = Goal(speed=0.95)
SOON = Goal(more_us=60)


def access(goal: Goal | None, mount: tuple[float, ...] = (2.0, 1.0, 4.0)) -> Access:
    return Access(
        name="sequential", unit="MB/s", count=1_000_000, direct=(1.0, 0.9, 3.8), mount=mount, served=mount, goal=goal
    )


def test_the_speed_is_the_median_of_the_rounds_ratios() -> None:
    assert access(None).speed((2.0, 1.0, 4.0)) == pytest.approx(0.9)


@pytest.mark.parametrize(("speed", "is_met"), [(0.9, True), (0.91, False), (None, None)])
def test_a_speed_is_met_if_it_is_not_below_the_goal(speed: float | None, is_met: bool | None) -> None:
    assert access(None if speed is None else Goal(speed=speed - 1e-9)).is_met is is_met


@pytest.mark.parametrize(("more_us", "is_met"), [(60.0, False), (200.0, True)])
def test_microseconds_more_are_for_each_open(more_us: float, is_met: bool) -> None:
    opens = Access(
        name="open", unit="µs", count=1000, direct=(0.01,) * 3, mount=(0.11, 0.2, 0.12), goal=Goal(more_us=more_us)
    )
    assert opens.more_us(opens.mount) == pytest.approx(110)
    assert opens.is_met is is_met


@pytest.mark.parametrize("goal", [FAST, SOON])
def test_a_goal_that_could_not_be_measured_is_not_met_and_says_why(goal: Goal) -> None:
    missing = Access(name="open", unit="µs", count=1, goal=goal, missing="/dev/fuse cannot be used")
    assert missing.is_met is False
    assert missing.as_json()["met"] is False
    assert "/dev/fuse cannot be used" in render([missing])


def test_an_entry_has_ratios_of_time_as_all_others_have() -> None:
    entry = json.loads(json.dumps(access(FAST).as_json()))
    assert entry["ratio"] == pytest.approx(1.111)
    assert entry["goal"] == pytest.approx(1.053)
    assert entry["met"] is False


def test_the_table_shows_what_is_met_and_figures_without_a_goal() -> None:
    text = render([access(Goal(speed=0.5)), access(FAST)], [Figure(name="memory", said="30 MB")])
    assert text.splitlines()[2].count(" met ") == 1
    assert "NOT MET" in text.splitlines()[3]
    assert text.endswith("| memory | 30 MB |")
