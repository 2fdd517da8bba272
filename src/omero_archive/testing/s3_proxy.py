"""A proxy between a client and an S3 server that does what vendors' servers do on bad days.

    with S3Proxy(server.endpoint) as proxy:
        proxy.set(Fault(method="GET", path="/bucket/key", status=503, code="SlowDown", times=2))
        client = ...endpoint_url=proxy.endpoint...

Requests that no fault matches pass through unchanged, and so do their answers. `seen` are the requests that came.
"""

import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "expect"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the next requests that match; the first fault that matches happens.

    `path` and `query` must be in the request's path (decoded) and query. With `status` the server is not asked;
    otherwise its answer is changed. `headers` replaces headers of the answer, None takes one away.
    """

    method: str = ""  # any
    path: str = ""
    query: str = ""
    without: str = ""  # must not be in the query
    times: int = 1
    status: int | None = None
    code: str = ""
    message: str = "a fault that was asked for"
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None  # instead of an error document
    truncated_to: int | None = None  # so many bytes of the body, then the connection ends
    flip: int | None = None  # this byte of the request's body is changed on its way to the server
    reset: bool = False  # the connection is reset, the server not asked
    reset_after: bool = False  # the server does it, then the connection is reset before the answer
    delay_seconds: float = 0


class S3Proxy:
    """See the module's docstring."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self._lock = threading.Lock()
        self._faults: list[list[Fault | int]] = []
        self.seen: list[str] = []
        self._bodies: list[tuple[str, bytes]] = []
        self._headers: list[tuple[str, dict[str, str]]] = []
        proxy = self

        class Handler(_Handler):
            def faulty(self) -> S3Proxy:
                return proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def set(self, fault: Fault) -> None:
        """Let a fault happen, after those that were set before."""
        with self._lock:
            self._faults.append([fault, fault.times])

    def clear(self) -> None:
        """No fault any more, and no request seen yet."""
        with self._lock:
            self._faults.clear()
            self.seen.clear()
            self._bodies.clear()
            self._headers.clear()

    def bodies(self, part: str) -> list[bytes]:
        """The bodies, up to 64 KiB, of the requests that have `part` in their method and target."""
        with self._lock:
            return [body for request, body in self._bodies if part in request]

    def headers(self, part: str) -> list[dict[str, str]]:
        """The headers, their names in lower case, of the requests that have `part` in their method and target."""
        with self._lock:
            return [headers for request, headers in self._headers if part in request]

    def note(self, request: str, headers: Mapping[str, str], body: bytes) -> None:
        """Remember a request that came."""
        with self._lock:
            self.seen.append(request)
            self._bodies.append((request, body[: 64 << 10]))
            self._headers.append((request, {name.lower(): value for name, value in headers.items()}))

    def fault_for(self, method: str, target: str) -> Fault | None:
        """The fault that happens to a request, used up by one."""
        parts = urlsplit(target)
        path = unquote(parts.path)
        with self._lock:
            for entry in self._faults:
                fault, left = entry
                if not isinstance(fault, Fault) or not isinstance(left, int) or not left:
                    continue
                fits = fault.method in ("", method) and fault.path in path and fault.query in parts.query
                if fits and not (fault.without and fault.without in parts.query):
                    entry[1] = left - 1
                    return fault
        return None

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[HTTPResponse, bytes]:
        """The server's answer."""
        connection = HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=60)
        try:
            connection.request(method, target, body=body, headers=dict(headers))
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"

    def faulty(self) -> S3Proxy:
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        del format, args

    def _act(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.faulty().note(f"{self.command} {self.path}", dict(self.headers.items()), body)
        fault = self.faulty().fault_for(self.command, self.path) or Fault()
        if fault.delay_seconds:
            time.sleep(fault.delay_seconds)
        if fault.reset:
            self._reset()
            return
        if fault.status is not None:
            self._send(fault.status, {}, _document(fault) if fault.body is None else fault.body, fault)
            return
        if fault.flip is not None:
            body = body[: fault.flip] + bytes([body[fault.flip] ^ 1]) + body[fault.flip + 1 :]
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        answer, content = self.faulty().ask(self.command, self.path, headers, body)
        if fault.reset_after:
            self._reset()
            return
        passed = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        if self.command == "HEAD":
            passed["Content-Length"] = answer.getheader("Content-Length") or "0"
        self._send(answer.status, passed, content, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _act  # noqa: N815 - the names of the base class

    def _send(self, status: int, headers: dict[str, str], content: bytes, fault: Fault) -> None:
        changed = {name.lower() for name in fault.headers}
        wanted: dict[str, str | None] = {name: value for name, value in headers.items() if name.lower() not in changed}
        self.send_response_only(status)
        for name, value in (wanted | dict(fault.headers)).items():
            if value is not None:
                self.send_header(name, value)
        if "Content-Length" not in wanted:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.truncated_to is None:
            self.wfile.write(content)
            return
        self.wfile.write(content[: fault.truncated_to])
        self.wfile.flush()
        self.close_connection = True

    def _reset(self) -> None:
        """End the connection so that the client gets ECONNRESET."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            return  # the connection was reset


def _document(fault: Fault) -> bytes:
    return f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>".encode()
