"""The table of nodes, and Hypothesis against a plain model of what the kernel counts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from omero_archive.access.fuse.nodes import Node, Nodes
from omero_archive.access.items import Item, ItemKind
from omero_archive.model import FileAttributes


def _item(size: int = 0, *, kind: ItemKind = ItemKind.FILE, mtime_ns: int = 0) -> Item:
    return Item(kind=kind, size_bytes=size, attributes=FileAttributes(mtime_ns=mtime_ns, mode=0o755, uid=0, gid=0))


_DIRECTORY = _item(kind=ItemKind.DIRECTORY)


def _nodes() -> Nodes:
    return Nodes(_DIRECTORY, limit=10)


def test_a_path_has_one_number_until_all_its_lookups_are_forgotten() -> None:
    nodes = _nodes()
    directory = nodes.looked_up(nodes.root, b"a", _DIRECTORY)
    one = nodes.looked_up(directory, b"\xff", _item(5))
    assert nodes.looked_up(directory, b"\xff", _item(5)) is one
    assert (one.path, nodes.root.path) == ("a/\udcff", "")
    nodes.forget(one.number, 1)
    assert nodes.get(one.number) is one
    nodes.forget(one.number, 1)
    assert nodes.get(one.number) is None
    assert nodes.looked_up(directory, b"\xff", _item(5)).number > one.number


def test_the_root_is_never_forgotten() -> None:
    nodes = _nodes()
    nodes.forget(1, 100)
    assert nodes.get(1) is nodes.root


def test_another_size_or_kind_is_another_node_and_another_time_is_not() -> None:
    nodes = _nodes()
    one = nodes.looked_up(nodes.root, b"x", _item(5))
    assert nodes.looked_up(nodes.root, b"x", _item(5, mtime_ns=7)) is one
    longer = nodes.looked_up(nodes.root, b"x", _item(6))
    assert longer is not one
    assert nodes.looked_up(nodes.root, b"x", _DIRECTORY) not in (one, longer)
    assert nodes.get(one.number) is one  # the kernel still counts it


def test_a_renewed_node_leaves_its_name_to_the_next_one() -> None:
    nodes = _nodes()
    one = nodes.looked_up(nodes.root, b"x", _item(5))
    nodes.renew(one)
    other = nodes.looked_up(nodes.root, b"x", _item(5))
    assert other is not one
    nodes.renew(one)  # late, and it is not its name any more
    assert nodes.child(nodes.root, b"x") is other
    nodes.forget(one.number, 1)
    assert nodes.child(nodes.root, b"x") is other


def test_what_is_open_stays_until_it_is_closed() -> None:
    nodes = _nodes()
    one = nodes.looked_up(nodes.root, b"x", _item(5))
    one.open_count = 1
    nodes.forget(one.number, 1)
    assert nodes.get(one.number) is one
    one.open_count = 0
    nodes.settle(one)
    assert nodes.get(one.number) is None


def test_the_oldest_that_nobody_uses_are_named_first_and_then_last() -> None:
    nodes = _nodes()
    directory = nodes.looked_up(nodes.root, b"d", _DIRECTORY)
    files = [nodes.looked_up(directory, b"%d" % number, _item()) for number in range(5)]
    files[0].open_count = 1
    assert nodes.unused(2) == files[1:3]
    assert nodes.unused(2) == files[3:5]
    assert nodes.unused(10) == files[1:5]
    for file in files[1:]:
        nodes.forget(file.number, 1)
    assert nodes.unused(10) == []  # the directory has something below it, the file is open
    assert nodes.dropped == 4


_STEPS = st.lists(st.tuples(st.sampled_from(["look", "forget", "renew"]), st.integers(0, 3), st.integers(0, 2)))


@given(steps=_STEPS)
def test_counts_are_those_of_the_kernel(steps: list[tuple[str, int, int]]) -> None:
    nodes = _nodes()
    counted: Counter[int] = Counter()
    newest: dict[int, Node] = {}
    for act, name, size in steps:
        node = newest.get(name)
        if act == "look":
            newest[name] = nodes.looked_up(nodes.root, b"%d" % name, _item(size))
            counted[newest[name].number] += 1
        elif node is not None and act == "forget":
            nodes.forget(node.number, counted.pop(node.number, 0))
        elif node is not None:
            nodes.renew(node)
        assert len(nodes) == 1 + len(counted)
        assert all(found is not None and found.lookups == counted[n] for n in counted for found in [nodes.get(n)])
