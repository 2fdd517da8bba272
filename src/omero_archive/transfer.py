"""Moving bytes: read once while every digest is taken, write under a temporary name, read back from the medium.

The source's bytes pass through two buffers that are used again and again. While one piece is hashed, each digest
in a thread of its own, the receiver writes the same piece and the next is read into the other buffer. Hashing lets
go of the GIL, so one file uses the cores there are.

Small files go several at once, since each of them mostly waits for the disk, and each of them is read by one call
and hashed where it was read; large ones go one after the other,
since a disk that has to jump between two of them is slower than either. Large pieces are written past the page
cache: they are read back from the medium anyway, and copying them into the cache costs as much as hashing them.
"""

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol, TypeVar

from omero_archive import disk
from omero_archive.digests import FixityDigests
from omero_archive.errors import (
    FixityMismatch,
    OriginalUnfit,
    ServiceUnavailable,
    SourceChanged,
    SourceRotted,
    SourceUnreadable,
    SourceVanished,
)
from omero_archive.files import (
    EntryKind,
    Tree,
    Workbench,
    as_entry,
    finish,
    is_kept_time,
    is_untouched,
    translated,
)
from omero_archive.model import FileAttributes, FileIdentity, Fixity, OriginalFile

PIECE_BYTES = 4 << 20
INLINE_BYTES = 1 << 20  # up to here handing a piece to another thread costs more than hashing it
SMALL_BYTES = 128 << 10  # up to here one read gets the file, and read-ahead has nothing to do
FILES_AT_ONCE = 4  # more than there are cores: half of the time each waits for the disk
BATCH = 16  # files handed to a thread together: handing over one costs a tenth of copying it

ODD_TIME = "has an mtime before 1678 or after 2261, which cannot be kept; give it another (touch -d)"
"""What is said of an original that `is_kept_time` refuses."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Reader(Protocol):
    """The bytes of one file, to be read once by whoever stores them.

    `pieces` yields views that are valid until the next one is asked for, and raises an `ArchiveError` after the
    last piece if the bytes were not what they should have been: whoever stores them must then store nothing.
    `fixity` and `attributes` may be asked for once the pieces are read.
    """

    @property
    def fixity(self) -> Fixity: ...

    @property
    def attributes(self) -> FileAttributes: ...

    def pieces(self) -> Generator[memoryview, None, None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRead:
    """What is known of an original after it was read: evidence, and by what it is known again."""

    fixity: Fixity
    identity: FileIdentity
    attributes: FileAttributes


class Lanes:
    """The buffers and the hashing threads, shared by all transfers of one process. Safe for several threads."""

    def __init__(self, *, files_at_once: int = FILES_AT_ONCE) -> None:
        self._pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2), thread_name_prefix="hash")
        self._files = ThreadPoolExecutor(max_workers=files_at_once, thread_name_prefix="file")
        self._one_large_file = threading.RLock()  # of one thread, which may have two transfers open
        self._local = threading.local()

    def close(self) -> None:
        """Stop the threads."""
        self._files.shutdown()
        self._pool.shutdown()

    def each(self, act: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[_R]:
        """What `act` returns for each item, in order; several are acted on at once. Raises what `act` raises.

        When it ends, however it ends, nothing is being done any more.
        """
        batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
        futures = [self._files.submit(lambda batch: [act(item) for item in batch], batch) for batch in batches]
        try:
            for future in futures:
                yield from future.result()
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def buffers(self) -> tuple[memoryview, memoryview]:
        """The two buffers of the calling thread. They begin at a page, as writing past the cache demands."""
        if not hasattr(self._local, "buffers"):
            self._local.buffers = (memoryview(mmap.mmap(-1, PIECE_BYTES)), memoryview(mmap.mmap(-1, PIECE_BYTES)))
        found: tuple[memoryview, memoryview] = self._local.buffers
        return found

    def hashed(
        self, read_into: Callable[[memoryview], int], digests: FixityDigests, *, size_bytes: int | None = None
    ) -> Generator[memoryview, None, None]:
        """Yield what `read_into` gives, piece by piece, and feed it to the digests.

        Reads to the end, or until there are `size_bytes`: the caller then looks whether the file grew.
        """
        buffers = self.buffers()
        # Ours until the end: a second transfer begun in this thread meanwhile gets buffers of its own.
        del self._local.buffers
        try:
            if len(digests.members) == 1 or (size_bytes is not None and size_bytes <= INLINE_BYTES):
                yield from self._inline(read_into, digests, buffers[0], size_bytes=size_bytes)
            else:
                yield from self._by_turns(read_into, digests, buffers, size_bytes=size_bytes)
        finally:
            self._local.buffers = buffers

    def _inline(
        self,
        read_into: Callable[[memoryview], int],
        digests: FixityDigests,
        buffer: memoryview,
        *,
        size_bytes: int | None,
    ) -> Generator[memoryview, None, None]:
        """As `hashed`, without other threads: a small file, or a digest that is quicker than handing pieces over.

        A small file may give more than `size_bytes`, so that whoever counts sees that it grew. Of others the pieces
        are smaller: they are hashed while they are in the processor's cache.
        """
        view = buffer[:INLINE_BYTES] if size_bytes is None else buffer
        is_large = False
        try:
            while digests.size_bytes != size_bytes and (count := read_into(view)):
                digests.update(view[:count])
                yield view[:count]
                if digests.size_bytes >= PIECE_BYTES and not is_large:
                    is_large = self._one_large_file.acquire()
        finally:
            if is_large:
                self._one_large_file.release()

    def _by_turns(
        self,
        read_into: Callable[[memoryview], int],
        digests: FixityDigests,
        buffers: tuple[memoryview, memoryview],
        *,
        size_bytes: int | None,
    ) -> Generator[memoryview, None, None]:
        """As `hashed`: while one buffer is hashed and written, the other is filled."""
        pending: list[Future[None]] = []
        is_large = False
        try:
            for turn in _alternating(buffers):
                count = 0 if digests.size_bytes == size_bytes else read_into(turn)
                for future in pending:
                    future.result()  # raises what hashing raised: a digest that missed a piece proves nothing
                if count == 0:
                    return
                if count == PIECE_BYTES and not is_large:
                    is_large = self._one_large_file.acquire()
                piece = turn[:count]
                if count <= INLINE_BYTES:
                    digests.update(piece)
                else:
                    digests.size_bytes += count
                    pending = [self._pool.submit(digest.update, piece) for digest in digests.members]
                yield piece
        finally:
            if pending:
                wait(pending)
            if is_large:
                self._one_large_file.release()


class SourceReader:
    """Reads an original once. After the last piece it has proved that the file is what OMERO imported.

    The errors, each raised by `pieces`: `SourceVanished`, `SourceUnreadable`, `OriginalUnfit` (not a plain file, or
    a time that cannot be kept), `UnsafePath`, `SourceChanged` (while it was read), `SourceRotted` (size or checksum
    differ from OMERO's).
    """

    def __init__(self, tree: Tree, relative: str, file: OriginalFile, lanes: Lanes) -> None:
        self._tree = tree
        self._relative = relative
        self._file = file
        self._lanes = lanes
        self._read: SourceRead | None = None

    @property
    def read(self) -> SourceRead:
        """What is known now. Only after `pieces` came to its end."""
        assert self._read is not None, "the source was not read to its end"  # noqa: S101
        return self._read

    @property
    def fixity(self) -> Fixity:
        return self.read.fixity

    @property
    def attributes(self) -> FileAttributes:
        return self.read.attributes

    def pieces(self) -> Generator[memoryview, None, None]:
        checksum = self._file.checksum
        digests = FixityDigests(None if checksum is None else checksum.algorithm)
        before, fd = self._open()
        try:
            if not is_kept_time(before.st_mtime_ns):
                raise OriginalUnfit(f"{self._file.key} {ODD_TIME}; it was not archived.")
            _expect_whole(fd, before.st_size)
            # A file that grows meanwhile has another size afterwards, so the read that finds its end is not needed.
            wanted = before.st_size or None
            yield from self._lanes.hashed(lambda view: self._read_into(fd, view), digests, size_bytes=wanted)
            # These pages would push out of the cache what OMERO's users read.
            disk.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            after = disk.fstat(fd)
        finally:
            disk.close(fd)
        # By its path once more, from the top: a directory on the way may be another by now.
        found = self._look()
        if found is None or not (is_untouched(before, after) and is_untouched(after, found)):
            raise SourceChanged(f"{self._file.key} changed while it was read; it was not archived.")
        self._compare(digests)
        seen = as_entry(after)
        self._read = SourceRead(fixity=digests.fixity(), identity=seen.identity, attributes=seen.attributes)

    def _look(self) -> os.stat_result | None:
        try:
            return self._tree.look_closely(self._relative)
        except OSError as error:
            raise SourceUnreadable(f"{self._file.key} could not be read: {error.strerror}.") from error

    def _open(self) -> tuple[os.stat_result, int]:
        """What lies at the path, and a descriptor of it."""
        key = self._file.key
        try:
            opened = self._tree.open_seen(self._relative)
        except OSError as error:
            raise SourceUnreadable(f"{key} could not be read: {error.strerror}.") from error
        if opened is None:
            raise SourceVanished(f"{key} is in OMERO's database, but not on its disk.")
        found, fd = opened
        if fd < 0:
            raise self._unfit()
        return found, fd

    def _unfit(self) -> OriginalUnfit | SourceChanged | SourceUnreadable:
        """What to say of what is no plain file."""
        key = self._file.key
        try:
            entry = self._tree.look(self._relative)
        except OSError as error:
            return SourceUnreadable(f"{key} could not be read: {error.strerror}.")
        if entry is None or entry.kind is EntryKind.FILE:
            return SourceChanged(f"{key} changed while it was looked at; it was not archived.")
        where = f" to {entry.target}" if entry.target else ""
        return OriginalUnfit(f"{key} is a {entry.kind}{where}, not a plain file; it was not archived.")

    def _read_into(self, fd: int, view: memoryview) -> int:
        try:
            return disk.readv(fd, [view])
        except OSError as error:
            raise SourceUnreadable(f"{self._file.key} could not be read: {error.strerror}.") from error

    def _compare(self, digests: FixityDigests) -> None:
        recorded = self._file.size_bytes
        if recorded is not None and recorded != digests.size_bytes:
            raise SourceRotted(
                f"{self._file.key} has {digests.size_bytes} bytes, OMERO imported {recorded}; it was not archived."
            )
        checksum = self._file.checksum
        # OMERO writes small letters; what a script wrote in capitals is the same number, and no rot.
        if checksum is not None and checksum.value.lower() != digests.omero:
            raise SourceRotted(
                f"{self._file.key} has {checksum.algorithm} {digests.omero}, OMERO took {checksum.value} at import; "
                "it was not archived. Look for a backup of this file."
            )


class RecallReader:
    """Reads a copy from a service and proves that it has the bytes of the original.

    `pieces` raises `FixityMismatch`, `ServiceUnavailable` when reading breaks off, and what opening the copy raises.
    """

    def __init__(
        self,
        open_copy: Callable[[], BinaryIO],
        subject: str,
        fixity: Fixity,
        attributes: FileAttributes,
        lanes: Lanes,
    ) -> None:
        self._open_copy = open_copy
        self._subject = subject
        self._lanes = lanes
        self.fixity = fixity
        self.attributes = attributes

    def pieces(self) -> Generator[memoryview, None, None]:
        digests = FixityDigests()
        with closing(self._open_copy()) as copy:
            yield from self._lanes.hashed(lambda view: self._read_into(copy, view), digests)
        if digests.fixity() != self.fixity:
            raise FixityMismatch(
                f"{self._subject}: the copy has SHA-256 {digests.fixity().sha256}, "
                f"the original had {self.fixity.sha256}; nothing was recalled from it."
            )

    def _read_into(self, copy: BinaryIO, view: memoryview) -> int:
        try:
            return copy.readinto(view) or 0  # type: ignore[attr-defined]
        except OSError as error:
            raise ServiceUnavailable(f"{self._subject}: the copy could not be read: {error}.") from error


class BytesReader:
    """Bytes in memory, such as a manifest."""

    def __init__(self, content: bytes, attributes: FileAttributes) -> None:
        self._content = content
        self.attributes = attributes
        digests = FixityDigests()
        digests.update(content)
        self.fixity = digests.fixity()

    def pieces(self) -> Generator[memoryview, None, None]:
        if self._content:
            yield memoryview(self._content)


def give_way(*, nice: int, idle_io: bool) -> str | None:
    """Have this process give way to others, for good: CPU priority, and disks only when they are idle.

    For the beginning, before there are threads. What of it the system refuses is no reason not to work: in words.
    """
    refused = []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    except OSError as error:
        refused.append(f"work.nice: {error.strerror}")
    if idle_io:
        try:
            disk.use_disks_when_idle()
        except OSError as error:
            refused.append(f"work.idle_io: {error.strerror}")
    return "; ".join(refused) or None


def write_temporary(reader: Reader, tree: Tree, relative: str) -> int:
    """Store a reader's bytes under the temporary name of `relative`, with its attributes; the bytes written.

    Nothing is left if the reader or the disk fails. The caller syncs, then publishes.
    """
    create, drop = partial(tree.create_temporary, relative), partial(tree.drop_temporary, relative)
    return _write_new(reader, create, drop, str(tree.path(relative)))


def write_slot(reader: Reader, bench: Workbench, number: int) -> int:
    """As `write_temporary`, in a place of a workbench."""
    return _write_new(reader, partial(bench.create, number), partial(bench.drop, number), bench.slot(number))


def _write_new(reader: Reader, create: Callable[[], int], drop: Callable[[], None], subject: str) -> int:
    try:
        fd = create()
    except OSError as error:
        raise translated(error, subject) from error
    is_whole = False
    try:
        written = _fill(fd, reader)
        is_whole = True
    except OSError as error:
        raise translated(error, subject) from error
    finally:
        if not is_whole:
            # What stopped us says more than that the rest could not be removed; the next run starts it anew.
            with suppress(OSError):
                drop()
    return written


def read_back(tree: Tree, relative: str, lanes: Lanes) -> tuple[int, str]:
    """Size in bytes and XXH3-128 of a file, read from the medium and not from the page cache.

    The file must have been synced: the kernel drops only clean pages. Raises `OSError`.
    """
    digests = FixityDigests(fast_only=True)
    fd = tree.open_to_read(relative)
    try:
        disk.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        size_bytes = disk.fstat(fd).st_size
        _expect_whole(fd, size_bytes)
        # A small file whose one read gave as much as it has, though there was room for more, has come to its end.
        known = size_bytes if 0 < size_bytes <= INLINE_BYTES else None
        for piece in lanes.hashed(lambda view: disk.readv(fd, [view]), digests, size_bytes=known):
            del piece
        disk.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        disk.close(fd)
    return digests.size_bytes, digests.fast


def _fill(fd: int, reader: Reader) -> int:
    """Write, give the attributes and close: NFS says only at `close` that the disk was full."""
    written = 0
    try:
        with closing(reader.pieces()) as pieces:
            is_direct = False
            for piece in pieces:
                # Whole pieces only, so that each begins where a block begins.
                is_direct = _write_past_cache(fd, wanted=len(piece) == PIECE_BYTES, is_direct=is_direct)
                is_direct = _write_all(fd, piece, is_direct=is_direct)
                written += len(piece)
        finish(fd, reader.attributes)
    finally:
        disk.close_written(fd)
    return written


def _expect_whole(fd: int, size_bytes: int) -> None:
    """Tell the kernel that the file will be read from its beginning to its end."""
    if size_bytes > SMALL_BYTES:
        disk.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def _write_past_cache(fd: int, *, wanted: bool, is_direct: bool) -> bool:
    """Let writes go to the disk directly, or through the page cache; which of them they do now."""
    if wanted == is_direct:
        return is_direct
    flags = disk.fcntl(fd, fcntl.F_GETFL)
    try:
        disk.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
    except OSError:
        return is_direct  # a file system that has no direct writes
    return wanted


def _write_all(fd: int, piece: memoryview, *, is_direct: bool) -> bool:
    """Write a piece; whether writes go past the cache still."""
    while piece:
        try:
            piece = piece[disk.write(fd, piece) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not is_direct:
                raise
            # Larger blocks than ours, or what is left after a short write: through the cache, nothing is lost.
            is_direct = _write_past_cache(fd, wanted=False, is_direct=True)
            if is_direct:
                raise
    return is_direct


def _alternating(pair: tuple[memoryview, memoryview]) -> Iterator[memoryview]:
    while True:
        yield from pair
