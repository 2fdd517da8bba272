"""Moving bytes: what is read is what was there, what is written is what was read, and the rest is an error."""

import errno
import io
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
from making import ATTRIBUTES, everything_below, fixity_of, original, put, small_disk, there

from omero_archive.digests import FixityDigests, omero_checksum
from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    NotEnoughSpace,
    OriginalUnfit,
    ServiceUnavailable,
    SourceChanged,
    SourceRotted,
    SourceUnreadable,
    SourceVanished,
    TargetFailed,
    UnsafePath,
)
from omero_archive.files import Tree, temporary_name
from omero_archive.model import Checksum, FileAttributes, Fixity
from omero_archive.transfer import (
    INLINE_BYTES,
    PIECE_BYTES,
    BytesReader,
    Lanes,
    RecallReader,
    SourceReader,
    read_back,
    write_temporary,
)

SIZES = [0, 1, INLINE_BYTES, INLINE_BYTES + 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7]
RANDOM = os.urandom(3 * PIECE_BYTES + 7)


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    made = Lanes()
    yield made
    made.close()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "source").mkdir()
    with Tree(tmp_path / "source") as opened:
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "target").mkdir()
    with Tree(tmp_path / "target") as opened:
        yield opened


def sha1(content: bytes) -> Checksum:
    return Checksum(algorithm="SHA1-160", value=omero_checksum("SHA1-160", content))


def drain(reader: SourceReader | RecallReader) -> bytes:
    with closing(reader.pieces()) as pieces:
        return b"".join(bytes(piece) for piece in pieces)


class PlainReader:
    """A reader of the caller's pieces."""

    def __init__(self, make: Callable[[], Generator[memoryview, None, None]]) -> None:
        self._make = make
        self.fixity: Fixity = fixity_of(b"")
        self.attributes: FileAttributes = ATTRIBUTES

    def pieces(self) -> Generator[memoryview, None, None]:
        return self._make()


# ---- whole and right


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_arrives_whole_with_its_evidence(tree: Tree, target: Tree, lanes: Lanes, size: int) -> None:
    content = RANDOM[:size]
    path = put(tree.root, "x", content)
    os.chmod(path, 0o604)
    os.utime(path, ns=(0, 1_111_111_111_222_222_222))
    before = there(tree, "x")
    reader = SourceReader(tree, "x", original("x", size=size, checksum=sha1(content)), lanes)
    assert write_temporary(reader, target, "y") == size
    target.sync()
    target.publish("y")
    assert (target.root / "y").read_bytes() == content
    assert reader.fixity == fixity_of(content)
    assert reader.read.identity == before.identity
    assert there(target, "y").attributes == reader.attributes == before.attributes
    assert read_back(target, "y", lanes) == (size, reader.fixity.xxh3)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_the_owner_is_kept(tree: Tree, target: Tree, lanes: Lanes) -> None:
    os.chown(put(tree.root, "x", b"bytes"), 12345, 12346)
    write_temporary(SourceReader(tree, "x", original("x"), lanes), target, "x")
    target.publish("x")
    found = (target.root / "x").stat()
    assert (found.st_uid, found.st_gid) == (12345, 12346)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("groups", "kept"), [([12346], 12346), ([], 0)])
def test_a_user_who_may_not_give_files_away_keeps_a_group_that_is_also_his(
    tree: Tree, target: Tree, lanes: Lanes, groups: list[int], kept: int
) -> None:
    os.chown(put(tree.root, "x", b"bytes"), 12345, 12346)
    os.chown(target.root, 65534, 0)
    before = os.getgroups()
    os.setgroups(groups)
    os.seteuid(65534)
    try:
        write_temporary(SourceReader(tree, "x", original("x"), lanes), target, "x")
    finally:
        os.seteuid(0)
        os.setgroups(before)
    target.publish("x")
    found = (target.root / "x").stat()
    assert (found.st_uid, found.st_gid) == (65534, kept)


def test_memory_does_not_grow_with_the_file(tree: Tree, target: Tree, lanes: Lanes) -> None:
    with (tree.root / "x").open("wb") as file:
        file.truncate(24 * PIECE_BYTES)
    tracemalloc.start()
    write_temporary(SourceReader(tree, "x", original("x"), lanes), target, "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * PIECE_BYTES


def test_two_transfers_in_turns_in_one_thread_do_not_mix(tree: Tree, lanes: Lanes) -> None:
    contents = {"one": RANDOM, "two": RANDOM[::-1]}
    for name, content in contents.items():
        put(tree.root, name, content)
    readers = {
        name: SourceReader(tree, name, original(name, checksum=sha1(contents[name])), lanes) for name in contents
    }
    got: dict[str, bytes] = {"one": b"", "two": b""}
    one, two = readers["one"].pieces(), readers["two"].pieces()
    for first, second in zip(one, two, strict=True):
        got["one"] += bytes(first)
        got["two"] += bytes(second)
    assert got == contents


def test_bytes_in_memory_are_a_reader_too(target: Tree) -> None:
    for content in (b"", b"manifest"):
        reader = BytesReader(content, ATTRIBUTES)
        write_temporary(reader, target, "m")
        assert (target.root / temporary_name("m")).read_bytes() == content
        assert reader.fixity == fixity_of(content)


def test_what_is_not_read_to_its_end_has_no_evidence(tree: Tree, lanes: Lanes) -> None:
    put(tree.root, "x", RANDOM)
    reader = SourceReader(tree, "x", original("x"), lanes)
    descriptors = len(os.listdir("/proc/self/fd"))
    with closing(reader.pieces()) as pieces:
        next(pieces)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with pytest.raises(AssertionError):
        _ = reader.fixity


def test_a_digest_that_fails_in_its_thread_fails_the_transfer(lanes: Lanes) -> None:
    class Broken:
        def update(self, piece: object, /) -> None:
            raise MemoryError("no room to hash")

        def hexdigest(self) -> str:
            return ""

    digests = FixityDigests()
    digests.members = (*digests.members, Broken())
    source = io.BytesIO(RANDOM)
    with pytest.raises(MemoryError):
        list(lanes.hashed(source.readinto, digests))


# ---- sources that are not what they should be


def write_over(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"!")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def exchange(path: Path) -> None:
    status = path.stat()
    other = put(path.parent, "other", path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("y"))
    path.symlink_to("y")


CHANGES: dict[str, Callable[[Path], object]] = {
    "written over": write_over,
    "grown": append,
    "shrunk": lambda path: os.truncate(path, PIECE_BYTES + 1),
    "emptied": lambda path: os.truncate(path, 0),
    "vanished": lambda path: path.unlink(),
    "exchanged for an equal file": exchange,
    "given another mode": lambda path: path.chmod(0o600),
    "given an older mtime": lambda path: os.utime(path, ns=(0, 0)),
    "replaced by a link": replace_by_link,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_while_it_is_read_is_not_archived(
    tree: Tree, target: Tree, lanes: Lanes, change: str
) -> None:
    path = put(tree.root, "x", RANDOM)
    reader = SourceReader(tree, "x", original("x"), lanes)

    def changing() -> Generator[memoryview, None, None]:
        for number, piece in enumerate(reader.pieces()):
            if number == 1:
                CHANGES[change](path)
            yield piece

    with pytest.raises(SourceChanged, match="changed while it was read"):
        write_temporary(PlainReader(changing), target, "x")
    assert everything_below(target.root) == {}


def test_a_source_whose_directory_is_exchanged_while_it_is_read_is_not_archived(tree: Tree, lanes: Lanes) -> None:
    put(tree.root, "a/x", RANDOM)
    pieces = SourceReader(tree, "a/x", original("a/x"), lanes).pieces()
    next(pieces)
    (tree.root / "a").rename(tree.root / "b")  # the open file itself does not change by this
    put(tree.root, "a/x", RANDOM)
    with pytest.raises(SourceChanged):
        list(pieces)


def test_a_source_whose_directory_goes_while_it_is_read_is_unreadable(tree: Tree, lanes: Lanes) -> None:
    put(tree.root, "a/x", RANDOM)
    pieces = SourceReader(tree, "a/x", original("a/x"), lanes).pieces()
    next(pieces)
    (tree.root / "a").rename(tree.root / "b")
    (tree.root / "a").write_bytes(b"a file now")
    with pytest.raises(SourceUnreadable, match="a/x"):
        list(pieces)


@pytest.mark.parametrize(
    ("what", "expected"),
    [("nothing", SourceVanished), ("directory", OriginalUnfit), ("link", OriginalUnfit), ("pipe", OriginalUnfit)],
)
def test_a_source_that_is_no_plain_file_is_refused(
    tree: Tree, target: Tree, lanes: Lanes, what: str, expected: type[ArchiveError]
) -> None:
    path = tree.root / "x"
    match what:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(put(tree.root, "real", b"bytes"))
        case "pipe":
            os.mkfifo(path)
    with pytest.raises(expected, match="x is"):
        write_temporary(SourceReader(tree, "x", original("x"), lanes), target, "x")
    assert everything_below(target.root) == {}


def test_a_source_behind_a_link_or_outside_is_refused(tree: Tree, lanes: Lanes) -> None:
    put(tree.root.parent, "outside/x", b"bytes")
    (tree.root / "a").symlink_to("../outside")
    for path in ("a/x", "../outside/x", "/etc/passwd"):
        with pytest.raises(UnsafePath):
            drain(SourceReader(tree, path, original(path), lanes))


def test_a_source_whose_parent_is_a_file_is_unreadable_and_not_missing(tree: Tree, lanes: Lanes) -> None:
    put(tree.root, "a", b"")
    with pytest.raises(SourceUnreadable):
        drain(SourceReader(tree, "a/x", original("a/x"), lanes))


def test_a_source_that_the_system_cannot_read_is_unreadable(target: Tree, lanes: Lanes) -> None:
    # The kernel answers EIO to a read at an address that the process has not mapped.
    with Tree(Path("/proc/self")) as proc, pytest.raises(SourceUnreadable, match="Input/output error"):
        write_temporary(SourceReader(proc, "mem", original("mem"), lanes), target, "x")
    assert everything_below(target.root) == {}


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_source_without_permission_is_unreadable(tree: Tree, lanes: Lanes) -> None:
    put(tree.root, "x", b"bytes").chmod(0)
    with pytest.raises(SourceUnreadable, match="Permission denied"):
        drain(SourceReader(tree, "x", original("x"), lanes))


@pytest.mark.parametrize(
    "algorithm", ["Adler-32", "CRC-32", "MD5-128", "Murmur3-32", "Murmur3-128", "SHA1-160", "File-Size-64"]
)
def test_a_source_must_have_the_checksum_that_omero_took(
    tree: Tree, target: Tree, lanes: Lanes, algorithm: str
) -> None:
    put(tree.root, "x", b"what lies there now")
    right = Checksum(algorithm=algorithm, value=omero_checksum(algorithm, b"what lies there now"))
    wrong = Checksum(algorithm=algorithm, value=omero_checksum(algorithm, b"what was imported"))
    drain(SourceReader(tree, "x", original("x", checksum=right), lanes))
    with pytest.raises(SourceRotted, match=algorithm) as failure:
        write_temporary(SourceReader(tree, "x", original("x", checksum=wrong), lanes), target, "x")
    assert wrong.value in str(failure.value)
    assert everything_below(target.root) == {}


@pytest.mark.parametrize("algorithm", ["CRC-32", "MD5-128", "SHA1-160", "File-Size-64"])
def test_a_checksum_that_a_script_wrote_in_capitals_is_the_same_checksum(
    tree: Tree, lanes: Lanes, algorithm: str
) -> None:
    put(tree.root, "x", b"what lies there now")
    right = Checksum(algorithm=algorithm, value=omero_checksum(algorithm, b"what lies there now").upper())
    wrong = Checksum(algorithm=algorithm, value=omero_checksum(algorithm, b"what was imported before").upper())
    assert drain(SourceReader(tree, "x", original("x", checksum=right), lanes)) == b"what lies there now"
    with pytest.raises(SourceRotted):
        drain(SourceReader(tree, "x", original("x", checksum=wrong), lanes))


def test_file_size_64_does_not_see_other_bytes(tree: Tree, lanes: Lanes) -> None:
    put(tree.root, "x", b"rotten")
    size = Checksum(algorithm="File-Size-64", value=omero_checksum("File-Size-64", b"healty"))
    assert size.proves_only_size
    assert drain(SourceReader(tree, "x", original("x", checksum=size), lanes)) == b"rotten"


def test_a_source_must_have_the_size_that_omero_recorded(tree: Tree, lanes: Lanes) -> None:
    put(tree.root, "x", b"12345")
    with pytest.raises(SourceRotted, match="has 5 bytes, OMERO imported 6"):
        drain(SourceReader(tree, "x", original("x", size=6), lanes))
    assert drain(SourceReader(tree, "x", original("x", size=None), lanes)) == b"12345"


# ---- targets that fail


@pytest.mark.parametrize("problem", [SourceRotted("rotten"), ValueError("a plugin's mistake"), KeyboardInterrupt()])
def test_whatever_stops_the_reader_nothing_is_left(target: Tree, problem: BaseException) -> None:
    def broken() -> Generator[memoryview, None, None]:
        yield memoryview(b"half")
        raise problem

    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(type(problem)):
        write_temporary(PlainReader(broken), target, "x")
    assert everything_below(target.root) == {}
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_full_disk_is_told_and_nothing_is_left(tree: Tree, lanes: Lanes, tmp_path: Path) -> None:
    put(tree.root, "x", RANDOM)
    with small_disk(tmp_path / "disk", 2 << 20) as disk, Tree(disk) as full:
        free = full.free_bytes()
        with pytest.raises(NotEnoughSpace, match="No space left"):
            write_temporary(SourceReader(tree, "x", original("x"), lanes), full, "x")
        assert everything_below(disk) == {}
        assert full.free_bytes() == free


def test_a_file_that_may_not_grow_is_an_error_and_nothing_is_left(target: Tree) -> None:
    program = (
        "import sys; from pathlib import Path; from omero_archive.files import Tree; "
        "from omero_archive.model import FileAttributes; "
        "from omero_archive.transfer import BytesReader, write_temporary; "
        "write_temporary(BytesReader(bytes(1 << 20), FileAttributes(mtime_ns=0, mode=0o600, uid=0, gid=0)), "
        "Tree(Path(sys.argv[1])), 'x')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(target.root)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
    )
    assert "TargetFailed" in ended.stderr
    assert os.strerror(errno.EFBIG) in ended.stderr
    assert everything_below(target.root) == {}


def test_a_missing_target_directory_is_an_error_of_the_target(target: Tree) -> None:
    with pytest.raises(TargetFailed):
        write_temporary(BytesReader(b"bytes", ATTRIBUTES), target, "none/x")


# ---- reading back and recalling


@pytest.mark.parametrize("at", [0, PIECE_BYTES - 1, PIECE_BYTES, len(RANDOM) - 1])
def test_reading_back_finds_one_flipped_bit(target: Tree, lanes: Lanes, at: int) -> None:
    path = put(target.root, "x", RANDOM)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([RANDOM[at] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    target.sync()
    size, xxh3 = read_back(target, "x", lanes)
    assert size == len(RANDOM)
    assert xxh3 != fixity_of(RANDOM).xxh3


def test_reading_back_what_is_not_there_is_an_error(target: Tree, lanes: Lanes) -> None:
    with pytest.raises(FileNotFoundError):
        read_back(target, "x", lanes)


def test_a_recall_brings_the_bytes_and_the_attributes_of_the_original(target: Tree, lanes: Lanes) -> None:
    reader = RecallReader(lambda: io.BytesIO(RANDOM), "x on tape", fixity_of(RANDOM), ATTRIBUTES, lanes)
    write_temporary(reader, target, "x")
    target.publish("x")
    assert (target.root / "x").read_bytes() == RANDOM
    assert there(target, "x").attributes == ATTRIBUTES


@pytest.mark.parametrize("copy", [RANDOM[:-1], RANDOM + b"!", b"", RANDOM[:-1] + bytes([RANDOM[-1] ^ 1])])
def test_a_recall_of_other_bytes_leaves_nothing(target: Tree, lanes: Lanes, copy: bytes) -> None:
    reader = RecallReader(lambda: io.BytesIO(copy), "x on tape", fixity_of(RANDOM), ATTRIBUTES, lanes)
    with pytest.raises(FixityMismatch, match="nothing was recalled"):
        write_temporary(reader, target, "x")
    assert everything_below(target.root) == {}


def test_a_copy_that_cannot_be_read_is_unavailable_and_no_fault_of_the_target(target: Tree, lanes: Lanes) -> None:
    def unreadable() -> BinaryIO:
        return Path("/proc/self/mem").open("rb", buffering=0)  # EIO at the first read

    descriptors = len(os.listdir("/proc/self/fd"))
    reader = RecallReader(unreadable, "x on tape", fixity_of(RANDOM), ATTRIBUTES, lanes)
    with pytest.raises(ServiceUnavailable, match="x on tape"):
        write_temporary(reader, target, "x")
    assert everything_below(target.root) == {}
    assert len(os.listdir("/proc/self/fd")) == descriptors
