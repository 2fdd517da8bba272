"""The loop: reads what the kernel asks and answers it, or lets it be answered by whoever can.

It never waits for the catalogue. What lies near is looked at here; everything else goes to a few threads that answer
by themselves, or to the gate. Attributes are answered from what the kernel was told before, so they are known also
while the catalogue is away.
"""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from omero_archive.access.fuse import protocol
from omero_archive.access.fuse.backing import Backings
from omero_archive.access.fuse.channel import Channel, Gone
from omero_archive.access.fuse.listings import Listings
from omero_archive.access.fuse.nodes import Node, Nodes
from omero_archive.access.fuse.opens import Opens
from omero_archive.access.fuse.pool import Pool
from omero_archive.access.fuse.protocol import Opcode
from omero_archive.access.fuse.pruning import Pruning
from omero_archive.access.fuse.served import ServedGate, ServedTree
from omero_archive.access.items import Item, ItemKind
from omero_archive.errors import ArchiveError
from omero_archive.model import FileAttributes

_log = structlog.get_logger()


class Request:
    """What the kernel asks. `body` and `room` are used again for the next request; who needs them for longer copies."""

    __slots__ = ("body", "node", "pid", "room", "uid", "unique")

    def __init__(self, unique: int, node: int, uid: int, pid: int, body: memoryview, room: memoryview) -> None:
        self.unique = unique
        self.node = node
        self.uid = uid
        self.pid = pid
        self.body = body
        self.room = room  # for what is read


_Act = Callable[[Request], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a server holds. `threads` look up what is away, and list directories."""

    nodes: int = 100_000
    threads: int = 4


class Server:
    """Answers the requests of one mount, in as many threads as call `serve`."""

    def __init__(self, fd: int, tree: ServedTree, gate: ServedGate, *, limits: Limits, passthrough: bool) -> None:
        self.channel = Channel(fd)
        self._fd = fd
        self._tree = tree
        self._wants_passthrough = passthrough
        self.nodes = Nodes(_root_of(tree), limit=limits.nodes)
        self.backings = Backings(fd)
        self.opens = Opens(self.channel, gate, self.nodes, self.backings)
        self._listings = Listings(tree, self.nodes)
        self._pool = Pool(limits.threads)
        self._pruning = Pruning(self.channel, self.nodes)
        self._acts = self._table()
        self.offer: protocol.Offer | None = None
        self.asked_to_read = threading.Event()  # the kernel asks for bytes, which may take a disk's time

    def start(self) -> None:
        """Read the kernel's first request, FUSE_INIT, and answer it. Raises `OSError` if it is not answered."""
        buffer = bytearray(protocol.BUFFER_BYTES)
        length = os.readv(self._fd, [buffer])
        _, opcode, unique, *_ = protocol.IN_HEADER.unpack_from(buffer)
        offer = protocol.parse_init(memoryview(buffer)[protocol.HEADER_BYTES : length])
        if opcode != Opcode.INIT or offer.major != protocol.MAJOR or offer.minor < protocol.OLDEST_MINOR:
            self.channel.error(unique, errno.EPROTO)
            raise OSError(errno.EPROTO, f"the kernel speaks FUSE {offer.major}.{offer.minor}, which is not known here")
        passthrough = self._wants_passthrough and offer.has_passthrough
        self.backings.passthrough = passthrough
        self._pruning.has_prune = offer.minor >= protocol.PRUNE_MINOR
        self.offer = offer
        self.channel.reply(unique, protocol.pack_init(offer, passthrough=passthrough))
        self._pool.start()
        self._pruning.start()

    def serve(self) -> None:
        """Answer requests until the mount is gone."""
        buffer = bytearray(protocol.BUFFER_BYTES)
        view = memoryview(buffer)
        room = memoryview(bytearray(protocol.MAX_READ_BYTES))
        target = [buffer]
        unpack, acts, guarded, fd = protocol.IN_HEADER.unpack_from, self._acts, self.channel.guarded, self._fd
        while True:
            try:
                length = os.readv(fd, target)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue  # the request was taken back before it was read
                if error.errno not in (errno.ENODEV, errno.ECONNABORTED, errno.EBADF):
                    _log.error("requests cannot be read any more", action="mount", error=str(error))
                return
            _, opcode, unique, node, uid, _, pid, _, _ = unpack(buffer)
            act = acts.get(opcode)
            if act is None:
                self.channel.error(unique, errno.ENOSYS)
            else:
                guarded(unique, act, Request(unique, node, uid, pid, view[protocol.HEADER_BYTES : length], room))

    def stop(self) -> None:
        """Answer who still waits, and let the threads end."""
        self.asked_to_read.set()
        self.opens.give_up_all()
        self._pool.stop()
        self._pruning.stop()

    def close(self) -> None:
        """Let go of open files, when `serve` has returned."""
        self.backings.close()

    # ---- requests

    def _table(self) -> dict[int, _Act]:
        # GETXATTR, LISTXATTR and LSEEK are not here: the kernel takes ENOSYS as "never", and does these by itself.
        return {
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._batch_forget,
            Opcode.GETATTR: self._getattr,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.RELEASE: self._release,
            Opcode.FLUSH: self._done,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.STATFS: self._statfs,
            Opcode.ACCESS: self._done,
            Opcode.INTERRUPT: self._interrupt,
            Opcode.DESTROY: self._done,
        }

    def _lookup(self, request: Request) -> None:
        parent = self._node(request)
        name = protocol.parse_name(request.body)
        path = parent.below(name).decode("utf-8", "surrogateescape")
        item = self._tree.look_near(path)
        if item is not None:
            self._tell(request.unique, self.nodes.looked_up(parent, name, item))
        else:
            look = partial(self._look, request.unique, parent, name, path)
            self._pool.submit(partial(self.channel.guarded, request.unique, look))

    def _look(self, unique: int, parent: Node, name: bytes, path: str) -> None:
        try:
            item = self._tree.look(path)
        except ArchiveError:
            known = self.nodes.child(parent, name)
            if known is None:
                raise
            node = self.nodes.counted(parent, name, known.attributes, is_directory=known.is_directory)
        else:
            if item is None:
                self.channel.error(unique, errno.ENOENT)
                return
            node = self.nodes.looked_up(parent, name, item)
        self._tell(unique, node)

    def _tell(self, unique: int, node: Node) -> None:
        """Answer a lookup."""
        if not self.channel.reply(unique, protocol.pack_entry(node.number, node.attributes)):
            self.nodes.forget(node.number, 1)
        if self.nodes.is_over_limit:
            self._pruning.want()

    def _forget(self, request: Request) -> None:
        (lookups,) = protocol.HANDLE_IN.unpack_from(request.body)
        self.nodes.forget(request.node, lookups)

    def _batch_forget(self, request: Request) -> None:
        for node, lookups in protocol.parse_batch_forget(request.body):
            self.nodes.forget(node, lookups)

    def _getattr(self, request: Request) -> None:
        self.channel.reply(request.unique, protocol.pack_attr_out(self._node(request).attributes))

    def _open(self, request: Request) -> None:
        (flags,) = protocol.OPEN_IN.unpack_from(request.body)
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self.channel.error(request.unique, errno.EROFS)
        else:
            self.opens.open(request.unique, self._node(request), request.pid, request.uid)

    def _read(self, request: Request) -> None:
        self.asked_to_read.set()
        handle, offset, size = protocol.READ_IN.unpack_from(request.body)
        # Never less than asked for, where there is more: the kernel takes it for the end of the file.
        room = request.room[:size] if size <= len(request.room) else memoryview(bytearray(size))
        length = os.preadv(self.backings.fd(handle), [room], offset)
        self.channel.reply_bytes(request.unique, room[:length])

    def _release(self, request: Request) -> None:
        (handle,) = protocol.HANDLE_IN.unpack_from(request.body)
        self.opens.release(handle)
        self.channel.error(request.unique, 0)

    def _opendir(self, request: Request) -> None:
        node = self._node(request)
        open_it = partial(self._list, request.unique, node)
        self._pool.submit(partial(self.channel.guarded, request.unique, open_it))

    def _list(self, unique: int, node: Node) -> None:
        handle = self._listings.open(node)
        if not self.channel.reply(unique, protocol.pack_open(handle)):
            self._listings.close(handle)

    def _readdir(self, request: Request) -> None:
        handle, offset, size = protocol.READ_IN.unpack_from(request.body)
        self.channel.reply(request.unique, self._listings.read(handle, offset, size))

    def _readdirplus(self, request: Request) -> None:
        handle, offset, size = protocol.READ_IN.unpack_from(request.body)
        body, told = self._listings.read_plus(handle, offset, size)
        if not self.channel.reply(request.unique, body):
            for node in told:
                self.nodes.forget(node.number, 1)
        if self.nodes.is_over_limit:
            self._pruning.want()

    def _releasedir(self, request: Request) -> None:
        (handle,) = protocol.HANDLE_IN.unpack_from(request.body)
        self._listings.close(handle)
        self.channel.error(request.unique, 0)

    def _statfs(self, request: Request) -> None:
        self.channel.reply(request.unique, protocol.pack_statfs(*self._tree.room()))

    def _interrupt(self, request: Request) -> None:
        (unique,) = protocol.HANDLE_IN.unpack_from(request.body)
        self.opens.interrupt(unique)

    def _done(self, request: Request) -> None:
        self.channel.error(request.unique, 0)

    def _node(self, request: Request) -> Node:
        node = self.nodes.get(request.node)
        if node is None:
            raise Gone
        return node


def _root_of(tree: ServedTree) -> Item:
    """The root as it is near; it is there also where it cannot be looked at now."""
    try:
        found = tree.look_near("")
    except ArchiveError:
        found = None
    attributes = FileAttributes(mtime_ns=0, mode=0o755, uid=0, gid=0)
    return found or Item(kind=ItemKind.DIRECTORY, size_bytes=0, attributes=attributes)
