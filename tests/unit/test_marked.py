"""A marked directory: what is not there in it is proved, and what is there needs no proof."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omero_archive.errors import NotMounted
from omero_archive.files import Tree, remove_object
from omero_archive.marked import MarkedTree

MARKER = ".omero-archive/site"

ABSENT: dict[str, Callable[[MarkedTree], object]] = {
    "look": lambda tree: tree.look("gone"),
    "look below": lambda tree: tree.look("gone/too"),
    "look through": lambda tree: tree.look_through("gone"),
    "last read": lambda tree: tree.last_read_ns("gone"),
    "names": lambda tree: tree.names_in("gone"),
    "names of the root": lambda tree: tree.names_in(""),
    "each": lambda tree: list(tree.look_at_each("", ["gone"])),
    "each below": lambda tree: list(tree.look_at_each("gone", ["x"])),
    "directories": lambda tree: tree.directories_in("gone"),
    "directories of a directory": lambda tree: tree.directories_in("there"),
    "files below": lambda tree: list(tree.files_below("")),
    "files below nothing": lambda tree: list(tree.files_below("gone")),
    "whether it is open": lambda tree: tree.is_open("gone"),
    "open": lambda tree: tree.open_to_read("gone"),
    "open plain": lambda tree: tree.open_plain("gone"),
    "remove": lambda tree: remove_object(tree, "gone"),
    "move": lambda tree: tree.move_directory("gone", "new"),
    "swap": lambda tree: tree.swap_in_file("gone", link_target="/x"),
    "link": lambda tree: tree.link_from(tree, "gone", "new"),
    "publish": lambda tree: tree.publish("gone"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/there").mkdir(parents=True)
    (tmp_path / "root/there/file").write_bytes(b"x")
    (tmp_path / "root/.omero-archive").mkdir()
    (tmp_path / "root" / MARKER).write_bytes(b"ours")
    return tmp_path / "root"


@pytest.fixture
def tree(root: Path) -> Iterator[MarkedTree]:
    def proof(tree: MarkedTree) -> None:
        if tree.marker(MARKER) != b"ours":
            raise NotMounted("not ours")

    with MarkedTree(root, proof) as opened:
        assert isinstance(opened, MarkedTree)
        yield opened


def unmount(root: Path) -> None:
    """What a disk looks like that is not there, through a descriptor that was opened before: nothing in it."""
    for name in os.listdir(root):
        (root / name).rename(root.with_name(f"away-{name}"))


@pytest.mark.parametrize("name", ABSENT)
def test_nothing_is_missing_from_a_directory_without_its_marker(name: str, tree: MarkedTree, root: Path) -> None:
    unmount(root)
    with pytest.raises(NotMounted):
        ABSENT[name](tree)


@pytest.mark.parametrize("name", ABSENT)
def test_with_its_marker_it_answers_as_every_tree_does(name: str, tree: MarkedTree, root: Path) -> None:
    def said(tree: Tree) -> object:
        try:
            return ABSENT[name](tree)  # type: ignore[arg-type]
        except OSError as error:
            return type(error)

    with Tree(root) as plain:
        assert said(tree) == said(plain)


def test_what_is_there_needs_no_proof(root: Path) -> None:
    def never(tree: MarkedTree) -> None:
        raise AssertionError(tree.root)

    with MarkedTree(root, never) as tree:
        assert tree.look("there/file") is not None
        os.close(tree.open_to_read("there/file"))


def test_what_came_back_while_it_was_proved_is_there(root: Path) -> None:
    def comes_back(tree: MarkedTree) -> None:
        (root / "late").write_bytes(b"x")

    with MarkedTree(root, comes_back) as tree:
        assert tree.look("late") is not None


def test_a_directory_that_its_path_does_not_lead_to_any_more_is_known(tree: MarkedTree, root: Path) -> None:
    assert tree.is_at_its_path()
    root.rename(root.with_name("elsewhere"))
    assert not tree.is_at_its_path()
    root.mkdir()
    assert not tree.is_at_its_path()
