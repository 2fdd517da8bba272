"""An S3 server with storage classes and restores on this machine: moto, as a process of its own.

For tests and for the demo. It keeps everything in memory and knows any access key. Restores are done at once, or
by `slow_restores` only after an object was asked for so many times. It believes every checksum, and restored bytes
never go again: it proves nothing of either.

The process ends when it is stopped, or by itself when its directory is removed.
"""

import importlib
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

ACCESS_KEY = "moto"
SECRET_KEY = "moto-secret"  # noqa: S105 - moto takes any

_ENDPOINT = "endpoint"
_LOG = "log"
_START_SECONDS = 60
_LOOK_SECONDS = 0.2


class MotoServer:
    """A moto server; `endpoint` once it is started. Without a directory it has one for the occasion."""

    def __init__(self, directory: Path | None = None) -> None:
        self.endpoint = ""
        self._own = tempfile.TemporaryDirectory(prefix="s3-moto-") if directory is None else None
        self._directory = Path(self._own.name) if self._own is not None else directory or Path()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; returns when it listens. Raises `RuntimeError` where it does not."""
        self._directory.mkdir(exist_ok=True)
        log = self._directory / _LOG
        command = [sys.executable, "-m", "omero_archive.testing.s3_server", str(self._directory)]
        with log.open("wb") as written:
            # A group of its own: it goes on when the terminal of a demo that is kept is closed.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, process_group=0
            )
        give_up = time.monotonic() + _START_SECONDS
        while not self.endpoint:
            if self._process.poll() is not None or time.monotonic() > give_up:
                said = log.read_text(errors="replace")[-1000:]
                self.stop()
                raise RuntimeError(f"moto did not start; is omero-archive[demo] installed? {said}")
            time.sleep(0.02)
            self.endpoint = _read_line(self._directory / _ENDPOINT)

    def stop(self) -> None:
        """End the process; what it kept is gone. Done twice is done once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._own is not None:
            self._own.cleanup()

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


def serve(directory: Path) -> None:
    """Be the server, until `directory` is removed. Its address is in the file `endpoint` there."""
    moto = importlib.import_module("moto.server")
    # A line for each request, and a connection for each, would take longer than most of the answers.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto.MotoRequestHandler.protocol_version = "HTTP/1.1"
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    (directory / _ENDPOINT).write_text(f"http://{host}:{port}\n")
    while directory.exists():
        time.sleep(_LOOK_SECONDS)


def _read_line(path: Path) -> str:
    """The first line of a file, empty until it is written whole."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return ""
    return text.strip() if text.endswith("\n") else ""


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
