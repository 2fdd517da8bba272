"""Whether a server that should have ended still listens."""

import socket
import time
from urllib.parse import urlsplit

import pytest

PATIENCE_S = 20.0


def expect_gone(url: str) -> None:
    """Wait until the port of `url` refuses connections, and fail if it goes on taking them.

    Only a refusal says so: a server that is just closing resets a connection it took a moment before, and one
    that hangs takes connections without ever answering.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_S).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass
        time.sleep(0.05)
    pytest.fail(f"a server still listens at {url}")
