"""Only here may a disk change: the rules that `files.py` promises, on real directories."""

import contextlib
import errno
import mmap
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from making import ATTRIBUTES, NOW, everything_below, failing_disk, permit_for, put, small_disk, there

from holding import a_process_that_has
from omero_archive import disk, linux
from omero_archive.errors import BrokenInvariant, NotEnoughSpace, SourceChanged, TargetFailed, UnsafePath, WrongState
from omero_archive.files import (
    EntryKind,
    Tree,
    Workbench,
    delete_near,
    delete_twins,
    finish,
    remove_empty_directories,
    remove_links,
    remove_object,
    temporary_name,
    translated,
)
from omero_archive.model import FileAttributes, Key
from omero_archive.states import Permit

OPENERS = [linux.open_beneath, linux._walk_beneath]
STRANGE_NAMES = [
    "with space",
    "zwölf µm",
    "日本語",
    os.fsdecode(b"caf\xe9.tif"),
    "new\nline",
    "a" * 255,
    "-rf",
    "a'\"b",
]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "tree").mkdir()
    with Tree(tmp_path / "tree") as opened:
        yield opened


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- paths


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "a/../../secret",
        "a/..",
        "..",
        "/etc/passwd",
        "/passwd",
        "a\0b",
        "a\0/b",
        "",
        "a/",
        ".",
        "a/\ud800",
    ],
)
def test_a_path_that_leads_out_or_names_nothing_is_refused(tree: Tree, path: str) -> None:
    put(tree.root, "a/b", b"inside")
    put(tree.root.parent, "secret", b"outside")
    before, descriptors = everything_below(tree.root.parent), open_descriptors()
    steps: list[Callable[[], object]] = [
        lambda: tree.look(path),
        lambda: tree.create_temporary(path),
        lambda: tree.publish(path),
        lambda: tree.make_link(path, "target"),
        lambda: tree.move_directory("a", path),
        lambda: tree.move_directory(path, "b"),
        lambda: remove_object(tree, path),
        lambda: tree.link_from(tree, "a/b", path),
        lambda: tree.swap_in_file(path, link_target="x"),
    ]
    for step in steps:
        with pytest.raises(UnsafePath):
            step()
    assert everything_below(tree.root.parent) == before
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "a\0b"])
def test_a_path_that_leads_out_cannot_be_opened(tree: Tree, path: str) -> None:
    put(tree.root.parent, "secret", b"outside")
    (tree.root / "a").mkdir()
    with pytest.raises(UnsafePath):
        tree.open_to_read(path)


@pytest.mark.parametrize("open_beneath", OPENERS)
@pytest.mark.parametrize("target", ["..", "/etc", "real"])
def test_a_linked_directory_in_between_is_not_followed(
    tree: Tree, open_beneath: Callable[[int, str, int, Path], int], target: str
) -> None:
    put(tree.root, "real/deep/file", b"inside")
    put(tree.root.parent, "deep/file", b"outside")
    (tree.root / "link").symlink_to(target)
    descriptors = open_descriptors()
    for path in ("link/deep/file", "link/file", "link"):
        with pytest.raises(UnsafePath, match="link"):
            open_beneath(tree._root_fd, path, os.O_RDONLY, tree.root)
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("open_beneath", OPENERS)
def test_a_file_in_between_is_no_link_and_is_not_called_one(
    tree: Tree, open_beneath: Callable[[int, str, int, Path], int]
) -> None:
    put(tree.root, "a/file", b"")
    for path, flags in (("a/file/x", os.O_RDONLY), ("a/file", os.O_RDONLY | os.O_DIRECTORY)):
        with pytest.raises(NotADirectoryError):
            open_beneath(tree._root_fd, path, flags, tree.root)


@pytest.mark.parametrize("open_beneath", OPENERS)
def test_both_ways_of_opening_find_the_file_and_miss_what_is_not_there(
    tree: Tree, open_beneath: Callable[[int, str, int, Path], int]
) -> None:
    put(tree.root, "a/b/file", b"bytes")
    fd = open_beneath(tree._root_fd, "a/b/file", os.O_RDONLY, tree.root)
    assert os.read(fd, 9) == b"bytes"
    os.close(fd)
    descriptors = open_descriptors()
    for path in ("a/b/none", "a/none/file", "none"):
        with pytest.raises(FileNotFoundError):
            open_beneath(tree._root_fd, path, os.O_RDONLY, tree.root)
    assert open_descriptors() == descriptors


def test_a_link_in_the_way_stops_every_change(tree: Tree) -> None:
    outside = put(tree.root.parent, "outside/file", b"outside")
    (tree.root / "link").symlink_to(outside.parent)
    identity = there(tree, "link").identity
    for step in (
        lambda: tree.create_temporary("link/file"),
        lambda: tree.make_directories("link/deep"),
        lambda: tree.swap_in_link("link/file", "/x", original=identity),
        lambda: list(tree.files_below("link")),
        lambda: remove_object(tree, "link/file"),
    ):
        with pytest.raises(UnsafePath):
            step()
    assert everything_below(outside.parent) == {"file": b"outside"}


def test_the_root_itself_may_be_a_link(tree: Tree) -> None:
    put(tree.root, "file", b"bytes")
    (tree.root.parent / "alias").symlink_to(tree.root)
    with Tree(tree.root.parent / "alias") as alias:
        assert there(alias, "file").kind is EntryKind.FILE


def test_closing_twice_closes_nobody_elses_file(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.close()
    with (tmp_path / "other").open("w") as other:  # takes the number that became free
        tree.close()
        other.write("still open")
    assert (tmp_path / "other").read_text() == "still open"
    with pytest.raises(OSError, match="Bad file descriptor"):
        tree.look("other")


# ---- names


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_any_file_name_survives_the_way_to_disk_and_back(tree: Tree, name: str) -> None:
    for path in (name, f"{name}/{name}.d"[:511] if len(name) < 200 else f"deep/{name}"):
        above = path.rpartition("/")[0]
        if above == name:
            (tree.root / name).unlink()
        tree.make_directories(above)
        fd = tree.create_temporary(path)
        os.write(fd, b"bytes")
        os.close(fd)
        tree.publish(path)
        assert list(tree.files_below(above)) == [path]
        assert (tree.root / path).read_bytes() == b"bytes"
        fd = tree.open_to_read(path)
        assert os.read(fd, 10) == b"bytes"
        os.close(fd)


@pytest.mark.parametrize("name", ["x", "a" * 255, os.fsdecode(b"\xe9" * 255)])
def test_a_temporary_name_always_fits_and_is_always_the_same(name: str) -> None:
    assert len(os.fsencode(temporary_name(name))) <= 255
    assert temporary_name(name) == temporary_name(name)
    assert temporary_name(name).startswith(".")
    assert temporary_name(name) != temporary_name(name[:-1] + "y")


def test_files_are_listed_in_the_order_of_their_paths(tree: Tree) -> None:
    paths = ["a", "a-b", "a.d/x", "a0", "b/c/d", "b/c-d", "b-", "B", "日/本"]
    for path in paths:
        put(tree.root, path, b"")
    (tree.root / "link").symlink_to("b")
    (tree.root / "empty").mkdir()
    assert list(tree.files_below("")) == sorted([*paths, "link"])
    assert list(tree.files_below("b")) == ["b/c-d", "b/c/d"]


def test_looking_tells_nothing_from_cannot_tell(tree: Tree) -> None:
    put(tree.root, "file", b"123")
    assert tree.look("none") is None
    assert tree.look("none/deeper") is None
    with pytest.raises(NotADirectoryError):
        tree.look("file/x")
    found = there(tree, "file")
    assert (found.kind, found.identity.size_bytes, found.names, found.target) == (EntryKind.FILE, 3, 1, None)
    (tree.root / "link").symlink_to("gone")
    assert (there(tree, "link").kind, there(tree, "link").target) == (EntryKind.LINK, "gone")
    os.mkfifo(tree.root / "pipe")
    assert there(tree, "pipe").kind is EntryKind.OTHER
    assert there(tree, "pipe").attributes.mode == stat.S_IMODE((tree.root / "pipe").lstat().st_mode)


# ---- making


def write(tree: Tree, relative: str, content: bytes) -> None:
    fd = tree.create_temporary(relative)
    os.write(fd, content)
    os.close(fd)


def test_a_half_made_file_is_seen_by_nobody_and_started_anew(tree: Tree) -> None:
    write(tree, "x", b"half of a longer file")
    temporary = tree.root / temporary_name("x")
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    assert tree.look("x") is None
    write(tree, "x", b"whole")
    tree.publish("x")
    assert everything_below(tree.root) == {"x": b"whole"}


def test_starting_anew_never_empties_a_second_name_of_near_bytes(tree: Tree) -> None:
    near = put(tree.root, "near/x", b"the only bytes")
    (tree.root / "repository").mkdir()
    tree.link_temporary_from(tree, "near/x", "repository/x")  # and here it was killed
    write(tree, "repository/x", b"other")
    assert near.read_bytes() == b"the only bytes"


def test_dropping_a_temporary_file_twice_is_dropping_it_once(tree: Tree) -> None:
    write(tree, "x", b"bytes")
    tree.drop_temporary("x")
    tree.drop_temporary("x")
    tree.drop_temporary("nowhere/x")
    assert everything_below(tree.root) == {}


@pytest.mark.parametrize("what", ["file", "link", "directory"])
def test_publishing_never_replaces(tree: Tree, what: str) -> None:
    if what == "file":
        put(tree.root, "x", b"there before")
    elif what == "link":
        (tree.root / "x").symlink_to("gone")
    else:
        (tree.root / "x").mkdir()
    before = everything_below(tree.root)
    write(tree, "x", b"new")
    with pytest.raises(FileExistsError):
        tree.publish("x")
    tree.drop_temporary("x")
    assert everything_below(tree.root) == before


def test_a_directory_is_never_moved_over_another(tree: Tree) -> None:
    put(tree.root, "a/x", b"1")
    (tree.root / "b").mkdir()
    with pytest.raises(FileExistsError):
        tree.move_directory("a", "b")
    tree.move_directory("a", "c")
    assert everything_below(tree.root) == {"b": None, "c": None, "c/x": b"1"}


def test_new_directories_take_mode_and_owner_of_their_model_and_old_ones_keep_theirs(tree: Tree) -> None:
    (tree.root / "old").mkdir(mode=0o700)
    owner = (12345, 12346) if os.getuid() == 0 else (os.getuid(), os.getgid())

    def like(relative: str) -> FileAttributes | None:
        return FileAttributes(mtime_ns=0, mode=0o2750, uid=owner[0], gid=owner[1]) if relative != "old/a" else None

    tree.make_directories("old/a/b", like=like)
    tree.make_directories("old/a/b", like=like)
    found = (tree.root / "old/a/b").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o2750, *owner)
    assert stat.S_IMODE((tree.root / "old").stat().st_mode) == 0o700
    assert stat.S_IMODE((tree.root / "old/a").stat().st_mode) == 0o755


def test_a_directory_is_not_made_where_a_file_lies(tree: Tree) -> None:
    put(tree.root, "a", b"")
    with pytest.raises(UnsafePath, match="not a directory"):
        tree.make_directories("a")


def test_a_finished_file_has_mtime_mode_and_owner_of_its_original(tree: Tree) -> None:
    owner = (12345, 12346) if os.getuid() == 0 else (os.getuid(), os.getgid())
    wanted = FileAttributes(mtime_ns=987_654_321_012_345_678, mode=0o4751, uid=owner[0], gid=owner[1])
    fd = tree.create_temporary("x")
    finish(fd, wanted)
    os.close(fd)
    tree.publish("x")
    assert there(tree, "x").attributes == wanted


def test_a_link_is_made_once_and_never_in_place_of_another_thing(tree: Tree) -> None:
    tree.make_link("x", "target")
    tree.make_link("x", "target")
    put(tree.root, "file", b"bytes")
    for taken in ("x", "file"):
        with pytest.raises(WrongState, match="not replaced"):
            tree.make_link(taken, "elsewhere")
    assert everything_below(tree.root) == {"x": "target", "file": b"bytes"}


def test_a_second_name_is_given_once_and_never_in_place_of_another_file(tree: Tree) -> None:
    put(tree.root, "x", b"bytes")
    put(tree.root, "other", b"bytes")
    tree.link_from(tree, "x", "y")
    tree.link_from(tree, "x", "y")
    assert there(tree, "x").names == 2
    with pytest.raises(WrongState, match="another file"):
        tree.link_from(tree, "x", "other")
    assert there(tree, "other").names == 1


def test_a_second_name_of_a_link_is_not_its_target(tree: Tree) -> None:
    put(tree.root, "x", b"bytes")
    (tree.root / "link").symlink_to("x")
    tree.link_from(tree, "link", "y")
    assert there(tree, "y").kind is EntryKind.LINK


def test_another_file_system_is_told_as_such(tree: Tree, tmp_path: Path) -> None:
    put(tree.root, "x", b"bytes")
    with small_disk(tmp_path / "disk", 1 << 20) as disk, Tree(disk) as other:
        assert not tree.is_beside(other)
        with pytest.raises(OSError, match="cross-device") as refusal:
            other.link_from(tree, "x", "x")
        assert refusal.value.errno == errno.EXDEV
    assert tree.is_beside(tree)


# ---- syncing


def test_a_sync_that_fails_is_an_error(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        tree.sync()


def test_a_write_that_the_disk_refused_later_is_an_error_of_the_sync(tmp_path: Path) -> None:
    with failing_disk(tmp_path / "disk") as disk, Tree(disk) as tree:
        write(tree, "x", os.urandom(16 << 20))  # the page cache takes it
        with pytest.raises(OSError, match="Input/output error"):
            tree.sync()


def test_only_what_is_prepared_is_ever_replaced(tree: Tree) -> None:
    for path in ("x", ".omero-archive/bundles/Image-7/x", ".omero-archive/incoming/Image-7/x"):
        put(tree.root, path, b"old")
        write(tree, path, b"new")
    for path in ("x", ".omero-archive/bundles/Image-7/x"):
        with pytest.raises(BrokenInvariant, match="not ours to replace"):
            tree.replace_own(path)
        assert (tree.root / path).read_bytes() == b"old"
    tree.replace_own(".omero-archive/incoming/Image-7/x")
    assert (tree.root / ".omero-archive/incoming/Image-7/x").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, NotEnoughSpace),
        (errno.EDQUOT, NotEnoughSpace),
        (errno.EIO, TargetFailed),
        (errno.EROFS, TargetFailed),
    ],
)
def test_an_error_of_the_system_gets_our_name(code: int, expected: type[Exception]) -> None:
    error = translated(OSError(code, os.strerror(code)), "the subject")
    assert type(error) is expected
    assert "the subject" in str(error)


# ---- original <-> link


def test_a_link_takes_the_originals_place_once(tree: Tree) -> None:
    put(tree.root, "x", b"bytes")
    before = there(tree, "x").identity
    tree.link_from(tree, "x", "near")  # changes ctime, as a release does
    assert tree.swap_in_link("x", "/near/x", original=before) is True
    assert tree.swap_in_link("x", "/near/x", original=before) is False
    assert everything_below(tree.root) == {"x": "/near/x", "near": b"bytes"}


@pytest.mark.parametrize("change", ["content", "mtime", "replaced", "other link", "directory"])
def test_a_changed_original_is_not_replaced_by_a_link(tree: Tree, change: str) -> None:
    path = put(tree.root, "x", b"bytes")
    before = there(tree, "x").identity
    match change:
        case "content":
            path.write_bytes(b"other bytes")
        case "mtime":
            os.utime(path, ns=(0, 0))
        case "replaced":
            put(tree.root, "new", b"bytes")
            os.utime(tree.root / "new", ns=(before.mtime_ns, before.mtime_ns))
            (tree.root / "new").rename(path)
        case "other link":
            path.unlink()
            path.symlink_to("/somewhere/else")
        case _:
            path.unlink()
            path.mkdir()
    found = everything_below(tree.root)
    with pytest.raises(SourceChanged, match="no link was made"):
        tree.swap_in_link("x", "/near/x", original=before)
    assert everything_below(tree.root) == found


def test_a_vanished_original_gets_no_link(tree: Tree) -> None:
    path = put(tree.root, "x", b"bytes")
    before = there(tree, "x").identity
    path.unlink()
    with pytest.raises(FileNotFoundError):
        tree.swap_in_link("x", "/near/x", original=before)
    assert everything_below(tree.root) == {}


def test_a_swap_that_was_killed_half_way_is_done_by_the_next(tree: Tree) -> None:
    put(tree.root, "x", b"bytes")
    (tree.root / temporary_name("x")).symlink_to("/left/behind")
    assert tree.swap_in_link("x", "/near/x", original=there(tree, "x").identity)
    assert everything_below(tree.root) == {"x": "/near/x"}


@pytest.mark.parametrize("what", ["file", "other link", "directory"])
def test_a_file_is_put_back_only_in_the_place_of_our_link(tree: Tree, what: str) -> None:
    path = tree.root / "x"
    if what == "file":
        path.write_bytes(b"a users new file")
    elif what == "other link":
        path.symlink_to("/somewhere/else")
    else:
        path.mkdir()
    before = everything_below(tree.root)
    write(tree, "x", b"the original")
    with pytest.raises(WrongState, match="not our link"):
        tree.swap_in_file("x", link_target="/near/x")
    tree.drop_temporary("x")
    assert everything_below(tree.root) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_takes_the_place_of_our_link_or_of_nothing(tree: Tree, is_there: bool) -> None:
    if is_there:
        (tree.root / "x").symlink_to("/near/x")
    write(tree, "x", b"the original")
    tree.swap_in_file("x", link_target="/near/x")
    assert everything_below(tree.root) == {"x": b"the original"}


def test_without_a_prepared_file_our_link_stays(tree: Tree) -> None:
    (tree.root / "x").symlink_to("/near/x")
    with pytest.raises(FileNotFoundError):
        tree.swap_in_file("x", link_target="/near/x")
    assert everything_below(tree.root) == {"x": "/near/x"}


def test_at_every_moment_of_a_swap_a_reader_finds_the_bytes(tree: Tree) -> None:
    content = b"the right bytes" * 100
    path = put(tree.root, "repository/x", content)
    put(tree.root, "near/none", b"")
    target = str(tree.root / "near/x")
    is_over = threading.Event()
    reads: list[int] = []
    wrong: list[object] = []

    def read() -> None:
        count = 0
        while not is_over.is_set():
            try:
                if path.read_bytes() != content:
                    wrong.append("foreign bytes")
            except OSError as error:
                wrong.append(error)
            count += 1
        reads.append(count)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        tree.link_from(tree, "repository/x", "near/x")
        for _ in range(400):
            assert tree.swap_in_link("repository/x", target, original=there(tree, "near/x").identity)
            tree.link_temporary_from(tree, "near/x", "repository/x")
            tree.swap_in_file("repository/x", link_target=target)
    finally:
        is_over.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert min(reads) > 50


# ---- deleting


FILES = {"out/a": b"aaaa", "out/deep/er/b": b"bb", "out/deep/c": b""}
KEYS = {path: Key(path.replace("out", "ManagedRepository")) for path in FILES}


@pytest.fixture
def doomed(tree: Tree) -> Tree:
    for path, content in FILES.items():
        put(tree.root, path, content)
    return tree


def permits(**changed: Permit | None) -> dict[Key, Permit]:
    made = {KEYS[path]: permit_for(KEYS[path], content) for path, content in FILES.items()}
    for path, other in changed.items():
        key = KEYS[f"out/{path}"]
        if other is None:
            del made[key]
        else:
            made[key] = other
    return made


def test_near_bytes_go_with_a_permit_for_each_and_their_directory_with_them(doomed: Tree) -> None:
    put(doomed.root, "stays", b"x")
    freed = delete_near(doomed, "out", KEYS, permits=permits(), now=NOW)
    assert freed >= 6
    assert everything_below(doomed.root) == {"stays": b"x"}
    assert delete_near(doomed, "out", KEYS, permits={}, now=NOW) == 0


def refused(doomed: Tree, allowed: dict[Key, Permit], *, after: timedelta = timedelta(0)) -> None:
    before = everything_below(doomed.root)
    with pytest.raises(BrokenInvariant, match="nothing was deleted"):
        delete_near(doomed, "out", KEYS, permits=allowed, now=NOW + after)
    assert everything_below(doomed.root) == before


def test_nothing_is_deleted_if_one_file_has_no_permit(doomed: Tree) -> None:
    refused(doomed, permits(a=None))


def test_nothing_is_deleted_with_a_permit_that_ran_out(doomed: Tree) -> None:
    refused(doomed, permits(), after=timedelta(hours=1, microseconds=1))


def test_nothing_is_deleted_with_a_permit_from_the_future(doomed: Tree) -> None:
    refused(doomed, permits(), after=timedelta(microseconds=-1))


def test_nothing_is_deleted_with_the_permit_of_another_file(doomed: Tree) -> None:
    refused(doomed, permits(a=permit_for("ManagedRepository/other", FILES["out/a"])))


def test_nothing_is_deleted_if_a_file_has_another_size_than_its_permit_says(doomed: Tree) -> None:
    refused(doomed, permits(a=permit_for(KEYS["out/a"], b"aaaaa")))


def test_nothing_is_deleted_if_a_file_nobody_knows_is_there(doomed: Tree) -> None:
    put(doomed.root, "out/deep/notes.txt", b"a users own")
    refused(doomed, permits())


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_is_deleted_if_something_is_not_a_plain_file(doomed: Tree, kind: str) -> None:
    (doomed.root / "out/deep/c").unlink()
    if kind == "link":
        (doomed.root / "out/deep/c").symlink_to("/")
    else:
        os.mkfifo(doomed.root / "out/deep/c")
    before = sorted(doomed.root.rglob("*"))
    with pytest.raises(BrokenInvariant, match="nothing was deleted"):
        delete_near(doomed, "out", KEYS, permits=permits(), now=NOW)
    assert sorted(doomed.root.rglob("*")) == before


def test_what_a_killed_transfer_left_goes_with_the_permit_of_its_file(doomed: Tree) -> None:
    put(doomed.root, f"out/deep/{temporary_name('c')}", b"half")
    delete_near(doomed, "out", KEYS, permits=permits(), now=NOW)
    assert everything_below(doomed.root) == {}


def test_what_a_killed_transfer_of_an_unknown_file_left_does_not_go(doomed: Tree) -> None:
    put(doomed.root, f"out/deep/{temporary_name('unknown')}", b"half")
    refused(doomed, permits())


@pytest.mark.parametrize("gone", [["out/a"], ["out/deep/er/b"], ["out/a", "out/deep/er/b", "out/deep/c"]])
def test_a_deletion_that_was_killed_is_finished_by_the_next(doomed: Tree, gone: list[str]) -> None:
    for path in gone:  # the directories stay, as a kill between unlink and rmdir leaves them
        (doomed.root / path).unlink()
    delete_near(doomed, "out", KEYS, permits=permits(), now=NOW)
    assert everything_below(doomed.root) == {}


def test_bytes_that_have_another_name_are_not_counted_as_freed(doomed: Tree) -> None:
    for path in FILES:
        os.link(doomed.root / path, doomed.root / path.replace("/", "-"))
    assert delete_near(doomed, "out", KEYS, permits=permits(), now=NOW) == 0


def test_second_names_go_when_every_original_is_the_very_file(doomed: Tree) -> None:
    originals = {path: (doomed, "repo/" + path) for path in FILES}
    for path in FILES:
        (doomed.root / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(doomed.root / path, doomed.root / "repo" / path)
    delete_twins(doomed, "out", originals)
    delete_twins(doomed, "out", originals)
    assert doomed.look("out") is None
    assert (doomed.root / "repo/out/a").read_bytes() == b"aaaa"


@pytest.mark.parametrize("original", ["copy", "link", "missing", "unknown"])
def test_second_names_stay_if_one_original_is_not_the_very_file(doomed: Tree, original: str) -> None:
    originals = {path: (doomed, "repo/" + path) for path in FILES}
    for path in FILES:
        (doomed.root / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(doomed.root / path, doomed.root / "repo" / path)
    last = doomed.root / "repo/out/deep/er/b"
    match original:
        case "copy":
            last.unlink()
            last.write_bytes(b"bb")
        case "link":
            last.unlink()
            last.symlink_to(doomed.root / "out/deep/er/b")
        case "missing":
            last.unlink()
        case _:
            del originals["out/deep/er/b"]
    before = everything_below(doomed.root)
    with pytest.raises(BrokenInvariant, match="nothing was deleted"):
        delete_twins(doomed, "out", originals)
    assert everything_below(doomed.root) == before


def test_only_our_own_links_are_removed(tree: Tree) -> None:
    (tree.root / "a/b").mkdir(parents=True)
    (tree.root / "a/b/ours").symlink_to("../x")
    (tree.root / "a/foreign").symlink_to("/elsewhere")
    put(tree.root, "c/file", b"bytes")
    (tree.root / "d").mkdir()
    (tree.root / "d/ours").symlink_to("x")
    links = {"a/b/ours": "../x", "a/foreign": "x", "c/file": "x", "d/ours": "x", "none/at/all": "x"}
    remove_links(tree, links)
    remove_links(tree, links)
    assert everything_below(tree.root) == {"a": None, "a/foreign": "/elsewhere", "c": None, "c/file": b"bytes"}


def test_empty_directories_go_up_to_the_first_that_is_not(tree: Tree) -> None:
    (tree.root / "a/b/c/d").mkdir(parents=True)
    (tree.root / "a/x").mkdir()
    remove_empty_directories(tree, "a/b/c/d", top="a/b/c")
    assert sorted(everything_below(tree.root)) == ["a", "a/b", "a/x"]
    remove_empty_directories(tree, "a/b/c/d")
    assert sorted(everything_below(tree.root)) == ["a", "a/x"]


def test_an_object_is_removed_once(tree: Tree) -> None:
    put(tree.root, "a/x", b"bytes")
    assert remove_object(tree, "a/x") is True
    assert remove_object(tree, "a/x") is False
    assert remove_object(tree, "none/x") is False


def test_nothing_leaves_a_descriptor_open(doomed: Tree) -> None:
    descriptors = open_descriptors()
    doomed.make_directories("new/deep", like=lambda _: ATTRIBUTES)
    with contextlib.suppress(FileExistsError):
        write(doomed, "out/a", b"")
        doomed.publish("out/a")
    doomed.drop_temporary("out/a")
    doomed.is_open("out/a")
    doomed.move_directory("out", "elsewhere")
    delete_near(
        doomed, "elsewhere", {p.replace("out", "elsewhere"): k for p, k in KEYS.items()}, permits=permits(), now=NOW
    )
    assert open_descriptors() == descriptors


# ---- open files


def a_mapping_of(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def by_another_name(path: Path) -> BinaryIO:
    second = path.with_name("second name")
    second.hardlink_to(path)
    return second.open("rb")


@pytest.mark.parametrize("opened", [Path.open, lambda path: path.open("r+b"), a_mapping_of, by_another_name])
def test_an_open_file_is_known_until_it_is_closed(tree: Tree, opened: Callable[[Path], BinaryIO]) -> None:
    put(tree.root, "a/b", b"content")
    assert tree.is_open("a/b") is False
    with opened(tree.root / "a/b"):
        assert tree.is_open("a/b") is True
        assert tree.is_open("a/b") is True  # asking was no open of ours that stays
    assert tree.is_open("a/b") is False


def test_a_file_that_another_process_has_mapped_and_closed_is_open(tree: Tree) -> None:
    put(tree.root, "x", b"content")
    with a_process_that_has(tree.root / "x", only_mapped=True) as process:
        assert tree.is_open("x") is True
        process.kill()
        process.wait(timeout=10)
        assert tree.is_open("x") is False


def test_asking_disturbs_nobody_who_opens_meanwhile(tree: Tree) -> None:
    """An open that meets the lease waits for it, and its signal must end nobody."""
    put(tree.root, "x", b"content")
    program = "import sys\nfor _ in range(20000): open(sys.argv[1], 'rb').close()"
    with subprocess.Popen([sys.executable, "-S", "-c", program, str(tree.root / "x")]) as process:
        answers = {tree.is_open("x")}
        while process.poll() is None:
            answers.add(tree.is_open("x"))
        assert process.wait(timeout=60) == 0
    assert answers == {True, False}
    assert tree.is_open("x") is False


def test_what_is_not_there_is_not_open_and_a_link_is_not_asked_about(tree: Tree) -> None:
    assert tree.is_open("a/nothing") is False
    (tree.root / "link").symlink_to("/etc/passwd")
    with pytest.raises(UnsafePath):
        tree.is_open("link")


def test_where_leases_say_nothing_it_cannot_be_told(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS answers EAGAIN where nobody has the file open; another machine's open it does not see."""
    put(tree.root, "x", b"content")
    monkeypatch.setattr(linux, "_LOCAL", frozenset({0x6969}))
    assert tree.is_open("x") is None
    with (tree.root / "x").open("rb"):
        assert tree.is_open("x") is None


def test_of_the_file_of_somebody_else_it_cannot_be_told(tree: Tree) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    put(tree.root, "x", b"content")
    (tree.root / "x").chmod(0o644)
    put(tree.root, "secret", b"content")
    (tree.root / "secret").chmod(0o600)
    put(tree.root, "own", b"content")
    os.chown(tree.root / "own", 65534, 65534)
    assert as_nobody(lambda: [tree.is_open(name) for name in ("x", "secret", "own")]) == [None, None, False]
    with (tree.root / "own").open("rb"):
        assert as_nobody(lambda: tree.is_open("own")) is True


def test_a_disk_that_fails_is_not_a_file_that_is_closed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree.root, "x", b"content")

    def broken(fd: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(linux, "_file_system", broken)
    with pytest.raises(OSError, match="Input/output error"):
        tree.is_open("x")


def as_nobody(ask: Callable[[], object]) -> object:
    """What a function answers when this thread's user is nobody, without any of root's rights."""
    os.seteuid(65534)  # takes the effective capabilities away, CAP_LEASE with them
    try:
        return ask()
    finally:
        os.seteuid(0)


# ---- the workbench


def test_a_workbench_has_places_of_its_own_and_leaves_nothing(tree: Tree) -> None:
    with Workbench(tree, "bench") as one, Workbench(tree, "bench") as other:
        for bench, content in ((one, b"one"), (other, b"other")):
            write(tree, bench.slot(0), content)
        tree.publish("x", temporary_of=one.slot(0))
    assert everything_below(tree.root) == {"bench": None, "x": b"one"}


def test_what_a_killed_process_left_is_swept_by_the_next_and_a_living_one_is_left_alone(tree: Tree) -> None:
    put(tree.root, "bench/1234-dead/lock", b"")
    put(tree.root, f"bench/1234-dead/{temporary_name('0')}", b"half")
    with Workbench(tree, "bench") as living:
        assert not (tree.root / "bench/1234-dead").exists()
        write(tree, living.slot(0), b"mine")
        with Workbench(tree, "bench"):
            pass
        tree.publish("x", temporary_of=living.slot(0))
    assert everything_below(tree.root) == {"bench": None, "x": b"mine"}


def test_what_is_no_workbench_is_left_alone_and_stands_in_nobodys_way(tree: Tree) -> None:
    put(tree.root, "bench/.DS_Store", b"somebody's")
    with Workbench(tree, "bench") as bench:
        write(tree, bench.slot(0), b"mine")
        tree.publish("x", temporary_of=bench.slot(0))
    assert everything_below(tree.root) == {"bench": None, "bench/.DS_Store": b"somebody's", "x": b"mine"}


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_workbench_is_used_and_nobodys_is_swept(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As on Lustre that is mounted without `flock`."""

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "flock", refused)
    with Workbench(tree, "bench") as one:
        write(tree, one.slot(0), b"one")
        with Workbench(tree, "bench") as other:
            write(tree, other.slot(0), b"other")
        tree.publish("x", temporary_of=one.slot(0))
    assert everything_below(tree.root) == {"bench": None, "x": b"one"}


def test_a_workbench_is_left_nowhere_though_open_files_keep_a_name_until_they_are_closed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over NFS, where what is unlinked while it is open becomes `.nfs...` until then."""
    kept: dict[int, Path] = {}
    unlink, close = disk.unlink, disk.close

    def unlinked(name: str, *, dir_fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / name
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}") == str(path):
                    kept[int(fd)] = path.rename(path.with_name(".nfs1"))
                    return
        unlink(name, dir_fd=dir_fd)

    def closed(fd: int) -> None:
        close(fd)
        if (path := kept.pop(fd, None)) is not None:
            path.unlink()

    monkeypatch.setattr(disk, "unlink", unlinked)
    monkeypatch.setattr(disk, "close", closed)
    put(tree.root, "bench/1234-dead/lock", b"")
    with Workbench(tree, "bench"):
        pass
    assert kept == {}
    assert everything_below(tree.root) == {"bench": None}


def test_a_workbench_keeps_no_descriptor(tree: Tree) -> None:
    before = open_descriptors()
    for _ in range(3):
        with Workbench(tree, "bench"), Workbench(tree, "bench"):
            pass
    assert open_descriptors() == before


# ---- looking at whole directories


def test_the_names_of_a_directory_are_looked_at_one_by_one_and_what_went_is_left_out(tree: Tree) -> None:
    for name in STRANGE_NAMES:
        put(tree.root, f"d/{name}", os.fsencode(name))
    (tree.root / "d" / "link").symlink_to("nowhere")
    (tree.root / "d" / "below").mkdir()
    names = tree.names_in("d")
    assert sorted(names) == sorted([*STRANGE_NAMES, "link", "below"])
    (tree.root / "d" / STRANGE_NAMES[0]).unlink()
    found = dict(tree.look_at_each("d", names))
    assert found == {name: there(tree, f"d/{name}") for name in names if name != STRANGE_NAMES[0]}
    assert (found["link"].target, found["below"].kind) == ("nowhere", EntryKind.DIRECTORY)
    assert tree.names_in("") == ["d"]
    assert dict(tree.look_at_each("", ["d"]))["d"].kind is EntryKind.DIRECTORY
    assert tree.look_at_root().identity.inode == tree.root.stat().st_ino


def test_where_there_is_no_directory_there_are_no_names(tree: Tree) -> None:
    put(tree.root, "file", b"x")
    (tree.root / "link").symlink_to(".")
    before = open_descriptors()
    for path in ("nothing", "file"):
        assert (tree.names_in(path), list(tree.look_at_each(path, ["x"]))) == ([], [])
    with pytest.raises(UnsafePath):
        tree.names_in("link")
    put(tree.root, "d/x", b"x")
    half = tree.look_at_each("d", ["x", "y"])
    next(half)
    half.close()  # type: ignore[attr-defined]
    assert open_descriptors() == before


def test_space_is_that_of_the_file_system(tree: Tree) -> None:
    space = os.statvfs(tree.root)
    total, free = tree.space()
    assert total == space.f_blocks * space.f_frsize
    assert 0 < free <= total
