"""The connection to one bucket: asks, and says what an answer, or that none came, means.

Two ways to fail are kept apart. S3 answered something else than yes: that is a `Refusal` with its code, and whoever
asked knows what it means there. No answer came, or none that can be read: `ServiceUnavailable`.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from omero_archive.errors import ArchiveError, NotEnoughSpace, ServiceUnavailable, SettingsError, Unavailable
from omero_archive.model import ServiceName, printable
from omero_archive.services.s3.checksums import in_base64
from omero_archive.services.s3.objects import Head, Unfinished, head_of, unfinished_of
from omero_archive.services.s3.settings import S3Settings

try:
    import boto3
    import botocore.exceptions
    import urllib3.exceptions
    from botocore.config import Config
    from botocore.parsers import ResponseParserError
except ModuleNotFoundError as error:
    raise ImportError(f"{error.name} is not installed; pip install 'omero-archive[s3]'") from error

NO_ANSWER = (botocore.exceptions.BotoCoreError, ResponseParserError, urllib3.exceptions.HTTPError, OSError)
"""What boto3 raises when it got no answer, or one that it could not read."""

PAGE_KEYS = 1000
"""The most that S3 lists in one answer."""

_CONNECT_SECONDS = 10
_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "InsufficientStorage"})


@dataclass(slots=True, eq=False)
class Refusal(Exception):
    """S3 answered, and not with yes. `code` is S3's, or the status as text where an answer has no body."""

    code: str
    status: int
    text: str

    def __str__(self) -> str:
        return f"S3 answered {self.code}{f': {self.text}' if self.text else ''}"

    @property
    def is_no(self) -> bool:
        """Whether it says that an object is not there; of a HEAD it may mean the bucket as well."""
        return self.status == 404 and self.code in {"NoSuchKey", "404", "NotFound"}


class Connection:
    """One bucket of one endpoint. Safe for several threads.

    `session` is boto3's, for several services to share: making one takes as long as a hundred requests.
    """

    def __init__(self, name: ServiceName, settings: S3Settings, session: Any = None) -> None:
        self._session = session
        self._name = name
        self._settings = settings
        self._lock = threading.Lock()
        self._secrets: tuple[str, ...] = ()
        self._client: Any = None

    @property
    def place(self) -> str:
        """The bucket with its prefix, for messages."""
        return f"s3://{self._settings.bucket}/{self._settings.prefix}".rstrip("/")

    def ask(self, operation: str, subject: str, **parameters: object) -> Mapping[str, Any]:
        """One answer. `subject` is what it is about, for messages. Raises `Refusal`, `ServiceUnavailable`."""
        client = self._connected(subject)
        try:
            answer: Mapping[str, Any] = getattr(client, operation)(Bucket=self._settings.bucket, **parameters)
        except botocore.exceptions.ClientError as error:
            raise self._refusal(error) from None  # its text and its fields may hold more than its message
        except NO_ANSWER as error:
            raise ServiceUnavailable(
                f"{self._name}: {printable(subject)}: {self.without_secrets(str(error))}"
            ) from error
        except RecursionError as error:
            # boto3 follows a redirect to find the bucket's region, and the redirect of that, without an end.
            raise ServiceUnavailable(
                f"{self._name}: {printable(subject)}: every request is redirected; correct `endpoint` or `region`."
            ) from error
        return answer

    def head(self, name: str, subject: str) -> Head | None:
        """What S3 says of one object; None if there is none, or no bucket. Raises `Refusal`, `ServiceUnavailable`."""
        try:
            return head_of(self.ask("head_object", subject, Key=name, ChecksumMode="ENABLED"))
        except Refusal as refusal:
            if refusal.is_no:
                return None
            raise

    def part_size(self, name: str, head: Head, subject: str) -> int | None:
        """How an object was cut when it came in parts; None where the server does not say."""
        if head.part_size is not None:
            return head.part_size
        try:
            return int(self.ask("head_object", subject, Key=name, PartNumber=1)["ContentLength"])
        except Refusal:
            return None

    def write_own(self, name: str, content: bytes) -> bool:
        """Write a small object of our own unless there is one; whether there was none. Raises `Refusal`."""
        proof: dict[str, object] = {}
        if self._settings.keeps_checksums:
            digest = in_base64(hashlib.sha256(content).digest())
            proof = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": digest}
        try:
            self.ask("put_object", name, Key=name, Body=content, ContentType="text/plain", IfNoneMatch="*", **proof)
        except Refusal as refusal:
            if refusal.status == 412:
                return False
            raise
        return True

    def listing(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names that begin with `prefix` and their sizes, as the server sorts them. Raises `Refusal`."""
        for page in self._pages(Prefix=prefix):
            for each in page.get("Contents", ()):
                yield each["Key"], int(each["Size"])

    def directory(self, prefix: str) -> Iterator[tuple[str, int | None]]:
        """The same up to the next slash: names with sizes, and with None what ends in a slash. Raises `Refusal`."""
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            for each in page.get("Contents", ()):
                yield each["Key"], int(each["Size"])
            for each in page.get("CommonPrefixes", ()):
                yield each["Prefix"], None

    def _pages(self, **parameters: object) -> Iterator[Mapping[str, Any]]:
        parameters["MaxKeys"] = PAGE_KEYS
        while True:
            page = self.ask("list_objects_v2", "listing", **parameters)
            yield page
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == parameters.get("ContinuationToken"):
                raise ServiceUnavailable(f"{self._name}: a page of the listing does not lead to the next.")
            parameters["ContinuationToken"] = token

    def unfinished(self, prefix: str, *, subject: str) -> Iterator[Unfinished]:
        """The uploads below `prefix` that were never ended."""
        parameters: dict[str, object] = {"Prefix": prefix}
        while True:
            page = self.ask("list_multipart_uploads", subject, **parameters)
            yield from unfinished_of(page)
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return
            parameters["KeyMarker"] = page["NextKeyMarker"]
            parameters["UploadIdMarker"] = page.get("NextUploadIdMarker") or ""

    def unavailable(self, subject: str, refusal: Refusal) -> Unavailable:
        """A refusal that says nothing of the object: its text, and what can be done."""
        text = f"{self._name}: {printable(subject)}: {refusal}."
        if refusal.code in _FULL or refusal.status == 507:
            return NotEnoughSpace(text)
        return ServiceUnavailable(f"{text} {advice(refusal, self._settings)}".rstrip())

    def without_secrets(self, text: str) -> str:
        """A text of a server or a library, without what we must not repeat."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return printable(text)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self, subject: str) -> Any:
        """The client, made anew when a secret changed."""
        with self._lock:
            secrets = self._read_secrets()
            if self._client is None or secrets != self._secrets:
                self._secrets = secrets
                try:
                    self._client = self._make(secrets)
                except (*NO_ANSWER, ValueError) as error:  # ValueError: an endpoint that is no address
                    raise ServiceUnavailable(
                        f"{self._name}: {printable(subject)}: {self.without_secrets(str(error))}"
                    ) from error
            return self._client

    def _read_secrets(self) -> tuple[str, ...]:
        """Access key, secret key, session token: those that are set. Raises `SettingsError`."""
        settings = self._settings
        named = {"access_key": settings.access_key, "secret_key": settings.secret_key}
        named["session_token"] = settings.session_token
        return tuple(secret.read(f"services.{self._name}.{key}") for key, secret in named.items() if secret is not None)

    def _make(self, secrets: tuple[str, ...]) -> Any:
        settings = self._settings
        named = zip(("aws_access_key_id", "aws_secret_access_key", "aws_session_token"), secrets, strict=False)
        session = self._session or boto3.session.Session(profile_name=settings.profile)
        # A vendor's endpoint does not care, but a signature needs one.
        region = settings.region or session.region_name or ("us-east-1" if settings.endpoint else None)
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=settings.timeout.total_seconds(),
            retries={"mode": "standard", "total_max_attempts": settings.attempts},
            max_pool_connections=settings.connections + 4,
            s3={"addressing_style": "path" if settings.is_path_style else "virtual"},
            # We send the checksums ourselves; what else boto3 would add, older servers refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra="omero-archive",
        )
        verify = None if settings.ca_file is None else str(settings.ca_file)
        return session.client(
            "s3", region_name=region, endpoint_url=settings.endpoint, verify=verify, config=config, **dict(named)
        )

    def _refusal(self, error: Any) -> Refusal:
        answered = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = self.without_secrets(str(answered.get("Code") or status))
        return Refusal(code, status, self.without_secrets(str(answered.get("Message") or "")).rstrip("."))


_ADVICE = {
    "NoSuchBucket": "Make the bucket, or correct `bucket` and `endpoint`.",
    "InvalidAccessKeyId": "The server does not know this access key: correct it, or `endpoint`.",
    "SignatureDoesNotMatch": "The secret key is not that of the access key, or a proxy changes requests.",
    "ExpiredToken": "The session token has run out; renew it.",
    "InvalidToken": "The session token is wrong.",
    "RequestTimeTooSkewed": "This machine's clock differs from the server's: set it by NTP.",
    "PermanentRedirect": "The bucket is in another region: correct `region`.",
    "AuthorizationHeaderMalformed": "The bucket is in another region: correct `region`.",
    "IllegalLocationConstraintException": "The bucket is in another region: correct `region`.",
    "AccessDenied": "The account lacks a permission; docs/howto/s3-and-glacier.md lists those that are needed.",
    "SlowDown": "The server wants fewer requests: lower `connections`.",
    "NotImplemented": "The server does not know this request.",
}


def advice(refusal: Refusal, settings: S3Settings) -> str:
    """What to do about a refusal, empty where there is nothing to say."""
    if refusal.code in {"InvalidStorageClass"}:
        return f"The server does not know the storage class {settings.storage_class}: correct `storage_class`."
    by_status = {"403": "AccessDenied", "301": "PermanentRedirect", "503": "SlowDown", "501": "NotImplemented"}
    return _ADVICE.get(refusal.code, _ADVICE.get(by_status.get(refusal.code, ""), ""))


def advice_without_answer(error: ArchiveError) -> str:
    """What to do where nothing was asked, or no answer came: which of the two is told by what caused the error."""
    if isinstance(error, SettingsError):
        return "Correct it in the settings; this user must be able to read what they name."
    match error.__cause__:
        case botocore.exceptions.NoCredentialsError() | botocore.exceptions.PartialCredentialsError():
            return "Name `access_key` and `secret_key`, or give this user an account as Amazon's own tools find it."
        case botocore.exceptions.ProfileNotFound():
            return "Correct `profile`; this user's ~/.aws must have it."
        case botocore.exceptions.InvalidRegionError() | botocore.exceptions.NoRegionError():
            return "Correct `region`."
    return "Is `endpoint` right, is the server on, does a firewall or a proxy stand between?"


def is_older(unfinished: Unfinished, than: datetime) -> bool:
    """Whether an upload was begun before; one that does not say when was not."""
    return unfinished.begun_at is not None and unfinished.begun_at < than
