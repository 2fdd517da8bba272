"""The archive services on which the demo's story can be told, and what the story does behind the software's back.

The story runs our commands; what it claims of the archive it looks up here, without them: whether an object is there,
whether it has the original's bytes, whether `sha256sum -c` is content with the manifests.
"""

import filecmp
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from omero_archive.model import Key

TAPE_JOB = """\
#!/bin/sh
# What the archive says of the files whose paths come on standard input, each ended by a NUL byte: all of them are
# safe when the tape job has run. Here a file plays the tape job.
if [ -e "$0.has-run" ]; then word=durable; else word='not yet'; fi
tr -cd '\\0' | tr '\\0' '\\n' | sed "s/.*/$word/"
"""


class DemoService(ABC):
    """An archive service for the demo, in a directory of its own. The settings call it `tape`."""

    waiting: ClassVar[str]
    """Why copies are not safe at once, a sentence for the story."""
    passing: ClassVar[str]
    """What happens in `let_time_pass`, for the story."""
    takes_bytes_away: ClassVar[bool] = False
    """Whether bytes may be offline, so that a recall has to wait for the archive."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def start(self) -> None:
        """Make the place, start what has to run."""

    @abstractmethod
    def settings(self) -> Mapping[str, object]:
        """The table `[services.tape]`."""

    @abstractmethod
    def let_time_pass(self) -> None:
        """What the archive does in days: then it vouches for all that was copied."""

    def take_bytes_away(self) -> None:
        """What an archive does with bytes that nobody reads: they go offline."""
        return

    def bring_bytes_back(self) -> None:
        """What was asked for has come."""
        return

    @abstractmethod
    def has(self, key: Key) -> bool:
        """Whether an object is there."""

    @abstractmethod
    def has_bytes_of(self, key: Key, original: Path) -> bool:
        """Whether an object is there with the bytes of a file."""

    @abstractmethod
    def damage(self, key: Key) -> None:
        """Change one byte of an object, its size and times as before."""

    @abstractmethod
    def check_manifests(self) -> bool:
        """Whether there are manifests, and `sha256sum -c` finds every file of them as it should be."""

    def stop(self) -> None:
        """Stop what runs; what is stored stays. Done twice is done once."""
        return


class DirectoryDemo(DemoService):
    """A directory from which a job of the site writes to tape."""

    waiting = (
        "A copy counts only when the archive vouches for it: here when its tape job has run, as a program of the site "
        "tells. Until then nothing is replaced."
    )
    passing = "The tape job runs ..."

    @property
    def _job(self) -> Path:
        return self.directory.with_name("tape-job")

    def start(self) -> None:
        self.directory.mkdir()
        self._job.write_text(TAPE_JOB)

    def settings(self) -> Mapping[str, object]:
        return {"type": "directory", "path": str(self.directory), "confirm_command": ["sh", str(self._job)]}

    def let_time_pass(self) -> None:
        self._job.with_suffix(".has-run").touch()

    def has(self, key: Key) -> bool:
        return (self.directory / key).is_file()

    def has_bytes_of(self, key: Key, original: Path) -> bool:
        return self.has(key) and filecmp.cmp(original, self.directory / key, shallow=False)

    def damage(self, key: Key) -> None:
        flip_last_byte(self.directory / key)

    def check_manifests(self) -> bool:
        return check_manifests_below(self.directory)


KINDS: Mapping[str, type[DemoService]] = {"directory": DirectoryDemo}
"""What `omero-archive demo --service` knows."""


def check_manifests_below(top: Path) -> bool:
    """Whether there are manifests below a directory, and `sha256sum -c` is content with all of them."""
    manifests = sorted(path.relative_to(top) for path in top.glob("manifests/*/*.txt"))
    command = ["sha256sum", "--check", "--quiet", "--strict", *map(str, manifests)]
    return bool(manifests) and subprocess.run(command, cwd=top, check=False).returncode == 0


def flip_last_byte(path: Path) -> None:
    """What a rotting disk does: another byte, the same size and times."""
    seen = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x01
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
