"""A real little proxy before PostgreSQL, on a unix socket: counts COMMITs and loses the connection at one of them.

It knows of the protocol what it needs: messages from the client have a letter and a length, the first has none;
`Q` with the text COMMIT ends a transaction, and the server's answer to it ends with `Z`.
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Loss(StrEnum):
    """When the connection is lost at a COMMIT."""

    BEFORE = "before the commit"  # the server never hears of it and rolls back
    AFTER = "after the commit"  # the server has committed, the client never hears of it
    STOP = "process stopped after the commit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Lose the connection at COMMIT number `at`, counted from 1 over all connections of the proxy."""

    at: int
    loss: Loss


class PostgresProxy:
    """Listens in `directory` and passes everything on to the server of `dsn`; `self.dsn` is the way through it."""

    def __init__(self, dsn: str, directory: Path, cut: Cut | None = None, *, stop: Callable[[], None]) -> None:
        known = conninfo_to_dict(dsn)
        port = known.get("port") or 5432
        self.dsn = make_conninfo(dsn, host=str(directory), port=port)
        self.commits = 0
        self._server = f"{known['host']}/.s.PGSQL.{port}"
        self._cut = cut
        self._stop = stop
        self._lock = threading.Lock()
        self._path = str(directory / f".s.PGSQL.{port}")
        self._listening = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        directory = os.path.dirname(self._path)
        os.makedirs(directory, exist_ok=True)
        if os.path.exists(self._path):
            os.unlink(self._path)  # of a process that was stopped
        self._listening.bind(self._path)
        self._listening.listen(32)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=_Connection(self, client, self._server).serve, daemon=True).start()

    def commit_comes(self) -> Loss | None:
        """Count a COMMIT; how the connection is to be lost at it."""
        with self._lock:
            self.commits += 1
            if self._cut is not None and self._cut.at == self.commits:
                return self._cut.loss
            return None

    def stop(self) -> None:
        """End the process."""
        self._stop()


class _Connection:
    """One client with its connection to the server: a thread for each direction."""

    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: str) -> None:
        self._proxy = proxy
        self._client = client
        self._upstream = socket.socket(socket.AF_UNIX)
        self._upstream.connect(server)
        self._loss: Loss | None = None  # set before the COMMIT is passed on whose answer is to be kept back

    def serve(self) -> None:
        threading.Thread(target=self._answers, daemon=True).start()
        try:
            self._requests()
        except OSError:
            pass
        if self._loss is None:
            self._close()

    def _requests(self) -> None:
        self._upstream.sendall(self._message(b""))  # the startup message has no letter
        while True:
            letter = self._exactly(1)
            message = self._message(letter)
            if letter == b"Q" and message[5:].rstrip(b"\0").strip().upper() == b"COMMIT":
                loss = self._proxy.commit_comes()
                if loss is Loss.BEFORE:
                    return
                self._loss = loss
            self._upstream.sendall(message)
            if self._loss is not None:
                return

    def _message(self, letter: bytes) -> bytes:
        head = self._exactly(4)
        (length,) = struct.unpack("!I", head)
        return letter + head + self._exactly(length - 4)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = self._client.recv(count - len(found))
            if not piece:
                raise OSError("the client went")
            found += piece
        return found

    def _answers(self) -> None:
        kept_back = b""
        try:
            while piece := self._upstream.recv(1 << 16):
                if self._loss is None:
                    self._client.sendall(piece)
                    continue
                kept_back += piece
                if kept_back[-6:-1] == b"Z\0\0\0\5":  # ready for the next: the commit is done
                    break
        except OSError:
            pass
        if self._loss is Loss.STOP:
            self._proxy.stop()
        self._close()

    def _close(self) -> None:
        for one in (self._client, self._upstream):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
