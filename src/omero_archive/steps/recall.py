"""Recall: bring a bundle's bytes back near, whole. OFFLINE -> RECALLING -> ONLINE.

Every file is compared with the SHA-256 of its original while it comes and read back from the medium afterwards;
the bundle becomes readable when all its files are there, in one rename.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from omero_archive.catalogue import bundles, copies, recalls
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.copies import CopyRecord, Failure
from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ObjectMissing,
    ObjectOffline,
    SourceUnreadable,
)
from omero_archive.files import translated
from omero_archive.model import BundleName, Key
from omero_archive.near import Place
from omero_archive.service import Service, Staged
from omero_archive.states import CopyState, Residency
from omero_archive.steps.release import load
from omero_archive.steps.room import make_room
from omero_archive.steps.site import Site, place_of
from omero_archive.transfer import RecallReader, read_back, write_temporary

GROUP_FILES = 1000
GROUP_BYTES = 1 << 30

_READABLE = (CopyState.DURABLE, CopyState.VERIFIED, CopyState.WRITTEN)
"""A copy that was only written (healed, or found by a rebuild) is as good: every byte is compared on its way."""


def request_recall(site: Site, name: BundleName, *, by: str, reason: str | None = None) -> bool:
    """Ask for a bundle's bytes; False if they are near, or asked for already."""
    bundle = load(site, name)
    if bundle.residency in (Residency.RESIDENT, Residency.ONLINE):
        return False
    with site.catalogue.begin() as connection:
        is_new = recalls.ask(connection, bundle.id, by, reason)
        if bundle.needs_attention or bundle.retry_at is not None:
            bundles.try_again(connection, bundle.id)
    return is_new


def recall(site: Site, name: BundleName) -> None:
    """Bring one bundle near. Raises `NotEnoughSpace`, `ObjectOffline` while it is staged, `FixityMismatch`."""
    with site.lock_bundle(name):
        bundle = load(site, name)
        with site.catalogue.begin() as connection:
            files = bundles.files(connection, bundle.id)
        place = place_of(bundle, files)
        if bundle.residency is Residency.ONLINE:
            site.near.put_back(place)  # an eviction that was interrupted after its rename
        if bundle.residency in (Residency.ONLINE, Residency.RESIDENT):
            _finish(site, bundle)
            return
        if not site.near.is_in(place):
            _fetch(site, bundle, files, place)
            site.near.bring_in(place)
        with site.catalogue.begin() as connection:
            bundle = bundles.by_id(connection, bundle.id)
            if bundle.residency is Residency.OFFLINE:
                bundles.move(connection, bundle, Residency.RECALLING)
                bundle = bundles.by_id(connection, bundle.id)
            bundles.move(connection, bundle, Residency.ONLINE, near_since=site.clock())
        _finish(site, bundle)


def _finish(site: Site, bundle: BundleRecord) -> None:
    with site.catalogue.begin() as connection:
        recalls.finish(connection, bundle.id, "done")
        bundles.try_again(connection, bundle.id)  # it worked: what went wrong before is over


def _fetch(site: Site, bundle: BundleRecord, files: Sequence[FileRecord], place: Place) -> None:
    site.near.reuse(place)
    missing = [file for file in files if not _is_here(site, place, file)]
    make_room(site, sum(file.source.fixity.size_bytes for file in missing), for_bundle=bundle)
    if bundle.residency is Residency.OFFLINE:
        with site.catalogue.begin() as connection:
            bundles.move(connection, bundle, Residency.RECALLING)
    site.near.prepare(place)
    with site.catalogue.begin() as connection:
        known = copies.of_bundle(connection, bundle.id)
    by_file: dict[int, list[CopyRecord]] = {}
    for copy in known:
        by_file.setdefault(copy.file.id, []).append(copy)
    for group in _groups(missing):
        for file in group:
            _write_file(site, place, file, by_file.get(file.id, []))
        _settle(site, place, group)


def _groups(files: Sequence[FileRecord]) -> Iterator[list[FileRecord]]:
    """Groups that are synced together: two syncs for a group, not for a file."""
    group: list[FileRecord] = []
    size_bytes = 0
    for file in files:
        group.append(file)
        size_bytes += file.source.fixity.size_bytes
        if len(group) == GROUP_FILES or size_bytes >= GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def _is_here(site: Site, place: Place, file: FileRecord) -> bool:
    """Whether an interrupted recall brought this file already; it is read back before it is believed."""
    path = site.near.incoming_path_of(place, file.key)
    if site.near.tree.look(path) is None:
        return False
    fixity = file.source.fixity
    return read_back(site.near.tree, path, site.lanes) == (fixity.size_bytes, fixity.xxh3)


def _write_file(site: Site, place: Place, file: FileRecord, known: Sequence[CopyRecord]) -> None:
    """Write one file from the first service that has it; from the next if its copy is wrong or gone."""
    usable = [copy for copy in known if copy.state in _READABLE and copy.service in site.services]
    # The policy's order first; a service that it does not name may have a copy as well.
    order = [*site.settings.service_names, *site.services]
    usable.sort(key=lambda copy: order.index(copy.service))
    problem: ArchiveError = ObjectMissing(f"{file.key}: there is no verified copy anywhere; a person must look.")
    for copy in usable:
        service = site.services[copy.service]
        subject = f"{copy.service}: {file.key}"
        read = file.source
        reader = RecallReader(partial(service.open, file.key), subject, read.fixity, read.attributes, site.lanes)
        try:
            _require_staged(service, file.key)
            write_temporary(reader, site.near.tree, site.near.incoming_path_of(place, file.key))
        except (FixityMismatch, ObjectMissing) as error:
            _condemn(site, copy, error)
            problem = error
        except ArchiveError as error:
            problem = error
        else:
            return
    raise problem


def _settle(site: Site, place: Place, group: Sequence[FileRecord]) -> None:
    """Sync what was written, name it, and read it back from the medium."""
    near = site.near.tree
    try:
        near.sync()
        for file in group:
            near.replace_own(site.near.incoming_path_of(place, file.key))
        for file in group:
            fixity = file.source.fixity
            path = site.near.incoming_path_of(place, file.key)
            if read_back(near, path, site.lanes) != (fixity.size_bytes, fixity.xxh3):
                raise SourceUnreadable(f"{near.path(path)} was read back with other bytes than were written.")
            site.progress("recall", 1, fixity.size_bytes)
    except OSError as error:
        raise translated(error, str(near.root)) from error


def _require_staged(service: Service, key: Key) -> None:
    if not service.capabilities.needs_staging:
        return
    if service.status([key])[key].staged is not Staged.ONLINE:
        service.stage([key])
        raise ObjectOffline(f"{key} is being staged; the recall goes on when it is there.")


def _condemn(site: Site, copy: CopyRecord, error: ArchiveError) -> None:
    """A copy with wrong bytes, or that is gone, does not count any more. Nothing of it is deleted."""
    new = CopyState.DAMAGED if isinstance(error, FixityMismatch) else CopyState.MISSING
    with site.catalogue.begin() as connection:
        copies.move(connection, [copy.id], old=copy.state, new=new)
        copies.failed(connection, {copy.id: Failure(message=str(error), retry_at=None)}, state=new)
