"""Put bundles under archiving, or register the wish of a user."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord, Request
from omero_archive.errors import ArchiveError, NotMounted, OriginalUnfit, WrongState
from omero_archive.files import EntryKind, disk_errors
from omero_archive.model import Bundle, BundleName, OriginalFile
from omero_archive.states import Decision, Residency
from omero_archive.steps.site import Site


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
    found = []
    for original in bundle.files:
        try:
            obstacle = _obstacle(site, original)
        except NotMounted:
            raise  # it says nothing about the file
        except (ArchiveError, OSError) as error:
            obstacle = str(error)
        if obstacle is not None:
            found.append(f"{original.key}: {obstacle}")
    if not bundle.files:
        found.append("it has no files")
    return found


def _obstacle(site: Site, original: OriginalFile) -> str | None:
    tree, relative = site.original(original.key)
    entry = tree.look(relative)
    if entry is None:
        return "is in OMERO's database, but not on its disk"
    if entry.kind is EntryKind.LINK and entry.target == site.link_target(original.key):
        return None  # released already
    if entry.kind is EntryKind.LINK:
        return f"an in-place import, a link to {entry.target}; moving it would free nothing here"
    if entry.kind is not EntryKind.FILE:
        return f"is a {entry.kind}, not a file"
    if entry.names > 1:
        # A file that is being released has a second name in `near`, and only then.
        return f"has {entry.names} names (hard links); releasing it would free nothing"
    if original.size_bytes is not None and entry.identity.size_bytes != original.size_bytes:
        return f"has {entry.identity.size_bytes} bytes, OMERO imported {original.size_bytes}"
    return None


def add(site: Site, bundle: Bundle, request: Request, *, decision: Decision, dry_run: bool = False) -> Added:
    """Put a bundle under archiving (`decision` APPROVED) or ask for it (REQUESTED).

    Raises `OriginalUnfit` with every obstacle, `DiskFailed` where the disk cannot be looked at,
    `WrongState` when another bundle has some of its files.
    """
    with disk_errors(bundle.name), site.catalogue.begin() as connection:
        known = bundles.by_name(connection, bundle.name)
        if known is None or known.residency is Residency.RESIDENT:
            # The originals of a released bundle are links; what stood in their way was looked at before.
            _require_fit(site, bundle, known)
        _require_own(connection, bundle)
        if known is None:
            _require_originals(site, bundle)
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


def _require_fit(site: Site, bundle: Bundle, known: BundleRecord | None) -> None:
    if known is not None and known.intent is not None:
        return  # a release was interrupted: originals may be links, or have a second name, of ours
    if found := obstacles(site, bundle):
        raise OriginalUnfit(f"{bundle.name} was not added: {'; '.join(found)}.")


def _require_originals(site: Site, bundle: Bundle) -> None:
    """Links of ours and no row: the catalogue was lost, and a new row would forget where the bytes are."""
    for original in bundle.files:
        tree, relative = site.original(original.key)
        entry = tree.look(relative)
        if entry is not None and entry.target == site.link_target(original.key):
            raise OriginalUnfit(
                f"{bundle.name} was not added: {original.key} is a link of ours, but the catalogue does not know it. "
                "If the catalogue was lost, restore it, or run `omero-archive rebuild`."
            )


def _require_own(connection: sa.Connection, bundle: Bundle) -> None:
    others = bundles.names_with_keys(connection, [original.key for original in bundle.files]) - {bundle.name}
    if others:
        raise WrongState(
            f"{bundle.name} shares files with {', '.join(sorted(others))}, which were added before they shared them; "
            "it was not added. Unarchive those and add them again."
        )


def _would(known: BundleRecord | None, decision: Decision) -> str:
    if known is None:
        return "would be added" if decision is Decision.APPROVED else "would be requested"
    return "is there already" if known.decision is decision else f"is {known.decision}, would be {decision}"


def _told(bundle: Bundle, did: str, *, is_new: bool) -> Added:
    return Added(name=bundle.name, is_new=is_new, did=did, files=len(bundle.files), size_bytes=bundle.size_bytes)
