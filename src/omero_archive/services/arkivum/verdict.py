"""What follows from both sides: what lies on the mount, and what the appliance says of it. Pure."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from omero_archive.files import Entry
from omero_archive.mount import Seen
from omero_archive.service import Answer, ObjectStatus, Staged
from omero_archive.services.arkivum.answers import FINAL, FileAnswer, durability
from omero_archive.services.arkivum.settings import ArkivumSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the appliance answered about one key.

    `file` is None if it knows none, and `doubt` says why there was no usable answer. `staged` is where the bytes are
    by its word, `problem` what is wrong with bringing them back.
    """

    file: FileAnswer | None = None
    doubt: str = ""
    staged: Staged = Staged.CANNOT_TELL
    problem: str = ""


def verdict(seen: Seen, told: Told, settings: ArkivumSettings, now: datetime) -> ObjectStatus:
    """The status of one object."""
    if seen.present is Answer.CANNOT_TELL:
        return _unknown(seen.word)
    if seen.entry is None:
        return _without_file(told)
    if told.doubt:
        return replace(_unknown(told.doubt), present=Answer.YES, size_bytes=seen.entry.identity.size_bytes)
    # ctime is when the file got its name here; mtime is the original's.
    age = now - datetime.fromtimestamp(seen.entry.identity.ctime_ns / 1e9, UTC)
    if told.file is None:
        return _without_answer(seen.entry, settings, age)
    return _with_both(seen.entry, told, told.file, settings, age)


def _without_file(told: Told) -> ObjectStatus:
    if told.doubt:
        return _unknown(told.doubt)
    if told.file is not None and not told.file.is_directory:
        return _unknown("not on the mount, but the appliance has it")
    return ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE, word="not there")


def _without_answer(entry: Entry, settings: ArkivumSettings, age: timedelta) -> ObjectStatus:
    """The appliance may know nothing of a file for ten minutes after its last change: documented, and normal."""
    is_new = age <= settings.silence
    attention = (
        f"It lies on the mount for {_told(age)}, and the appliance still knows nothing of it. Is `folder` right, and "
        "does the appliance take files in?"
    )
    return ObjectStatus(
        present=Answer.YES,
        durable=Answer.NO,
        # What was not taken in yet has nowhere else to be. Later the silence is no word about anything.
        staged=Staged.ONLINE if is_new else Staged.CANNOT_TELL,
        size_bytes=entry.identity.size_bytes,
        word="not known to the appliance yet" if is_new else "not known to the appliance",
        attention="" if is_new else attention,
    )


def _with_both(entry: Entry, told: Told, file: FileAnswer, settings: ArkivumSettings, age: timedelta) -> ObjectStatus:
    found = durability(file, entry.identity.size_bytes, settings.durable_colours)
    attention = found.attention or told.problem
    if not attention and found.durable is not Answer.YES and age > settings.overdue:
        attention = f"It was written {_told(age)} ago, and the appliance still says {found.word}."
    # Before FINAL an MD5 would be that of what has come so far.
    is_final = file.md5 is not None and file.ingest_state == FINAL
    return ObjectStatus(
        present=Answer.YES,
        durable=found.durable,
        staged=told.staged,
        size_bytes=entry.identity.size_bytes,
        digests={"md5": file.md5} if is_final and file.md5 is not None else {},
        word=found.word,
        attention=attention,
    )


def _unknown(word: str) -> ObjectStatus:
    unknown = Answer.CANNOT_TELL
    return ObjectStatus(present=unknown, durable=unknown, staged=Staged.CANNOT_TELL, word=word)


def _told(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} h" if hours >= 2 else f"{hours * 60:.0f} min"
