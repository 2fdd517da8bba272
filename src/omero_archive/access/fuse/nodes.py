"""What the kernel knows by number: the table of nodes, from LOOKUP to FORGET. Safe to use from several threads.

A node is what a number of the kernel stands for: one path, with the attributes it was told. The kernel counts how
often it was told a number and says with FORGET how many of these it lets go of; at zero the node is dropped. Numbers
are never used twice, so a late FORGET cannot hit another node.

A path may have several nodes for a while: if other bytes come to lie there while old ones are open, a new node is
made, and the old one lives until its last descriptor is closed.
"""

import threading
from collections.abc import Iterator
from itertools import islice

from omero_archive.access.fuse import protocol
from omero_archive.access.items import Item, ItemKind, inode_number_of


class Node:
    """A file or directory that the kernel knows. `children` are the newest nodes of a directory, by name."""

    __slots__ = ("attributes", "cached", "children", "inside", "lookups", "name", "number", "open_count", "parent")

    def __init__(self, number: int, parent: "Node | None", name: bytes, attributes: bytes, *, is_directory: bool):
        self.number = number
        self.parent = parent
        self.name = name
        self.attributes = attributes  # fuse_attr, as the kernel was told
        self.lookups = 0
        self.children: dict[bytes, Node] | None = {} if is_directory else None
        self.open_count = 0
        # What the paths below it begin with, kept for directories only: there are fewer of them.
        self.inside = (self.path_bytes + b"/" if parent is not None else b"") if is_directory else None
        self.cached: tuple[int, int, int] | None = None  # the file whose bytes the kernel may keep, see backing.py

    @property
    def is_directory(self) -> bool:
        return self.children is not None

    @property
    def path(self) -> str:
        """The path relative to the archive root, which is the empty text."""
        return self.path_bytes.decode("utf-8", "surrogateescape")

    @property
    def path_bytes(self) -> bytes:
        return self.parent.below(self.name) if self.parent is not None else b""

    def below(self, name: bytes) -> bytes:
        """The path of a name in this directory."""
        return (self.inside or b"") + name

    @property
    def size_bytes(self) -> int:
        return protocol.size_of(self.attributes)

    @property
    def mtime_ns(self) -> int:
        return protocol.mtime_ns_of(self.attributes)


class Nodes:
    """The table. `limit` is how many nodes are kept before the kernel is asked to forget some."""

    def __init__(self, root: Item, *, limit: int) -> None:
        self._lock = threading.Lock()
        self.limit = limit
        attributes = protocol.pack_attributes(inode_number_of(b""), root)
        self.root = Node(protocol.ROOT_ID, None, b"", attributes, is_directory=True)
        self._by_number = {protocol.ROOT_ID: self.root}
        self._next = protocol.ROOT_ID + 1
        self.dropped = 0  # how many there were that are not there any more

    def __len__(self) -> int:
        return len(self._by_number)

    @property
    def is_over_limit(self) -> bool:
        return len(self._by_number) > self.limit

    def get(self, number: int) -> Node | None:
        """The node of a number. None cannot be, but the kernel is not ours."""
        return self._by_number.get(number)

    def child(self, parent: Node, name: bytes) -> Node | None:
        """What is known under a name already."""
        return None if parent.children is None else parent.children.get(name)

    def looked_up(self, parent: Node, name: bytes, item: Item) -> Node:
        """The node of what lies under a name, one lookup more. It is a new one if what lies there is another thing.

        Another size is another file: the kernel may have bytes of the old one, and its descriptors still read it.
        """
        attributes = protocol.pack_attributes(inode_number_of(parent.below(name)), item)
        is_directory = item.kind is ItemKind.DIRECTORY
        return self.counted(parent, name, attributes, is_directory=is_directory)

    def counted(self, parent: Node, name: bytes, attributes: bytes, *, is_directory: bool) -> Node:
        """As `looked_up`, with attributes that are packed already."""
        with self._lock:
            found = None if parent.children is None else parent.children.get(name)
            if found is not None and _is_the_same(found, attributes, is_directory=is_directory):
                found.attributes = attributes
                found.lookups += 1
                return found
            node = self._add(parent, name, attributes, is_directory=is_directory)
            node.lookups = 1
            return node

    def renew(self, node: Node) -> None:
        """Let the next lookup of its path make a new node: other bytes lie there than those that are open here."""
        with self._lock:
            self._unname(node)

    def forget(self, number: int, lookups: int) -> None:
        """FORGET. The root and what is open stay."""
        with self._lock:
            node = self._by_number.get(number)
            if node is None or node is self.root:
                return
            node.lookups -= lookups
            if node.lookups <= 0 and node.open_count == 0:
                self._drop(node)

    def settle(self, node: Node) -> None:
        """Its last descriptor was closed; the FORGET may have come before that."""
        with self._lock:
            if node.open_count == 0 and node.lookups <= 0 and node is not self.root:
                self._drop(node)

    def unused(self, count: int) -> list[Node]:
        """The oldest nodes that are not open and have nothing below them. They are asked for again last."""
        with self._lock:
            found = list(islice(self._leaves(), count))
            for node in found:  # to the end of the line: the kernel may use one and keep it
                self._by_number[node.number] = self._by_number.pop(node.number)
            return found

    # ---- with the lock held

    def _leaves(self) -> Iterator[Node]:
        for node in self._by_number.values():
            if node.open_count == 0 and not node.children and node is not self.root:
                yield node

    def _add(self, parent: Node, name: bytes, attributes: bytes, *, is_directory: bool) -> Node:
        node = Node(self._next, parent, name, attributes, is_directory=is_directory)
        self._next += 1
        self._by_number[node.number] = node
        if parent.children is not None:
            parent.children[name] = node
        return node

    def _drop(self, node: Node) -> None:
        if self._by_number.pop(node.number, None) is not None:
            self.dropped += 1
        self._unname(node)

    def _unname(self, node: Node) -> None:
        children = None if node.parent is None else node.parent.children
        if children is not None and children.get(node.name) is node:
            del children[node.name]


def _is_the_same(node: Node, attributes: bytes, *, is_directory: bool) -> bool:
    if node.is_directory != is_directory:
        return False
    return is_directory or node.attributes == attributes or node.size_bytes == protocol.size_of(attributes)
