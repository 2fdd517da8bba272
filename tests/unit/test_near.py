"""The directory of near bytes: a bundle is readable whole or not at all."""

import os
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from making import ATTRIBUTES, NOW, everything_below, permit_for, put

from omero_archive.errors import BrokenInvariant, WrongState
from omero_archive.files import Tree, temporary_name
from omero_archive.model import BundleName, FileAttributes, Key
from omero_archive.near import Near, Place
from omero_archive.states import Permit
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
