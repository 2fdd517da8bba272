"""The faulty disk does real work, and goes wrong where it is told to and nowhere else."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from making import ATTRIBUTES

# The double as a disk that is in order must pass the disk's own tests.
from test_files import (  # noqa: F401
    doomed,
    test_a_directory_is_never_moved_over_another,
    test_a_file_is_put_back_only_in_the_place_of_our_link,
    test_a_finished_file_has_mtime_mode_and_owner_of_its_original,
    test_a_half_made_file_is_seen_by_nobody_and_started_anew,
    test_a_link_takes_the_originals_place_once,
    test_a_second_name_is_given_once_and_never_in_place_of_another_file,
    test_a_workbench_has_places_of_its_own_and_leaves_nothing,
    test_an_open_file_is_known_until_it_is_closed,
    test_near_bytes_go_with_a_permit_for_each_and_their_directory_with_them,
    test_nothing_is_deleted_if_one_file_has_no_permit,
    test_nothing_leaves_a_descriptor_open,
    test_publishing_never_replaces,
    test_what_a_killed_process_left_is_swept_by_the_next_and_a_living_one_is_left_alone,
    tree,
)

from omero_archive import disk
from omero_archive.errors import NotEnoughSpace, TargetFailed
from omero_archive.files import Reading, Tree
from omero_archive.testing.faulty_disk import STOPPED, Fail, FaultyDisk, Shorten, Stop
from omero_archive.transfer import BytesReader, Lanes, read_back, write_temporary

CONTENT = os.urandom(300_000)


@pytest.fixture(autouse=True)
def calm() -> Iterator[FaultyDisk]:
    with FaultyDisk() as around:
        yield around


def store(tree: Tree) -> None:  # noqa: F811
    write_temporary(BytesReader(CONTENT, ATTRIBUTES), tree, "x")
    tree.sync()
    tree.publish("x")


def test_calls_are_counted_in_their_order_with_their_paths(calm: FaultyDisk, tree: Tree) -> None:  # noqa: F811
    del calm.calls[:]
    store(tree)
    changes = [call.name for call in calm.calls if call.is_change]
    writing = ["create", "write", "fchown", "fchmod", "utime", "close_written"]
    assert changes == ["unlink", *writing, "syncfs", "rename_to_free_name"]
    assert calm.calls[-1].path == f"{tree.root}/x"


def test_every_call_of_the_seam_is_counted_or_touches_no_byte() -> None:
    calls = {name for name, value in vars(disk).items() if callable(value) and not name.startswith("_")}
    assert calls == {*disk.CHANGES, *disk.READS, "close", "posix_fadvise", "fcntl", "use_disks_when_idle"}
    assert not set(disk.CHANGES) & set(disk.READS)


def test_everything_is_as_it_was_afterwards() -> None:
    before = {name: getattr(disk, name) for name in (*disk.CHANGES, *disk.READS)}
    with FaultyDisk():
        assert disk.rename is not before["rename"]
    assert {name: getattr(disk, name) for name in before} == before


def changes_of(tree: Tree) -> list[int]:  # noqa: F811
    """The numbers of the calls by which `store` changes the disk."""
    with FaultyDisk() as watched:
        store(tree)
    (tree.root / "x").unlink()
    return [number for number, call in enumerate(watched.calls, 1) if call.is_change]


def test_a_process_stops_after_the_call_and_not_before(tree: Tree) -> None:  # noqa: F811
    *_, synced, published = changes_of(tree)
    for number, is_there in ((synced, False), (published, True)):
        child = os.fork()
        if child == 0:
            with FaultyDisk(Stop(after=number)):
                store(tree)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == STOPPED
        assert (tree.root / "x").exists() is is_there


@pytest.mark.parametrize(("code", "expected"), [(errno.ENOSPC, NotEnoughSpace), (errno.EIO, TargetFailed)])
def test_each_call_fails_once_and_nothing_is_left_half_done(
    tree: Tree,  # noqa: F811
    code: int,
    expected: type[Exception],
) -> None:
    for number in changes_of(tree):
        with FaultyDisk(Fail(at=number, code=code)) as faulty, pytest.raises((OSError, expected)):
            store(tree)
        assert faulty.was_reached
        assert not list(tree.root.glob("x"))
        store(tree)
        assert (tree.root / "x").read_bytes() == CONTENT
        (tree.root / "x").unlink()


def test_a_short_write_is_gone_on_with(tree: Tree) -> None:  # noqa: F811
    for number in changes_of(tree):
        with FaultyDisk(Shorten(at=number)):
            store(tree)
        assert (tree.root / "x").read_bytes() == CONTENT
        (tree.root / "x").unlink()


def test_bytes_that_are_read_back_pass_the_seam(tree: Tree) -> None:  # noqa: F811
    store(tree)
    lanes = Lanes()
    try:
        with FaultyDisk() as watched:
            read_back(tree, "x", lanes)
            with Reading(tree.open_to_read("x")) as stream:
                stream.seek(100_000)
                assert stream.read(7) == CONTENT[100_000:100_007]
                assert stream.read() == CONTENT[100_007:]
    finally:
        lanes.close()
    reads = [number for number, call in enumerate(watched.calls, 1) if call.name == "readv"]
    assert len(reads) > 3
    with (
        FaultyDisk(Fail(at=3, code=errno.EIO)),
        Reading(tree.open_to_read("x")) as stream,
        pytest.raises(OSError, match="Input/output error"),
    ):
        stream.read()


def test_a_path_that_is_not_text_is_told(tree: Tree, tmp_path: Path) -> None:  # noqa: F811
    del tmp_path
    with FaultyDisk() as watched:
        tree.look(os.fsdecode(b"caf\xe9"))
    assert watched.calls[-1].path.endswith(os.fsdecode(b"caf\xe9"))
