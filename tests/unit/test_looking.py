"""Looking at many paths says the same as looking at each."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from omero_archive.errors import ArchiveError, UnsafePath
from omero_archive.files import Tree, temporary_of
from omero_archive.looking import Beside, look_at_all, seen_in
from omero_archive.model import Key
from omero_archive.omero.repository import ManagedKeys, managed_key


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(30):
        directory = tmp_path / f"W{number % 3}"
        directory.mkdir(exist_ok=True)
        (directory / f"field {number}.tif").write_bytes(b"x" * number)
    (tmp_path / "top.ome").write_bytes(b"top")
    (tmp_path / "W0" / "link.tif").symlink_to("/nowhere")
    (tmp_path / "W1" / "more").mkdir()
    (tmp_path / "away").symlink_to(tmp_path / "W0")
    return tmp_path


def test_many_paths_are_seen_as_each_alone_whatever_their_order(root: Path) -> None:
    paths = [str(path.relative_to(root)) for path in root.rglob("*") if path.parent.name != "away"]
    paths += ["W0/gone.tif", "W0/gone too.tif", "nowhere/a", "nowhere/b", "W1/more"]
    seed = random.randrange(1 << 30)
    print("seed", seed)
    random.Random(seed).shuffle(paths)
    with Tree(root) as tree:
        for some in (paths, sorted(paths)):
            assert list(look_at_all(tree, some)) == [(path, tree.look(path)) for path in some]


@pytest.mark.parametrize("paths", [["away/field 0.tif", "away/field 3.tif"], ["W0/..", "W0/field 0.tif"]])
def test_a_path_that_leads_out_of_the_tree_is_refused_among_many(root: Path, paths: list[str]) -> None:
    with Tree(root) as tree, pytest.raises(UnsafePath):
        list(look_at_all(tree, paths))


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_does_not_hide_the_others(root: Path, name: str) -> None:
    with Tree(root) as tree:
        seen = seen_in(tree, "W0", ["field 0.tif", name, "field 3.tif"])
        assert seen["field 0.tif"] == tree.look("W0/field 0.tif")
        with pytest.raises(ArchiveError):
            list(look_at_all(tree, [f"W0/{name}", "W0/field 3.tif"]))


def test_a_directory_that_is_a_file_is_an_error_and_not_an_absence(root: Path) -> None:
    with Tree(root) as tree, pytest.raises(OSError, match="Not a directory"):
        list(look_at_all(tree, ["top.ome/a", "top.ome/b"]))


def test_a_temporary_name_is_found_beside_its_file_and_only_there(root: Path) -> None:
    (root / temporary_of("W1/field 1.tif")).symlink_to("/new")
    beside = Beside()
    with Tree(root) as tree:
        left = {path: beside.temporary(tree, path) for path in ("W1/field 1.tif", "W1/field 4.tif", "W2/field 1.tif")}
        assert left == {path: tree.look(temporary_of(path)) for path in left}
        assert left["W1/field 1.tif"] is not None
        assert beside.temporary(tree, "nowhere/x") is None


PLACES = ["/", "alice_2/2026-11/", "alice_2//2026-11/", "älice/Ω/", "//", "", "/absolute/", "a/../b/", "a/\0/"]
NAMES = ["x.tif", "y é.tif", "..", ".", "", "a/b", "n" * 255, "n" * 256, "nul\0", "\udc80"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_the_key_of_a_file_is_the_same_however_many_files_its_directory_has(encoding: str) -> None:
    keys = ManagedKeys(encoding)
    for place in PLACES * 2:
        for name in NAMES:
            assert answer(keys.key, place, name) == answer(
                lambda p, n: managed_key(p, n, encoding=encoding), place, name
            )


def answer(ask: Callable[[str, str], Key], place: str, name: str) -> Key | type[UnsafePath]:
    try:
        key = ask(place, name)
    except UnsafePath:
        return UnsafePath
    return Key(os.fsdecode(os.fsencode(key)))
