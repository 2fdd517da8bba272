"""An S3 server with storage classes and restores on this machine: moto, as a process of its own.

For tests and for the demo. It keeps everything in memory and knows any access key. Restores are done at once, or
by `slow_restores` only after an object was asked for so many times.
"""

import json
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from types import TracebackType
from typing import Self

ACCESS_KEY = "moto"
SECRET_KEY = "moto-secret"  # noqa: S105 - moto takes any

_START_SECONDS = 60


class MotoServer:
    """A moto server; `endpoint` once it is entered. Raises `RuntimeError` where it does not start."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._drain, args=(lines,), daemon=True).start()
        try:
            while not self.endpoint:
                line = lines.get(timeout=_START_SECONDS)
                if not line:
                    raise RuntimeError("moto ended before it listened; is omero-archive[demo] installed?")
                found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", line)
                self.endpoint = found[1] if found else ""
        except (RuntimeError, queue.Empty):
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process, for whoever wants to kill it."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    def stop(self) -> None:
        """End the process; what it kept is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()

    def slow_restores(self, looks: int | None) -> None:
        """Let a restore be over when an object was looked at so many times; None: at once, as at the beginning."""
        if looks is None:
            self._tell("unset-transition", {"model_name": "s3::keyrestore"})
            return
        transition = {"progression": "manual", "times": looks}
        self._tell("set-transition", {"model_name": "s3::keyrestore", "transition": transition})

    def _tell(self, what: str, document: object) -> None:
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.endpoint}/moto-api/state-manager/{what}",
            data=json.dumps(document).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_START_SECONDS) as answer:  # noqa: S310 - our own server
            answer.read()

    def _drain(self, lines: "queue.Queue[str]") -> None:
        """Read what it says to the end, so that it never waits for a reader."""
        assert self._process is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        try:
            for line in self._process.stderr:
                if not self.endpoint:
                    lines.put(line)
        except ValueError:
            return  # closed by `stop`
        lines.put("")
