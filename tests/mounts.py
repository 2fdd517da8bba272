"""Mounts for tests, all of them taken away again: bind mounts, small file systems, a mount whose server died.

They need root; without it, or where the machine forbids mounting, a test is skipped.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_LIBC = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND = 1, 2, 4, 32, 4096  # linux/mount.h
_MNT_DETACH = 2


@contextmanager
def bound(source: Path, target: Path) -> Iterator[Path]:
    """A directory shown at another path too: what a mount that serves it does, as far as `stat` can tell."""
    with _mounted(str(source), target, "none", _MS_BIND, ""):
        yield target


@contextmanager
def read_only(target: Path) -> Iterator[Path]:
    """A directory on which nothing can be written, not even by root."""
    with _mounted(str(target), target, "none", _MS_BIND, ""):
        again = ctypes.c_ulong(_MS_REMOUNT | _MS_BIND | _MS_RDONLY)
        if _LIBC.mount(b"none", os.fsencode(target), b"none", again, None) != 0:
            _skip(f"nothing can be mounted read-only here: {os.strerror(ctypes.get_errno())}")
        yield target


@contextmanager
def small(target: Path) -> Iterator[Path]:
    """An empty file system of its own."""
    with _mounted("tmpfs", target, "tmpfs", 0, "size=64m"):
        yield target


@contextmanager
def dead(target: Path) -> Iterator[Path]:
    """The mount of an `omero-archive mount` that was killed: "Transport endpoint is not connected"."""
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        _skip(f"/dev/fuse: {error.strerror}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    try:
        mount = _mounted("omero-archive", target, "fuse.omero-archive", flags, options)
        mount.__enter__()
    finally:
        os.close(server)
    try:
        yield target
    finally:
        mount.__exit__(None, None, None)


@contextmanager
def silent(target: Path) -> Iterator[Path]:
    """A mount whose server hangs: whoever looks waits, for no signal but SIGKILL. At the end it is dead."""
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        _skip(f"/dev/fuse: {error.strerror}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    try:
        with _mounted("hangs", target, "fuse.hangs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, options):
            yield target
    finally:
        os.close(server)  # who waits is told now


def pretend(path: Path, *, like: Path) -> None:
    """A file that looks like another to `stat`."""
    seen = like.stat()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * seen.st_size)
    os.utime(path, ns=(0, seen.st_mtime_ns))


@contextmanager
def _mounted(source: str, target: Path, kind: str, flags: int, options: str) -> Iterator[None]:
    made = _LIBC.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if made != 0:
        _skip(f"nothing can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        if _LIBC.umount2(os.fsencode(target), _MNT_DETACH) != 0:
            raise OSError(ctypes.get_errno(), f"{target} is still mounted")


def _skip(reason: str) -> None:
    if os.geteuid() == 0 and os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
