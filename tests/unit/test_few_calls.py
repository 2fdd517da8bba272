"""Few calls for each file: what is kept open may assume little, and the number of calls does not creep up again."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from making import ATTRIBUTES, everything_below, fixity_of, original, put

from omero_archive import disk
from omero_archive.digests import omero_checksum
from omero_archive.errors import NotMounted, SourceChanged, SourceVanished, UnsafePath
from omero_archive.files import LastParent, Tree, Workbench
from omero_archive.marked import MarkedTree
from omero_archive.model import Checksum, Key, ServiceName
from omero_archive.mount import Mount
from omero_archive.service import Incoming
from omero_archive.testing.faulty_disk import FaultyDisk
from omero_archive.transfer import INLINE_BYTES, BytesReader, Lanes, SourceReader, read_back, write_slot

MOST_CALLS_TO_COPY = 14
"""For each small file, of the calls that touch a disk or a name on it."""

MOST_CALLS_TO_READ_BACK = 3


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "tree").mkdir()
    with Tree(tmp_path / "tree") as opened:
        yield opened


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    made = Lanes()
    yield made
    made.close()


def after(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object]) -> None:
    """Let something happen right after the first call of that name."""
    real: Callable[..., Any] = getattr(disk, name)

    def call(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        if acts:
            acts.pop()()
        return found

    acts = [act]
    monkeypatch.setattr(disk, name, call)


# ---- directories that stay open


def test_the_last_directory_is_opened_once(tree: Tree) -> None:
    for name in ("a/1", "a/2", "b/1"):
        put(tree.root, name, b"")
    with FaultyDisk() as seen, LastParent(tree) as parents:
        for path in ("a/1", "a/2", "b/1", "b/2"):
            fd, name = parents.of(path)
            assert name == path[2:]
            assert os.path.samestat(os.fstat(fd), (tree.root / path[0]).stat())
    assert Counter(call.name for call in seen.calls) == {"open_beneath": 2}


def test_no_descriptor_is_left_open(tree: Tree) -> None:
    put(tree.root, "a/1", b"")
    before = len(os.listdir("/proc/self/fd"))
    with LastParent(tree) as parents:
        parents.of("a/1")
        parents.of("x")
        with pytest.raises(FileNotFoundError):
            parents.of("none/x")
    with Workbench(tree, "bench") as bench:
        os.close(bench.create(0))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_last_directory_is_not_reached_through_a_link(tree: Tree) -> None:
    put(tree.root.parent, "outside/x", b"")
    (tree.root / "a").symlink_to("../outside")
    with LastParent(tree) as parents:
        for path in ("a/x", "../outside/x", "/etc/passwd", "a/..", ""):
            with pytest.raises(UnsafePath):
                parents.of(path)


def test_what_is_published_in_a_directory_that_is_moved_goes_with_it(tree: Tree) -> None:
    put(tree.root, "a/1", b"")
    with Workbench(tree, "bench") as bench, LastParent(tree) as parents:
        for number in (0, 1):
            write_slot(BytesReader(b"bytes", ATTRIBUTES), bench, number)
        bench.publish(0, "a/2", parents)
        (tree.root / "a").rename(tree.root / "b")
        bench.publish(1, "a/3", parents)
    assert {"b/1", "b/2", "b/3"} <= set(everything_below(tree.root))


def test_nothing_is_replaced_by_what_comes_from_a_workbench(tree: Tree) -> None:
    put(tree.root, "x", b"older")
    with Workbench(tree, "bench") as bench, LastParent(tree) as parents:
        write_slot(BytesReader(b"bytes", ATTRIBUTES), bench, 0)
        with pytest.raises(FileExistsError):
            bench.publish(0, "x", parents)
        with pytest.raises(FileExistsError):
            bench.create(0)
        bench.drop(0)
        bench.drop(0)
    assert (tree.root / "x").read_bytes() == b"older"


# ---- looking and opening in one


def test_a_link_that_comes_between_looking_and_opening_is_not_followed(
    tree: Tree, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tree.root, "x", b"bytes")

    def exchange() -> None:
        path.rename(tree.root / "y")
        path.symlink_to("y")

    after(monkeypatch, "lstat", exchange)
    with pytest.raises(UnsafePath, match="not followed"):
        list(SourceReader(tree, "x", original("x"), lanes).pieces())


def test_a_file_that_goes_between_looking_and_opening_has_vanished(
    tree: Tree, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tree.root, "x", b"bytes")
    after(monkeypatch, "lstat", path.unlink)
    with pytest.raises(SourceVanished):
        list(SourceReader(tree, "x", original("x"), lanes).pieces())


@pytest.mark.parametrize("comes", [True, False])
def test_a_pipe_that_becomes_a_file_or_goes_while_it_is_looked_at_is_tried_again(
    tree: Tree, lanes: Lanes, monkeypatch: pytest.MonkeyPatch, *, comes: bool
) -> None:
    os.mkfifo(tree.root / "x")

    def exchange() -> None:
        (tree.root / "x").unlink()
        if comes:
            put(tree.root, "x", b"bytes")

    after(monkeypatch, "lstat", exchange)
    with pytest.raises(SourceChanged):
        list(SourceReader(tree, "x", original("x"), lanes).pieces())


def test_an_exchange_between_looking_and_opening_is_a_change(
    tree: Tree, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tree.root, "x", b"bytes")
    after(monkeypatch, "lstat", lambda: put(tree.root, "y", b"BYTES").rename(path))
    with pytest.raises(SourceChanged):
        list(SourceReader(tree, "x", original("x"), lanes).pieces())


@pytest.mark.parametrize("path", ["x", "a/x"])
def test_what_is_not_there_is_proved_before_it_counts_as_not_there(tmp_path: Path, path: str) -> None:
    def refuse(tree: MarkedTree) -> None:
        raise NotMounted(f"{tree.root} has no marker")

    (tmp_path / "found").write_bytes(b"bytes")
    with MarkedTree(tmp_path, refuse) as marked, LastParent(marked) as parents:
        for ask in (marked.look, marked.look_closely, marked.open_seen, lambda _: parents.of("a/x")):
            with pytest.raises(NotMounted):
                ask(path)
        opened = marked.open_seen("found")
        assert opened is not None
        os.close(opened[1])


# ---- reading in one call


@pytest.mark.parametrize("size", [1, 100, INLINE_BYTES - 1, INLINE_BYTES])
def test_a_small_copy_that_grew_is_read_back_as_it_is_now(
    tree: Tree, lanes: Lanes, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    content = os.urandom(size)
    path = put(tree.root, "x", content)
    after(monkeypatch, "fstat", lambda: path.write_bytes(content + b"!"))
    assert read_back(tree, "x", lanes) == (size + 1, fixity_of(content + b"!").xxh3)


def test_a_small_copy_that_shrank_is_read_back_as_it_is_now(
    tree: Tree, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tree.root, "x", b"bytes")
    after(monkeypatch, "fstat", lambda: os.truncate(path, 2))
    assert read_back(tree, "x", lanes) == (2, fixity_of(b"by").xxh3)


@pytest.mark.parametrize("size", [10, INLINE_BYTES + 10])
def test_short_reads_lose_nothing(tree: Tree, lanes: Lanes, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    content = os.urandom(size)
    put(tree.root, "x", content)
    real = disk.readv
    most = max(3, size // 7)
    monkeypatch.setattr(disk, "readv", lambda fd, views: real(fd, [views[0][:most]]))
    assert read_back(tree, "x", lanes) == (size, fixity_of(content).xxh3)
    reader = SourceReader(tree, "x", original("x", size=size), lanes)
    assert b"".join(bytes(piece) for piece in reader.pieces()) == content
    assert reader.fixity == fixity_of(content)


# ---- how many calls


def test_a_small_file_takes_few_calls(tmp_path: Path, lanes: Lanes) -> None:
    files = 64
    for name in ("source", "archive"):
        (tmp_path / name).mkdir()
    mount = Mount(ServiceName("disk"), tmp_path / "archive", clock=lambda: datetime.now(UTC))
    mount.initialise()
    with Tree(tmp_path / "source") as source, Tree(tmp_path / "archive") as archive:
        group = []
        for number in range(files):
            content = os.urandom(100 + number)
            key = f"ManagedRepository/plate/{number}.tif"
            put(source.root, key, content)
            checksum = Checksum(algorithm="SHA1-160", value=omero_checksum("SHA1-160", content))
            reader = SourceReader(source, key, original(key, size=len(content), checksum=checksum), lanes)
            group.append(Incoming(key=Key(key), reader=reader))
        with FaultyDisk() as seen:
            outcomes = list(mount.put_group(group))
        assert all(outcome.receipt for outcome in outcomes)
        _expect(seen, files, MOST_CALLS_TO_COPY)
        with FaultyDisk() as seen:
            for incoming in group:
                assert read_back(archive, incoming.key, lanes)[1] == incoming.reader.fixity.xxh3
        _expect(seen, files, MOST_CALLS_TO_READ_BACK)
        assert all(stat.S_ISREG((archive.root / incoming.key).stat().st_mode) for incoming in group)
    mount.close()


def _expect(seen: FaultyDisk, files: int, most: int) -> None:
    counted = Counter(call.name for call in seen.calls)
    for_all = 80  # the marker, the workbench, the directories, two syncs; not one more for each file
    assert len(seen.calls) <= files * most + for_all, counted
