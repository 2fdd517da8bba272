"""Files with numbers and times at the ends of their range go the whole way, or are refused alone and by name."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from omero_archive import disk
from omero_archive.errors import OriginalUnfit
from omero_archive.states import CopyState
from omero_archive.steps.release import release
from site_fixtures import Facility


def dated(facility: Facility, year: int) -> None:
    """Give the first file of the ICS set an mtime in that year."""
    seconds = int((datetime(year, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    path = facility.paths("ics")[0]
    os.utime(path, (seconds, seconds))
    if int(path.stat().st_mtime) != seconds:
        pytest.skip(f"this file system keeps no mtime of {year}")


@pytest.mark.parametrize("year", [1902, 1969, 2039, 2261])
def test_an_mtime_of_another_age_goes_the_whole_way(facility: Facility, year: int) -> None:
    dated(facility, year)
    facility.released("ics")
    facility.evict("ics")
    facility.recall("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_a_file_whose_mtime_cannot_be_kept_is_refused_when_it_is_added(facility: Facility) -> None:
    dated(facility, 2300)
    with pytest.raises(OriginalUnfit, match=r"mtime before 1678 or after 2261.*touch"):
        facility.add("ics")


def test_a_file_whose_mtime_cannot_be_kept_stops_no_other(facility: Facility) -> None:
    facility.add("ics", "plate")
    dated(facility, 2300)
    facility.work()
    assert set(facility.copy_states("plate").values()) == {CopyState.DURABLE}
    (error,) = facility.errors("ics")
    assert "mtime before 1678 or after 2261" in error
    dated(facility, 2020)
    facility.add("ics")  # tries again
    facility.work()
    release(facility.site, facility.name("ics"))
    assert facility.reads_as_before("ics")


def test_inodes_of_64_bits_are_kept(facility: Facility, monkeypatch: pytest.MonkeyPatch) -> None:
    """GlusterFS and mergerfs number files so."""

    def far(call: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def looked(*arguments: Any, **named: Any) -> os.stat_result:
            reduced: Any = call(*arguments, **named).__reduce__()
            sequence, rest = reduced[1]
            return os.stat_result((sequence[0], sequence[1] | 1 << 63, *sequence[2:]), rest)

        return looked

    for name in ("lstat", "fstat", "stat"):
        monkeypatch.setattr(disk, name, far(getattr(disk, name)))
    facility.released("ics")
    facility.evict("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")
    facility.add("ics")
    facility.work()
    facility.release("ics")  # known again by what was kept
    assert facility.reads_as_before("ics")
