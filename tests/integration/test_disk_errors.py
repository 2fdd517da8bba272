"""What disks and connections refuse in mid-step is an error with a name, tried again: what the crash matrix found."""

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from omero_archive import disk, jobs
from omero_archive.engine import Engine
from omero_archive.errors import ArchiveError, DatabaseUnavailable, DiskFailed
from omero_archive.states import CopyState, Residency
from omero_archive.steps.evict import evict_dry
from omero_archive.steps.manifest import manifest
from omero_archive.steps.release import release_dry
from omero_archive.testing.faulty_disk import Fail, FaultyDisk
from site_fixtures import Facility


def failing_once(real: Callable[..., Any], *, where: Callable[..., bool], code: int = errno.EIO) -> Callable[..., Any]:
    """The call, which fails the first time that it is about `where`."""
    failed: list[bool] = []

    def call(*arguments: Any, **named: Any) -> Any:
        if not failed and where(*arguments, **named):
            failed.append(True)
            raise OSError(code, os.strerror(code))
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("step", ["release", "evict", "recall", "unarchive"])
def test_a_disk_that_cannot_be_read_in_mid_step_is_an_error_with_a_name(
    facility: Facility, step: str, number: int
) -> None:
    facility.archive("ics")
    before = {"release": [], "evict": ["release"], "recall": ["release", "evict"], "unarchive": ["release"]}[step]
    for earlier in before:
        getattr(facility, earlier)("ics")
    # With a name, if with any: a look that nothing hangs on may fail unnoticed.
    with FaultyDisk(Fail(at=number, code=errno.EIO)) as faulty, suppress(ArchiveError):
        getattr(facility, step)("ics")
    assert faulty.was_reached
    if (step, facility.residency("ics")) not in (("release", Residency.ONLINE), ("unarchive", Residency.RESIDENT)):
        getattr(facility, step)("ics")
    assert facility.errors("ics") == []


def test_a_disk_that_cannot_be_read_when_it_is_only_asked_is_an_error_with_a_name(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.archive("ics")
    unreadable, lstat = facility.demo.fileset("ics").keys[-1].rpartition("/")[2], disk.lstat

    def refusing(name: Any, **named: Any) -> os.stat_result:
        if str(name).endswith(unreadable):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return lstat(name, **named)

    # Each time: what fails once among many is asked for again alone.
    with monkeypatch.context() as patch:
        patch.setattr(disk, "lstat", refusing)
        with pytest.raises(DiskFailed, match="Input/output error"):
            release_dry(facility.site, facility.name("ics"))
    facility.release("ics")
    with FaultyDisk(Fail(at=2, code=errno.ESTALE)), pytest.raises(DiskFailed, match="Stale file handle"):
        evict_dry(facility.site, facility.name("ics"))


def test_what_is_due_cannot_be_told_when_the_near_directory_cannot_be_read(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    with FaultyDisk(Fail(at=1, code=errno.EIO)), pytest.raises(DiskFailed, match="what is due"):
        Engine(facility.site).plan()


def test_a_repository_that_cannot_be_opened_is_tried_again_without_a_person(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.add("ics")
    repository = facility.demo.path(facility.demo.fileset("ics").keys[0]).parents[4]
    opening = disk.open_root

    def refusing(root: Any, *more: Any, **named: Any) -> Any:
        if Path(root) == repository:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opening(root, *more, **named)

    for tree in facility.site._trees.values():
        tree.close()
    facility.site._trees.clear()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "open_root", refusing)
        left = facility.work().unseen  # to hosts that can; here it is tried again
    assert any("cannot be opened: Input/output error" in text for text in left)
    assert facility.errors("ics") == []
    assert not any(copy["needs_attention"] for copy in facility.copies("ics"))
    facility.clock.advance(minutes=2)
    until = time.monotonic() + 20
    while set(facility.copy_states("ics").values()) != {CopyState.DURABLE}:  # what was seen is remembered for a second
        assert time.monotonic() < until
        facility.work()


@pytest.mark.parametrize("call", ["unlink", "rmdir"])
def test_a_workbench_that_cannot_be_cleared_is_no_fault_of_ours_and_swept_by_the_next(
    facility: Facility, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    is_bench = {"unlink": lambda name, **_: name == "lock", "rmdir": lambda name, **_: "-" in name}[call]
    monkeypatch.setattr(disk, call, failing_once(getattr(disk, call), where=is_bench))
    facility.add("ics")
    for _ in range(2):
        facility.work()
        assert not [error for error in facility.errors("ics") if "a fault in omero-archive" in error]
        facility.clock.advance(minutes=2)
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert not list((facility.demo.service_path / ".omero-archive" / "incoming").iterdir())


def test_an_error_beside_a_bundle_goes_when_its_manifest_is_written(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = failing_once(disk.mkdir, where=lambda name, *_, **__: name == facility.name("ics"), code=errno.ENOSPC)
    monkeypatch.setattr(disk, "mkdir", full)
    facility.add("ics")
    facility.work()
    assert "No space left" in (facility.record("ics").last_error or "")
    assert facility.record("ics").attempts == 1  # not tried over and over in one run
    facility.clock.advance(minutes=2)
    facility.work()
    assert facility.record("ics").last_error is None
    assert facility.record("ics").attempts == 0


def test_a_manifest_whose_commit_was_done_and_not_answered_is_no_failure(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(*arguments: Any) -> None:
        manifest(*arguments)
        raise DatabaseUnavailable("the answer was lost")

    monkeypatch.setattr(jobs, "manifest", written)
    facility.add("ics")
    facility.work()
    assert facility.record("ics").last_error is None
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
