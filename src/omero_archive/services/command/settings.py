"""The keys of a table `[services.NAME]` with `type = "command"`."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from omero_archive.settings import AbsolutePath, Duration, Secret

DigestName = Literal["sha256", "sha512", "sha1", "md5"]
"""The digests that a command may report: those that can be taken here, from the bytes that are given to it."""


def _findable(command: tuple[str, ...]) -> tuple[str, ...]:
    """The program is started in `/`: a path relative to wherever omero-archive was started would be another one."""
    if "/" in command[0] and not command[0].startswith("/"):
        raise ValueError(f"{command[0]!r} is neither an absolute path nor the name of a program on PATH")
    return command


def _plain(spool: Path) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", str(spool)):
        raise ValueError("may have only letters, digits and ._-/ in its name, so that a shell can be given its files")
    return spool


def _lasting(time: timedelta) -> timedelta:
    if time <= timedelta(0):
        raise ValueError("must be more than nothing")
    return time


def _variables(names: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} cannot be the name of a variable")
    return names


def _sendable(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """TOML has dates and infinite numbers, which JSON has not."""
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError("may hold texts, numbers, true, false, lists and tables only") from error
    return options


class CommandSettings(BaseModel):
    """How a command is started, and what it can do: known before it is started, and compared with what it says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_findable)]
    spool: Annotated[AbsolutePath, AfterValidator(_plain)]
    timeout: Annotated[Duration, AfterValidator(_lasting)] = timedelta(minutes=5)
    start_timeout: Annotated[Duration, AfterValidator(_lasting)] = timedelta(seconds=30)
    needs_staging: bool = False
    digests: tuple[DigestName, ...] = ()
    path: AbsolutePath | None = None
    environment: Annotated[Mapping[str, str], AfterValidator(_variables)] = Field(default={})
    secrets: Annotated[Mapping[str, Secret], AfterValidator(_variables)] = Field(default={})
    options: Annotated[Mapping[str, Any], AfterValidator(_sendable)] = Field(default={})
