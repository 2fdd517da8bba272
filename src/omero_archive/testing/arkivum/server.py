"""The HTTP side of the simulated appliance: the endpoints that clients were seen to use, and those for tests."""

import json
import os
import sys
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, unquote_to_bytes

from pydantic import JsonValue, ValidationError

from omero_archive.testing.arkivum import answers
from omero_archive.testing.arkivum.answers import Document
from omero_archive.testing.arkivum.appliance import Appliance, Record
from omero_archive.testing.arkivum.faults import Fault

SERVER = "A-Stor/2.2.9.8409 (simulated)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer before faults: `document` is None for an empty body."""

    status: int
    document: Document | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request: `rest` is what follows the endpoint's own path, as bytes without doubled or outer slashes."""

    method: str
    endpoint: str
    rest: bytes
    query: str
    body: bytes


@dataclass(slots=True, kw_only=True)
class Endpoints:
    """What each endpoint answers. `folder` is where the mount lies in the appliance's paths, `b"/omero"`."""

    appliance: Appliance
    folder: bytes
    authorization: str | None = None
    faults: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    releases: dict[str, tuple[Record, Document]] = field(default_factory=dict)

    def answer(self, request: Request) -> Reply:
        match request.endpoint, request.method:
            case "status", "GET":
                free = os.statvfs(self.appliance.mount)
                return Reply(status=200, document={"storage": {"bytesFree": free.f_bavail * free.f_frsize}})
            case "fileInfo", "GET":
                record = self._entry(request.rest)
                return Reply(status=404) if record is None else Reply(status=200, document=self._document(record))
            case "files", "GET":
                return self._list(request.rest)
            case "files", "DELETE":
                path = self._below(request.rest)
                is_gone = bool(path) and self.appliance.delete(path or b"")
                return Reply(status=204 if is_gone else 404)
            case "create-folder", "POST":
                return self._create(request)
            case "search", "GET":
                return self._search(request)
            case "release", _:
                return self._release(request)
            case "restore", _:
                return self._restore(request)
            case _:
                return Reply(status=404)

    def path_of(self, request: Request) -> str:
        """The appliance's path that a request is about, as text for comparisons with a fault's."""
        if request.endpoint == "restore":
            record = self.appliance.by_id(request.rest.decode("ascii", "replace"))
            return "" if record is None else os.fsdecode(self.folder + b"/" + record.path)
        return os.fsdecode(b"/" + request.rest)

    def control(self, request: Request) -> Reply:
        """The simulator's own requests. Raises `ValueError` for what it does not understand."""
        given = json.loads(request.body) if request.body else {}
        match request.rest, request.method:
            case b"", "GET":
                return Reply(status=200, document=self._state())
            case b"clock", "POST":
                if "speed" in given:
                    self.appliance.run_at(float(given["speed"]))
                self.appliance.advance(float(given.get("advance", 0)))
                return Reply(status=200, document={"now": self.appliance.now()})
            case b"autoclear", "POST":
                return Reply(status=200, document={"cleared": self._autoclear(given.get("path"))})
            case b"damage", "POST":
                path = self._below(os.fsencode(given["path"]).strip(b"/"))
                return Reply(status=200, document={"damaged": path is not None and self.appliance.damage(path)})
            case b"fault", "POST":
                self.faults.append(Fault.model_validate(given))
                return Reply(status=200, document={"faults": len(self.faults)})
            case b"fault", "DELETE":
                self.faults.clear()
                return Reply(status=200, document={"faults": 0})
            case _:
                return Reply(status=404)

    # ---- the inside

    def _below(self, rest: bytes) -> bytes | None:
        """The path below the mount of an appliance's path; None outside of it."""
        top = self.folder.strip(b"/")
        if not top or rest == top:
            return b"" if rest == top else rest
        return rest.removeprefix(top + b"/") if rest.startswith(top + b"/") else None

    def _entry(self, rest: bytes) -> Record | None:
        path = self._below(rest)
        return self.appliance.entry(path) if path else None

    def _document(self, record: Record) -> Document:
        return answers.file_document(record, self.folder, self.appliance.now(), self.appliance.pace)

    def _list(self, rest: bytes) -> Reply:
        path = self._below(rest)
        if path is None:
            return Reply(status=404)
        record = self.appliance.entry(path) if path else None
        if path and record is None:
            return Reply(status=404)
        found = self.appliance.below(path) if record is None or record.is_directory else [record]
        folder = os.fsdecode(b"/" + rest)
        return Reply(status=200, document=answers.listing(folder, [self._document(record) for record in found]))

    def _create(self, request: Request) -> Reply:
        form = parse_qs(request.body.decode())
        if form.get("action") != ["create-folder"]:
            return Reply(status=400)
        path = self._below(f"{form['basePath'][0]}/{form['folderName'][0]}".encode().strip(b"/"))
        if path is None:
            return Reply(status=400)
        self.appliance.create_folder(path)
        return Reply(status=200, document={})

    def _search(self, request: Request) -> Reply:
        wanted = unquote_to_bytes(request.query.removeprefix("path=")).strip(b"/")
        record = self._entry(wanted)
        results = [] if record is None else [answers.text_document(self._document(record))]
        return Reply(status=200, document={"results": list[JsonValue](results)})

    def _release(self, request: Request) -> Reply:
        """Taken at once and never checked at once: the answer to a wrong size is 202 as well, as recorded."""
        if request.method == "GET":
            known = self.releases.get(request.rest.decode("ascii", "replace"))
            if known is None:
                return Reply(status=404)
            identifier, (record, wanted) = request.rest.decode(), known
        else:
            path = self._below(request.rest)
            looked = None if path is None else self.appliance.look(path)
            if looked is None:
                return Reply(status=404)
            looked.is_released = True
            identifier, record, wanted = str(uuid.uuid4()), looked, json.loads(request.body)
            self.releases[identifier] = (record, wanted)
        now = self.appliance.now()
        document = answers.release_document(identifier, record, self._document(record), wanted, now)
        return Reply(status=200 if request.method == "GET" else 202, document=document)

    def _restore(self, request: Request) -> Reply:
        identifier = request.rest.decode("ascii", "replace")
        if request.method == "GET":
            recall = self.appliance.recalls.get(identifier)
            self.appliance.tick()
        else:
            record = self.appliance.by_id(identifier)
            modes = [f.recall for f in self.faults if f.recall and f.fits("restore", self.path_of(request))]
            recall = None if record is None else self.appliance.recall(record, next(iter(modes), ""))
        if recall is None:
            return Reply(status=404)
        return Reply(status=200, document=answers.recall_document(recall, self.appliance.now()))

    def _autoclear(self, path: str | None) -> int:
        wanted = None if path is None else self._below(os.fsencode(path).strip(b"/"))
        there = [record for record in self.appliance.scan() if path is None or record.path == wanted]
        return sum(self.appliance.clear(record) for record in there)

    def _state(self) -> Document:
        files = [self._document(record) for record in self.appliance.scan() if not record.is_directory]
        keys = ("path", "ingestState", "replicationState", "local", "md5", "size")
        return {
            "now": self.appliance.now(),
            "files": [{key: file[key] for key in keys} for file in files],
            "reads_while_offline": self.appliance.reads_while_offline,
            "requests": dict(self.counts),
        }


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The header and the body are two writes: without this each answer waits for the other side's acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_GET  # noqa: N815 - as above

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own signature
        del format, args

    def version_string(self) -> str:
        return SERVER

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate((time.time() if timestamp is None else timestamp) + self._skew, usegmt=True)

    def _serve(self) -> None:
        self._skew = 0.0
        endpoints = cast(ApplianceServer, self.server).endpoints
        request = self._request()
        if request.endpoint == "simulator":
            try:
                reply = endpoints.control(request)
            except (ValueError, KeyError, TypeError, ValidationError) as error:
                reply = Reply(status=400, document={"problem": str(error)})
            self._send(reply.status, _encoded(reply.document, "utf-8"))
            return
        endpoints.counts[request.endpoint] += 1
        if endpoints.authorization not in (None, self.headers.get("Authorization")):
            self._send(401, b"")
            return
        faults = [f for f in endpoints.faults if f.fits(request.endpoint, endpoints.path_of(request))]
        with endpoints.appliance.lock:
            reply = endpoints.answer(request)
        self._suffer(faults, reply)

    def _request(self) -> Request:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [part for part in unquote_to_bytes(path).split(b"/") if part]
        for prefix, endpoint in _ENDPOINTS:
            if parts[: len(prefix)] == prefix:
                rest = b"/".join(parts[len(prefix) :])
                method = self.command
                if endpoint == "files" and method == "POST":
                    endpoint = "create-folder"
                return Request(method=method, endpoint=endpoint, rest=rest, query=query, body=body)
        return Request(method=self.command, endpoint="", rest=b"/".join(parts), query=query, body=body)

    def _suffer(self, faults: list[Fault], reply: Reply) -> None:
        """Answer, with whatever is wrong."""
        for fault in faults:
            time.sleep(fault.hang)
            self._skew += fault.skew
        if any(fault.drop for fault in faults):
            self.close_connection = True
            return
        status, document = reply.status, reply.document
        encoding = "iso-8859-1"
        for fault in faults:
            if fault.silent:
                status, document = 404, None
            status = fault.status or status
            document = None if fault.status is not None else _changed(document, fault)
            encoding = fault.encoding or encoding
        body = _encoded(document, encoding)
        for fault in faults:
            if fault.body is not None:
                status, body = fault.status or 200, fault.body.encode()
        self._send(status, body)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json; charset=ISO-8859-1")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ApplianceServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1. `port` 0 takes any that is free."""

    daemon_threads = True

    def __init__(self, endpoints: Endpoints, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Connection)
        self.endpoints = endpoints
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True, name="appliance")
        self._ticker.start()

    def server_close(self) -> None:
        self._over.set()
        super().server_close()
        self._ticker.join()
        self.endpoints.appliance.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no failure of ours; anything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def _tick(self) -> None:
        """Let recalls go on and waiting readers be seen; now and then look at the whole mount."""
        turns = 0
        while not self._over.wait(0.05):
            turns += 1
            if not self.endpoints.appliance.mount.is_dir():
                self.shutdown()  # whoever kept us for a while has removed everything
                return
            self.endpoints.appliance.tick()
            if turns % 20 == 0:
                self.endpoints.appliance.scan()


_ENDPOINTS: tuple[tuple[list[bytes], str], ...] = (
    ([b"simulator"], "simulator"),
    ([b"json", b"status", b"info"], "status"),
    ([b"json", b"search", b"files"], "search"),
    ([b"api", b"2", b"files", b"fileInfo"], "fileInfo"),
    ([b"api", b"2", b"files", b"release"], "release"),
    ([b"api", b"2", b"local-cache", b"restore-request"], "restore"),
    ([b"files"], "files"),
)


def _changed(document: Document | None, fault: Fault) -> Document | None:
    """The document with the fault's changes in each file it speaks of."""
    if document is None:
        return None
    for name in ("files", "results"):
        if isinstance(document.get(name), list):
            files = cast(list[Document], document[name])
            return document | {name: list[JsonValue]([_changed_file(file, fault) for file in files])}
    return _changed_file(document, fault)


def _changed_file(document: Document, fault: Fault) -> Document:
    found = answers.text_document(document) if fault.is_text and "autoClear" in document else document
    return {key: value for key, value in (found | fault.set).items() if key not in fault.without}


def _encoded(document: Document | None, encoding: str) -> bytes:
    """JSON; what the encoding has no sign for becomes a question mark, as Java does it."""
    if document is None:
        return b""
    return json.dumps(document, ensure_ascii=False).encode(encoding, "replace")
