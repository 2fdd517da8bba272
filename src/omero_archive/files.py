"""Every call that changes a disk, and the rule: only here is anything renamed, replaced, linked or unlinked.

All of it works below a `Tree`, a directory opened once. Paths are relative to it, and the kernel is told to refuse
`..`, absolute paths and symbolic links on the way, so that a path from OMERO's database cannot lead out of the
repository even if a directory is exchanged for a link while we look.

A name changes hands only by `rename`: at every moment a reader finds the old file or the new one under it. What
is half made lies under a temporary name that depends only on the final one, so that the next run finds it and
starts it anew. Errors of the system come out as `OSError`; `translated` gives them our names.

Near bytes are deleted in `delete_near` and `delete_twins`, and nowhere else.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from omero_archive import disk
from omero_archive.errors import (
    ArchiveError,
    BrokenInvariant,
    Busy,
    DiskFailed,
    NotEnoughSpace,
    SourceChanged,
    TargetFailed,
    UnsafePath,
    WrongState,
)
from omero_archive.model import FileAttributes, FileIdentity, Key
from omero_archive.states import Permit

if TYPE_CHECKING:
    from typing_extensions import Buffer

Model = Callable[[str], FileAttributes | None]
"""Tells the mode and the owner that a new directory should have, None where there is nothing to go by."""

TEMPORARY_SUFFIX = ".omero-archive-tmp"


_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What is said where a file system has no locks: Lustre mounted without `flock`, NFS without its lock daemon."""


class EntryKind(StrEnum):
    """What lies at a path."""

    FILE = "file"
    LINK = "link"
    DIRECTORY = "directory"
    OTHER = "other"  # a device, a socket, a pipe


_KINDS = {stat.S_IFREG: EntryKind.FILE, stat.S_IFLNK: EntryKind.LINK, stat.S_IFDIR: EntryKind.DIRECTORY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What `lstat` says of a path. `names` is the number of hard links; `target` is set for a link."""

    kind: EntryKind
    identity: FileIdentity
    attributes: FileAttributes
    names: int
    disk_bytes: int
    target: str | None


class Tree:
    """A directory, below which all the work is done. Safe to use from several threads.

    Raises `OSError` when the root cannot be opened. The root itself may be a symbolic link; nothing below it may.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root_fd = disk.open_root(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the directory. Done twice is done once: the number may be another file's by then."""
        fd, self._root_fd = self._root_fd, -1
        if fd >= 0:
            disk.close(fd)

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, relative: str) -> Path:
        """The absolute path, for messages and for link targets; never used to reach the file."""
        return self.root / relative

    # ---- looking

    def look(self, relative: str) -> Entry | None:
        """What lies at the path, the last component not followed. None only if the system says there is nothing."""
        try:
            with self._parent(relative) as (parent, name):
                found = disk.lstat(name, dir_fd=parent)
                target = disk.readlink(name, dir_fd=parent) if stat.S_ISLNK(found.st_mode) else None
        except FileNotFoundError:
            return None
        return _entry(found, target)

    def look_closely(self, relative: str) -> os.stat_result | None:
        """As `look`, in the system's own words: for whoever looks at every file of a plate."""
        try:
            with self._parent(relative) as (parent, name):
                return disk.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return None

    def open_seen(self, relative: str) -> tuple[os.stat_result, int] | None:
        """What lies at the path and, if that is a plain file, a descriptor of it, else -1; None if there is nothing.

        Looked at first: whoever opens a pipe waits for somebody to write into it. Raises `UnsafePath` for a link that
        came in between.
        """
        try:
            with self._parent(relative) as (parent, name):
                found = disk.lstat(name, dir_fd=parent)
                if not stat.S_ISREG(found.st_mode):
                    return found, -1
                try:
                    return found, disk.open_named(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                except OSError as error:
                    if error.errno == errno.ELOOP:
                        raise UnsafePath(
                            f"{self.path(relative)} is a symbolic link now; it was not followed."
                        ) from error
                    raise
        except FileNotFoundError:
            return None

    def last_read_ns(self, relative: str) -> int:
        """The atime of the file at the path, in nanoseconds; 0 if there is none."""
        try:
            with self._parent(relative) as (parent, name):
                return disk.lstat(name, dir_fd=parent).st_atime_ns
        except FileNotFoundError:
            return 0

    def open_to_read(self, relative: str) -> int:
        """A descriptor of the plain file at the path. Raises `UnsafePath` for a symbolic link."""
        return self._open(relative, os.O_RDONLY | os.O_NOFOLLOW)

    def open_plain(self, relative: str) -> int | None:
        """A descriptor of what lies at the path if that is a plain file, else None; in as few calls as that takes.

        Raises `UnsafePath` if a link lies there or on the way.
        """
        if not _is_file_name(relative):
            raise UnsafePath(f"{relative!r} cannot be a file name on this system.")
        # Looked at first: whoever opens a pipe waits for somebody to write into it.
        mode = disk.lstat(relative, dir_fd=self._root_fd).st_mode
        if stat.S_ISLNK(mode):
            raise UnsafePath(f"{relative!r} is a link; links are not followed.")
        return self.open_to_read(relative) if stat.S_ISREG(mode) else None

    def look_at_root(self) -> Entry:
        """What lies at the root itself: the directory that was opened."""
        return _entry(disk.fstat(self._root_fd), None)

    def names_in(self, relative: str) -> list[str]:
        """The names in a directory, in no order; none if there is no directory. The empty text is the root."""
        try:
            fd = self._open(relative, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            with disk.scandir(fd) as entries:
                return [entry.name for entry in entries]
        finally:
            disk.close(fd)

    def look_at_each(self, relative: str, names: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        """What lies at these names in a directory, looked at one by one; those that are gone are left out.

        The directory is opened once: many times faster than `look` at every path.
        """
        try:
            fd = self._open(relative, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            for name in names:
                try:
                    found = disk.lstat(name, dir_fd=fd)
                    target = disk.readlink(name, dir_fd=fd) if stat.S_ISLNK(found.st_mode) else None
                except FileNotFoundError:
                    continue
                yield name, _entry(found, target)
        finally:
            disk.close(fd)

    def directories_in(self, relative: str) -> list[str]:
        """The names of the directories in a directory, sorted; none if it is not there."""
        if self.look(relative) is None:
            return []
        fd = self._open(relative, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with disk.scandir(fd) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        finally:
            disk.close(fd)

    def files_below(self, relative: str) -> Iterator[str]:
        """The paths of everything that is not a directory below `relative`, relative to the tree, sorted as text."""
        fd = self._open(relative, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with disk.scandir(fd) as entries:
                # A directory counts with its slash: `a-b` comes before `a/c`, as in the sorted list of all paths.
                found = sorted(f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name for e in entries)
        finally:
            disk.close(fd)
        for name in found:
            below = f"{relative}/{name}" if relative else name
            if name.endswith("/"):
                yield from self.files_below(below.rstrip("/"))
            else:
                yield below

    def is_open(self, relative: str) -> bool | None:
        """Whether anybody has the file at the path open or mapped, this process too; None if that cannot be told.

        Also through another name of it, or through a mount that hands its bytes on. Somebody may open it the moment
        after. It cannot be told on network file systems, and of files of others unless root asks.
        """
        try:
            fd = self.open_to_read(relative)
        except FileNotFoundError:
            return False
        except PermissionError:
            return None
        try:
            return disk.is_open_elsewhere(fd)
        finally:
            disk.close(fd)

    def look_through(self, relative: str) -> Entry | None:
        """What a program finds that opens the path and follows links, inside the tree and out of it; None for nothing.

        Only this looks through links: to see what readers see. Nothing is opened by it.
        """
        if relative.startswith("/") or not _is_file_name(relative):
            raise UnsafePath(f"{relative!r} does not name a file below {self.root}.")
        try:
            return _entry(disk.stat(relative, dir_fd=self._root_fd), None)
        except (FileNotFoundError, NotADirectoryError):
            return None

    # ---- making

    def make_directories(self, relative: str, *, like: "Model | None" = None) -> None:
        """Make the directory and those above it. New ones take the mode and the owner that `like` gives for them."""
        if not relative or self._is_directory(relative):
            return
        above, _, _ = relative.rpartition("/")
        self.make_directories(above, like=like)
        with self._parent(relative) as (parent, name), contextlib.suppress(FileExistsError):
            disk.mkdir(name, 0o755, dir_fd=parent)
        attributes = None if like is None else like(relative)
        if attributes is not None:
            fd = self._open(relative, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _give(fd, attributes)
            finally:
                disk.close(fd)

    def create_temporary(self, relative: str) -> int:
        """A descriptor of a new empty file under the temporary name of `relative`; an older one goes.

        The temporary name is in the same directory. The file is readable by nobody else until `finish`.
        """
        with self._parent(relative) as (parent, name):
            # Unlinked, never cut to nothing: it may be a second name of near bytes, from `link_temporary_from`.
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(temporary_name(name), dir_fd=parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return disk.create(temporary_name(name), flags, 0o600, dir_fd=parent)

    def drop_temporary(self, relative: str) -> None:
        """Remove what `create_temporary` made for `relative`, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._parent(relative) as (parent, name):
            disk.unlink(temporary_name(name), dir_fd=parent)

    def publish(self, relative: str, *, temporary_of: str | None = None) -> None:
        """Give the temporary file of `temporary_of` (default: of `relative`) its name. Never replaces anything.

        Raises `FileExistsError` when something lies at `relative`. The caller has synced the file and syncs the
        directory afterwards.
        """
        source = relative if temporary_of is None else temporary_of
        with self._parent(source) as (from_fd, from_name), self._parent(relative) as (to_fd, to_name):
            disk.rename_to_free_name(temporary_name(from_name), from_fd, to_name, to_fd)

    def replace_own(self, relative: str) -> None:
        """Give the temporary file its name, in the place of what an interrupted run of ours left there.

        Raises `BrokenInvariant` for any path outside `.omero-archive/incoming/`: only there does no reader look.
        """
        if not relative.startswith(".omero-archive/incoming/"):
            raise BrokenInvariant(f"{relative} is not ours to replace.")
        with self._parent(relative) as (parent, name):
            disk.rename(temporary_name(name), name, src_dir_fd=parent, dst_dir_fd=parent)

    def move_directory(self, old: str, new: str) -> None:
        """Rename a directory: it and all it holds appears under `new` and disappears under `old` at once.

        Raises `FileExistsError` when something lies at `new`.
        """
        with self._parent(old) as (from_fd, from_name), self._parent(new) as (to_fd, to_name):
            disk.rename_to_free_name(from_name, from_fd, to_name, to_fd)

    def make_link(self, relative: str, target: str) -> None:
        """Make a symbolic link at a free path; the same link there already is fine. Raises `WrongState` for other."""
        found = self.look(relative)
        if found is None:
            with self._parent(relative) as (parent, name):
                disk.symlink(target, name, dir_fd=parent)
        elif found.target != target:
            raise WrongState(f"{self.path(relative)} is taken by a {found.kind}; it was not replaced.")

    def link_from(self, source: "Tree", source_relative: str, relative: str) -> None:
        """Give a file a second name here (a hard link); the same file there already is fine.

        Raises `OSError` EXDEV where the two trees are on different file systems, `WrongState` for another file.
        """
        with source._parent(source_relative) as (from_fd, from_name), self._parent(relative) as (to_fd, to_name):
            try:
                disk.link(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
            except FileExistsError as error:
                one = disk.lstat(from_name, dir_fd=from_fd)
                other = disk.lstat(to_name, dir_fd=to_fd)
                if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino):
                    raise WrongState(f"{self.path(relative)} is another file; it was not replaced.") from error

    def sync(self) -> None:
        """Make everything written to this file system durable, names included; raises `OSError` if it failed.

        One call for a whole group of files: far cheaper than an fsync for each. The kernel reports a write-back
        error once to every descriptor that was open when it happened (Linux 5.8), and ours is.
        """
        disk.syncfs(self._root_fd)

    def sync_around(self, paths: Iterable[str]) -> None:
        """As `sync`, of every file system that these paths lie on: below the root there may be mounts of their own."""
        self.sync()
        synced = {disk.fstat(self._root_fd).st_dev}
        for directory in {path.rpartition("/")[0] for path in paths}:
            fd = self._open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                device = disk.fstat(fd).st_dev
                if device not in synced:
                    disk.syncfs(fd)
                    synced.add(device)
            finally:
                disk.close(fd)

    def free_bytes(self) -> int:
        """The free space of the file system for ordinary users."""
        space = disk.fstatvfs(self._root_fd)
        return space.f_bavail * space.f_frsize

    def space(self) -> tuple[int, int]:
        """The bytes of the file system, and those that are free for ordinary users."""
        space = disk.fstatvfs(self._root_fd)
        return space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize

    def is_beside(self, other: "Tree") -> bool:
        """Whether both trees lie on one file system, so that hard links and renames may work between them."""
        return disk.fstat(self._root_fd).st_dev == disk.fstat(other._root_fd).st_dev

    # ---- OMERO's paths: original <-> link

    def swap_in_link(self, relative: str, target: str, *, original: FileIdentity) -> bool:
        """Put a symbolic link to `target` in the original's place, in one rename. False if it is there already.

        Raises `SourceChanged` if what lies there is not the file with the identity `original`; ctime is not
        compared, since giving the file its second name in `near` changed it.
        """
        with self._parent(relative) as (parent, name):
            found = disk.lstat(name, dir_fd=parent)
            if stat.S_ISLNK(found.st_mode) and disk.readlink(name, dir_fd=parent) == target:
                return False
            if not same_file(_identity(found), original):
                raise SourceChanged(f"{self.path(relative)} is not the file that was archived; no link was made.")
            temporary = temporary_name(name)
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(temporary, dir_fd=parent)
            disk.symlink(target, temporary, dir_fd=parent)
            disk.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        return True

    def swap_in_file(self, relative: str, *, link_target: str) -> None:
        """Put the temporary file of `relative` in the place of our link, in one rename.

        Raises `WrongState` if what lies there is not a link to `link_target`. A path with nothing at it is filled.
        """
        with self._parent(relative) as (parent, name):
            try:
                current: str | None = disk.readlink(name, dir_fd=parent)
            except FileNotFoundError:
                current = link_target
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                current = None
            if current != link_target:
                raise WrongState(f"{self.path(relative)} is not our link; it was not replaced. A person must look.")
            disk.rename(temporary_name(name), name, src_dir_fd=parent, dst_dir_fd=parent)

    def link_temporary_from(self, source: "Tree", source_relative: str, relative: str) -> None:
        """Make the temporary file of `relative` a second name of a file in `source`. Raises `OSError` EXDEV."""
        self.drop_temporary(relative)
        with source._parent(source_relative) as (from_fd, from_name), self._parent(relative) as (to_fd, to_name):
            disk.link(from_name, temporary_name(to_name), src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)

    # ---- the inside

    def _open(self, relative: str, flags: int) -> int:
        return disk.open_beneath(self._root_fd, relative or ".", flags | os.O_CLOEXEC, self.root)

    def _parent(self, relative: str) -> "_Parent":
        above, name = self._split(relative)
        return _Parent(self, above, name)

    def _nothing_there(self) -> None:
        """Called before it is said that something is not there: what raises here is said in its place."""

    def _split(self, relative: str) -> tuple[str, str]:
        """The directory of a path and the name in it. Raises `UnsafePath`."""
        above, _, name = relative.rpartition("/")
        if name in ("", ".", "..") or relative.startswith("/") or not _is_file_name(name):
            raise UnsafePath(f"{relative!r} does not name a file below {self.root}.")
        return above, name

    def _is_directory(self, relative: str) -> bool:
        found = self.look(relative)
        if found is not None and found.kind is not EntryKind.DIRECTORY:
            raise UnsafePath(f"{self.path(relative)} is a {found.kind}, not a directory.")
        return found is not None


class _Parent:
    """The directory of a path, open as long as something is done in it. A generator takes three times as long."""

    __slots__ = ("_above", "_fd", "_name", "_tree")

    def __init__(self, tree: Tree, above: str, name: str) -> None:
        self._tree, self._above, self._name = tree, above, name

    def __enter__(self) -> tuple[int, str]:
        self._fd = self._tree._open(self._above, os.O_RDONLY | os.O_DIRECTORY)
        return self._fd, self._name

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        disk.close(self._fd)
        if isinstance(error, FileNotFoundError):
            self._tree._nothing_there()


class LastParent:
    """The directory of the last path, kept open for the next: for a pass over many paths of few directories.

    It was reached without a link when it was opened. If it is moved during the pass, what is done in it goes with it,
    as if it had been done before the move. So it is for changes that nobody could tell from the same change a moment
    earlier (publishing), never for saying what lies at a path now.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._above: str | None = None
        self._fd = -1

    def of(self, relative: str) -> tuple[int, str]:
        """The descriptor of a path's directory, valid until the next call, and the name in it."""
        above, name = self._tree._split(relative)
        if above != self._above:
            self.close()
            self._fd, self._above = self._tree._open(above, os.O_RDONLY | os.O_DIRECTORY), above
        return self._fd, name

    def close(self) -> None:
        """Let go of the directory."""
        fd, self._fd, self._above = self._fd, -1, None
        if fd >= 0:
            disk.close(fd)

    def __enter__(self) -> "LastParent":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Workbench:
    """Places for the temporary files of one process, in a directory of its own that it keeps locked.

    Two processes never write to one temporary file, and what a killed process left is swept by the next: its
    directory is there, but nobody holds the lock. `slot(n)` names a place, for `create_temporary` and `publish`.
    """

    def __init__(self, tree: Tree, directory: str) -> None:
        self._tree = tree
        self._above = directory
        tree.make_directories(directory)
        self._sweep()
        while True:
            self._own = f"{directory}/{os.getpid()}-{os.urandom(4).hex()}"
            tree.make_directories(self._own)
            lock = _locked(tree, self._own, is_own=True)
            if lock is not None:  # None: somebody swept the directory before it was locked
                self._lock = lock
                break
        try:
            self._fd = tree._open(self._own, os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            disk.close(lock)
            raise

    def slot(self, number: int) -> str:
        """The place of one file."""
        return f"{self._own}/{number}"

    def create(self, number: int) -> int:
        """A descriptor of a new empty file in a place where there is none, readable by nobody else until `finish`.

        As `create_temporary` of the slot, without the way there: the directory is ours alone, and stays open.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return disk.create(_name_of_slot(number), flags, 0o600, dir_fd=self._fd)

    def drop(self, number: int) -> None:
        """Remove what `create` made, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(_name_of_slot(number), dir_fd=self._fd)

    def publish(self, number: int, relative: str, parents: LastParent) -> None:
        """As `Tree.publish` of what `create` made, for many files in a row."""
        to_fd, to_name = parents.of(relative)
        disk.rename_to_free_name(_name_of_slot(number), self._fd, to_name, to_fd)

    def close(self) -> None:
        """Remove the directory with what is left in it, and let go."""
        try:
            _clear(self._tree, self._own)
        finally:
            disk.close(self._fd)
            disk.close(self._lock)
        _remove_cleared(self._tree, self._own)

    def __enter__(self) -> "Workbench":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sweep(self) -> None:
        fd = self._tree._open(self._above, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with disk.scandir(fd) as entries:
                names = [entry.name for entry in entries]
        finally:
            disk.close(fd)
        for name in names:
            abandoned = f"{self._above}/{name}"
            lock = _locked(self._tree, abandoned, is_own=False)
            if lock is not None:
                try:
                    _clear(self._tree, abandoned)
                finally:
                    disk.close(lock)
                _remove_cleared(self._tree, abandoned)


def _name_of_slot(number: int) -> str:
    return f"{number}{TEMPORARY_SUFFIX}"


def _locked(tree: Tree, directory: str, *, is_own: bool) -> int | None:
    """The locked lock file of a workbench, None if another process has it or the directory went.

    Where the file system has no locks, only one's own is given, and nobody sweeps what others may be working in.
    """
    try:
        with tree._parent(f"{directory}/lock") as (parent, name):
            fd = disk.create(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return None  # it went; or something else lies there, which is not ours to judge
    is_ours = False
    try:
        disk.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        still = tree.look(f"{directory}/lock")
        is_ours = still is not None and still.identity.inode == disk.fstat(fd).st_ino
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        is_ours = is_own
    finally:
        if not is_ours:
            disk.close(fd)
    return fd if is_ours else None


@contextlib.contextmanager
def only_holder(tree: Tree, relative: str, name: str) -> Iterator[None]:
    """Hold the lock of that name, one of many on the one file at `relative`. Raises `Busy` if another holds it.

    It goes when this process does, and not before; over NFS it holds for all hosts. It is a lock on one byte, whose
    place the name tells (fcntl(2), open file description locks: two threads of one process are kept apart too). So
    nothing is written, and nothing is left by who is killed. Where a file system has no locks there is none: `check`
    tells.
    """
    fd = _open_lock_file(tree, relative)
    try:
        if _lock_byte(fd, int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:7], "big")) is False:
            raise Busy(f"{name} is being worked on by another process ({tree.path(relative)}); try again later.")
        yield
    finally:
        disk.close(fd)


def make_lock_file(tree: Tree, relative: str) -> None:
    """Make the file for `only_holder`, if it is not there: as the root of the tree, so that all users of it may."""
    root = tree.look_at_root().attributes
    tree.make_directories(relative.rpartition("/")[0], like=lambda _: root)
    if tree.look(relative) is not None:
        return
    with tree._parent(relative) as (parent, name):
        fd = disk.create(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        _give(fd, replace(root, mode=root.mode & 0o666))
    finally:
        disk.close_written(fd)


def has_locks(tree: Tree, relative: str) -> bool:
    """Whether the file system of the lock file at `relative` has locks at all. Raises `OSError` if it is not there."""
    fd = tree._open(relative, os.O_RDWR | os.O_NOFOLLOW)
    try:
        return _lock_byte(fd, 1 << 56) is not None  # beyond all names'
    finally:
        disk.close(fd)


def _open_lock_file(tree: Tree, relative: str) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW
    try:
        return tree._open(relative, flags)
    except FileNotFoundError:
        make_lock_file(tree, relative)
        return tree._open(relative, flags)


def _lock_byte(fd: int, at: int) -> bool | None:
    """Take the lock of one byte without waiting; False if another has it, None where the file system has no locks."""
    # struct flock of fcntl(2): type, whence, start, length, pid; native order and padding.
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
    try:
        disk.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno in _WITHOUT_LOCKS:
            return None
        raise
    return True


def _clear(tree: Tree, directory: str) -> None:
    """Remove a workbench: temporary files only, nothing that ever had a name."""
    for path in tree.files_below(directory):
        with tree._parent(path) as (parent, name):
            disk.unlink(name, dir_fd=parent)
    remove_empty_directories(tree, directory, top=directory)


def _remove_cleared(tree: Tree, directory: str) -> None:
    """Remove a workbench that `_clear` emptied, if it is there still.

    NFS keeps what was unlinked while it was open, the lock, under another name until it is closed.
    """
    if tree.look(directory) is not None:
        remove_empty_directories(tree, directory, top=directory)


def no_model(relative: str) -> None:
    """A `Model` that knows nothing."""
    del relative


def temporary_name(name: str) -> str:
    """The temporary name of a file: always the same for the same name, never too long, never visible to OMERO."""
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}{TEMPORARY_SUFFIX}"


def temporary_of(relative: str) -> str:
    """The path of the temporary file of a path: beside it."""
    above, slash, name = relative.rpartition("/")
    return f"{above}{slash}{temporary_name(name)}"


def finish(fd: int, attributes: FileAttributes) -> None:
    """Give an open file the owner, the mode and the mtime of its original, in the order that lets each stick.

    The owner is kept where we may give files away (root); elsewhere the file stays ours, with its group where we are
    in it.
    """
    _give(fd, attributes)
    disk.utime(fd, ns=(attributes.mtime_ns, attributes.mtime_ns))


def as_entry(found: os.stat_result) -> Entry:
    """What the system said of something that is no link."""
    return _entry(found, None)


def is_untouched(one: os.stat_result, other: os.stat_result) -> bool:
    """As `unchanged`, in the system's own words."""
    return (one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )


def same_file(one: FileIdentity, other: FileIdentity) -> bool:
    """Whether both are one unchanged file. The device's number is left out: it may change with every mount."""
    return (one.inode, one.size_bytes, one.mtime_ns) == (other.inode, other.size_bytes, other.mtime_ns)


def unchanged(one: FileIdentity, other: FileIdentity) -> bool:
    """Whether both are one file whose content and attributes nobody touched in between: ctime too."""
    return same_file(one, other) and one.ctime_ns == other.ctime_ns


def same_time(one_ns: int, other_ns: int) -> bool:
    """Whether two mtimes are one, kept by file systems of different precision (FAT and old NFS keep 2 s)."""
    return abs(one_ns - other_ns) < 2_000_000_000


def is_kept_time(mtime_ns: int) -> bool:
    """Whether the catalogue and the manifests can keep an mtime: those of the years 1678 to 2261, in nanoseconds."""
    return -(1 << 63) <= mtime_ns < 1 << 63


class Reading(io.FileIO):
    """An open file as a stream, read by the same system call as everything else; closing it closes the descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "rb")

    def readinto(self, buffer: "Buffer", /) -> int:
        return disk.readv(self.fileno(), [buffer])

    # FileIO's own go past `readinto`.
    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        return io.RawIOBase.read(self, -1 if size is None else size)

    def readall(self) -> bytes:
        return io.RawIOBase.readall(self)


def entry_of(fd: int) -> Entry:
    """What `fstat` says of an open file."""
    return _entry(disk.fstat(fd), None)


def delete_near(
    tree: Tree, directory: str, keys: Mapping[str, Key], *, permits: Mapping[Key, Permit], now: datetime
) -> int:
    """Delete a directory of near bytes that was taken out of readers' sight; the bytes freed.

    `keys` maps each path below the tree to its key. Everything is checked before the first byte goes: every file
    must have a permit that covers it now and states its size. A half-written temporary file, which a crash left,
    needs the permit of its file and may have any size. Raises `BrokenInvariant` and deletes nothing if one has not.
    Run again after a crash it deletes what is left.
    """
    doomed = list(tree.files_below(directory)) if tree.look(directory) is not None else []
    # Only a crash leaves any; for a plate of 10^5 files the names alone would be 30 MB.
    is_any_left = any(path not in keys for path in doomed)
    temporary = {_temporary_path(path): key for path, key in keys.items()} if is_any_left else {}
    freed = 0
    for path in doomed:
        found = tree.look(path)
        key = keys.get(path, temporary.get(path))
        allowed = None if key is None else permits.get(key)
        if found is None or key is None or allowed is None or not allowed.covers(key, now):
            raise BrokenInvariant(f"{tree.path(path)} was to be deleted without a permit; nothing was deleted.")
        is_expected = path not in keys or found.identity.size_bytes == allowed.size_bytes
        if found.kind is not EntryKind.FILE or not is_expected:
            raise BrokenInvariant(f"{tree.path(path)} is not the file its permit describes; nothing was deleted.")
        freed += found.disk_bytes if found.names == 1 else 0
    _unlink_all(tree, directory, doomed)
    return freed


def delete_twins(tree: Tree, directory: str, originals: Mapping[str, tuple[Tree, str]]) -> None:
    """Delete near names whose very file lies at the original's path again: no bytes go, only second names.

    `originals` maps each path below the tree to tree and path of its original. Raises `BrokenInvariant` and
    deletes nothing unless every file is the same inode there.
    """
    doomed = list(tree.files_below(directory)) if tree.look(directory) is not None else []
    for path in doomed:
        near = tree.look(path)
        original_tree, original_path = originals.get(path, (tree, ""))
        original = original_tree.look(original_path) if original_path else None
        if near is None or original is None or original.kind is not EntryKind.FILE:
            raise BrokenInvariant(f"{tree.path(path)} has no original in place; nothing was deleted.")
        if (near.identity.device, near.identity.inode) != (original.identity.device, original.identity.inode):
            raise BrokenInvariant(f"{tree.path(path)} and its original are two files; nothing was deleted.")
    _unlink_all(tree, directory, doomed)


def remove_object(tree: Tree, relative: str) -> bool:
    """Remove one object from a service's own directory, for `Service.delete`; False if it was not there."""
    try:
        with tree._parent(relative) as (parent, name):
            disk.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return False
    tree.sync()
    return True


def remove_links(tree: Tree, links: Mapping[str, str]) -> None:
    """Remove symbolic links of ours, path to target; those that point elsewhere stay. Empty directories go too."""
    for path, target in links.items():
        found = tree.look(path)
        if found is not None and found.target == target:
            with tree._parent(path) as (parent, name):
                disk.unlink(name, dir_fd=parent)
    for above in {path.rpartition("/")[0] for path in links}:
        remove_empty_directories(tree, above)


def remove_empty_directories(tree: Tree, relative: str, *, top: str = "") -> None:
    """Remove a directory and those above it, up to and with `top`, as long as they are empty."""
    while relative and (not top or relative == top or relative.startswith(top + "/")):
        try:
            with tree._parent(relative) as (parent, name):
                disk.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return
            raise
        relative, _, _ = relative.rpartition("/")


def translated(error: OSError, subject: str) -> ArchiveError:
    """Our error for a system error on the writing side."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return NotEnoughSpace(f"{subject}: {error.strerror}; nothing was left half done.")
        case _:
            return TargetFailed(f"{subject}: {error.strerror or error}.")


@contextlib.contextmanager
def disk_errors(subject: str) -> Iterator[None]:
    """Around a whole piece of work: what the system refuses in it, and nobody inside expected, is `DiskFailed`."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise DiskFailed(
            f"{subject}: {error.strerror or error}{where}. Nothing is lost; run it again, it goes on from there."
        ) from error


def _unlink_all(tree: Tree, directory: str, doomed: list[str]) -> None:
    """The one place where files of near go."""
    for path in doomed:
        # Two may be at it: what is gone already is as it should be.
        with contextlib.suppress(FileNotFoundError), tree._parent(path) as (parent, name):
            disk.unlink(name, dir_fd=parent)
    # All directories, not only those of `doomed`: a run that was killed may have left empty ones.
    for below in sorted(_directories_below(tree, directory), key=len, reverse=True):
        remove_empty_directories(tree, below, top=below)
    remove_empty_directories(tree, directory, top=directory)
    tree.sync()


def _directories_below(tree: Tree, directory: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        fd = tree._open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with disk.scandir(fd) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        finally:
            disk.close(fd)
        for name in names:
            yield f"{directory}/{name}"
            yield from _directories_below(tree, f"{directory}/{name}")


def _temporary_path(path: str) -> str:
    above, slash, name = path.rpartition("/")
    return above + slash + temporary_name(name)


def _is_file_name(name: str) -> bool:
    """Whether the system can be asked for this name at all: the calls below answer `ValueError` if not."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _give(fd: int, attributes: FileAttributes) -> None:
    """The owner, where we may give away, then the mode: the other way round the owner's change may take bits away."""
    try:
        disk.fchown(fd, attributes.uid, attributes.gid)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            disk.fchown(fd, -1, attributes.gid)  # one of our own groups we may give
    disk.fchmod(fd, attributes.mode)


def _identity(found: os.stat_result) -> FileIdentity:
    return FileIdentity(
        device=found.st_dev,
        inode=found.st_ino,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )


def _entry(found: os.stat_result, target: str | None) -> Entry:
    return Entry(
        kind=_KINDS.get(stat.S_IFMT(found.st_mode), EntryKind.OTHER),
        identity=_identity(found),
        attributes=FileAttributes(
            mtime_ns=found.st_mtime_ns, mode=stat.S_IMODE(found.st_mode), uid=found.st_uid, gid=found.st_gid
        ),
        names=found.st_nlink,
        disk_bytes=found.st_blocks * 512,
        target=target,
    )
