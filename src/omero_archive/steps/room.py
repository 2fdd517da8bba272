"""Room for near bytes: how much there is, and whose turn it is to go. Least recently opened goes first."""

from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.errors import Busy, NotEnoughSpace, Refused
from omero_archive.states import Residency
from omero_archive.steps.evict import evict
from omero_archive.steps.site import Site, place_of


def make_room(site: Site, wanted: int, *, for_bundle: BundleRecord) -> None:
    """See to it that `wanted` bytes more may come near, evicting others if need be. Raises `NotEnoughSpace`.

    Never evicted: what is pinned, on hold, or being recalled; and what is in its undo window (`keep_originals`),
    unless the settings let a full disk shorten it. Even then it goes last, the longest ago released first.
    """
    missing = _missing(site, wanted)
    if missing <= 0:
        return
    for bundle in _candidates(site, for_bundle):
        try:
            evict(site, bundle.name)
        except (Refused, Busy):
            continue  # no permit now, pinned meanwhile, or somebody is at it: the next
        missing = _missing(site, wanted)
        if missing <= 0:
            return
    raise NotEnoughSpace(
        f"{for_bundle.name} needs {wanted} bytes near, {missing} more than there is room for in "
        f"{site.settings.archive.near_directory}. Evict or unpin bundles, or raise archive.max_size; "
        "it is tried again later."
    )


def _missing(site: Site, wanted: int) -> int:
    """How many bytes too few there are, by the free space and by the quota; zero or less is enough."""
    archive = site.settings.archive
    by_disk = wanted + archive.min_free - site.near.free_bytes()
    if archive.max_size is None:
        return by_disk
    return max(by_disk, _used(site) + wanted - archive.max_size)


def _used(site: Site) -> int:
    """The bytes of what is near, as the catalogue knows it; half recalled bundles count whole."""
    with site.catalogue.begin() as connection:
        near = bundles.every(connection, residency=[Residency.ONLINE])
        return sum(bundle.size_bytes for bundle in near)


def windows_over(site: Site) -> list[BundleRecord]:
    """The bundles whose undo window is over, or is cut short because less than `min_free` is free."""
    release = site.settings.release
    with site.catalogue.begin() as connection:
        over = bundles.kept(connection, released_before=site.clock() - release.keep_originals)
        kept = bundles.kept(connection) if release.shorten_when_full else []
    missing = _missing(site, 0) - sum(bundle.size_bytes for bundle in over)
    names = {bundle.name for bundle in over}
    for bundle in kept:
        if missing > 0 and bundle.name not in names:
            over.append(bundle)
            missing -= bundle.size_bytes
    return over


def _candidates(site: Site, for_bundle: BundleRecord) -> list[BundleRecord]:
    """Bundles that may go: first the one whose files nobody has opened for longest, as the disk tells."""
    release, now = site.settings.release, site.clock()
    found = []
    with site.catalogue.begin() as connection:
        for bundle in list(bundles.every(connection, residency=[Residency.ONLINE])):
            released = bundle.window_since
            is_kept = released is not None and released + release.keep_originals > now
            is_pinned = bundle.pinned_until is not None and bundle.pinned_until > now
            is_wanted = bundle.id == for_bundle.id or is_pinned or bundle.intent or bundle.hold_reason
            if is_wanted or (is_kept and not release.shorten_when_full):
                continue
            place = place_of(bundle, bundles.files(connection, bundle.id))
            found.append((is_kept, site.near.last_opened_ns(place), bundle.id, bundle))
    return [bundle for *_, bundle in sorted(found, key=lambda candidate: candidate[:3])]
