"""Random commands, crashes, faults of services, deeds of users and the clock, on a real little site.

What must hold whatever happens: the independent witness finds nothing; nothing is released or evicted without a
permit; no permit without enough durable copies, confirmed freshly; and in the end everything that can be brought back
is as it was. The machine is `torture/machine.py`. `OMERO_ARCHIVE_TORTURE_SECONDS` lets it go on for so long.
"""

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import witness
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.states import COPY_MOVES, DECISION_MOVES, RESIDENCY_MOVES
from omero_archive.steps import unarchive as unarchive_step
from torture.machine import Machine

SECONDS = float(os.environ.get("OMERO_ARCHIVE_TORTURE_SECONDS", "0"))

BOUNDED = settings(
    max_examples=6,
    stateful_step_count=25,
    deadline=None,
    print_blob=True,
    derandomize=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def no_grace() -> Iterator[None]:
    """Nobody reads old links here."""
    grace, unarchive_step.GRACE_S = unarchive_step.GRACE_S, 0.0
    yield
    unarchive_step.GRACE_S = grace


@pytest.mark.usefixtures("no_grace")
def test_nothing_goes_without_a_permit_and_everything_comes_back(
    demo_template: DemoSite, postgres: EmbeddedPostgres
) -> None:
    class Here(Machine):
        pass

    Here.template, Here.postgres = demo_template, postgres
    end = time.monotonic() + SECONDS
    run_state_machine_as_test(Here, settings=BOUNDED)
    while time.monotonic() < end:
        run_state_machine_as_test(Here, settings=settings(BOUNDED, max_examples=4, stateful_step_count=40))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (COPY_MOVES, witness.COPY_ARROWS),
        (RESIDENCY_MOVES, witness.RESIDENCY_ARROWS),
        (DECISION_MOVES, witness.DECISION_ARROWS),
    ],
)
def test_the_witness_draws_the_same_arrows(ours: dict[str, set[str]], theirs: dict[str, set[str]]) -> None:
    assert {str(old): set(map(str, new)) for old, new in ours.items()} == theirs
