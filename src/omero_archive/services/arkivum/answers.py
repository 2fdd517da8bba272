"""What the appliance's answers mean. Pure: bytes in, facts out; the one place that decides what counts as safe.

Answers differ between versions and endpoints: typed or all texts (`"true"`, `"10 bytes"`), a key that is missing or
null, one object or a list of one, a charset in the header that the body does not have. What cannot be understood
raises `Unintelligible` or is None; it never becomes a yes. The shapes are those of recorded answers of A-Stor 2.2.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from omero_archive.service import Answer

FINAL = "FINAL"
NOT_FINAL = ("NOTINGESTED", "SYNC", "UNINIT", "PRIMARY_IP", "PRIMARY")
COLOURS = ("red", "amber", "green")
"""Known colours: not replicated yet, copied to the data centres, on a tape in escrow."""

_WORD_CHARACTERS = 60


class Unintelligible(ValueError):
    """An answer from which nothing follows; its text is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAnswer:
    """What the appliance says of one file; None, or "" for a word, where it says nothing that can be understood."""

    id: str | None
    name: str | None
    ingest_state: str
    colour: str
    size_bytes: int | None
    md5: str | None  # 32 hex digits
    is_local: bool | None
    is_directory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallAnswer:
    """What the appliance says of a request to bring bytes back. `Completed` does not mean that they are there."""

    id: str | None
    status: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """Whether a file is safe, in the appliance's own word, and what a person should look at."""

    durable: Answer
    word: str
    attention: str = ""


def file_answer(body: bytes) -> FileAnswer | None:
    """What is said of one file; None for a list of no results. Raises `Unintelligible`."""
    document: Any = _document(body)
    for name in ("results", "files"):
        if isinstance(document.get(name), list):
            found = document[name]
            if not found:
                return None
            if len(found) > 1:
                raise Unintelligible(f"{len(found)} answers for one file")
            document = found[0]
    if isinstance(document, dict) and isinstance(document.get("fileInformation"), dict):
        document = document["fileInformation"]
    if not isinstance(document, dict) or not {"ingestState", "replicationState", "local"} & set(document):
        raise Unintelligible("an answer that says nothing of a file")
    return FileAnswer(
        id=_identifier(document.get("id")),
        name=document["name"] if isinstance(document.get("name"), str) else None,
        ingest_state=_word(document.get("ingestState")),
        colour=_word(document.get("replicationState")),
        size_bytes=_size(document.get("size")),
        md5=_md5(document),
        is_local=_truth(document.get("local")),
        is_directory=_truth(document.get("directory")) is True,
    )


def recall_answer(body: bytes) -> RecallAnswer:
    """What is said of a request to bring bytes back. Raises `Unintelligible`."""
    document = _document(body)
    failures = document.get("failures")
    first = failures[0] if isinstance(failures, list) and failures and isinstance(failures[0], dict) else {}
    return RecallAnswer(
        id=_identifier(document.get("id")),
        status=_word(document.get("status")),
        reason=_word(document.get("reason")) or _word(first.get("reason")),
    )


def free_bytes(body: bytes) -> int | None:
    """The appliance's free space, None if it does not say. Raises `Unintelligible`."""
    storage = _document(body).get("storage")
    return _size(storage.get("bytesFree")) if isinstance(storage, dict) else None


def durability(found: FileAnswer, size_bytes: int, durable_colours: Collection[str]) -> Durability:
    """Whether a file that has `size_bytes` on the mount is safe. YES takes all of it; what is not known is no word."""
    word = ", ".join((found.ingest_state or "no ingest state", found.colour or "no colour"))
    if found.ingest_state in NOT_FINAL:
        return Durability(durable=Answer.NO, word=word)
    if found.ingest_state != FINAL:
        return Durability(durable=Answer.CANNOT_TELL, word=word)
    if found.size_bytes is not None and found.size_bytes != size_bytes:
        attention = f"The appliance took {found.size_bytes} bytes, the file on the mount has {size_bytes}."
        return Durability(durable=Answer.NO, word=f"{word}, other size", attention=attention)
    if found.colour not in durable_colours:
        is_known = found.colour in COLOURS
        return Durability(durable=Answer.NO if is_known else Answer.CANNOT_TELL, word=word)
    if found.size_bytes is None or found.md5 is None:
        missing = "size" if found.size_bytes is None else "MD5"
        return Durability(durable=Answer.CANNOT_TELL, word=f"{word}, no {missing}")
    return Durability(durable=Answer.YES, word=word)


def _document(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. The charset of the header is not believed: it says ISO-8859-1 whatever comes."""
    if not body.strip():
        raise Unintelligible("an empty answer")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = body.decode("iso-8859-1")
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Unintelligible("an answer that is not JSON") from error
    if not isinstance(document, dict):
        raise Unintelligible("an answer that is no JSON object")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that names a key twice says two things, and neither is believed."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _word(value: object) -> str:
    """A word of the appliance's, fit to be shown; "" if it is none."""
    if not isinstance(value, str):
        return ""
    # Nothing is taken away from a word: with a sign less it might be one that counts.
    text = value if value.isprintable() and value == value.strip() else repr(value)
    return text if len(text) <= _WORD_CHARACTERS else text[:_WORD_CHARACTERS] + "..."


def _identifier(value: object) -> str | None:
    """An id that may be part of an address."""
    return value if isinstance(value, str) and re.fullmatch(r"[0-9A-Za-z-]{1,64}", value) else None


def _truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else None


def _size(value: object) -> int | None:
    """A size in bytes: a number, or a text of one, `"10"` or `"10 bytes"`. `"1.5 MB"` is rounded: not one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    match = re.fullmatch(r"([0-9]{1,18})(?: bytes?)?", value) if isinstance(value, str) else None
    return None if match is None else int(match[1])


def _md5(document: Mapping[str, Any]) -> str | None:
    """The MD5 of the whole content, under either name.

    In a recorded answer the MD5 of a part has 31 digits: a leading zero was lost, as Java's numbers do. So one or two
    digits may be missing at the front; anything shorter is no MD5.
    """
    given = {document[name] for name in ("md5", "MD5checksum") if isinstance(document.get(name), str)} - {""}
    if len(given) != 1:
        return None
    (text,) = given
    return text.lower().zfill(32) if re.fullmatch(r"[0-9a-fA-F]{30,32}", text) else None
