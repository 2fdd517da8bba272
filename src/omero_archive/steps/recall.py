"""Recall: bring a bundle's bytes back near, whole. OFFLINE -> RECALLING -> ONLINE.

Every file is compared with the SHA-256 of its original while it comes and read back from the medium afterwards;
the bundle becomes readable when all its files are there, in one rename. Each file comes from the nearest service that
can give it now; what none can is staged at one, and what can be read meanwhile is brought already.

A recall may be cancelled while it goes on: its row in the catalogue is closed, and who brings files looks after each
group of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from omero_archive.catalogue import bundles, copies, recalls, turns
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.copies import CopyRecord, Failure
from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    NotEnoughSpace,
    ObjectMissing,
    ObjectOffline,
    RecallCancelled,
    Refused,
    SourceUnreadable,
)
from omero_archive.files import translated
from omero_archive.model import BundleName, ServiceName
from omero_archive.near import Place
from omero_archive.states import CopyState, Residency
from omero_archive.steps.nearest import Supply
from omero_archive.steps.permits import permits
from omero_archive.steps.release import load
from omero_archive.steps.room import make_room
from omero_archive.steps.site import Site, place_of
from omero_archive.transfer import RecallReader, read_back, write_temporary

GROUP_FILES = 1000
GROUP_BYTES = 1 << 30


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
    """Bring one bundle near. Raises `NotEnoughSpace`, `ObjectOffline` while it is staged, `FixityMismatch`.

    It is brought now, whoever else waits in the queue: that is for whoever calls this to decide.
    """
    with site.lock_bundle(name):
        bundle = load(site, name)
        with site.catalogue.begin() as connection:
            files = bundles.files(connection, bundle.id)
            turns.begin_alone(connection, bundle.id)
        place = place_of(bundle, files)
        if bundle.residency is Residency.ONLINE:
            site.near.put_back(place)  # an eviction that was interrupted after its rename
        if bundle.residency in (Residency.ONLINE, Residency.RESIDENT):
            _finish(site, bundle)
            return
        if not site.near.is_in(place):
            _fetch(site, bundle, files, place)
        site.near.bring_in(place)  # also what is there already: a directory may be, without its files
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
    with site.catalogue.begin() as connection:
        was_asked_for = recalls.is_open(connection, bundle.id)
    missing = prepared(site, bundle, files, place)
    with site.catalogue.begin() as connection:
        supply = Supply(site, missing, copies.of_bundle(connection, bundle.id, files))
    readable = [file for file in missing if supply.readable(file)]
    ids = {file.id for file in readable}
    waiting = _stage(site, bundle, supply, [file for file in missing if file.id not in ids])
    offline: list[FileRecord] = []
    for group in _groups(readable):
        came: list[FileRecord] = []
        gone: list[FileRecord] = []
        for file in group:
            (came if _write_file(site, place, file, supply) else gone).append(file)
        _settle(site, place, came)
        offline += gone
        if was_asked_for:
            _require_wanted(site, bundle, place)
    waiting += _stage(site, bundle, supply, offline)
    if was_asked_for:
        _require_wanted(site, bundle, place)
    if waiting:
        there = f"{len(files) - len(missing) + len(readable) - len(offline)} of {len(files)} files are here"
        raise ObjectOffline(f"{bundle.name}: {'; '.join(waiting)}; {there}. The recall goes on when the others are.")
    for service, _ in supply.bytes_from.most_common(1):
        with site.catalogue.begin() as connection:
            recalls.brought_by(connection, bundle.id, service, for_sure=False)


def prepared(site: Site, bundle: BundleRecord, files: Sequence[FileRecord], place: Place) -> list[FileRecord]:
    """Make room and directories for a bundle, whose lock the caller has; the files that are not here yet.

    Raises `NotEnoughSpace`.
    """
    site.near.reuse(place)
    missing = [file for file in files if not _is_here(site, place, file)]
    make_room(site, sum(file.source.fixity.size_bytes for file in missing), for_bundle=bundle)
    if bundle.residency is Residency.OFFLINE:
        with site.catalogue.begin() as connection:
            bundles.move(connection, bundle, Residency.RECALLING)
    site.near.prepare(place)
    return missing


def _require_wanted(site: Site, bundle: BundleRecord, place: Place) -> None:
    """Raise `RecallCancelled` if the recall was cancelled; what came goes again, as far as that is safe."""
    with site.catalogue.begin() as connection:
        if recalls.is_open(connection, bundle.id):
            return
        bundle = bundles.by_id(connection, bundle.id)
        if bundle.residency is Residency.RECALLING:  # it was cancelled before we said so
            bundles.move(connection, bundle, Residency.OFFLINE)
    raise RecallCancelled(f"{bundle.name}: the recall was cancelled; {dropped(site, bundle, place)}.")


def dropped(site: Site, bundle: BundleRecord, place: Place) -> str:
    """Delete what was brought of a bundle whose recall was cancelled, each file with its permit; what became of it.

    The caller has the bundle's lock. Without permits all of it stays, and is the beginning of the next recall.
    """
    if not site.near.is_prepared(place):
        return "nothing of it had come"
    try:
        freed = site.near.drop_incoming(place, permits(site, bundle), site.clock())
    except Refused as refusal:
        return f"what had come is kept for the next recall ({refusal})"
    return f"what had come was dropped, {freed} bytes"


def _stage(site: Site, bundle: BundleRecord, supply: Supply, files: Sequence[FileRecord]) -> list[str]:
    """Have files staged that can be read nowhere; who stages them and since when. Raises if one can be had nowhere."""
    bringing = supply.stage(files)
    told = staged(site, bundle, bringing)
    brought = {file.id for those in bringing.values() for file in those}
    for file in files:
        if file.id not in brought:
            raise supply.problem(file)
    return told


def staged(site: Site, bundle: BundleRecord, bringing: Mapping[ServiceName, Sequence[FileRecord]]) -> list[str]:
    """Write down which service stages which files of a bundle; who, how many and since when, as texts."""
    told = []
    sizes = {name: sum(file.source.fixity.size_bytes for file in those) for name, those in bringing.items()}
    with site.catalogue.begin() as connection:
        for service, those in bringing.items():
            since = recalls.staged_since(connection, bundle.id, service, files=len(those))
            many = "1 file is" if len(those) == 1 else f"{len(those)} files are"
            told.append(f"{many} being staged by {service} since {since:%Y-%m-%d %H:%M %Z}")
        if sizes:
            recalls.brought_by(connection, bundle.id, max(sizes, key=lambda name: sizes[name]), for_sure=True)
    return told


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


def _write_file(site: Site, place: Place, file: FileRecord, supply: Supply) -> bool:
    """Write one file from the nearest copy; from the next if that is wrong or gone. False if none can be read now."""
    read = file.source
    while (copy := supply.readable(file)) is not None:
        service = site.services[copy.service]
        subject = f"{copy.service}: {file.key}"
        reader = RecallReader(partial(service.open, file.key), subject, read.fixity, read.attributes, site.lanes)
        try:
            write_temporary(reader, site.near.tree, site.near.incoming_path_of(place, file.key))
        except NotEnoughSpace:
            raise  # of our disk: no other copy would fit either
        except (FixityMismatch, ObjectMissing) as error:
            _condemn(site, copy, error)
            supply.failed(copy, error)
        except ArchiveError as error:
            supply.failed(copy, error)
        else:
            supply.came(copy)
            return True
    return False


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


def _condemn(site: Site, copy: CopyRecord, error: ArchiveError) -> None:
    """A copy with wrong bytes, or that is gone, does not count any more. Nothing of it is deleted."""
    new = CopyState.DAMAGED if isinstance(error, FixityMismatch) else CopyState.MISSING
    with site.catalogue.begin() as connection:
        copies.move(connection, [copy.id], old=copy.state, new=new)
        copies.failed(connection, {copy.id: Failure(message=str(error), retry_at=None)}, state=new)
