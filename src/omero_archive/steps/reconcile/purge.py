"""Purge: delete the copies of one named bundle that OMERO has deleted. The only way in which copies are deleted.

Whatever is not certain is a refusal. What is going to be deleted is written into the event log first; then the near
bytes go, with permits as in any eviction, then the objects, then the catalogue's rows. Killed anywhere, the same
command goes on; the events stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from omero_archive.catalogue import bundles, copies, corrections, overview, pages
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.copies import CopyRecord
from omero_archive.errors import ObjectMissing, WrongState
from omero_archive.model import BundleName, FileKind, Key, ServiceName, printable
from omero_archive.near import Place
from omero_archive.omero.presence import present, present_files
from omero_archive.service import Answer, Service
from omero_archive.states import CopyState, Residency
from omero_archive.steps.evict import evict, evict_dry
from omero_archive.steps.reconcile import disk
from omero_archive.steps.reconcile.services import MANIFESTS
from omero_archive.steps.release import load
from omero_archive.steps.site import Site, place_of

_HELD = frozenset(CopyState) - {CopyState.PENDING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """What a purge deletes: objects by service and key with the SHA-256 of their originals (None: of a manifest)."""

    objects: tuple[tuple[ServiceName, Key, str | None], ...]
    near_bytes: int
    size_bytes: int  # of the copies, all services together


def purge_dry(site: Site, name: BundleName) -> Doomed:
    """What `purge` would delete. Raises what it would raise: `Refused` with every reason, or `Unavailable`."""
    bundle = load(site, name)
    doomed = _doomed(site, bundle)
    near_bytes = evict_dry(site, name) if bundle.residency is Residency.ONLINE else 0
    return Doomed(objects=doomed, near_bytes=near_bytes, size_bytes=_size(site, bundle))


def purge(site: Site, name: BundleName) -> Doomed:
    """Delete a bundle's near bytes, its copies and manifests in every service, and its rows in the catalogue.

    Raises `WrongState` with every reason unless OMERO has deleted all of it; then nothing was deleted.
    """
    bundle = load(site, name)
    doomed = _doomed(site, bundle)
    size_bytes = _size(site, bundle)
    near_bytes = 0
    if bundle.residency in (Residency.ONLINE, Residency.OFFLINE):
        near_bytes = evict(site, name)
    with site.lock_bundle(name):
        bundle = load(site, name)
        # Once more, now that nobody else works on it: what was just evicted is all that may have changed.
        doomed = _doomed(site, bundle)
        with site.catalogue.begin() as connection:
            bundles.note(connection, bundle, "purge", {"objects": len(doomed), "near_bytes": near_bytes})
            corrections.record_deletions(connection, bundle, doomed)
        for service, key, _ in doomed:
            _delete(site.services[service], key)
            site.progress("purge", 1, 0)
        site.near.forget(_place(site, bundle))
        with site.catalogue.begin() as connection:
            corrections.forget_bundle(connection, bundle)
    return Doomed(objects=doomed, near_bytes=near_bytes, size_bytes=size_bytes)


def _delete(service: Service, key: Key) -> None:
    try:
        service.delete(key)
    except ObjectMissing:
        return  # deleted before an interruption


def _doomed(site: Site, bundle: BundleRecord) -> tuple[tuple[ServiceName, Key, str | None], ...]:
    """Everything that is to be deleted, or `WrongState` with every reason why nothing is."""
    with site.catalogue.begin() as connection:
        files = bundles.files(connection, bundle.id)
        images = [image.id for image in bundles.images(connection, bundle.id)]
        known = [copy for copy in copies.of_bundle(connection, bundle.id, files) if copy.state in _HELD]
        has_recall = bool(pages.open_recalls(connection, [bundle.id]))
    reasons = [
        *_of_state(site, bundle, has_recall=has_recall),
        *_in_omero(site, bundle, files, images),
        *_at_paths(site, files),
        *_near(site, bundle, files),
        *_foreign(site, known),
    ]
    if reasons:
        raise WrongState(f"{bundle.name} was not purged, nothing was deleted: {'; '.join(reasons)}.")
    objects = [(copy.service, copy.key, copy.file.source.fixity.sha256) for copy in known]
    return (*objects, *_manifests(site, bundle))


def _of_state(site: Site, bundle: BundleRecord, *, has_recall: bool) -> Iterator[str]:
    if bundle.intent is not None:
        yield f"its {bundle.intent} was begun and not finished"
    if bundle.residency is Residency.RECALLING or has_recall:
        yield "a recall of it is open"
    if bundle.hold_reason is not None:
        yield f"it is on hold: {bundle.hold_reason}"
    if bundle.keep_until is not None and bundle.keep_until >= site.clock().date():
        yield f"the archive has to keep it until {bundle.keep_until}"
    if bundle.pinned_until is not None and bundle.pinned_until > site.clock():
        yield f"it is pinned until {bundle.pinned_until:%Y-%m-%d %H:%M}"


def _in_omero(site: Site, bundle: BundleRecord, files: tuple[FileRecord, ...], images: list[int]) -> Iterator[str]:
    """Raises `DatabaseUnavailable`: then nothing is known, and nothing is deleted."""
    there = present(site.omero, filesets=bundle.fileset_ids, images=images)
    ids = {kind: [file.original.omero_id for file in files if file.original.kind is kind] for kind in FileKind}
    rows = present_files(site.omero, ids)
    for what, number in (
        ("filesets", len(there.filesets)),
        ("images", len(there.images)),
        ("rows of original files", len(rows[FileKind.ORIGINAL])),
        ("rows of pixels", len(rows[FileKind.PIXELS])),
    ):
        if number:
            yield f"OMERO still has {number} of its {what}"


def _at_paths(site: Site, files: tuple[FileRecord, ...]) -> Iterator[str]:
    for top in {file.key.partition("/")[0]: file.key for file in files}.values():
        reason = disk.why_not(site, top)
        if reason is not None:
            yield f"OMERO's disk could not be looked at: {reason}"
            return
    left = []
    for file in files:
        tree, relative = site.original(file.key)
        if tree.look(relative) is not None:
            left.append(printable(str(tree.path(relative))))
    if left:
        yield f"something still lies at {len(left)} of its paths, such as {left[0]}: take it away by hand"


def _near(site: Site, bundle: BundleRecord, files: tuple[FileRecord, ...]) -> Iterator[str]:
    place = place_of(bundle, files)
    near = site.near
    if near.is_prepared(place):
        yield "bytes of it are in near's incoming"
    if bundle.residency is Residency.RESIDENT and (near.is_in(place) or near.is_taken_out(place)):
        yield "it is RESIDENT, but bytes of it are near"
    if bundle.residency is Residency.OFFLINE and near.is_in(place):
        yield "it is OFFLINE, but bytes of it are near: reconcile it first"


def _foreign(site: Site, known: list[CopyRecord]) -> Iterator[str]:
    """Objects that are not what we wrote stay, and a service that cannot be asked stops it all."""
    for name in dict.fromkeys(copy.service for copy in known):
        if name not in site.services:
            yield f"it has copies on {name}, which is not in the settings"
            continue
        mine = {copy.key: copy for copy in known if copy.service == name}
        for key, status in site.services[name].status(list(mine)).items():
            wanted = mine[key].file.source.fixity.size_bytes
            if status.present is Answer.CANNOT_TELL:
                yield f"{name} cannot tell whether it has {printable(key)}"
            elif status.present is Answer.YES and status.size_bytes not in (None, wanted):
                yield f"{name} has {printable(key)} with {status.size_bytes} bytes, {wanted} were written: whose is it"


def _manifests(site: Site, bundle: BundleRecord) -> Iterator[tuple[ServiceName, Key, str | None]]:
    """The files of all its manifests, of every service: `manifests/Fileset-1`, `manifests/Fileset-1.2`."""
    for name, service in site.services.items():
        for one in service.list(f"{MANIFESTS}{bundle.name}"):
            directory = one.key.removeprefix(MANIFESTS).partition("/")[0]
            base, _, generation = directory.partition(".")
            if base == bundle.name and (not generation or generation.isdecimal()):
                yield name, one.key, None


def _place(site: Site, bundle: BundleRecord) -> Place:
    with site.catalogue.begin() as connection:
        return place_of(bundle, bundles.files(connection, bundle.id))


def _size(site: Site, bundle: BundleRecord) -> int:
    with site.catalogue.begin() as connection:
        return sum(count.size_bytes for count in overview.copies(connection, bundle.id) if count.state in _HELD)
