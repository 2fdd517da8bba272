"""The words of the FUSE protocol: numbers and layouts, and functions that read and make messages. No input or output.

The source of all of it is include/uapi/linux/fuse.h of the Linux kernel (7.45 of Linux 6.18; the layouts used here are
the same since 7.23, those of passthrough since 7.40); names are the kernel's. The words are in the machine's own byte
order, since kernel and server share the machine.

A request is `fuse_in_header` and a body that depends on the opcode; names in it end with a zero byte. A reply is
`fuse_out_header` and a body; a reply with an error has no body, and its error is negative.
"""

import mmap
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from omero_archive.access.items import Item, ItemKind

MAJOR = 7
MINOR = 41
"""What is spoken here. The kernel then keeps to the lower of its own and this; 40 is what passthrough needs."""
OLDEST_MINOR = 23
"""From here on the layouts below hold (Linux 3.15)."""

ROOT_ID = 1
MAX_READ_BYTES = 1 << 20
HEADER_BYTES = 40
_MAX_WRITE = 1 << 16
BUFFER_BYTES = _MAX_WRITE + 4096
"""For one request. Nobody writes here, but the kernel refuses a buffer below max_write and its headers; and it puts as
many forgotten nodes into one request as the buffer holds."""


class Opcode(IntEnum):
    """enum fuse_opcode: what is asked. Those that are not here are answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2  # no reply
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    ACCESS = 34
    INTERRUPT = 36  # no reply
    DESTROY = 38
    BATCH_FORGET = 42  # no reply
    READDIRPLUS = 44
    LSEEK = 46


class Notice(IntEnum):
    """enum fuse_notify_code: what a server says unasked."""

    INVAL_ENTRY = 3
    PRUNE = 9  # since 7.45


class Init(IntFlag):
    """Flags of FUSE_INIT; bit 32 and above travel in `flags2`."""

    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    INIT_EXT = 1 << 30  # there is a flags2
    PASSTHROUGH = 1 << 37


class OpenFlag(IntFlag):
    """FOPEN_*: how the kernel is to treat an open file."""

    KEEP_CACHE = 1 << 1
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7


PASSTHROUGH_MINOR = 40
PRUNE_MINOR = 45

# Device ioctls: _IOR(229, 0, uint32_t), _IOW(229, 1, struct fuse_backing_map), _IOW(229, 2, uint32_t).
IOC_CLONE = 2 << 30 | 4 << 16 | 229 << 8 | 0
IOC_BACKING_OPEN = 1 << 30 | 16 << 16 | 229 << 8 | 1
IOC_BACKING_CLOSE = 1 << 30 | 4 << 16 | 229 << 8 | 2

IN_HEADER = struct.Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = struct.Struct("=IiQ")  # len error unique
ATTR = struct.Struct("=QQQQQQIIIIIIIIII")
"""ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags"""
READ_IN = struct.Struct("=QQI")  # fh offset size; what follows is not used
OPEN_IN = struct.Struct("=I")
HANDLE_IN = struct.Struct("=Q")  # the beginning of fuse_release_in
_ENTRY = struct.Struct("=QQQQII")  # nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec
_ATTR_OUT = struct.Struct("=QII")  # attr_valid attr_valid_nsec dummy
_OPEN_OUT = struct.Struct("=QIi")  # fh open_flags backing_id
_INIT_IN = struct.Struct("=IIII")  # major minor max_readahead flags
_INIT_OUT = struct.Struct("=IIIIHHIIHHIIH22x")
_KSTATFS = struct.Struct("=QQQQQIII28x")  # blocks bfree bavail files ffree bsize namelen frsize
_DIRENT = struct.Struct("=QQII")  # ino off namelen type
_FORGET_ONE = struct.Struct("=QQ")  # nodeid nlookup
_BATCH_IN = struct.Struct("=II")  # count dummy
_INVAL_ENTRY = struct.Struct("=QII")  # parent namelen flags
_PRUNE = struct.Struct("=IIQ")  # count padding spare
BACKING_MAP = struct.Struct("=iIQ")  # fd flags padding

_VALID_S = 3600
"""How long the kernel may trust a name or attributes: neither changes, and what does is said to it."""
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the kernel says in FUSE_INIT that it can do."""

    major: int
    minor: int
    max_readahead: int
    flags: Init

    @property
    def has_passthrough(self) -> bool:
        """Whether the kernel can read backing files itself; whether this process may have it do so is another thing."""
        return self.minor >= PASSTHROUGH_MINOR and Init.PASSTHROUGH in self.flags


# ---- what the kernel says


def parse_init(body: bytes | memoryview) -> Offer:
    """fuse_init_in, with or without the `flags2` of newer kernels."""
    major, minor, readahead, low = _INIT_IN.unpack_from(body)
    flags = low
    if low & Init.INIT_EXT and len(body) >= _INIT_IN.size + 4:
        flags |= int.from_bytes(body[_INIT_IN.size : _INIT_IN.size + 4], sys.byteorder) << 32
    return Offer(major=major, minor=minor, max_readahead=readahead, flags=Init(flags))


def parse_name(body: bytes | memoryview) -> bytes:
    """The name at the beginning of a body, up to its zero byte."""
    return bytes(body).partition(b"\0")[0]


def parse_batch_forget(body: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Node ids, and how many lookups of each the kernel lets go of."""
    count, _ = _BATCH_IN.unpack_from(body)
    end = _BATCH_IN.size + count * _FORGET_ONE.size
    yield from _FORGET_ONE.iter_unpack(body[_BATCH_IN.size : end])


# ---- what it is told


def pack_reply(unique: int, body: bytes = b"") -> bytes:
    """A reply without an error."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique) + body


def pack_error(unique: int, code: int) -> bytes:
    """A reply that is an error of `errno`; 0 for done."""
    return OUT_HEADER.pack(OUT_HEADER.size, -code, unique)


def pack_init(offer: Offer, *, passthrough: bool) -> bytes:
    """The body of the reply to FUSE_INIT: what of the offer is taken."""
    wanted = (
        Init.ASYNC_READ
        | Init.DO_READDIRPLUS
        | Init.READDIRPLUS_AUTO
        | Init.ASYNC_DIO
        | Init.PARALLEL_DIROPS
        | Init.MAX_PAGES
        | Init.INIT_EXT
    )
    if passthrough:
        wanted |= Init.PASSTHROUGH
    taken = int(wanted & offer.flags)
    return _INIT_OUT.pack(
        MAJOR,
        min(MINOR, offer.minor),
        offer.max_readahead,
        taken & 0xFFFFFFFF,
        64,  # max_background: read-ahead and releases under way
        48,  # congestion_threshold
        _MAX_WRITE,
        1,  # time_gran, ns
        MAX_READ_BYTES // mmap.PAGESIZE,  # max_pages: what a read may ask for
        0,  # map_alignment
        taken >> 32,
        # FILESYSTEM_MAX_STACK_DEPTH, the most: backing files may then lie on an overlay, as in containers.
        2 if passthrough else 0,
        0,  # request_timeout: none, opens may wait
    )


def pack_attributes(inode: int, item: Item) -> bytes:
    """fuse_attr. A file's blocks are those of its full size, near or away; nothing can be written, so nobody may."""
    attributes = item.attributes
    seconds, nanoseconds = divmod(attributes.mtime_ns, 1_000_000_000)
    if item.kind is ItemKind.DIRECTORY:
        mode, names = stat.S_IFDIR, 2
    else:
        mode, names = stat.S_IFREG, 1
    return ATTR.pack(
        inode,
        item.size_bytes,
        (item.size_bytes + 511) // 512,
        *(seconds & 0xFFFFFFFFFFFFFFFF,) * 3,
        *(nanoseconds,) * 3,
        mode | (attributes.mode & 0o7777),
        names,
        attributes.uid,
        attributes.gid,
        0,
        _BLOCK_BYTES,
        0,
    )


def size_of(attributes: bytes) -> int:
    """The size that a fuse_attr tells."""
    return int.from_bytes(attributes[8:16], sys.byteorder)


def mtime_ns_of(attributes: bytes) -> int:
    """The mtime that a fuse_attr tells, in nanoseconds."""
    _, _, _, _, seconds, _, _, nanoseconds, *_ = ATTR.unpack_from(attributes)
    before_1970 = 1 << 64 if seconds >> 63 else 0  # the kernel's field has no sign
    return int(seconds - before_1970) * 1_000_000_000 + int(nanoseconds)


def pack_entry(node: int, attributes: bytes) -> bytes:
    """fuse_entry_out: the answer to FUSE_LOOKUP. `attributes` is what `pack_attributes` made."""
    return _ENTRY.pack(node, 0, _VALID_S, _VALID_S, 0, 0) + attributes


_NO_NODE = bytes(_ENTRY.size)
_VALID_ATTRIBUTES = _ATTR_OUT.pack(_VALID_S, 0, 0)


def pack_attr_out(attributes: bytes) -> bytes:
    """fuse_attr_out: the answer to FUSE_GETATTR."""
    return _VALID_ATTRIBUTES + attributes


def pack_open(handle: int, flags: int = 0, backing_id: int = 0) -> bytes:
    """fuse_open_out."""
    return _OPEN_OUT.pack(handle, flags, backing_id)


def pack_statfs(total_bytes: int, free_bytes: int) -> bytes:
    """fuse_statfs_out. Files are not counted: none can be made here."""
    total, free = total_bytes // _BLOCK_BYTES, free_bytes // _BLOCK_BYTES
    return _KSTATFS.pack(total, free, free, 0, 0, _BLOCK_BYTES, 255, _BLOCK_BYTES)


def pack_dirent(inode: int, offset: int, name: bytes, mode: int) -> bytes:
    """fuse_dirent, filled up to 8 bytes. `offset` is where the next one is asked for; of `mode` the type counts."""
    return _DIRENT.pack(inode, offset, len(name), mode >> 12) + name + bytes(-len(name) % 8)


def pack_direntplus(entry: bytes | None, attributes: bytes, dirent: bytes) -> bytes:
    """fuse_direntplus: `pack_entry` and `pack_dirent`. Without an entry (node id 0) the kernel takes the name only."""
    return (entry or _NO_NODE + attributes) + dirent


def direntplus_bytes(name: bytes) -> int:
    """How long the fuse_direntplus of a name is."""
    return _ENTRY.size + ATTR.size + dirent_bytes(name)


def dirent_bytes(name: bytes) -> int:
    """How long the fuse_dirent of a name is."""
    return _DIRENT.size + len(name) + -len(name) % 8


# ---- what it is told unasked


def pack_stale_entry(parent: int, name: bytes) -> bytes:
    """FUSE_NOTIFY_INVAL_ENTRY: look this name up anew."""
    return _notice(Notice.INVAL_ENTRY, _INVAL_ENTRY.pack(parent, len(name), 0) + name + b"\0")


def pack_prune(nodes: Sequence[int]) -> bytes:
    """FUSE_NOTIFY_PRUNE: forget these nodes if nobody uses them. Takes no lock of a directory, unlike INVAL_ENTRY."""
    body = _PRUNE.pack(len(nodes), 0, 0) + struct.pack(f"={len(nodes)}Q", *nodes)
    return _notice(Notice.PRUNE, body)


def _notice(code: Notice, body: bytes) -> bytes:
    # Where a reply has its error, with a unique of 0, a notice has its code.
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), code, 0) + body
