"""Who asks the catalogue after it failed."""

import contextlib

import pytest

from omero_archive.access.fuse.resting import REST_S, Resting
from omero_archive.errors import DatabaseUnavailable, DiskFailed


def _ask(resting: Resting, outcome: Exception | None = None) -> bool:
    """Whether it was asked at all."""
    asked = False
    with contextlib.suppress(DatabaseUnavailable), resting.asking():
        asked = True
        if outcome is not None:
            raise outcome
    return asked


def test_after_a_failure_nobody_asks_for_a_while_and_then_one_does() -> None:
    now = 100.0
    resting = Resting(lambda: now)
    assert _ask(resting)
    assert _ask(resting, DatabaseUnavailable("away"))
    now += REST_S * 0.9
    with pytest.raises(DatabaseUnavailable, match="away"), resting.asking():
        raise AssertionError("it was asked")
    now += REST_S * 0.2
    assert _ask(resting)
    assert _ask(resting)


def test_another_failure_says_nothing_of_the_catalogue() -> None:
    resting = Resting(lambda: 100.0)
    with pytest.raises(DiskFailed):
        _ask(resting, DiskFailed("a disk"))
    assert _ask(resting)
