"""What the disk says of a bundle whose catalogue was lost: what lies at its paths, what is near, and what that means.

`judge` is the table: pure, and every line of it leads to a state from which release, recall or unarchive goes on.
Where the way is known by which it came to be so, that step is finished by running it again; the way back, unarchive,
is taken where both would do. What cannot be explained gets a sentence for a person.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from omero_archive.files import Entry, EntryKind, same_time
from omero_archive.looking import Beside, look_at_all
from omero_archive.model import FileIdentity, Key
from omero_archive.near import Place
from omero_archive.states import Decision, Residency
from omero_archive.steps.manifest_reading import ManifestFile
from omero_archive.steps.originals import entries
from omero_archive.steps.release import INTENT as RELEASE
from omero_archive.steps.site import Site
from omero_archive.steps.unarchive import INTENT as UNARCHIVE


class At(StrEnum):
    """What lies at an original's path."""

    LINK = "our link"
    ORIGINAL = "a file with the original's size and time"
    OTHER_FILE = "a file with another size or time"
    OTHER_LINK = "a link that is not ours"
    NOTHING = "nothing"
    STRANGE = "no file"


class Near(StrEnum):
    """How much of a bundle is near."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was seen of one bundle. `identities` are those of originals in their places; times in UTC."""

    paths: Counter[At] = field(default_factory=Counter)
    examples: dict[At, Key] = field(default_factory=dict)
    identities: dict[Key, FileIdentity] = field(default_factory=dict)
    linked_at: datetime | None = None  # the youngest link's own mtime: when it was released
    near: Near = Near.NONE
    is_prepared: bool = False
    is_taken_out: bool = False
    is_going: bool = False  # beside an original lies the link, prepared by a release
    is_going_back: bool = False  # beside a link lies the original, prepared by an unarchive


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rebuilt bundle is taken for. `attention`: what a person must look at."""

    residency: Residency
    decision: Decision = Decision.APPROVED
    intent: str | None = None
    attention: str | None = None


def look(site: Site, place: Place, files: Sequence[ManifestFile]) -> Seen:
    """Look at the paths of all files, here and near. Opens nothing. Raises `UnsafePath`, `OriginalUnfit`, `OSError`."""
    seen = Seen(is_prepared=site.near.is_prepared(place), is_taken_out=site.near.is_taken_out(place))
    near, beside = 0, Beside()
    keys = [Key(file.key) for file in files]
    paths = look_at_all(site.near.tree, (site.near.path_of(place, key) for key in keys))
    for file, (key, found), (_, there) in zip(files, entries(site, keys), paths, strict=True):
        what = _at(site, file, found)
        seen.paths[what] += 1
        seen.examples.setdefault(what, key)
        if found is not None and what is At.ORIGINAL:
            seen.identities[key] = found.identity
            left = beside.temporary(*site.original(key))
            seen.is_going = seen.is_going or (left is not None and left.kind is EntryKind.LINK)
        elif found is not None and what is At.LINK:
            at = datetime.fromtimestamp(found.identity.mtime_ns / 1e9, UTC)
            seen.linked_at = at if seen.linked_at is None else max(seen.linked_at, at)
            left = beside.temporary(*site.original(key))
            seen.is_going_back = seen.is_going_back or (left is not None and left.kind is EntryKind.FILE)
        near += there is not None and there.kind is EntryKind.FILE
    if near or site.near.is_in(place):
        seen.near = Near.ALL if near == len(files) else Near.SOME
    return seen


def judge(seen: Seen, *, is_marked: bool) -> Verdict:
    """What the bundle is taken for. See the table in `docs/howto/rebuild-the-catalogue.md`."""
    odd = [what for what in (At.OTHER_FILE, At.OTHER_LINK, At.NOTHING, At.STRANGE) if seen.paths[what]]
    if not seen.paths[At.LINK] and not seen.paths[At.NOTHING]:
        return _resident(seen, odd, is_marked=is_marked)
    released = Residency.OFFLINE if seen.near is Near.NONE else Residency.ONLINE
    if odd:
        return Verdict(residency=released, attention=_told(seen, odd))
    is_mixed = bool(seen.paths[At.ORIGINAL])
    if seen.near is Near.SOME:
        return Verdict(residency=released, attention="only a part of its files is near. " + _told(seen, ()))
    if seen.near is Near.ALL and (seen.is_going_back or is_mixed):
        if seen.is_going_back:
            return Verdict(residency=Residency.ONLINE, intent=UNARCHIVE)
        return Verdict(residency=Residency.RESIDENT, intent=RELEASE)
    if is_mixed:
        return Verdict(residency=released, attention="some originals came back, not all. " + _told(seen, ()))
    return Verdict(residency=released)


def _resident(seen: Seen, odd: Sequence[At], *, is_marked: bool) -> Verdict:
    if odd:
        attention = _told(seen, odd)
        return Verdict(residency=Residency.RESIDENT, decision=Decision.RETURNED, attention=attention)
    if seen.near is Near.ALL and seen.is_going:
        return Verdict(residency=Residency.RESIDENT, intent=RELEASE)
    if seen.near is not Near.NONE or seen.is_taken_out:
        # A release that had swapped nothing yet, or an unarchive that had swapped everything: the way back is short.
        return Verdict(residency=Residency.ONLINE, intent=UNARCHIVE)
    if seen.is_prepared or is_marked:
        return Verdict(residency=Residency.RESIDENT, intent=RELEASE)
    return Verdict(residency=Residency.RESIDENT, decision=Decision.RETURNED)


def _told(seen: Seen, odd: Sequence[At]) -> str:
    total = seen.paths.total()
    told = [f"{seen.paths[what]} of {total} paths have {what}" for what in At if seen.paths[what]]
    example = f", such as {seen.examples[odd[0]]}" if odd else ""
    return "; ".join(told) + example + ". A person must look; the copies in the archive are as the manifest says."


def unexplained(seen: Seen) -> Verdict:
    """What a bundle is taken for whose originals are not what they should be: no step is finished by itself."""
    if seen.near is Near.NONE and not seen.paths[At.LINK]:
        return Verdict(residency=Residency.RESIDENT, decision=Decision.RETURNED)
    return Verdict(residency=Residency.OFFLINE if seen.near is Near.NONE else Residency.ONLINE)


def identity_of(file: ManifestFile, seen: Seen, read: Mapping[Key, FileIdentity]) -> FileIdentity:
    """By what an original is known from now on. What was not read again has no ctime, so that a release reads it."""
    key = Key(file.key)
    if key in read:
        return read[key]
    found = seen.identities.get(key)
    return FileIdentity(
        device=0 if found is None else found.device,
        inode=0 if found is None else found.inode,
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns if found is None else found.mtime_ns,
        ctime_ns=0,
    )


def _at(site: Site, file: ManifestFile, found: Entry | None) -> At:
    if found is None:
        return At.NOTHING
    match found.kind:
        case EntryKind.LINK:
            return At.LINK if found.target == site.link_target(Key(file.key)) else At.OTHER_LINK
        case EntryKind.FILE:
            is_same_size = found.identity.size_bytes == file.size_bytes
            is_same = is_same_size and same_time(found.identity.mtime_ns, file.mtime_ns)
            return At.ORIGINAL if is_same else At.OTHER_FILE
        case _:
            return At.STRANGE
