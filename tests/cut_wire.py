"""A wire to PostgreSQL that can be cut: a TCP proxy on this machine that swallows everything until it is mended."""

import select
import socket
import threading
from contextlib import suppress
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class CutWire:
    """Passes everything on to the server of `dsn`, which listens on a unix socket; `self.dsn` is the way through it."""

    def __init__(self, dsn: str) -> None:
        known = conninfo_to_dict(dsn)
        self._server = f"{known['host']}/.s.PGSQL.{known['port']}"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._listening.getsockname()[1], sslmode="disable")
        self._is_cut = threading.Event()
        self._is_over = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._listening.close()
        self._drop()

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told: connections stay open and are silent."""
        self._is_cut.set()

    def mend(self) -> None:
        """New connections come through again; those from before break."""
        self._is_cut.clear()
        self._drop()

    def _drop(self) -> None:
        for pair in self._pairs:
            for one in pair:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._pairs.append((client, server))
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with client, server, suppress(OSError, ValueError):
            while not self._is_over.is_set():
                if self._is_cut.is_set():
                    # What was sent meanwhile is never passed on: when the wire is mended the connection breaks.
                    self._is_over.wait(0.02)
                    continue
                ready, _, _ = select.select([client, server], [], [], 0.02)
                for one in ready:
                    piece = one.recv(1 << 16)
                    if not piece:
                        return
                    other[one].sendall(piece)
