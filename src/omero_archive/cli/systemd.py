"""Telling systemd how far a service is: sd_notify(3) in a few lines, nothing where nobody listens."""

import os
import socket
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"


def tell_systemd(state: str) -> None:
    """Send a state such as `READY=1`. Who is not there, or does not listen, is not missed."""
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as there:
        there.connect("\0" + address[1:] if address.startswith("@") else address)
        there.send(state.encode())
