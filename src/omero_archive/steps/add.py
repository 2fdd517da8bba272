"""Put bundles under archiving, or register the wish of a user."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord, Request
from omero_archive.errors import ArchiveError, NotMounted, OriginalUnfit, WrongState
from omero_archive.files import Entry, EntryKind, disk_errors, is_kept_time
from omero_archive.model import Bundle, BundleName, Key, OriginalFile, printable
from omero_archive.states import Decision, Residency
from omero_archive.steps.originals import looked_at
from omero_archive.steps.site import Site
from omero_archive.transfer import ODD_TIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What `add` found and did. `did` is a sentence for people; `is_new` whether anything changed."""

    name: BundleName
    is_new: bool
    did: str
    files: int
    size_bytes: int


def obstacles(site: Site, bundle: Bundle) -> list[str]:
    """What stands in the way of archiving a bundle, as far as `lstat` can tell. Reads no byte of any file."""
    return _survey(site, bundle)[0]


def _survey(site: Site, bundle: Bundle) -> tuple[list[str], Key | None]:
    """Every obstacle, and the first file in whose place a link of ours lies; each file is looked at once."""
    obstacles, linked = [], None
    seen = looked_at(site, (original.key for original in bundle.files))
    for original, (key, entry) in zip(bundle.files, seen, strict=True):
        if isinstance(entry, NotMounted):
            raise entry  # it says nothing about the file
        if isinstance(entry, ArchiveError | OSError):
            obstacle: str | None = str(entry)
        elif entry is not None and entry.kind is EntryKind.LINK and entry.target == site.link_target(key):
            linked, obstacle = linked or key, None  # released already
        else:
            obstacle = _obstacle(original, entry)
        if obstacle is not None:
            obstacles.append(f"{key}: {obstacle}")
    if not bundle.files:
        obstacles.append("it has no files")
    return obstacles, linked


def _obstacle(original: OriginalFile, entry: Entry | None) -> str | None:
    if entry is None:
        return "is in OMERO's database, but not on its disk"
    if entry.kind is EntryKind.LINK:
        return f"an in-place import, a link to {entry.target}; moving it would free nothing here"
    if entry.kind is not EntryKind.FILE:
        return f"is a {entry.kind}, not a file"
    if entry.names > 1:
        # A file that is being released has a second name in `near`, and only then.
        return f"has {entry.names} names (hard links); releasing it would free nothing"
    if original.size_bytes is not None and entry.identity.size_bytes != original.size_bytes:
        return f"has {entry.identity.size_bytes} bytes, OMERO imported {original.size_bytes}"
    if not is_kept_time(entry.attributes.mtime_ns):
        return ODD_TIME
    return None


def add(site: Site, bundle: Bundle, request: Request, *, decision: Decision, dry_run: bool = False) -> Added:
    """Put a bundle under archiving (`decision` APPROVED) or ask for it (REQUESTED).

    Raises `OriginalUnfit` with every obstacle, `DiskFailed` where the disk cannot be looked at,
    `WrongState` when another bundle has some of its files or images, or lives in their directory, or when files came
    to a released one.
    """
    with disk_errors(bundle.name), site.catalogue.begin() as connection:
        known = bundles.by_name(connection, bundle.name)
        linked = None
        if known is None or (known.residency is Residency.RESIDENT and known.intent is None):
            # The originals of a released bundle are links; what stood in their way was looked at before. While its
            # release is not finished they may be links, or have a second name, of ours.
            linked = _require_fit(site, bundle)
        _require_own(connection, bundle)
        bundles.require_own_images(connection, None if known is None else known.id, bundle.images)
        if known is None and linked is not None:
            raise _unknown_link(bundle, linked)
        if known is not None and known.residency is not Residency.RESIDENT:
            _require_whole(connection, bundle, known)
        bundle = _housed(connection, bundle, known)
        if dry_run:
            connection.rollback()
            return _told(bundle, _would(known, decision), is_new=known is None)
        did, is_new = _put(connection, site, bundle, known, request=request, decision=decision)
    return _told(bundle, did, is_new=is_new)


def _put(
    connection: sa.Connection,
    site: Site,
    bundle: Bundle,
    known: BundleRecord | None,
    *,
    request: Request,
    decision: Decision,
) -> tuple[str, bool]:
    services: Sequence[str] = site.settings.service_names if decision is Decision.APPROVED else ()
    if known is None:
        number = bundles.insert(connection, bundle, request, decision)
        copies.want(connection, number, site.settings.service_names if services else ())
        return ("added" if services else "requested"), True
    if known.decision is Decision.APPROVED and decision is Decision.REQUESTED:
        return "under archiving already", False
    changed = 0
    if known.residency is Residency.RESIDENT:
        changed = bundles.complete(connection, known.id, bundle)
        if changed:
            copies.forget_manifests(connection, known.id)
    if known.decision is not decision:
        bundles.decide(connection, known, decision, note=request.reason, by=request.by)
    if services:
        changed += copies.want(connection, known.id, site.settings.service_names)
        changed += copies.try_again(connection, known.id)
    if known.decision is not decision:
        return f"was {known.decision}, is {decision} now", True
    return (f"was there; {changed} copies to do", True) if changed else ("was there; nothing to do", False)


def _require_fit(site: Site, bundle: Bundle) -> Key | None:
    """Raise `OriginalUnfit` for obstacles; the first file in whose place a link of ours lies, if there is one."""
    obstacles, linked = _survey(site, bundle)
    if obstacles:
        raise OriginalUnfit(f"{bundle.name} was not added: {'; '.join(obstacles)}.")
    return linked


def _unknown_link(bundle: Bundle, linked: Key) -> OriginalUnfit:
    """Links of ours and no row: the catalogue was lost, and a new row would forget where the bytes are."""
    return OriginalUnfit(
        f"{bundle.name} was not added: {linked} is a link of ours, but the catalogue does not know it. "
        "If the catalogue was lost, restore it, or run `omero-archive rebuild`."
    )


def _require_own(connection: sa.Connection, bundle: Bundle) -> None:
    others = bundles.names_with_keys(connection, [original.key for original in bundle.files]) - {bundle.name}
    if others:
        raise WrongState(
            f"{bundle.name} shares files with {', '.join(sorted(others))}, which were added before they shared them; "
            "it was not added. Unarchive those and add them again."
        )
    elsewhere = bundles.known_elsewhere(connection, bundle.files)
    if elsewhere is not None:
        name, original, key = elsewhere
        raise WrongState(
            f"{bundle.name} was not added: {printable(original.key)} has the number ({original.kind} "
            f"{original.omero_id}) of {printable(key)} of {name}. Was OMERO restored from an older dump, or the file "
            "moved? A person must look; what was archived is safe under its old path. `omero-archive reconcile` tells "
            "of all such files."
        )


def _require_whole(connection: sa.Connection, bundle: Bundle, known: BundleRecord) -> None:
    """Raise `WrongState` if OMERO has files of a released bundle that were not archived."""
    fresh = {original.key for original in bundle.files} - bundles.keys(connection, known.id)
    if fresh:
        raise WrongState(
            f"{bundle.name} is {known.residency}, and OMERO has {len(fresh)} files of it that were not archived, such "
            f"as {printable(min(fresh))}; they were not added. Unarchive it, then add it again."
        )


def _housed(connection: sa.Connection, bundle: Bundle, known: BundleRecord | None) -> Bundle:
    """The bundle with the home that it can have among the catalogue's bundles. Raises `WrongState` for none at all.

    OMERO cannot tell that alone: imports may come into a directory later, and it forgets filesets that it deleted.
    """
    if known is not None and (known.residency is not Residency.RESIDENT or known.intent is not None):
        return replace(bundle, home=known.home)  # its bytes may lie there
    if bundle.home is not None and bundles.names_below(connection, bundle.home, but=bundle.name):
        bundle = replace(bundle, home=None)
    keys = [original.key for original in bundle.files]
    owners = bundles.names_living_above(connection, keys, but=bundle.name) if bundle.home is None else set()
    if owners:
        raise WrongState(lives_there(bundle.name, owners, "added"))
    return bundle


def lives_there(name: BundleName, owners: set[BundleName], what: str) -> str:
    """Why nothing of a bundle may come near while others live in its directory."""
    return (
        f"{name} lies in the directory of {', '.join(sorted(owners))}, which had it to itself when it was added and "
        f"goes and comes with all that is in it; {name} was not {what}. Unarchive that, then add both (if OMERO has "
        "deleted that, purge it)."
    )


def _would(known: BundleRecord | None, decision: Decision) -> str:
    if known is None:
        return "would be added" if decision is Decision.APPROVED else "would be requested"
    return "is there already" if known.decision is decision else f"is {known.decision}, would be {decision}"


def _told(bundle: Bundle, did: str, *, is_new: bool) -> Added:
    return Added(name=bundle.name, is_new=is_new, did=did, files=len(bundle.files), size_bytes=bundle.size_bytes)
