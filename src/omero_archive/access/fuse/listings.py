"""Directories that are open, each with its list as it was when it was opened.

A list is asked for whole, before the open is answered: where it cannot be had, the open fails, and nobody takes a part
of it for all.
"""

import threading
from itertools import count

from omero_archive.access.fuse import protocol
from omero_archive.access.fuse.nodes import Node, Nodes
from omero_archive.access.fuse.served import ServedTree
from omero_archive.access.items import Item, ItemKind, inode_number_of

_Entry = tuple[bytes, Item]
_DIRECTORY = 0o040000
_FILE = 0o100000


class Listings:
    """Safe to use from several threads."""

    def __init__(self, tree: ServedTree, nodes: Nodes) -> None:
        self._tree = tree
        self._nodes = nodes
        self._lists: dict[int, tuple[Node, list[_Entry]]] = {}
        self._handles = count(1)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._lists)

    def open(self, node: Node) -> int:
        """Ask for the list of a directory; the handle for reading it. May take time. Raises `ArchiveError`."""
        entries = [(name.encode("utf-8", "surrogateescape"), item) for name, item in self._tree.list(node.path)]
        with self._lock:
            handle = next(self._handles)
        self._lists[handle] = (node, entries)
        return handle

    def close(self, handle: int) -> None:
        self._lists.pop(handle, None)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """The body of the answer to FUSE_READDIR: entries from `offset` on, as many as fit."""
        node, entries = self._lists[handle]
        below = node.below
        parts, used = [], 0
        for index, (name, mode, inode) in enumerate(self._dots(node)):
            if index >= offset:
                parts.append(protocol.pack_dirent(inode, index + 1, name, mode))
                used += len(parts[-1])
        for index in range(max(offset - 2, 0), len(entries)):
            name, item = entries[index]
            used += protocol.dirent_bytes(name)
            if used > size:
                break
            mode = _DIRECTORY if item.kind is ItemKind.DIRECTORY else _FILE
            parts.append(protocol.pack_dirent(inode_number_of(below(name)), index + 3, name, mode))
        return b"".join(parts)

    def read_plus(self, handle: int, offset: int, size: int) -> tuple[bytes, list[Node]]:
        """The body of the answer to FUSE_READDIRPLUS, and the nodes that it tells, one lookup more each."""
        node, entries = self._lists[handle]
        below = node.below
        parts, told, used = [], [], 0
        for index, (name, mode, inode) in enumerate(self._dots(node)):
            if index >= offset:
                dirent = protocol.pack_dirent(inode, index + 1, name, mode)
                parts.append(protocol.pack_direntplus(None, node.attributes, dirent))
                used += len(parts[-1])
        for index in range(max(offset - 2, 0), len(entries)):
            name, item = entries[index]
            used += protocol.direntplus_bytes(name)
            if used > size:
                break
            inode = inode_number_of(below(name))
            attributes = protocol.pack_attributes(inode, item)
            is_directory = item.kind is ItemKind.DIRECTORY
            child = self._nodes.counted(node, name, attributes, is_directory=is_directory)
            told.append(child)
            dirent = protocol.pack_dirent(inode, index + 3, name, _DIRECTORY if is_directory else _FILE)
            parts.append(protocol.pack_direntplus(protocol.pack_entry(child.number, attributes), attributes, dirent))
        return b"".join(parts), told

    def _dots(self, node: Node) -> tuple[tuple[bytes, int, int], ...]:
        above = node if node.parent is None else node.parent
        dots = ((b".", node), (b"..", above))
        return tuple((name, _DIRECTORY, inode_number_of(which.path_bytes)) for name, which in dots)
