"""Mounts for tests: whether this machine can mount, a safe end for every mount, and a plain directory that is mounted.

A server is always a process of its own: a thread that serves a mount must never be the one that opens a file in it.
Whatever hangs is freed by the watchdog of `mounting`, which ends the mount by force.
"""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from omero_archive.access.fuse.mounts import MountedThere, mounted_at

_PROGRAM = Path(__file__).resolve().parent / "plain_mount.py"
_SOURCES = Path(__file__).resolve().parent.parent / "src"
_LIBC = ctypes.CDLL(None, use_errno=True)
_FORCE_AND_DETACH = 1 | 2  # MNT_FORCE | MNT_DETACH of sys/mount.h
_LONGEST_S = 120.0
PATIENCE_S = 20.0
NOBODY = 65534


@pytest.fixture(scope="session")
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Root and /dev/fuse, or a skip; a failure with OMERO_ARCHIVE_REQUIRE_TOOLS=1."""
    if os.geteuid() != 0:
        missing("tests mount as root")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        missing(f"/dev/fuse cannot be opened: {error}")
    directory = tmp_path_factory.mktemp("may-mount")
    if _LIBC.mount(b"none", os.fsencode(directory), b"tmpfs", 0, b"size=4k") != 0:
        missing(f"this process may not mount: {os.strerror(ctypes.get_errno())}")
    _LIBC.umount2(os.fsencode(directory), _FORCE_AND_DETACH)


def missing(what: str) -> NoReturn:
    """Skip, or fail where tools are required."""
    if os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
        pytest.fail(f"mounts are required but {what}")
    pytest.skip(f"no mounts: {what}")


def mounted(path: Path) -> MountedThere | None:
    """What is mounted at a path; looks at the list only, so it never hangs."""
    return mounted_at(str(path))


def unmount(path: Path) -> None:
    """End whatever is mounted at a path of ours, by force; whoever waits for it is freed."""
    for _ in range(10):
        if mounted(path) is None or _LIBC.umount2(os.fsencode(path), _FORCE_AND_DETACH) != 0:
            return


@contextmanager
def mounting(path: Path) -> Iterator[None]:
    """Whatever is mounted at `path` inside is gone afterwards, and after two minutes in any case."""
    watchdog = threading.Timer(_LONGEST_S, unmount, (path,))
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        unmount(path)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that will be so in a moment."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"not so after {PATIENCE_S} s: {what}"
        time.sleep(0.01)


class PlainMount:
    """`plain_mount.py` as a process: serves `store` at `point`, and does what `tell` says."""

    def __init__(self, point: Path, store: Path, *options: str) -> None:
        self.point = point
        self.store = store
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self.said = ""
        self.log = point.with_name(point.name + ".log")

    @property
    def process(self) -> "subprocess.Popen[str]":
        assert self._process is not None, "started"
        return self._process

    def start(self) -> bool:
        """Begin to serve. False if the program did not; `said` is then what it gave as reason."""
        environment = os.environ | {"PYTHONPATH": str(_SOURCES), "PYTHONDONTWRITEBYTECODE": "1"}
        log = self.log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), str(self.point), str(self.store), *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
        log.close()
        self.said = self._answer()
        return self.said.startswith("ready")

    def tell(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stats(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.tell("stats"))
        return told

    def status(self, key: str) -> int:
        """A number of /proc/PID/status: Threads, or VmRSS in KiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{key}:"))

    def open_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> int:
        """Ask it to end, as a service would be."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self._wait()

    def kill(self) -> None:
        self.process.kill()
        self._wait()

    def _wait(self) -> int:
        process = self.process
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            unmount(self.point)
            raise
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None

    def _answer(self) -> str:
        assert self.process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        watchdog.start()
        try:
            return self.process.stdout.readline().rstrip("\n")
        finally:
            watchdog.cancel()


@contextmanager
def plain_mount(directory: Path, *options: str) -> Iterator[PlainMount]:
    """`directory/store` served at `directory/mnt` until the end. Options as of `plain_mount.py`."""
    point, store = directory / "mnt", directory / "store"
    point.mkdir()
    store.mkdir(exist_ok=True)
    mount = PlainMount(point, store, *options)
    with mounting(point):
        assert mount.start(), mount.said
        try:
            yield mount
        finally:
            unmount(point)
            mount.stop()
