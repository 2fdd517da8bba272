"""Files that are open: the kernel reads them itself (passthrough), or the server does where it cannot.

The kernel takes one backing file for a node at a time, and refuses descriptors that it reads itself beside others that
the server reads for. So what the first open of a node decided holds until its last one is closed.
"""

import errno
import fcntl
import os
import sys
import threading
from dataclasses import dataclass

import structlog

from omero_archive.access.fuse import protocol
from omero_archive.access.fuse.nodes import Node
from omero_archive.access.fuse.protocol import OpenFlag
from omero_archive.access.items import Opened
from omero_archive.files import same_time

_log = structlog.get_logger()

# Of the other flags only NOFLUSH may stand beside PASSTHROUGH: with KEEP_CACHE the open ends with EIO.
_KERNEL_READS = int(OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH)
_SERVER_READS = int(OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH)
_SERVER_READS_ANEW = int(OpenFlag.NOFLUSH)


class Replaced(Exception):
    """Other bytes lie at the path than those that are open, or than those whose size the kernel was told."""


@dataclass(slots=True)
class _OpenFile:
    """What the descriptors of a node have in common."""

    node: Node
    content: tuple[int, int, int]  # device, inode, ctime in ns: whose bytes these are
    fd: int  # where the server reads; -1 where the kernel does
    backing_id: int  # 0 where the server reads
    count: int = 0


class Backings:
    """The open files of a mount. The handle of a file is its node's number. Safe to use from several threads."""

    def __init__(self, device_fd: int) -> None:
        self._device_fd = device_fd
        self._lock = threading.Lock()
        self._files: dict[int, _OpenFile] = {}
        self._refused: set[tuple[int, int | None]] = set()
        self.passthrough = False  # set when the kernel offered it

    def __len__(self) -> int:
        return len(self._files)

    def attach(self, node: Node, opened: Opened, *, join: bool = False) -> bytes:
        """One more descriptor of a node: the body of the answer to FUSE_OPEN. Takes over the descriptor.

        With `join` what is open already will do, also if another file of that size lies there by now. Raises
        `Replaced`, and nothing is open that was not before.
        """
        identity = opened.identity
        with self._lock:
            file = self._files.get(node.number)
            is_other = file is not None and not join and file.content[:2] != (identity.device, identity.inode)
            is_as_told = identity.size_bytes == node.size_bytes and same_time(identity.mtime_ns, node.mtime_ns)
            if is_other or not is_as_told:
                os.close(opened.fd)
                raise Replaced
            if file is None:
                file = self._begin(node, opened)
                self._files[node.number] = file
            else:
                os.close(opened.fd)
            file.count += 1
            node.open_count = file.count
            return self._open_out(file)

    def release(self, handle: int) -> Node | None:
        """One descriptor less. Returns the node when it was the last one."""
        with self._lock:
            file = self._files.get(handle)
            if file is None:
                return None
            file.count -= 1
            file.node.open_count = file.count
            if file.count:
                return None
            del self._files[handle]
        self._end(file)
        return file.node

    def fd(self, handle: int) -> int:
        """The descriptor to read from. The kernel asks for bytes of open files only."""
        return self._files[handle].fd

    def close(self) -> None:
        """Let go of everything. What the kernel reads itself stays readable for those that have it open."""
        with self._lock:
            files = list(self._files.values())
            self._files.clear()
        for file in files:
            if file.fd >= 0:
                os.close(file.fd)

    def _open_out(self, file: _OpenFile) -> bytes:
        if file.backing_id:
            return protocol.pack_open(file.node.number, _KERNEL_READS, file.backing_id)
        # Else the kernel drops what it kept of the file that was here before.
        is_kept = file.node.cached in (None, file.content)
        file.node.cached = file.content
        return protocol.pack_open(file.node.number, _SERVER_READS if is_kept else _SERVER_READS_ANEW)

    def _begin(self, node: Node, opened: Opened) -> _OpenFile:
        identity = opened.identity
        backing_id = self._open_backing(opened) if self.passthrough else 0
        if backing_id:
            os.close(opened.fd)  # the kernel has its own hold of the file
        return _OpenFile(
            node=node,
            # An inode number may be used again, for a file with the same mtime, but not with the same ctime.
            content=(identity.device, identity.inode, identity.ctime_ns),
            fd=-1 if backing_id else opened.fd,
            backing_id=backing_id,
        )

    def _open_backing(self, opened: Opened) -> int:
        """The number under which the kernel reads a file itself; 0 where it will not, and the server reads."""
        request = bytearray(protocol.BACKING_MAP.pack(opened.fd, 0, 0))
        try:
            return int(fcntl.ioctl(self._device_fd, protocol.IOC_BACKING_OPEN, request, True))
        except OSError as error:
            refused = (opened.identity.device, error.errno)
            if refused not in self._refused:
                self._refused.add(refused)
                _log.warning(
                    "the kernel does not read these files itself, so the server does",
                    action="mount",
                    device=f"{os.major(refused[0])}:{os.minor(refused[0])}",
                    error=str(error),
                )
            if error.errno == errno.EPERM:
                self.passthrough = False  # CAP_SYS_ADMIN, but not that of the machine: it will not change
            return 0

    def _end(self, file: _OpenFile) -> None:
        if file.backing_id:
            number = bytearray(file.backing_id.to_bytes(4, sys.byteorder))
            fcntl.ioctl(self._device_fd, protocol.IOC_BACKING_CLOSE, number, True)
        else:
            os.close(file.fd)
