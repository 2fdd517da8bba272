"""The appliance's REST interface (A-Stor, API 2): the questions that are asked of it, and what no answer means.

Two kinds of failure are told apart. `ServiceUnavailable`: nothing can be asked now, no connection, no permission.
`Unintelligible`: this one question had no usable answer, others may have.
"""

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote_from_bytes

import httpx

from omero_archive.errors import ServiceUnavailable
from omero_archive.model import ServiceName
from omero_archive.services.arkivum.answers import (
    FileAnswer,
    RecallAnswer,
    Unintelligible,
    file_answer,
    free_bytes,
    recall_answer,
)
from omero_archive.services.arkivum.settings import ArkivumSettings


class Silence(Unintelligible):
    """No answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The appliance is there: its free space and its clock, where it tells them."""

    free_bytes: int | None
    date: datetime | None


class Appliance:
    """Asks the appliance. Connects at the first question; safe to use from several threads."""

    def __init__(self, name: ServiceName, settings: ArkivumSettings) -> None:
        self._name = name
        self._settings = settings
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def greet(self) -> Greeting:
        """Whether it is there. Raises `ServiceUnavailable`, `Unintelligible`."""
        answer = self._ask("GET", "/json/status/info/")
        if answer.status_code != httpx.codes.OK:
            raise Unintelligible(f"{answer.status_code} {answer.reason_phrase}")
        return Greeting(free_bytes=free_bytes(answer.content), date=_date(answer.headers))

    def file(self, path: bytes) -> FileAnswer | None:
        """What it says of the file at one of its own paths; None if it knows none.

        Raises `ServiceUnavailable`, `Unintelligible`.
        """
        found = self._file(f"/api/2/files/fileInfo{quote_from_bytes(path)}")
        if found is not None:
            _require_about(found, path)
        return found

    def recall(self, path: bytes, known: FileAnswer) -> RecallAnswer:
        """Ask for the bytes of a file. Raises `ServiceUnavailable`, `Unintelligible`."""
        identifier = known.id
        if identifier is None:
            # Older versions name it in the listing only.
            listed = self._file(f"/files{quote_from_bytes(path)}")
            identifier = None if listed is None else listed.id
        if identifier is None:
            raise Unintelligible("it does not say by which id the file is to be asked for")
        answer = self._ask("POST", f"/api/2/local-cache/restore-request/{identifier}")
        if not answer.is_success:
            raise Unintelligible(f"{answer.status_code} {answer.reason_phrase} to the request")
        return recall_answer(answer.content)

    def recall_status(self, identifier: str) -> RecallAnswer | None:
        """How far a request is; None if it knows none. Raises `ServiceUnavailable`, `Unintelligible`."""
        answer = self._ask("GET", f"/api/2/local-cache/restore-request/{identifier}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code != httpx.codes.OK:
            raise Unintelligible(f"{answer.status_code} {answer.reason_phrase}")
        return recall_answer(answer.content)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    # ---- the inside

    def _file(self, target: str) -> FileAnswer | None:
        answer = self._ask("GET", target)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code != httpx.codes.OK:
            raise Unintelligible(f"{answer.status_code} {answer.reason_phrase}")
        return file_answer(answer.content)

    def _ask(self, method: str, target: str) -> httpx.Response:
        """One answer of any status but those that say that we may not ask at all."""
        url = str(self._settings.url).rstrip("/")
        try:
            answer = self._send(method, url + target)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServiceUnavailable(f"{self._name}: {url}: {_connection_problem(error)}.") from error
        except httpx.TimeoutException as error:
            seconds = self._settings.timeout.total_seconds()
            raise Silence(f"no answer within {seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unintelligible(f"no whole answer ({type(error).__name__})") from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ServiceUnavailable(
                f"{self._name}: {url} answers {answer.status_code} {answer.reason_phrase}. Look at `user` and "
                "`password`, or `token`, in the settings."
            )
        return answer

    def _send(self, method: str, url: str) -> httpx.Response:
        client = self._connected()
        headers = self._settings.authorization(f"services.{self._name}")
        try:
            return client.request(method, url, headers=headers)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # A connection that was kept open and that the other side had closed meanwhile. Nothing is asked for twice
            # by asking twice: a second request for bytes finds them on their way.
            return client.request(method, url, headers=headers)

    def _connected(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                settings = self._settings
                self._client = httpx.Client(
                    verify=self._tls(),
                    timeout=httpx.Timeout(settings.timeout.total_seconds(), pool=None),
                    limits=httpx.Limits(max_connections=settings.requests_at_once),
                    # Not through a proxy that the environment names, nor with a password of ~/.netrc.
                    trust_env=False,
                )
            return self._client

    def _tls(self) -> ssl.SSLContext | bool:
        """The machine's own certificates, or the site's."""
        if self._settings.url.startswith("http:"):
            return False
        ca_file: Path | None = self._settings.ca_file
        try:
            return ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise ServiceUnavailable(
                f"{self._name}: services.{self._name}.ca_file: {ca_file} is no file of certificates (PEM): "
                f"{error.strerror or error}."
            ) from error


def _require_about(found: FileAnswer, path: bytes) -> None:
    """Refuse an answer about another file. Only plain ASCII names are compared: others may come in any disguise."""
    wanted = path.rpartition(b"/")[2]
    if wanted.isascii() and found.name is not None and found.name.isascii() and found.name.encode() != wanted:
        raise Unintelligible(f"an answer about another file, {found.name}")


def _connection_problem(error: httpx.TransportError) -> str:
    """What stopped the connection, with advice for the certificates that appliances have."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate cannot be verified: {cause.verify_message}. Name the certificate that signed it, or "
                "its own if it signed itself, by `ca_file`; and the name in `url` must be in it"
            )
        cause = cause.__cause__ or cause.__context__
    return str(error) or "no connection in time"


def _date(headers: Mapping[str, str]) -> datetime | None:
    try:
        found = parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError):
        return None
    return found if found.tzinfo is not None else None
