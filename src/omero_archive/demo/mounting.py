"""The demo's mount and worker: our own commands as processes, started and stopped as systemd would do it."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from omero_archive.errors import BrokenInvariant

_START_SECONDS = 30
_DEVICE = Path("/dev/fuse")


def why_no_mount() -> str | None:
    """Why this machine or this user cannot mount, a part of a sentence; None if it looks as if they can."""
    if not _DEVICE.exists():
        return "this machine has no /dev/fuse"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "only root may mount here: fusermount3 is not installed"
    return None


class DemoMount:
    """`omero-archive mount` on the demo's archive root. What it says goes into `mount.log` beside the settings."""

    def __init__(self, settings: Path, root: Path) -> None:
        self._settings = settings
        self.root = root
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _log(self) -> Path:
        return self._settings.with_name("mount.log")

    def start(self) -> str | None:
        """Start it; returns when it serves. Else why it does not, in its own words."""
        with self._log.open("ab") as written:
            # A group of its own: it goes on when the terminal of a demo that is kept is closed.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "omero_archive", "mount"],
                env=environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                process_group=0,
            )
        give_up = time.monotonic() + _START_SECONDS
        while not os.path.ismount(self.root):
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                return (self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            time.sleep(0.05)
        return None

    def stop(self) -> None:
        """Take it away again. Done twice is done once."""
        if self._process is not None:
            end(self._process)
            self._process = None
        unmount(self._settings, self.root)


class DemoWorker:
    """`omero-archive worker` for recalls, while the story is in the `with` block."""

    def __init__(self, settings: Path) -> None:
        self._settings = settings

    def __enter__(self) -> None:
        with self._settings.with_name("worker.log").open("ab") as written:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "omero_archive", "worker", "--queues", "recall"],
                env=environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )

    def __exit__(self, *_: object) -> None:
        end(self._process)


def unmount(settings: Path, root: Path) -> None:
    """Take a mount away that no process of ours holds any more, if it is there. Raises `BrokenInvariant`."""
    if is_mounted(root):
        command = [sys.executable, "-m", "omero_archive", "mount", "--unmount"]
        subprocess.run(command, env=environment(settings), check=False, capture_output=True)
    if is_mounted(root):
        raise BrokenInvariant(f"{root} is mounted still; unmount it before anything is removed below it.")


def is_mounted(root: Path) -> bool:
    """Whether something is mounted there, alive or not: a mount whose server died answers nothing but an error."""
    try:
        root.lstat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return os.path.ismount(root)


def environment(settings: Path) -> Mapping[str, str]:
    """What the commands of a demo run with."""
    return os.environ | {"OMERO_ARCHIVE_SETTINGS": str(settings)}


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, and wait for it; after ten seconds it is not asked any more."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
