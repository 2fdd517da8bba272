"""The messages of the command protocol, version 1. Pure: text in, messages out.

Whatever a command says that is not exactly what the protocol allows at that place is a `CommandFault`. Nothing is
guessed: a field that is not known may be a misspelt one that matters.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from omero_archive.errors import (
    ArchiveError,
    NotEnoughSpace,
    ObjectExists,
    ObjectMissing,
    ObjectOffline,
    ServiceUnavailable,
    TargetFailed,
    UnsafePath,
)
from omero_archive.model import Key, printable
from omero_archive.service import Answer, Staged

VERSIONS = (1,)
"""The versions of the protocol that can be spoken here."""

MAX_LINE_BYTES = 1 << 20
"""The longest line that a command may write."""

MAX_KEYS = 1000
MAX_KEYS_BYTES = 64 << 10
"""How many keys one request names at most, and how long they are together; one key may be longer."""

_ENCODED = re.compile(r"(?:[A-Za-z0-9._~/-]|%[0-9A-Fa-f]{2})+")
_NO_KEY = re.compile(rb"\0|(?:\A|/)\.{0,2}(?:/|\Z)")  # an empty component, or one of dots

_SHOWN = 500  # characters of a command's text that are repeated to people


class CommandFault(Exception):
    """A command did not do what the protocol says: what it did, as the end of a sentence about it.

    `quoted` is what it wrote, as it came: there may be a secret in it.
    """

    def __init__(self, what: str, quoted: str | bytes = "") -> None:
        super().__init__(what)
        self.quoted = quoted.decode("utf-8", "backslashreplace") if isinstance(quoted, bytes) else quoted


class Kind(StrEnum):
    """What a command may answer instead of doing what it was asked."""

    MISSING = "missing"
    EXISTS = "exists"
    OFFLINE = "offline"
    FULL = "full"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"


ERRORS: Mapping[Kind, type[ArchiveError]] = {
    Kind.MISSING: ObjectMissing,
    Kind.EXISTS: ObjectExists,
    Kind.OFFLINE: ObjectOffline,
    Kind.FULL: NotEnoughSpace,
    Kind.FAILED: TargetFailed,
    Kind.UNAVAILABLE: ServiceUnavailable,
}


class Message(BaseModel):
    """One line of a command. `id` is that of the request it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: int


class Progress(Message):
    """It is still at it."""

    progress: str


class Failure(Message):
    """It could not, or would not; why."""

    error: Kind
    message: str


def _true(claim: bool) -> bool:
    if not claim:
        raise ValueError("ok is not true")
    return claim


class Done(Message):
    """It did what it was asked."""

    ok: Annotated[bool, AfterValidator(_true)]  # not `Literal[True]`, which 1 is too


class Hello(Done):
    """Who the command is and what it can do."""

    version: int
    name: str = Field(min_length=1)
    needs_staging: bool = False
    digests: list[str] = Field(default=[])


class Stored(Done):
    """`was_there`: the same content lay there already."""

    was_there: bool


class Fetched(Done):
    """How many bytes were written to the file."""

    size: int = Field(ge=0)


class Counted(Done):
    """How many objects were listed."""

    count: int = Field(ge=0)


def _hex(digits: int) -> object:
    return Field(default=None, pattern=rf"^[0-9a-f]{{{digits}}}$")


class Status(Message):
    """What a command says of one object."""

    key: str
    present: Answer
    durable: Answer
    staged: Staged
    size: int | None = Field(default=None, ge=0)
    word: str = ""
    attention: str = ""
    staged_until: AwareDatetime | None = None
    sha256: Annotated[str | None, _hex(64)] = None
    sha512: Annotated[str | None, _hex(128)] = None
    sha1: Annotated[str | None, _hex(40)] = None
    md5: Annotated[str | None, _hex(32)] = None


class Entry(Message):
    """One object in a listing."""

    key: str
    size: int = Field(ge=0)


class Looked(Message):
    """One thing that a command looked at to find out whether it is in order."""

    fine: bool
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """What may be asked: its name, how it is answered when it was done, what comes before, and how it may fail."""

    name: str
    done: type[Done] = Done
    item: type[Message] | None = None
    kinds: frozenset[Kind] = frozenset({Kind.UNAVAILABLE})


def _verb(name: str, *kinds: Kind, done: type[Done] = Done, item: type[Message] | None = None) -> Verb:
    return Verb(name=name, done=done, item=item, kinds=frozenset({Kind.UNAVAILABLE, *kinds}))


HELLO = _verb("hello", done=Hello)
INIT = _verb("init")
PUT = _verb("put", Kind.EXISTS, Kind.OFFLINE, Kind.FULL, Kind.FAILED, done=Stored)
OPEN = _verb("open", Kind.MISSING, Kind.OFFLINE, Kind.FULL, done=Fetched)
STATUS = _verb("status", item=Status)
STAGE = _verb("stage", Kind.MISSING)
DELETE = _verb("delete", Kind.MISSING)
LIST = _verb("list", done=Counted, item=Entry)
CHECK = _verb("check", item=Looked)

VERBS = (HELLO, INIT, PUT, OPEN, STATUS, STAGE, DELETE, LIST, CHECK)


def request(number: int, verb: Verb, fields: Mapping[str, object]) -> bytes:
    """The line of a request: `id` and `verb` first, no space between anything, so that `sed` can read it."""
    whole = {"id": number, "verb": verb.name, **fields}
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def parse(line: bytes, number: int, verb: Verb) -> Message:
    """A line that came while request `number` waits for its answer. Raises `CommandFault`."""
    fields = _fields(line)
    if type(fields.get("id")) is not int or fields["id"] != number:
        raise CommandFault(f"answered out of turn, id {number} was asked", line)
    kind = _kind_of(fields, verb)
    try:
        message = kind.model_validate_json(line)
    except ValidationError as error:
        # Only what is wrong, not with what: that is quoted.
        wrong = {one["msg"] for one in error.errors(include_url=False, include_input=False)}
        raise CommandFault(f"wrote what is no message at this place ({'; '.join(sorted(wrong))})", line) from error
    if isinstance(message, Failure) and message.error not in verb.kinds:
        raise CommandFault(f"answered {message.error.value!r}, which is no answer to {verb.name}", line)
    return message


def _fields(line: bytes) -> dict[str, object]:
    try:
        found = _STRICT.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CommandFault("wrote a line that is no JSON", line) from error
    if not isinstance(found, dict):
        raise CommandFault("wrote a line that is no message", line)
    return found


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is named twice")
    return found


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_refuse)


def _kind_of(fields: Mapping[str, object], verb: Verb) -> type[Message]:
    if "progress" in fields:
        return Progress
    if "error" in fields:
        return Failure
    if "ok" in fields or verb.item is None:
        return verb.done
    return verb.item


def encoded(key: str) -> str:
    """A key, or the beginning of one, with every byte but letters, digits and `._~/-` as `%XX`.

    Raises `UnsafePath` for what cannot be the name of a file.
    """
    try:
        raw = os.fsencode(key)
    except UnicodeEncodeError as error:
        raise UnsafePath(f"{key!r} cannot be the name of a file.") from error
    if b"\0" in raw:
        raise UnsafePath(f"{key!r} cannot be the name of a file.")
    return quote_from_bytes(raw, safe="/")


def decoded(text: str) -> Key:
    """The key that a command named. Raises `CommandFault` for what is none."""
    if not _ENCODED.fullmatch(text):
        raise CommandFault("named a key that is not percent-encoded", text)
    raw = unquote_to_bytes(text) if "%" in text else text.encode()
    if _NO_KEY.search(raw):
        raise CommandFault("named a key that cannot be one", text)
    return Key(os.fsdecode(raw))


def in_parts(keys: Iterable[str]) -> Iterator[list[str]]:
    """Encoded keys in lists that fit into one request each."""
    part: list[str] = []
    length = 0
    for key in keys:
        if part and (len(part) == MAX_KEYS or length + len(key) > MAX_KEYS_BYTES):
            yield part
            part, length = [], 0
        part.append(key)
        length += len(key)
    if part:
        yield part


def shown(text: str) -> str:
    """What a command wrote, as it can be shown and stored: one line, not too long, nothing that moves a terminal."""
    text = printable(text[: 2 * _SHOWN].strip())
    clean = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return clean if len(clean) <= _SHOWN else f"{clean[:_SHOWN]}…"
