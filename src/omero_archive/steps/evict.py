"""Evict: delete the near bytes of a released bundle. ONLINE -> OFFLINE. The only step that can lose bytes.

The bundle becomes unreadable in one rename, that is recorded, and only then the bytes go, each with its permit.
"""

from collections.abc import Sequence

from omero_archive.catalogue import bundles, recalls
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.errors import Busy, WrongState
from omero_archive.files import disk_errors, same_time
from omero_archive.model import BundleName, Key
from omero_archive.near import Place
from omero_archive.states import Permit, Residency
from omero_archive.steps.permits import permits
from omero_archive.steps.proof import proof
from omero_archive.steps.release import load
from omero_archive.steps.site import Site, place_of


def evict(site: Site, name: BundleName) -> int:
    """Evict one bundle; the bytes freed. Raises `PermitRefused`, `WrongState`, or `Busy` while a file of it is open;
    then nothing was deleted."""
    with site.lock_bundle(name):
        bundle = load(site, name)
        files = _files(site, bundle)
        place = place_of(bundle, files)
        if bundle.residency is not Residency.OFFLINE:
            _require_online(bundle)
        if bundle.residency is Residency.ONLINE:
            require_evictable(site, bundle)
            require_untouched(site, place, files)
            require_closed(site, place)  # at first too: services need not be asked for what cannot go
            granted = _granted(site, bundle, files)
            if site.near.is_in(place) and site.near.is_taken_out(place):
                # An eviction was interrupted, and then the bundle was recalled: the older bytes go first.
                site.near.delete(place, granted, site.clock())
            # Last of all. Who opens a file between this and the rename keeps its bytes: they go when he closes it;
            # and no file of the bundle opens after the rename, so that nobody sees a part of a fileset.
            require_closed(site, place)
            site.near.take_out(place)
            with site.catalogue.begin() as connection:
                # Whoever asked while it came near has had it; left open, that would bring it back again.
                recalls.finish(connection, bundle.id, "done")
                bundles.move(connection, bundle, Residency.OFFLINE, near_since=None)
        elif site.near.is_taken_out(place):
            granted = _granted(site, bundle, files)  # interrupted after the rename: the bytes are still to go
        else:
            return 0
        freed = site.near.delete(place, granted, site.clock())
        with site.catalogue.begin() as connection:
            bundles.note(connection, bundle, "evicted", {"freed_bytes": freed})
        site.progress("evict", len(files), freed)
        return freed


def evict_dry(site: Site, name: BundleName) -> int:
    """Raise what `evict` would raise, and change nothing; the bytes it would free."""
    with disk_errors(name):
        bundle = load(site, name)
        if bundle.residency is Residency.OFFLINE:
            return 0
        _require_online(bundle)
        require_evictable(site, bundle)
        files = _files(site, bundle)
        place = place_of(bundle, files)
        require_untouched(site, place, files)
        require_closed(site, place)
        if site.near.is_in(place):
            site.near.require_alone(place)
        return sum(granted.size_bytes for granted in permits(site, bundle, dry_run=True).values())


def require_evictable(site: Site, bundle: BundleRecord) -> None:
    """Raise `WrongState` for a pin, a hold or an interrupted step."""
    if bundle.pinned_until is not None and bundle.pinned_until > site.clock():
        raise WrongState(f"{bundle.name} is pinned until {bundle.pinned_until:%Y-%m-%d %H:%M}; it was not evicted.")
    if bundle.intent is not None:
        raise WrongState(
            f"{bundle.name}: {bundle.intent} was begun and not finished; run `omero-archive {bundle.intent}` first."
        )


def require_untouched(site: Site, place: Place, files: Sequence[FileRecord]) -> None:
    """Raise `WrongState` if near bytes were changed since they came: the archive would not have what is deleted."""
    for file in files:
        near = site.near.tree.look(site.near.path_of(place, file.key))
        source = file.source
        if near is None:
            continue  # taken out before an interruption
        is_same = near.identity.size_bytes == source.fixity.size_bytes
        if not is_same or not same_time(near.identity.mtime_ns, source.attributes.mtime_ns):
            raise WrongState(
                f"{file.key}: its near bytes were changed after they were archived; {place.name} was not evicted. "
                "A person must look: unarchive it, or put the archived bytes back."
            )


def require_closed(site: Site, place: Place) -> None:
    """Raise `Busy` if somebody has one of the bundle's near files open; where that cannot be told, nothing."""
    key = site.near.file_in_use(place)
    if key is not None:
        raise Busy(f"{key} is being read by somebody; {place.name} was not evicted. Try again later.")


def _granted(site: Site, bundle: BundleRecord, files: Sequence[FileRecord]) -> dict[Key, Permit]:
    """A permit for every file, with what they rest on written into the log before anything goes."""
    granted = permits(site, bundle)
    why = proof(site, bundle, files, granted)
    with site.catalogue.begin() as connection:
        bundles.note(connection, bundle, "evict proof", why)
    return granted


def _require_online(bundle: BundleRecord) -> None:
    if bundle.residency is not Residency.ONLINE:
        raise WrongState(f"{bundle.name} is {bundle.residency}; only an ONLINE bundle can be evicted.")


def _files(site: Site, bundle: BundleRecord) -> tuple[FileRecord, ...]:
    with site.catalogue.begin() as connection:
        return bundles.files(connection, bundle.id)
