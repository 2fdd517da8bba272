"""The keys of a table `[services.NAME]` with `type = "s3"`."""

import re
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from omero_archive.model import Key
from omero_archive.settings import AbsolutePath, Duration, Secret, Size

_ESCAPES = frozenset("\\\x7f")
_AMAZON = "amazonaws.com"
_PORTS = {"http": 80, "https": 443}


def _is_bucket(bucket: str) -> str:
    if not bucket.startswith("arn:") and not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
        raise ValueError("is no bucket's name such as 'facility-archive'; what comes after it belongs into `prefix`")
    return bucket


def _is_endpoint(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("is no address such as 'https://s3.example.org'")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("must hold no user and no password; name them by access_key and secret_key")
    try:
        is_whole = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        is_whole = False
    if not is_whole or re.search(r"\s", url):
        raise ValueError("is no address such as 'https://s3.example.org'")
    return url


def _lasting(time: timedelta) -> timedelta:
    if time <= timedelta(0):
        raise ValueError("must be more than nothing")
    return time


def _is_prefix(prefix: str) -> str:
    wanted = prefix.strip("/")
    if any(part in {"", ".", ".."} for part in wanted.split("/") if wanted):
        raise ValueError("has an empty part, '.' or '..'")
    if any(character < " " or character in _ESCAPES for character in wanted):
        raise ValueError("has a control character or a backslash")
    return wanted


class ObjectLock(BaseModel):
    """How long objects cannot be deleted by anybody, or only by whom the bucket's owner allowed it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    days: int = Field(ge=1)


class S3Settings(BaseModel):
    """See `docs/reference/settings.md`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: Annotated[str, AfterValidator(_is_bucket)]
    prefix: Annotated[str, AfterValidator(_is_prefix)] = ""
    endpoint: Annotated[str, AfterValidator(_is_endpoint)] | None = None
    region: str | None = None
    addressing: Literal["path", "virtual"] | None = None
    ca_file: AbsolutePath | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None
    profile: str | None = None
    storage_class: str = "STANDARD"
    warm_prefixes: tuple[str, ...] = ("manifests/", "damaged/")
    restore_tier: Literal["Expedited", "Standard", "Bulk"] = "Standard"
    restore_days: int = Field(default=7, ge=1)
    online_classes: tuple[str, ...] = ()
    offline_classes: tuple[str, ...] = ()
    checksums: Literal["sha256", "none"] = "sha256"
    object_lock: ObjectLock | None = None
    durable_after: Duration = timedelta(0)
    part_size: Size = Field(default=64 << 20, ge=5 << 20, le=5 << 30)
    abandon_uploads_after: Duration = timedelta(days=1)
    connections: int = Field(default=8, ge=1, le=100)
    attempts: int = Field(default=3, ge=1)
    timeout: Annotated[Duration, AfterValidator(_lasting)] = timedelta(seconds=60)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key belong together")
        if self.session_token is not None and self.access_key is None:
            raise ValueError("session_token wants access_key and secret_key")
        if self.profile is not None and self.access_key is not None:
            raise ValueError("profile and access_key exclude each other")
        if self.storage_class == "DEEP_ARCHIVE" and self.restore_tier == "Expedited":
            raise ValueError("restore_tier: DEEP_ARCHIVE has no Expedited")
        return self

    @property
    def is_path_style(self) -> bool:
        """Whether the bucket is named in the path and not in the host; vendors' own endpoints mostly want that."""
        return self.addressing == "path" if self.addressing is not None else self.endpoint is not None

    @property
    def server(self) -> str:
        """The server's name and port, written in one way: a bucket of Amazon's is the same by all of its endpoints."""
        if self.endpoint is None:
            return _AMAZON
        parts = urlsplit(self.endpoint)
        host = (parts.hostname or "").rstrip(".")
        if f".{host}".endswith(f".{_AMAZON}"):
            return _AMAZON
        port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
        return f"{host}{port}{parts.path.rstrip('/')}"

    def class_of(self, key: Key) -> str:
        """The storage class with which an object is stored."""
        return "STANDARD" if key.startswith(self.warm_prefixes) else self.storage_class

    @property
    def keeps_checksums(self) -> bool:
        """Whether the server keeps SHA-256 checksums beside the objects."""
        return self.checksums == "sha256"
