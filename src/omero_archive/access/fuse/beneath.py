"""Mounting beneath a mount that is there already, so that the one can be taken away and there is no moment without.

A server that was killed leaves a mount in which every open fails with ENOTCONN. Detached first and mounted anew after,
there would be an empty directory in between: programs would be told that their images do not exist. Linux 6.5 can
mount the new one beneath (MOVE_MOUNT_BENEATH); whoever opens goes from "not connected" straight to the new server.
"""

import ctypes
import os

# The same on every architecture; include/uapi/asm-generic/unistd.h.
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432

# include/uapi/linux/mount.h
_FSOPEN_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSMOUNT_CLOEXEC = 1
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_NOSUID = 2
_MOUNT_ATTR_NODEV = 4
_MOVE_MOUNT_F_EMPTY_PATH = 0x004
_MOVE_MOUNT_BENEATH = 0x200
_AT_FDCWD = -100

_LIBC = ctypes.CDLL(None, use_errno=True)


def mount_beneath(path: str, *, source: str, subtype: str, options: dict[str, str | None]) -> None:
    """Mount a FUSE file system, read-only, nosuid and nodev, beneath the mount that is seen at a path.

    Of `options` those without a value are flags. Raises `OSError`, and nothing was mounted: where Linux is older than
    6.5, and where the mount there may not be covered from below.
    """
    context = _call(_SYS_FSOPEN, b"fuse", _FSOPEN_CLOEXEC)
    try:
        for key, value in {"source": source, "subtype": subtype, "ro": None, **options}.items():
            if value is None:
                _call(_SYS_FSCONFIG, context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
            else:
                _call(_SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
        _call(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        attributes = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
        mount = _call(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)
    try:
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_BENEATH
        _call(_SYS_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(path), flags)
    finally:
        os.close(mount)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """A system call that the C library may not know by name. Raises `OSError`."""
    passed = [ctypes.c_long(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *passed))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
