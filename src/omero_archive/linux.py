"""Linux system calls that Python does not have, or not so: openat2, syncfs, renameat2, leases, ioprio_set.

For `disk.py` only.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import platform
import signal
import stat
from pathlib import Path

from omero_archive.errors import ArchiveError, UnsafePath

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2 = 437  # the same on every architecture
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "ppc64le": 273, "s390x": 282, "riscv64": 30}  # asm/unistd.h
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_IDLE = 3
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RENAME_NOREPLACE = 1
_LIBC_IN_ONE_GO = ctypes.PyDLL(None, use_errno=True)
"""The same library; its calls keep Python's lock, so that no other thread comes between two of them for long."""

_LOCAL = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # btrfs
        0xF2F52010,  # F2FS
        0x2FC12FC1,  # ZFS
        0x01021994,  # tmpfs
        0x794C7630,  # overlayfs: what opens through it open is counted on its own inode
    }
)
"""The file systems whose leases are the kernel's own and know of every open there is (linux/magic.h, sys/zfs_vfsops.h).

Left out are those of which other machines open files too (NFS, CIFS, GPFS, Lustre, Ceph): their opens are not seen,
and NFS and CIFS answer EAGAIN also where nobody has the file open and the server merely gave no delegation.
"""


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


# A function of its own, whose arguments are told once: converting them anew took as long as the call itself.
_OPENAT2 = ctypes.CDLL(None, use_errno=True)["syscall"]
_OPENAT2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)
_OPENAT2.restype = ctypes.c_long
_OPEN_HOW_BYTES = ctypes.sizeof(_OpenHow)

_RENAMEAT2 = ctypes.CDLL(None, use_errno=True)["renameat2"]
_RENAMEAT2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


@functools.cache
def _how(flags: int) -> "ctypes._Pointer[_OpenHow]":
    """How to open beneath; the kernel only reads it. There are a handful of flags."""
    return ctypes.pointer(_OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS))


def open_beneath(root_fd: int, relative: str, flags: int, root: Path) -> int:
    """Open a path below a directory without following any link. Raises `UnsafePath` or `OSError`."""
    try:
        raw = os.fsencode(relative)
    except UnicodeEncodeError as error:
        raise UnsafePath(f"{relative!r} cannot be a file name on this system.") from error
    if b"\0" in raw or raw.startswith(b"/") or (b".." in raw and b".." in raw.split(b"/")):
        raise UnsafePath(f"{relative!r} leads out of {root}.")
    how = _how(flags)
    code = errno.EINTR
    while code == errno.EINTR:  # a signal while a network file system was asked; Python's own calls retry too
        fd: int = _OPENAT2(_SYS_OPENAT2, root_fd, raw, how, _OPEN_HOW_BYTES)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EPERM):
        return _walk_beneath(root_fd, relative, flags, root)  # Linux before 5.6, or a container that forbids it
    raise _open_error(code, relative, root)


def _walk_beneath(root_fd: int, relative: str, flags: int, root: Path) -> int:
    """What openat2 does in one call, component by component."""
    current = os.dup(root_fd)
    *directories, last = relative.split("/")
    component = last
    try:
        for component in directories:
            deeper = os.open(component, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = deeper
        component = last
        return os.open(component, flags | os.O_NOFOLLOW, dir_fd=current)
    except NotADirectoryError as error:
        # With O_DIRECTORY and O_NOFOLLOW this is the answer for a plain file and for a symbolic link alike.
        is_link = stat.S_ISLNK(os.lstat(component, dir_fd=current).st_mode)
        raise _open_error(errno.ELOOP if is_link else errno.ENOTDIR, relative, root) from error
    except OSError as error:
        raise _open_error(error.errno or errno.EIO, relative, root) from error
    finally:
        os.close(current)


def _open_error(code: int, relative: str, root: Path) -> ArchiveError | OSError:
    if code in (errno.ELOOP, errno.EXDEV):
        return UnsafePath(f"{root / relative} is a symbolic link, or lies behind one; it was not followed.")
    return OSError(code, os.strerror(code), str(root / relative))


def syncfs(fd: int) -> None:
    """Write out the whole file system that `fd` lies on. Raises `OSError`."""
    if _LIBC.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def rename_to_free_name(from_name: str, from_fd: int, to_name: str, to_fd: int) -> None:
    """Rename, and raise `FileExistsError` instead of replacing."""
    outcome = _RENAMEAT2(from_fd, os.fsencode(from_name), to_fd, os.fsencode(to_name), _RENAME_NOREPLACE)
    if outcome == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), from_name, None, to_name)
    # A file system without RENAME_NOREPLACE (NFS): look first. We are the only writer below our directories.
    with contextlib.suppress(FileNotFoundError):
        os.lstat(to_name, dir_fd=to_fd)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to_name)
    os.rename(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)


def is_open_elsewhere(fd: int) -> bool | None:
    """Whether anybody has the file of `fd` open beside us, or mapped; None if that cannot be told.

    `fd` is open for reading, and the only descriptor by which this process has the file. Asked for is a write lease,
    which Linux grants only where there is no other open at all (fcntl(2), F_SETLEASE): by whom, through which name or
    file system on top of this one (FUSE passthrough, overlayfs), for reading or writing, makes no difference, and a
    mapping counts until it goes. It is given back at once: whoever opens meanwhile waits for that, for microseconds.
    It cannot be told on file systems not in `_LOCAL`, of the file of somebody else without CAP_LEASE, or where a file
    system has no leases. Raises `OSError` for any other failure.
    """
    if _file_system(fd) not in _LOCAL:
        return None
    # An open that waits for the lease signals us: by default by SIGIO, which would end this process.
    _LIBC_IN_ONE_GO.fcntl(fd, fcntl.F_SETSIG, int(signal.SIGURG))
    outcome = _LIBC_IN_ONE_GO.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    if outcome == 0:
        _LIBC_IN_ONE_GO.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    match ctypes.get_errno():
        case errno.EAGAIN:
            return True
        case errno.EACCES | errno.EPERM | errno.EINVAL | errno.ENOSYS | errno.EOPNOTSUPP | errno.ENOLCK:
            return None
        case code:
            raise OSError(code, os.strerror(code))


def use_disks_when_idle() -> None:
    """Let what this process reads and writes wait until nobody else wants the disk (ioprio_set(2), the idle class).

    Threads that are begun later, and child processes, are idle too; it is for the beginning of a process. Schedulers
    that know no classes (none, kyber) take no notice. Raises `OSError`.
    """
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    for thread in os.listdir("/proc/self/task"):
        try:
            _ioprio_idle(number, int(thread))
        except ProcessLookupError:
            continue  # it ended meanwhile


def _ioprio_idle(number: int, thread: int) -> None:
    if _LIBC.syscall(ctypes.c_long(number), _IOPRIO_WHO_PROCESS, thread, _IOPRIO_CLASS_IDLE << 13) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class _StatFs(ctypes.Structure):
    """The beginning of struct statfs (sys/vfs.h)."""

    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_byte * 248))


def _file_system(fd: int) -> int:
    """The magic number of the file system that a file lies on. Raises `OSError`."""
    found = _StatFs()
    if _LIBC.fstatfs(fd, ctypes.byref(found)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(found.type) & 0xFFFFFFFF
