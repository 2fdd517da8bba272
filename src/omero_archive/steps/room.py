"""Room for near bytes: how much there is, and whose turn it is to go. Least recently opened goes first."""

from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.errors import Busy, NotEnoughSpace, Refused
from omero_archive.states import Residency
from omero_archive.steps.evict import evict
from omero_archive.steps.site import Site, place_of


def make_room(site: Site, wanted: int, *, for_bundle: BundleRecord) -> None:
    """See to it that `wanted` bytes more may come near, evicting others if need be. Raises `NotEnoughSpace`.

    Never evicted: what is pinned, on hold, being recalled, or kept after its release (`keep_originals`).
    """
    missing = _missing(site, wanted)
    if missing <= 0:
        return
    for _, bundle in sorted(_candidates(site, for_bundle), key=lambda candidate: candidate[0]):
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


def _candidates(site: Site, for_bundle: BundleRecord) -> list[tuple[int, BundleRecord]]:
    """Bundles that may go, each with the time (ns) one of its files was last opened, as the disk tells."""
    now, kept = site.clock(), site.settings.release.keep_originals
    found = []
    with site.catalogue.begin() as connection:
        for bundle in list(bundles.every(connection, residency=[Residency.ONLINE])):
            is_pinned = bundle.pinned_until is not None and bundle.pinned_until > now
            is_kept = bundle.released_at is not None and bundle.near_since == bundle.released_at
            is_kept = is_kept and bundle.released_at is not None and bundle.released_at + kept > now
            if bundle.id == for_bundle.id or is_pinned or is_kept or bundle.intent or bundle.hold_reason:
                continue
            place = place_of(bundle, bundles.files(connection, bundle.id))
            found.append((site.near.last_opened_ns(place), bundle))
    return found
