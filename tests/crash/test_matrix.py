"""The bounded crash matrix: the places where a command of the cycle can be stopped, and a sample of all faults.

The whole one is `make crash-matrix`; its last outcome is `docs/reference/crash-matrix.md`.
"""

import random
from collections.abc import Iterator

import pytest
from crash_matrix import Plan, Point, tried
from crash_site import STEPS, CrashSite

from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite

FAULTS = 3
LOSSES = 1
"""So many of each step."""

EVERY = {"run": 4, "release": 2, "recall": 2, "unarchive": 2}
"""Of a long step every so manieth change is enough here, beginning at any of them."""


@pytest.fixture(scope="module")
def site(
    demo_template: DemoSite, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CrashSite]:
    with CrashSite(demo_template, "ics", tmp_path_factory.mktemp("crash"), postgres=postgres) as made:
        yield made


def require_right(site: CrashSite, plan: Plan, points: list[Point]) -> None:
    outcomes = [tried(site, plan, point) for point in points]
    assert [(str(outcome.point), outcome.wrong) for outcome in outcomes if outcome.wrong] == []


# `add` changes no disk: its points are those of its commits.
@pytest.mark.parametrize("step", STEPS[1:])
def test_a_process_may_stop_after_any_change_of_the_disk(site: CrashSite, step: str) -> None:
    every = EVERY.get(step, 1)
    first = random.SystemRandom().randrange(every)
    print(f"from change {first + 1} every {every}")
    plan = Plan.of(site, steps=(step,))
    points = plan.stops(step)[first::every]
    assert len(points) > 5
    require_right(site, plan, points)


@pytest.mark.parametrize("step", STEPS)
def test_any_call_may_fail_and_any_connection_may_be_lost(site: CrashSite, step: str) -> None:
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    plan = Plan.of(site, steps=(step,))
    faults, losses = plan.faults(step), plan.losses(step)
    points = chance.sample(faults, min(FAULTS, len(faults))) + chance.sample(losses, min(LOSSES, len(losses)))
    require_right(site, plan, points)
