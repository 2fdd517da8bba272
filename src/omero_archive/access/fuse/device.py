"""Mounting and unmounting: by mount(2) where this is root, by `fusermount3` where it is not.

A server that was killed leaves its mount behind, dead: every new open in it ends with ENOTCONN. The next server takes
it over: it mounts beneath the dead one where the kernel can do that, and then detaches it, which leaves those alone
who still read open files.
"""

import ctypes
import errno
import hashlib
import os
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import structlog

from omero_archive.access.fuse.beneath import mount_beneath
from omero_archive.access.fuse.mounts import all_mounted_at, mounted_at
from omero_archive.errors import Busy, DiskFailed, WrongUse

FILE_SYSTEM_TYPE = "fuse.omero-archive"
_SOURCE = "omero-archive"
_READ_AHEAD_KB = 1024  # the kernel's own 128 halves sequential reads that the server does
_PROBE_S = 10.0
_MOST_STACKED = 100

# sys/mount.h
_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MNT_FORCE = 1
_MNT_DETACH = 2

_LIBC = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Device:
    """A mount of ours: its descriptor of /dev/fuse, where it is, and its number (major:minor)."""

    fd: int
    mountpoint: str
    number: str
    lock: socket.socket  # while it is open, no other server begins here
    is_covered: bool  # by the dead mount that it takes over

    def close(self) -> None:
        """Let go of the device, when nobody reads from it any more."""
        os.close(self.fd)
        self.lock.close()

    @property
    def is_mounted(self) -> bool:
        """Whether it is still this mount that is seen at its path."""
        mounted = mounted_at(self.mountpoint)
        return mounted is not None and mounted.device == self.number

    def uncover(self) -> None:
        """Take the dead mount away, now that this one is served. Raises `DiskFailed`."""
        if self.is_covered:
            _detach(self.mountpoint, force=False)
            self.is_covered = False

    def unmount(self) -> None:
        """Take the mount away from its path, whoever uses it. Files that the kernel reads itself stay readable."""
        self.uncover()
        if self.is_mounted:
            unmount_at(self.mountpoint)

    def raise_read_ahead(self) -> None:
        """Let the kernel ask for more at once; where it may not be set, reading is slower and nothing else."""
        try:
            Path(f"/sys/class/bdi/{self.number}/read_ahead_kb").write_text(f"{_READ_AHEAD_KB}\n")
        except OSError as error:
            _log.info("read-ahead stays as it is", action="mount", error=str(error))


def unmount_at(path: str) -> None:
    """Take away what is seen at a path, whoever uses it, and end its server's connection. Raises `DiskFailed`."""
    _detach(path, force=True)


def mount_at(mountpoint: Path, *, allow_other: bool) -> Device:
    """Mount, in the place of a dead mount of ours if there is one.

    Raises `WrongUse` if the mount point cannot be one, `Busy` if a living server has it, `DiskFailed` if the system
    refuses.
    """
    path = os.path.realpath(mountpoint)
    lock = _lock(path)
    try:
        _warn_of_timeouts()
        is_covered, fd = _mount(path, allow_other)
    except BaseException:
        lock.close()
        raise
    return Device(fd=fd, mountpoint=path, number=_number(path, is_covered), lock=lock, is_covered=is_covered)


def _number(path: str, is_covered: bool) -> str:
    """The device number of what was just mounted; empty if it is gone already."""
    ours = mounted_at(path)
    if is_covered and ours is not None:
        ours = next((each for each in all_mounted_at(path) if each.number == ours.on), None)
    return "" if ours is None else ours.device


def _lock(path: str) -> socket.socket:
    """What only one server of a mount point can have, and what goes when its process does. Raises `Busy`.

    A name among the abstract sockets (unix(7)): the directory itself cannot be locked, since a dead mount covers it.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind("\0omero-archive mount " + hashlib.sha256(os.fsencode(path)).hexdigest())
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise DiskFailed(f"{path} could not be locked: {error.strerror}; nothing was mounted.") from error
        raise Busy(
            f"{path} is served already by another omero-archive, or is about to be; nothing was mounted. "
            "Stop that one first."
        ) from error
    return lock


def _mount(path: str, allow_other: bool) -> tuple[bool, int]:
    """Mount; whether a dead mount covers the new one still, and the descriptor of /dev/fuse."""
    if _is_dead_mount(path):
        _log.warning("taking over the mount of a server that is gone", action="mount", mountpoint=path)
        below = _mount_below(path, allow_other)
        if below is not None:
            return True, below
        _detach(path, force=False)
    _require_empty_directory(path)
    return False, _mount_as_root(path, allow_other) if os.geteuid() == 0 else _mount_as_user(path, allow_other)


def _is_dead_mount(path: str) -> bool:
    """Whether a dead mount of ours lies there. If several lie above each other, all but the lowest are detached."""
    for _ in range(_MOST_STACKED):
        mounted = mounted_at(path)
        if mounted is None or mounted.type != FILE_SYSTEM_TYPE:
            return False
        if _is_alive(path):
            raise Busy(f"{path} is served already by another omero-archive; nothing was mounted. Stop that one first.")
        if sum(each.type == FILE_SYSTEM_TYPE for each in all_mounted_at(path)) == 1:
            return True
        _detach(path, force=False)
    return True


def _is_alive(path: str) -> bool:
    """Whether a server answers. Asked for the free space, which the kernel never answers by itself.

    Asked in a thread that may be left behind: a server that is stopped or stuck does not answer at all.
    """
    answers: list[int] = []

    def ask() -> None:
        try:
            os.statvfs(path)
        except OSError as error:
            answers.append(error.errno or errno.EIO)
        else:
            answers.append(0)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_S)
    return not answers or answers[0] not in (errno.ENOTCONN, errno.ECONNABORTED)


def _require_empty_directory(path: str) -> None:
    try:
        names = os.listdir(path)
    except FileNotFoundError as error:
        raise WrongUse(f"{path} is not there; make it: an empty directory, and nothing else in it ever.") from error
    except NotADirectoryError as error:
        raise WrongUse(f"{path} is not a directory; nothing was mounted.") from error
    except OSError as error:
        raise DiskFailed(f"{path} could not be looked at: {error.strerror}; nothing was mounted.") from error
    if names:
        raise WrongUse(
            f"{path} is not empty, and what lies there would be hidden; nothing was mounted. "
            "If it is the near directory, rename it and let archive.near name it."
        )


def _warn_of_timeouts() -> None:
    """An open that waits longer than this would end the whole mount (Linux 6.15: fs.fuse.*_request_timeout, s)."""
    for name in ("default_request_timeout", "max_request_timeout"):
        try:
            seconds = int(Path(f"/proc/sys/fs/fuse/{name}").read_text())
        except (OSError, ValueError):
            continue
        if seconds:
            _log.warning(
                f"fs.fuse.{name} is set: an open that waits longer ends the whole mount; keep mount.wait well below",
                action="mount",
                seconds=seconds,
            )


def _mount_below(path: str, allow_other: bool) -> int | None:
    """Mount beneath a dead mount; None where that cannot be done."""
    if os.geteuid() != 0:
        return None
    fd = _open_device()
    try:
        mount_beneath(path, source=_SOURCE, subtype=_SOURCE, options=_options(fd, allow_other))
    except OSError as error:
        os.close(fd)
        _log.info("the dead mount goes before the new one comes", action="mount", reason=str(error))
        return None
    return fd


def _open_device() -> int:
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise DiskFailed(
            f"/dev/fuse cannot be opened: {error.strerror}. Let the system load the module fuse."
        ) from error


def _options(fd: int, allow_other: bool) -> dict[str, str | None]:
    """The options of a mount by root; those without a value are flags."""
    options: dict[str, str | None] = {"fd": str(fd), "rootmode": "40000", "user_id": "0", "group_id": "0"}
    options["default_permissions"] = None
    return options | ({"allow_other": None} if allow_other else {})


def _mount_as_root(path: str, allow_other: bool) -> int:
    fd = _open_device()
    pairs = _options(fd, allow_other).items()
    options = ",".join(key if value is None else f"{key}={value}" for key, value in pairs)
    flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    type_ = FILE_SYSTEM_TYPE.encode()
    if _LIBC.mount(_SOURCE.encode(), os.fsencode(path), type_, flags, options.encode()) != 0:
        code = ctypes.get_errno()
        os.close(fd)
        raise DiskFailed(f"{path} could not be mounted: {os.strerror(code)}. May this process mount at all?")
    return fd


def _mount_as_user(path: str, allow_other: bool) -> int:
    """`fusermount3` mounts and sends the descriptor through a socket that it finds in _FUSE_COMMFD."""
    options = f"ro,nosuid,nodev,default_permissions,fsname={_SOURCE},subtype={_SOURCE}" + ",allow_other" * allow_other
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        command = ["fusermount3", "-o", options, "--", path]
        environment = os.environ | {"_FUSE_COMMFD": str(theirs.fileno())}
        try:
            run = subprocess.run(
                command, env=environment, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True, check=False
            )
        except FileNotFoundError as error:
            raise WrongUse("Only root can mount without fusermount3; install fuse3, or run this as root.") from error
        if run.returncode != 0:
            said = run.stderr.strip()
            advice = ", or let mount.allow_other be false: then only you see the mount"
            if "user_allow_other" in said:
                raise WrongUse(f"{path} was not mounted: {said}{advice}.")
            raise DiskFailed(f"{path} could not be mounted: {said}")
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise DiskFailed(f"{path} could not be mounted: fusermount3 sent no descriptor.")
    os.set_inheritable(fds[0], False)
    return fds[0]


def _detach(path: str, *, force: bool) -> None:
    """Unmount without waiting for those who use it. With `force` the server's own connection ends at once."""
    if os.geteuid() != 0:
        run = subprocess.run(["fusermount3", "-u", "-z", "--", path], stderr=subprocess.PIPE, text=True, check=False)
        if run.returncode != 0:
            raise DiskFailed(f"{path} could not be unmounted: {run.stderr.strip()}")
    elif _LIBC.umount2(os.fsencode(path), _MNT_DETACH | _MNT_FORCE * force) != 0:
        code = ctypes.get_errno()
        raise DiskFailed(f"{path} could not be unmounted: {os.strerror(code)}")
