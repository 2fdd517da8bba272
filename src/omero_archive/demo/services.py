"""The archive services on which the demo's story can be told, and what the story does behind the software's back.

The story runs our commands; what it claims of the archive it looks up here, without them: whether an object is there,
whether it has the original's bytes, whether `sha256sum -c` is content with the manifests.
"""

import filecmp
import os
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from omero_archive.demo.bucket import BUCKET, PART_BYTES, STORAGE_CLASS, DemoBucket
from omero_archive.model import Key
from omero_archive.testing.arkivum import Simulator
from omero_archive.testing.s3_server import ACCESS_KEY, SECRET_KEY, MotoServer

_DAY = 86400

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


class ArkivumDemo(DemoService):
    """Arkivum's appliance, played by its simulator, a process of its own with a mount and tapes."""

    waiting = (
        "A copy counts only when the archive vouches for it. This appliance says nothing of a file for ten minutes, "
        "then takes it in (FINAL), copies it to its data centres (amber) and to a tape in escrow (green). Until it is "
        "green nothing is replaced."
    )
    passing = "Two days pass for the appliance ..."
    takes_bytes_away = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._simulator: Simulator | None = None

    @property
    def _running(self) -> Simulator:
        assert self._simulator is not None, "the simulator was not started"  # noqa: S101
        return self._simulator

    def start(self) -> None:
        # Its own autoclear never comes: when bytes go is told by the story.
        self._simulator = Simulator(self.directory, "--autoclear-after", "1e12")

    def settings(self) -> Mapping[str, object]:
        running = self._running
        return {"type": "arkivum", "path": str(running.mount), "url": running.url, "folder": running.folder}

    def let_time_pass(self) -> None:
        self._running.advance(2 * _DAY)
        self._running.run_at(_DAY / 2)  # what is written from now on is green after three seconds

    def take_bytes_away(self) -> None:
        self._running.autoclear()

    def has(self, key: Key) -> bool:
        return (self._running.mount / key).is_file()

    def has_bytes_of(self, key: Key, original: Path) -> bool:
        return self.has(key) and filecmp.cmp(original, self._running.mount / key, shallow=False)

    def damage(self, key: Key) -> None:
        self._running.damage(f"{self._running.folder}/{key}")

    def check_manifests(self) -> bool:
        return check_manifests_below(self._running.mount)

    def stop(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None


class S3Demo(DemoService):
    """S3 Glacier, played by moto, a process of its own: what is stored is cold at once."""

    waiting = (
        "A copy counts only when it is safe. S3 has the bytes and reports their checksums, but this site wants them in "
        "a second region too, and trusts that this takes a day: `durable_after`. Until then nothing is replaced."
    )
    passing = "A day passes (the demo shortens `durable_after` instead) ..."
    takes_bytes_away = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server = MotoServer(directory)

    @property
    def _bucket(self) -> DemoBucket:
        return DemoBucket(self._server.endpoint)

    def start(self) -> None:
        self._server.start()
        self._bucket.make()
        for name, secret in (("access-key", ACCESS_KEY), ("secret-key", SECRET_KEY)):
            (self.directory / name).write_text(secret)

    def settings(self) -> Mapping[str, object]:
        return {
            "type": "s3",
            "endpoint": self._server.endpoint,
            "bucket": BUCKET,
            "storage_class": STORAGE_CLASS,
            "part_size": PART_BYTES,
            "durable_after": "1d",
            "access_key": {"file": str(self.directory / "access-key")},
            "secret_key": {"file": str(self.directory / "secret-key")},
        }

    def let_time_pass(self) -> None:
        written = self.directory.with_name("omero-archive.toml")
        written.write_text(written.read_text().replace('durable_after = "1d"', 'durable_after = "0s"'))

    def take_bytes_away(self) -> None:
        self._bucket.let_restores_end()
        self._server.slow_restores(3)

    def bring_bytes_back(self) -> None:
        # They come while they are asked about, see `slow_restores`.
        return

    def has(self, key: Key) -> bool:
        return self._bucket.head(key) is not None

    def has_bytes_of(self, key: Key, original: Path) -> bool:
        return self._bucket.has_bytes_of(key, original)

    def damage(self, key: Key) -> None:
        self._server.slow_restores(None)
        content = bytearray(self._bucket.fetch(key))
        content[-1] ^= 0x01
        self._bucket.store(key, bytes(content))
        self._bucket.fetch(key)  # restored, so that healing can set the damaged bytes aside at once

    def check_manifests(self) -> bool:
        with tempfile.TemporaryDirectory(prefix="omero-archive-demo-") as top:
            for key in self._bucket.objects():
                path = Path(top) / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._bucket.fetch(key))
            return check_manifests_below(Path(top))

    def stop(self) -> None:
        self._server.stop()


KINDS: Mapping[str, type[DemoService]] = {"directory": DirectoryDemo, "arkivum": ArkivumDemo, "s3": S3Demo}
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
