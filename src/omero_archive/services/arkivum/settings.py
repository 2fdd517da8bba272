"""The keys of a table `[services.NAME]` with `type = "arkivum"`."""

import base64
import ipaddress
from datetime import timedelta
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from omero_archive.errors import SettingsError
from omero_archive.settings import AbsolutePath, Duration, Secret


class ArkivumSettings(BaseModel):
    """See `docs/reference/settings.md`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: AbsolutePath
    url: str
    folder: str = "/"
    durable_colours: tuple[str, ...] = Field(default=("green",), min_length=1)
    silence: Duration = timedelta(minutes=10)
    overdue: Duration = timedelta(days=7)
    timeout: Duration = Field(default=timedelta(seconds=30), gt=timedelta(0))
    requests_at_once: int = Field(default=8, ge=1, le=64)
    ca_file: AbsolutePath | None = None
    user: str | None = None
    password: Secret | None = None
    token: Secret | None = None

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_whole = False
        # Not repeated in the message: it may hold a password.
        if not is_whole or parts.query or parts.fragment:
            raise ValueError("is not an address such as 'https://arkivum.example.org:8443'")
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a user or a password; name them by `user` and `password`")
        return url

    @field_validator("folder")
    @classmethod
    def _begins_at_the_root(cls, folder: str) -> str:
        if not folder.startswith("/") or {".", ".."} & set(folder.split("/")):
            raise ValueError(f"{folder!r} is not a path of the appliance such as '/omero'")
        return folder

    @field_validator("durable_colours")
    @classmethod
    def _can_mean_safe(cls, colours: tuple[str, ...]) -> tuple[str, ...]:
        if {"red", ""} & set(colours):
            raise ValueError("may not have 'red': such a file is on the appliance alone")
        return colours

    @model_validator(mode="after")
    def _says_who_asks_in_one_way(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password: give both or none")
        if self.token is not None and self.user is not None:
            raise ValueError("token: not together with user and password")
        has_secret = self.token is not None or self.password is not None
        if has_secret and self.url.startswith("http:") and not is_loopback(self.url):
            raise ValueError("url: a password or token would go over the network in plain text; use https")
        return self

    def authorization(self, where: str) -> dict[str, str]:
        """The headers that say who asks; the secrets are read anew. Raises `SettingsError` naming `where`."""
        if self.token is not None:
            return {"Authorization": f"Bearer {_in_a_header(self.token, f'{where}.token')}"}
        if self.user is not None and self.password is not None:
            both = f"{self.user}:{self.password.read(f'{where}.password')}".encode()
            return {"Authorization": f"Basic {base64.b64encode(both).decode()}"}
        return {}


def _in_a_header(secret: Secret, where: str) -> str:
    """A secret as it can stand in a header. The library's own complaint would show it."""
    found = secret.read(where)
    if not (found.isascii() and found.isprintable()):
        raise SettingsError(f"{where}: holds more than one line, or signs that a token cannot have.")
    return found


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
