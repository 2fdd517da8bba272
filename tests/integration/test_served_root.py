"""Release makes no link that leads nowhere: where near bytes lie elsewhere, the archive root must show them."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from test_steps_release import annotations, flags, refuse

import mounts
from omero_archive.app import initialise
from omero_archive.errors import RootNotServed
from omero_archive.states import Residency
from omero_archive.steps.release import release
from site_fixtures import Facility, MakeFacility, left_below, rows_of

NOT_SHOWN = "does not show what lies in .*{}.*Start `omero-archive mount`"


@pytest.fixture
def facility(make_facility: MakeFacility, tmp_path: Path) -> Facility:
    """A facility whose near bytes lie in another directory than the root, on the repository's file system."""
    (tmp_path / "near").mkdir()
    return make_facility(near=tmp_path / "near")


@pytest.fixture
def at_root(facility: Facility) -> Iterator[Callable[[Callable[..., AbstractContextManager[Path]]], ExitStack]]:
    """Mounts something at the archive root, until it is closed or the test ends."""
    with ExitStack() as all_of_them:

        def mount(what: Callable[..., AbstractContextManager[Path]], *arguments: Path) -> ExitStack:
            one = all_of_them.enter_context(ExitStack())
            one.enter_context(what(*arguments, facility.demo.archive_root))
            return one

        yield mount


def near_of(facility: Facility) -> Path:
    return facility.site.settings.archive.near_directory


def test_nothing_is_changed_when_nothing_serves_the_root(facility: Facility, at_root: Callable[..., ExitStack]) -> None:
    facility.archive("ics")
    refuse(facility, RootNotServed, NOT_SHOWN.format("nothing is mounted there"))
    with at_root(mounts.dead):
        rows = rows_of(facility.demo.omero_dsn)
        with pytest.raises(RootNotServed, match=NOT_SHOWN.format("Transport endpoint is not connected")):
            facility.release("ics")
        assert rows_of(facility.demo.omero_dsn) == rows
        initialise(facility.site)  # and no other command stumbles over it
    facility.demo.archive_root.rmdir()
    refuse(facility, RootNotServed, NOT_SHOWN.format("No such file or directory"))
    assert facility.is_as_before("ics")
    assert not left_below(near_of(facility))


def test_nothing_is_changed_when_a_mount_shows_other_things(
    facility: Facility, at_root: Callable[..., ExitStack]
) -> None:
    facility.archive("ics", "omero4")
    with at_root(mounts.bound, near_of(facility)):
        facility.release("omero4")
    at_root(mounts.small)
    refuse(facility, RootNotServed, NOT_SHOWN.format("is near, and is not shown there"))


@pytest.mark.parametrize("slug", ["ics", "omero4"])
def test_the_whole_way_with_a_mount_that_shows_near_under_the_root(
    facility: Facility, at_root: Callable[..., ExitStack], slug: str
) -> None:
    at_root(mounts.bound, near_of(facility))
    facility.released(slug)
    assert all(os.readlink(path).startswith(f"{facility.demo.archive_root}/") for path in facility.paths(slug))
    assert facility.reads_as_before(slug)
    facility.evict(slug)
    facility.recall(slug)
    assert facility.reads_as_before(slug)
    facility.unarchive(slug)
    assert facility.is_as_before(slug)


# ---- found out late: near is empty, and the root lies on another file system


def test_the_first_release_finds_out_before_the_first_original_goes(
    facility: Facility, at_root: Callable[..., ExitStack]
) -> None:
    facility.archive("ics")
    with at_root(mounts.small):
        with pytest.raises(RootNotServed, match=NOT_SHOWN.format("is near, and is not shown there")):
            facility.release("ics")
        assert not any(path.is_symlink() for path in facility.paths("ics"))
        assert facility.reads_as_before("ics")
        assert facility.record("ics").intent == "release"
        with pytest.raises(RootNotServed):
            facility.release("ics")
    with at_root(mounts.bound, near_of(facility)):
        facility.release("ics")
        assert facility.residency("ics") is Residency.ONLINE
        assert facility.reads_as_before("ics")


def test_a_release_that_found_no_mount_can_be_undone_without_one(
    facility: Facility, at_root: Callable[..., ExitStack]
) -> None:
    before = flags(facility, "ics"), annotations(facility)
    facility.archive("ics")
    with at_root(mounts.small), pytest.raises(RootNotServed):
        facility.release("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")
    assert facility.residency("ics") is Residency.RESIDENT
    assert (flags(facility, "ics"), annotations(facility)) == before
    assert not left_below(near_of(facility))


def test_what_the_root_shows_must_be_the_file(facility: Facility, at_root: Callable[..., ExitStack]) -> None:
    facility.archive("ics")
    at_root(mounts.small)
    key = facility.demo.fileset("ics").keys[-1]
    shown, original = facility.demo.archive_root / key, facility.demo.path(key).stat()
    for one in facility.demo.fileset("ics").keys:
        mounts.pretend(facility.demo.archive_root / one, like=facility.demo.path(one))

    def size() -> None:
        shown.write_bytes(b"short")
        os.utime(shown, ns=(0, original.st_mtime_ns))

    def mtime() -> None:
        os.utime(shown, ns=(0, original.st_mtime_ns - 10**10))

    for wrong in (size, mtime, shown.mkdir, lambda: shown.symlink_to("nowhere")):
        if wrong in (size, mtime):
            mounts.pretend(shown, like=facility.demo.path(key))
        elif shown.is_dir():
            shown.rmdir()
        else:
            shown.unlink()
        wrong()
        with pytest.raises(RootNotServed, match=r"not the file that is near|is not shown there"):
            release(facility.site, facility.name("ics"))
        assert not any(path.is_symlink() for path in facility.paths("ics"))
        assert facility.reads_as_before("ics")
