"""Whoever asks for what and when: turns are given in order, within both limits, and nobody is passed over for ever."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omero_archive.catalogue.recalls import BATCH, OPENED, WAITED_FOR
from omero_archive.catalogue.turns import PATIENCE, Begun, Waits, begins
from omero_archive.settings import RecallSettings

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)

moments = st.integers(min_value=0, max_value=7200).map(lambda seconds: NOW - timedelta(seconds=seconds))
queues = st.lists(
    st.builds(
        Waits,
        bundle_id=st.integers(min_value=1, max_value=10_000),
        priority=st.sampled_from([BATCH, OPENED, WAITED_FOR]),
        requested_at=moments,
    ),
    max_size=30,
    unique_by=lambda waits: waits.bundle_id,
)
begun = st.builds(
    Begun,
    under_way=st.integers(min_value=0, max_value=12),
    opens=st.integers(min_value=0, max_value=12),
    last_by_command=st.one_of(st.none(), moments),
)
limits = st.builds(
    RecallSettings,
    at_once=st.integers(min_value=1, max_value=12),
    opens_per_hour=st.integers(min_value=1, max_value=12),
)


@settings(deadline=None)
@given(queue=queues, state=begun, limits=limits, seed=st.integers())
def test_turns_keep_both_limits_and_leave_nothing_idle(
    queue: list[Waits], state: Begun, limits: RecallSettings, seed: int
) -> None:
    turns = begins(queue, state, limits, NOW)
    free = max(0, limits.at_once - state.under_way)
    allowed = max(0, limits.opens_per_hour - state.opens)
    opens = [waits for waits in turns if waits.priority >= OPENED]
    waiting = sum(waits.priority >= OPENED for waits in queue)
    assert len(set(turns)) == len(turns) <= free
    assert set(turns) <= set(queue)
    assert len(opens) <= allowed
    assert len(turns) == min(free, len(queue) - waiting + min(waiting, allowed)), "nothing that may begin is left out"
    shuffled = random.Random(seed).sample(queue, len(queue))
    assert begins(shuffled, state, limits, NOW) == turns


@settings(deadline=None)
@given(queue=queues, state=begun, limits=limits)
def test_the_most_urgent_goes_first_then_who_asked_first(
    queue: list[Waits], state: Begun, limits: RecallSettings
) -> None:
    turns = begins(queue, state, limits, NOW)
    for kind in (lambda waits: waits.priority >= OPENED, lambda waits: waits.priority < OPENED):
        mine = sorted(filter(kind, queue), key=lambda waits: (-waits.priority, waits.requested_at, waits.bundle_id))
        assert list(filter(kind, turns)) == mine[: len(list(filter(kind, turns)))]
    by_command = [waits for waits in turns if waits.priority < OPENED]
    opens_left = {waits for waits in queue if waits.priority >= OPENED} - set(turns)
    is_full = len(turns) - len(by_command) >= limits.opens_per_hour - state.opens
    if opens_left and not is_full:
        assert len(by_command) <= 1, "only the one that was passed over for too long goes before an open"
        for waits in by_command:
            assert NOW - waits.requested_at >= PATIENCE
            assert state.last_by_command is None or NOW - state.last_by_command >= PATIENCE


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_flood_of_opens_does_not_hold_up_a_recall_by_command_for_ever(at_once: int, batch: int) -> None:
    """Each minute one recall ends and ten programs wait at `open` anew."""
    limits = RecallSettings(at_once=at_once, opens_per_hour=1_000_000)
    queue = [Waits(bundle_id=number, priority=BATCH, requested_at=NOW) for number in range(batch)]
    last: datetime | None = None
    came: list[timedelta] = []
    for minute in range(1, 200):
        at = NOW + timedelta(minutes=minute)
        new = range(1000 * minute, 1000 * minute + 10)
        queue += [Waits(bundle_id=number, priority=WAITED_FOR, requested_at=at) for number in new]
        recent = last if last is not None and at - last < PATIENCE else None  # as the catalogue tells
        turns = begins(queue, Begun(under_way=at_once - 1, opens=0, last_by_command=recent), limits, at)
        assert len(turns) == 1
        if turns[0].priority == BATCH:
            last = at
            came.append(at - NOW)
        queue.remove(turns[0])
    assert came == [PATIENCE * (number + 1) for number in range(batch)]
