"""Starts the simulator as a process of its own and speaks to it."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx


class Simulator:
    """A running simulator: `url`, `mount` and `folder` are what the settings of the service want.

    with Simulator(tmp_path) as arkivum:
        arkivum.advance(600)
    """

    def __init__(self, directory: Path, *options: str) -> None:
        command = (sys.executable, "-m", "omero_archive.testing.arkivum", "--dir", str(directory), *options)
        directory.mkdir(parents=True, exist_ok=True)
        log = directory / "simulator.log"
        # It holds nothing of ours open: it may go on when we end, and who waits for our end would wait for its.
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        said = dict(self._process.stdout.readline().rstrip("\n").partition(" ")[::2] for _ in range(3))
        if "folder" not in said:
            code = self._process.wait(timeout=10)
            raise RuntimeError(f"The simulator did not start, it ended with {code}: {log.read_text()}")
        self.url, self.mount, self.folder = said["url"], Path(said["mount"]), said["folder"]
        # It listens on this machine only, and may have a certificate of its own making.
        self._requests = httpx.Client(base_url=f"{self.url}/simulator", verify=False, trust_env=False)  # noqa: S501

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def advance(self, seconds: float) -> None:
        """Let the appliance's time leap."""
        self._say("POST", "/clock", {"advance": seconds})

    def run_at(self, speed: float) -> None:
        """Let so many of the appliance's seconds pass in one."""
        self._say("POST", "/clock", {"speed": speed})

    def damage(self, path: str) -> bool:
        """Change the last byte of a file behind the appliance's back; False if it is not there."""
        return bool(self._say("POST", "/damage", {"path": path})["damaged"])

    def fault(self, **what: object) -> None:
        """Let something be wrong, see `faults.py`."""
        self._say("POST", "/fault", what)

    def repair(self) -> None:
        """Let nothing be wrong any more."""
        self._say("DELETE", "/fault")

    def autoclear(self, path: str | None = None) -> int:
        """Let bytes leave the mount; of how many files they left."""
        return int(self._say("POST", "/autoclear", {} if path is None else {"path": path})["cleared"])

    def state(self) -> dict[str, Any]:
        """What `GET /simulator` says."""
        return self._say("GET", "")

    def close(self) -> None:
        """End the process."""
        self._requests.close()
        self._process.terminate()
        self._process.communicate(timeout=10)

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self, method: str, path: str, content: object = None) -> dict[str, Any]:
        answer = self._requests.request(method, path, json=content, timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
