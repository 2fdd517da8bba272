"""The directory of near bytes: a bundle is readable whole or not at all."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from making import ATTRIBUTES, NOW, everything_below, permit_for, put

from omero_archive.errors import BrokenInvariant, DiskFailed, WrongState
from omero_archive.files import EntryKind, Tree, temporary_name
from omero_archive.model import BundleName, FileAttributes, Key
from omero_archive.near import Near, Place
from omero_archive.states import Permit
from omero_archive.testing.faulty_disk import Fail, FaultyDisk
from omero_archive.transfer import BytesReader, write_temporary

HOME = "ManagedRepository/alice_2/2026-11/22/20-00-00.000"
WITH_HOME = Place(
    name=BundleName("Fileset-1"),
    home=HOME,
    keys=tuple(Key(f"{HOME}/{name}") for name in ("a.tif", "deep/er/b.tif", os.fsdecode(b"caf\xe9"))),
)
HOMELESS = Place(
    name=BundleName("Image-7"),
    home=None,
    keys=(Key("Pixels/Dir-001/1234"), Key("Files/99"), Key("Files/Dir-002/2001")),
)
PLACES = pytest.mark.parametrize("place", [WITH_HOME, HOMELESS], ids=["with a home", "without a home"])


@pytest.fixture
def near(tmp_path: Path) -> Iterator[Near]:
    (tmp_path / "near").mkdir()
    with Tree(tmp_path / "near") as tree:
        yield Near(tree)


def content_of(key: Key) -> bytes:
    return b"bytes of " + os.fsencode(key)


def prepare(near: Near, place: Place, *, without: Key | None = None) -> None:
    near.prepare(place)
    for key in place.keys:
        path = near.incoming_path_of(place, key)
        if key != without and near.tree.look(path) is None:
            write_temporary(BytesReader(content_of(key), ATTRIBUTES), near.tree, path)
            near.tree.publish(path)


def permits(place: Place) -> dict[Key, Permit]:
    return {key: permit_for(key, content_of(key)) for key in place.keys}


def readable(near: Near, place: Place) -> list[Key]:
    """The keys whose bytes a program finds that follows the link, as Bio-Formats does."""
    found = []
    for key in place.keys:
        path = near.tree.root / key
        if path.exists():
            assert path.read_bytes() == content_of(key)
            found.append(key)
    return found


@PLACES
def test_a_bundle_comes_and_goes_and_comes_back(near: Near, place: Place) -> None:
    assert not near.is_in(place)
    prepare(near, place)
    assert readable(near, place) == []
    near.bring_in(place)
    assert near.is_in(place)
    assert readable(near, place) == list(place.keys)
    near.take_out(place)
    assert (near.is_in(place), near.is_taken_out(place)) == (False, True)
    assert readable(near, place) == []
    near.put_back(place)
    assert readable(near, place) == list(place.keys)
    near.take_out(place)
    assert near.delete(place, permits(place), NOW) > 0
    assert not near.is_taken_out(place)
    prepare(near, place)
    near.bring_in(place)
    assert readable(near, place) == list(place.keys)


@PLACES
def test_every_step_done_twice_is_done_once(near: Near, place: Place) -> None:
    prepare(near, place)
    prepare(near, place)
    for step in (near.bring_in, near.take_out, near.put_back, near.take_out):
        step(place)
        before = everything_below(near.tree.root)
        step(place)
        assert everything_below(near.tree.root) == before
    near.delete(place, permits(place), NOW)
    assert near.delete(place, permits(place), NOW) == 0
    near.forget(place)
    near.forget(place)
    assert list(near.tree.files_below("")) == []


@PLACES
def test_after_it_was_forgotten_nothing_of_a_bundle_is_left(near: Near, place: Place) -> None:
    prepare(near, place)
    near.bring_in(place)
    near.take_out(place)
    near.delete(place, permits(place), NOW)
    near.forget(place)
    left = set(everything_below(near.tree.root))
    assert left <= {".omero-archive", ".omero-archive/incoming", ".omero-archive/outgoing", ".omero-archive/bundles"}


@PLACES
def test_forgetting_leaves_other_bundles_alone(near: Near, place: Place) -> None:
    other = put(near.tree.root, f"{HOME[:-6]}1.000/x", b"1")
    pixels = put(near.tree.root, "Files/Dir-002/2002", b"2")
    prepare(near, place)
    near.bring_in(place)
    near.take_out(place)
    near.delete(place, permits(place), NOW)
    near.forget(place)
    assert (other.read_bytes(), pixels.read_bytes()) == (b"1", b"2")


@PLACES
def test_a_partly_prepared_bundle_is_not_made_readable(near: Near, place: Place) -> None:
    for missing in place.keys:
        prepare(near, place, without=missing)
        (near.tree.root / near.incoming_path_of(place, missing)).unlink(missing_ok=True)
        with pytest.raises(BrokenInvariant, match="was not prepared"):
            near.bring_in(place)
        assert readable(near, place) == []
        prepare(near, place)
    near.bring_in(place)
    assert readable(near, place) == list(place.keys)


@PLACES
def test_a_bundle_of_which_a_file_was_lost_is_not_called_readable(near: Near, place: Place) -> None:
    prepare(near, place)
    near.bring_in(place)
    (near.tree.root / near.path_of(place, place.keys[1])).unlink()
    with pytest.raises(BrokenInvariant, match="a person must look"):
        near.bring_in(place)


@PLACES
def test_a_partly_deleted_bundle_is_not_put_back(near: Near, place: Place) -> None:
    prepare(near, place)
    near.bring_in(place)
    near.take_out(place)
    outgoing = near.tree.root / ".omero-archive/outgoing" / place.name
    next(path for path in outgoing.rglob("*") if path.is_file()).unlink()
    with pytest.raises(WrongState, match="was deleted already"):
        near.put_back(place)
    assert readable(near, place) == []
    near.delete(place, permits(place), NOW)
    assert not near.is_taken_out(place)


@PLACES
def test_a_bundle_that_is_in_and_on_its_way_out_at_once_stops_the_work(near: Near, place: Place) -> None:
    for _ in range(2):
        prepare(near, place)
        near.bring_in(place)
        if not near.is_taken_out(place):
            near.take_out(place)
    before = everything_below(near.tree.root)
    with pytest.raises(BrokenInvariant, match="a person must look"):
        near.take_out(place)
    near.put_back(place)
    assert everything_below(near.tree.root) == before


@PLACES
def test_bytes_stay_without_a_permit_for_each(near: Near, place: Place) -> None:
    prepare(near, place)
    near.bring_in(place)
    near.take_out(place)
    some = permits(place)
    del some[place.keys[-1]]
    for allowed, now in ((some, NOW), (permits(place), NOW + timedelta(hours=2))):
        with pytest.raises(BrokenInvariant, match="without a permit"):
            near.delete(place, allowed, now)
    near.put_back(place)
    assert readable(near, place) == list(place.keys)


@PLACES
def test_delete_touches_nothing_that_readers_see(near: Near, place: Place) -> None:
    prepare(near, place)
    near.bring_in(place)
    assert near.delete(place, permits(place), NOW) == 0
    assert readable(near, place) == list(place.keys)


@PLACES
def test_a_recall_is_given_up_with_permits_even_half_way(near: Near, place: Place) -> None:
    prepare(near, place, without=place.keys[1])
    half = near.incoming_path_of(place, place.keys[1]).rpartition("/")
    put(near.tree.root, f"{half[0]}/{temporary_name(half[2])}", b"half")
    with pytest.raises(BrokenInvariant):
        near.drop_incoming(place, {}, NOW)
    assert near.drop_incoming(place, permits(place), NOW) > 0
    assert list(near.tree.files_below("")) == []
    assert not (near.tree.root / ".omero-archive/incoming" / place.name).exists()


@PLACES
def test_second_names_go_once_the_originals_are_in_place(near: Near, place: Place, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    prepare(near, place)
    near.bring_in(place)
    with Tree(tmp_path / "repository") as repository:
        for key in place.keys:
            repository.make_directories(key.rpartition("/")[0])
            repository.link_from(near.tree, near.path_of(place, key), key)
        near.take_out(place)
        near.delete_second_names(place, {key: (repository, key) for key in place.keys})
        assert [(tmp_path / "repository" / key).read_bytes() for key in place.keys] == [
            content_of(key) for key in place.keys
        ]
    assert not near.is_taken_out(place)


def test_a_key_outside_the_home_of_its_bundle_stops_the_work(near: Near) -> None:
    place = Place(name=BundleName("Fileset-1"), home=HOME, keys=(Key(f"{HOME}0/a.tif"),))
    with pytest.raises(BrokenInvariant, match="does not lie in the directory"):
        near.prepare(place)


def test_the_ways_of_a_bundle_without_a_home_never_replace_what_is_there(near: Near) -> None:
    put(near.tree.root, HOMELESS.keys[1], b"somebody's file")
    prepare(near, HOMELESS)
    with pytest.raises(WrongState, match="not replaced"):
        near.bring_in(HOMELESS)
    assert (near.tree.root / HOMELESS.keys[1]).read_bytes() == b"somebody's file"
    assert not near.is_in(HOMELESS)


@PLACES
def test_new_directories_are_like_omeros(tmp_path: Path, place: Place) -> None:
    (tmp_path / "near").mkdir()
    asked: list[str] = []
    owner = (12345, 12346) if os.getuid() == 0 else (os.getuid(), os.getgid())

    def like(relative: str) -> FileAttributes | None:
        asked.append(relative)
        if not relative.startswith(("ManagedRepository", "Pixels", "Files")):
            return None
        return FileAttributes(mtime_ns=0, mode=0o2710 + len(relative.split("/")), uid=owner[0], gid=owner[1])

    with Tree(tmp_path / "near") as tree:
        near = Near(tree, like)
        prepare(near, place)
        near.bring_in(place)
        visible = near.path_of(place, place.keys[0])
        tops = {key.split("/")[0] for key in place.keys}
        for path in tree.root.rglob("*"):
            relative = str(path.relative_to(tree.root))
            if path.is_dir() and relative.split("/")[0] in tops:
                found = path.stat()
                assert stat.S_IMODE(found.st_mode) == 0o2710 + len(relative.split("/")), relative
                assert (found.st_uid, found.st_gid) == owner
        assert stat.S_IMODE((tree.root / visible).parent.stat().st_mode) & 0o2710 == 0o2710
    assert all(not relative.startswith("/") and relative.count(".omero-archive") <= 1 for relative in asked)


@PLACES
def test_a_reader_sees_the_whole_bundle_or_nothing_of_it(near: Near, place: Place) -> None:
    """It opens the bundle's directory once: what it then sees through it must be whole, whenever it looked."""
    visible = near.tree.root / ("" if place.home is None else place.home)
    if place.home is None:
        visible = near.tree.root / ".omero-archive/bundles" / place.name
    inside = [near.path_of(place, key)[len(str(visible.relative_to(near.tree.root))) + 1 :] for key in place.keys]
    prepare(near, place)
    is_over = threading.Event()
    seen: set[int] = set()

    def look() -> None:
        while not is_over.is_set():
            try:
                fd = os.open(visible, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                seen.add(0)
                continue
            count = 0
            for name in inside:
                try:
                    os.stat(name, dir_fd=fd)
                    count += 1
                except FileNotFoundError:
                    pass
            os.close(fd)
            seen.add(count)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(60):
            near.bring_in(place)
            near.take_out(place)
            near.put_back(place)
            near.take_out(place)
            # Back to where it was prepared, as a recall would prepare it anew.
            near.tree.move_directory(f".omero-archive/outgoing/{place.name}", f".omero-archive/incoming/{place.name}")
    finally:
        is_over.set()
        reader.join()
    assert seen == {0, len(place.keys)}


# ---- what readers find


def found_below(near: Near, directory: str = "") -> dict[str, EntryKind]:
    """Everything that readers find, from the root down."""
    found = {}
    for name, entry in near.find_each(directory, near.names_in(directory)):
        path = f"{directory}/{name}" if directory else name
        found[path] = entry.kind
        if entry.kind is EntryKind.DIRECTORY:
            found |= found_below(near, path)
    return found


def bytes_at(near: Near, path: str) -> bytes | None:
    fd = near.open(path)
    if fd is None:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()


@PLACES
def test_readers_find_all_files_of_a_bundle_that_is_in_and_none_of_one_that_is_not(near: Near, place: Place) -> None:
    def files() -> dict[str, bytes | None]:
        paths = [path for path, kind in found_below(near).items() if kind is EntryKind.FILE]
        assert all(near.find(path) is not None for path in paths)
        return {path: bytes_at(near, path) for path in paths}

    assert files() == {}
    prepare(near, place)
    assert files() == {}
    near.bring_in(place)
    assert files() == {key: content_of(key) for key in place.keys}
    for key in place.keys:
        found = near.find(key)
        assert found is not None
        assert found[0] == near.path_of(place, key)
        assert (found[1].kind, found[1].identity.size_bytes) == (EntryKind.FILE, len(content_of(key)))
    near.take_out(place)
    assert files() == {}
    assert [near.find(key) for key in place.keys] == [None] * len(place.keys)
    assert [near.open(key) for key in place.keys] == [None] * len(place.keys)
    assert all(near.find(key.rpartition("/")[0]) for key in place.keys[:1] if place.home is None), "directories stay"


def test_readers_find_nothing_of_what_is_ours(near: Near) -> None:
    for place in (WITH_HOME, HOMELESS):
        prepare(near, place)
        near.bring_in(place)
        prepare(near, place)
    inside = near.path_of(HOMELESS, HOMELESS.keys[0])
    home = f"{HOME}/.."
    ours = (
        ".omero-archive",
        ".omero-archive/incoming",
        inside,
        f"./{inside}",
        f"{home}/x",
        f"Pixels/../{inside}",
        f"/{inside}",
    )
    for path in ours:
        assert (near.find(path), near.open(path), near.names_in(path)) == (None, None, []), path
        assert list(near.find_each(path, ["x"])) == []
    assert ".omero-archive" in near.tree.names_in("")
    assert ".omero-archive" not in near.names_in("")


def test_only_our_own_way_is_followed(near: Near, tmp_path: Path) -> None:
    prepare(near, HOMELESS)
    near.bring_in(HOMELESS)
    key = HOMELESS.keys[0]
    up = "../" * key.count("/")
    bundle = f".omero-archive/bundles/{HOMELESS.name}"
    secret = put(tmp_path, "secret", b"secret")
    put(near.tree.root, f"{bundle}/other", b"of another name")
    put(near.tree.root, "plain", b"plain")
    put(near.tree.root, f".omero-archive/bundles/{key}", b"of no bundle")
    put(near.tree.root, f".omero-archive/incoming/{HOMELESS.name}/{key}", b"not ready")
    (near.tree.root / bundle / "there").symlink_to(secret)
    targets = [
        str(secret),
        f"{up}../secret",
        f"{up}{bundle}/other",
        f"{up}{bundle}/../{HOMELESS.name}/{key}",
        f"{up}.omero-archive/bundles/../bundles/{HOMELESS.name}/{key}",
        f"{up}.omero-archive/bundles//{key}",
        f"{up}.omero-archive/incoming/{HOMELESS.name}/{key}",
        f"./{up}{bundle}/{key}",
        f"{up}{bundle}/{key}/",
        f"{up}plain",
        f"{near.tree.root}/{bundle}/{key}",
        "",
    ]
    link = near.tree.root / key
    assert bytes_at(near, key) == content_of(key)
    for target in targets:
        link.unlink(missing_ok=True)
        if target:
            link.symlink_to(target)
        assert (near.find(key), near.open(key)) == (None, None), target
        assert key not in found_below(near)
    # The right way, but at its end lies another link.
    (near.tree.root / "there").symlink_to(f"{bundle}/there")
    assert (near.find("there"), near.open("there")) == (None, None)
    # A directory that is a link, though all below it would be right.
    (near.tree.root / "linked").symlink_to("Pixels")
    assert near.find("linked") is None
    assert near.find(f"linked/{key.removeprefix('Pixels/')}") is None
    assert near.names_in("linked") == []


def test_readers_find_files_and_directories_only(near: Near) -> None:
    os.mkfifo(near.tree.root / "pipe")
    put(near.tree.root, "a/file", b"x")
    assert (near.find("pipe"), near.open("pipe")) == (None, None)
    assert (near.find("a/file/below"), near.names_in("a/file")) == (None, [])
    assert near.open("a") is None
    assert set(found_below(near)) == {"a", "a/file"}
    assert near.find("n" * 300) is None
    assert near.find("a\0") is None
    assert near.find("\udfff") is None
    assert [near.open(path) for path in ("a\0", "\udfff", "n" * 300, "", "a/file/below")] == [None] * 5
    root = near.find("")
    assert root is not None
    assert root[1].kind is EntryKind.DIRECTORY


@PLACES
def test_what_goes_while_a_reader_looks_is_not_near(near: Near, place: Place) -> None:
    """At every call on the way the bundle goes: never an error, never other bytes."""
    prepare(near, place)
    near.bring_in(place)
    key = place.keys[0]
    with FaultyDisk() as calm:
        assert bytes_at(near, key) == content_of(key)
    reads = len(calm.calls)
    assert reads >= 2
    for at in range(1, reads + 1):
        with Going(near, place, at):
            assert bytes_at(near, key) in (None, content_of(key))
            assert not near.is_in(place)
        near.put_back(place)
        names = near.names_in(key.rpartition("/")[0])
        with Going(near, place, at):
            assert all(entry is not None for _, entry in near.find_each(key.rpartition("/")[0], names))
        near.put_back(place)


class Going(FaultyDisk):
    """A disk on which a bundle is taken out just before the call with a number."""

    def __init__(self, near: Near, place: Place, at: int) -> None:
        super().__init__()
        self._near, self._place, self._at = near, place, at
        self._is_gone = False

    def _count(self, *call: Any) -> int:
        number = super()._count(*call)
        if number >= self._at and not self._is_gone:
            self._is_gone = True
            self._near.take_out(self._place)
        return number


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_cannot_be_asked_is_not_a_bundle_that_is_away(near: Near, code: int) -> None:
    prepare(near, WITH_HOME)
    near.bring_in(WITH_HOME)
    key = WITH_HOME.keys[0]
    asked: list[Callable[[], object]] = [
        lambda: near.find(key),
        lambda: near.open(key),
        lambda: near.names_in(HOME),
        lambda: list(near.find_each(HOME, ["a.tif"])),
        near.space,
    ]
    for ask in asked:
        with FaultyDisk() as calm:
            ask()
        for at in range(1, len(calm.calls) + 1):
            with FaultyDisk(Fail(at=at, code=code)), pytest.raises(DiskFailed):
                ask()
