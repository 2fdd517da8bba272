"""Messages of the FUSE protocol, against bytes written by hand from include/uapi/linux/fuse.h. Little-endian only."""

import os
import stat
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omero_archive.access.fuse import protocol
from omero_archive.access.fuse.mounts import parse_mountinfo
from omero_archive.access.fuse.protocol import Init
from omero_archive.access.fuse.served import errno_of
from omero_archive.access.items import Item, ItemKind, Reason
from omero_archive.model import FileAttributes

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes below are little-endian")

_FILE = Item(
    kind=ItemKind.FILE,
    size_bytes=1025,
    attributes=FileAttributes(mtime_ns=1_700_000_000_123_456_789, mode=0o640, uid=1000, gid=100),
)


def test_sizes_are_those_of_the_kernel() -> None:
    assert protocol.IN_HEADER.size == protocol.HEADER_BYTES == 40
    assert protocol.OUT_HEADER.size == 16
    assert protocol.ATTR.size == 88
    assert protocol.BACKING_MAP.size == 16
    assert len(protocol.pack_entry(2, bytes(88))) == 128
    assert len(protocol.pack_attr_out(bytes(88))) == 104
    assert len(protocol.pack_open(1)) == 16
    assert len(protocol.pack_statfs(1 << 30, 1 << 20)) == 80
    offer = protocol.Offer(major=7, minor=45, max_readahead=131072, flags=Init(0))
    assert len(protocol.pack_init(offer, passthrough=False)) == 64


def test_ioctl_numbers_are_those_that_the_kernel_computes() -> None:
    assert protocol.IOC_BACKING_OPEN == 0x4010E501
    assert protocol.IOC_BACKING_CLOSE == 0x4004E502


def test_a_reply_and_an_error() -> None:
    assert protocol.pack_reply(5, b"abc") == bytes.fromhex("13000000 00000000 0500000000000000 616263")
    assert protocol.pack_error(5, 61) == bytes.fromhex("10000000 c3ffffff 0500000000000000")
    assert protocol.pack_error(5, 0) == bytes.fromhex("10000000 00000000 0500000000000000")


def test_attributes_of_a_file() -> None:
    expected = (
        "0700000000000000 0104000000000000 0300000000000000"  # ino, size, blocks
        + "00f1536500000000" * 3  # atime, mtime, ctime
        + "15cd5b07" * 3
        + "a0810000 01000000 e8030000 64000000 00000000 00100000 00000000"  # mode nlink uid gid rdev blksize flags
    )
    packed = protocol.pack_attributes(7, _FILE)
    assert packed == bytes.fromhex(expected)
    assert protocol.size_of(packed) == 1025


def test_times_before_1970_keep_their_nanoseconds() -> None:
    attributes = FileAttributes(mtime_ns=-1, mode=0o755, uid=0, gid=0)
    fields = protocol.ATTR.unpack(
        protocol.pack_attributes(1, Item(kind=ItemKind.DIRECTORY, size_bytes=0, attributes=attributes))
    )
    assert (fields[4], fields[7]) == (0xFFFFFFFFFFFFFFFF, 999_999_999)
    assert stat.S_ISDIR(fields[9])


@given(
    size=st.integers(0, 2**63 - 1),
    mtime_ns=st.integers(-(2**62), 2**62),
    mode=st.integers(0, 0o7777),
    owner=st.integers(0, 2**32 - 1),
)
def test_attributes_come_out_as_they_went_in(size: int, mtime_ns: int, mode: int, owner: int) -> None:
    attributes = FileAttributes(mtime_ns=mtime_ns, mode=mode, uid=owner, gid=owner)
    packed = protocol.pack_attributes(2**64 - 1, Item(kind=ItemKind.FILE, size_bytes=size, attributes=attributes))
    fields = struct.unpack("<QQQqqqIIIIIIIIII", packed)
    assert (fields[0], fields[1]) == (2**64 - 1, size)
    assert protocol.size_of(packed) == size
    assert protocol.mtime_ns_of(packed) == mtime_ns
    assert fields[4] * 10**9 + fields[7] == mtime_ns
    assert (stat.S_IMODE(fields[9]), fields[11], fields[12]) == (mode, owner, owner)


def test_a_lookup_is_valid_for_an_hour() -> None:
    head = protocol.pack_entry(9, b"")
    assert struct.unpack("<QQQQII", head) == (9, 0, 3600, 3600, 0, 0)


def test_init_of_an_old_and_of_a_new_kernel() -> None:
    old = protocol.parse_init(bytes.fromhex("07000000 17000000 00000200 fbff0700"))
    assert (old.minor, old.max_readahead, old.has_passthrough) == (23, 131072, False)
    new = protocol.parse_init(bytes.fromhex("07000000 2d000000 00000200 fbfffb73 20000000") + bytes(44))
    assert (new.minor, new.has_passthrough) == (45, True)
    # The flag without the minor version is no offer, nor is what stands behind flags without INIT_EXT.
    early = protocol.parse_init(bytes.fromhex("07000000 27000000 00000200 fbfffb73 20000000"))
    assert not early.has_passthrough
    assert not protocol.parse_init(bytes.fromhex("07000000 2d000000 00000200 fbfffb33 20000000")).has_passthrough


@pytest.mark.parametrize(("passthrough", "flags2", "depth"), [(True, 32, 2), (False, 0, 0)])
def test_init_takes_of_the_offer_what_is_used(passthrough: bool, flags2: int, depth: int) -> None:
    offer = protocol.Offer(major=7, minor=45, max_readahead=131072, flags=Init((1 << 40) - 1))
    told = struct.unpack("<IIIIHHIIHHIIH22x", protocol.pack_init(offer, passthrough=passthrough))
    assert told[:3] == (7, 41, 131072)
    assert told[3] == 1 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 18 | 1 << 22 | 1 << 30
    assert (told[8], told[10], told[11]) == (256, flags2, depth)


def test_init_never_takes_what_was_not_offered() -> None:
    offer = protocol.Offer(major=7, minor=31, max_readahead=0, flags=Init.ASYNC_READ)
    told = struct.unpack("<IIIIHHIIHHIIH22x", protocol.pack_init(offer, passthrough=True))
    assert (told[1], told[3], told[10]) == (31, 1, 0)


def test_an_open_with_a_backing_file() -> None:
    flags = protocol.OpenFlag.PASSTHROUGH | protocol.OpenFlag.NOFLUSH
    assert protocol.pack_open(3, flags, 7) == bytes.fromhex("0300000000000000 a0000000 07000000")


@given(name=st.binary(min_size=1, max_size=255))
def test_entries_of_a_directory_are_as_long_as_was_reckoned(name: bytes) -> None:
    plain = protocol.pack_dirent(5, 3, name, 0o100000)
    assert len(plain) % 8 == 0
    assert len(plain) == protocol.dirent_bytes(name)
    assert struct.unpack_from("<QQII", plain) == (5, 3, len(name), 8)
    assert plain[24 : 24 + len(name)] == name
    entry = protocol.pack_entry(9, bytes(88))
    assert len(protocol.pack_direntplus(entry, bytes(88), plain)) == protocol.direntplus_bytes(name)
    assert len(protocol.pack_direntplus(None, bytes(88), plain)) == protocol.direntplus_bytes(name)


@given(name=st.binary(max_size=255).filter(lambda name: b"\0" not in name), rest=st.binary(max_size=20))
def test_a_name_ends_with_its_zero_byte(name: bytes, rest: bytes) -> None:
    assert protocol.parse_name(memoryview(name + b"\0" + rest)) == name


@given(told=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))), rest=st.binary(max_size=40))
def test_forgotten_nodes_are_read_as_they_were_written(told: list[tuple[int, int]], rest: bytes) -> None:
    body = struct.pack("<II", len(told), 0) + b"".join(struct.pack("<QQ", *pair) for pair in told)
    assert list(protocol.parse_batch_forget(memoryview(body + rest))) == told


def test_notices_have_their_code_and_no_number() -> None:
    stale = protocol.pack_stale_entry(7, b"ab")
    assert stale == bytes.fromhex("23000000 03000000 0000000000000000 0700000000000000 02000000 00000000 616200")
    prune = protocol.pack_prune([7, 8])
    assert struct.unpack("<IiQIIQQQ", prune) == (48, 9, 0, 2, 0, 0, 7, 8)


def test_every_reason_has_an_errno_that_nobody_takes_for_deleted_or_broken() -> None:
    codes = {reason: os.strerror(errno_of(reason)) for reason in Reason}
    assert codes[Reason.OFFLINE] == "No data available"
    assert codes[Reason.DENIED] == "No medium found"
    assert not {"No such file or directory", "Input/output error", "Permission denied"} & set(codes.values())


_MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:39 / /OMERO/Ar\040chive\134x ro,nosuid - fuse.omero-archive omero-archive ro,user_id=0
37 36 0:40 / /OMERO/Ar\040chive\134x rw shared:7 master:2 - tmpfs none rw
a broken line
"""


def test_mounts_are_read_with_their_escapes_and_optional_fields() -> None:
    found = [(mount.device, mount.path, mount.type) for mount in parse_mountinfo(_MOUNTINFO)]
    path = "/OMERO/Ar chive\\x"
    assert found == [("8:1", "/", "ext4"), ("0:39", path, "fuse.omero-archive"), ("0:40", path, "tmpfs")]
