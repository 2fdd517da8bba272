"""Room for near bytes: how much there is, and whose turn it is to go. Least recently opened goes first."""

import heapq
from collections.abc import Iterator
from datetime import datetime

from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.errors import Busy, NotEnoughSpace, Refused
from omero_archive.states import Residency
from omero_archive.steps.evict import evict
from omero_archive.steps.site import Site, place_of


def make_room(site: Site, wanted: int, *, for_bundle: BundleRecord) -> None:
    """See to it that `wanted` bytes more may come near, evicting others if need be. Raises `NotEnoughSpace`.

    Never evicted: what is pinned, on hold, open, or being recalled; and what is in its undo window
    (`keep_originals`), unless the settings let a full disk shorten it. Even then it goes last.
    """
    missing = _missing(site, wanted, for_bundle=for_bundle)
    if missing <= 0:
        return
    for bundle in _candidates(site, for_bundle):
        try:
            evict(site, bundle.name)
        except (Refused, Busy):
            continue  # no permit now, pinned meanwhile, open, or somebody is at it: the next
        missing = _missing(site, wanted, for_bundle=for_bundle)
        if missing <= 0:
            return
    raise NotEnoughSpace(
        f"{for_bundle.name} needs {wanted} bytes near, {missing} more than there is room for in "
        f"{site.settings.archive.near_directory}. Evict or unpin bundles, or raise archive.max_size; "
        "it is tried again later."
    )


def _missing(site: Site, wanted: int, *, for_bundle: BundleRecord | None = None) -> int:
    """How many bytes too few there are, by the free space and by the quota; zero or less is enough."""
    archive = site.settings.archive
    by_disk = wanted + archive.min_free - site.near.free_bytes()
    if archive.max_size is None:
        return by_disk
    is_counted = for_bundle is not None and for_bundle.residency is Residency.RECALLING
    return max(by_disk, _used(site) + (0 if is_counted else wanted) - archive.max_size)


def _used(site: Site) -> int:
    """The bytes of what is near or on its way, as the catalogue knows it.

    Many bundles are on their way at once, for hours: each counts whole from its beginning, or all of them together
    would have room that each was told of alone.
    """
    with site.catalogue.begin() as connection:
        return sum(bundles.bytes_in(connection, state) for state in (Residency.ONLINE, Residency.RECALLING))


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


def _candidates(site: Site, for_bundle: BundleRecord) -> Iterator[BundleRecord]:
    """Bundles that may go: first the one whose files nobody has opened for longest.

    What the catalogue knows is never later than what is true: the disk tells of opens past the mount. So the disk is
    asked only about the bundle that would be next by all that is known, and it is the next if nothing changes by that.
    """
    may_go = {bundle.id: (is_kept, bundle) for is_kept, bundle in _may_go(site, for_bundle)}
    heap = [(is_kept, _known_opened_ns(bundle), number, False) for number, (is_kept, bundle) in may_go.items()]
    heapq.heapify(heap)
    while heap:
        is_kept, opened_ns, number, was_asked = heapq.heappop(heap)
        _, bundle = may_go[number]
        if was_asked:
            yield bundle
        else:
            heapq.heappush(heap, (is_kept, max(opened_ns, _opened_by_disk_ns(site, bundle)), number, True))


def _may_go(site: Site, for_bundle: BundleRecord) -> Iterator[tuple[bool, BundleRecord]]:
    """What may be evicted as far as the catalogue knows, and whether it is in its undo window."""
    release, now = site.settings.release, site.clock()
    with site.catalogue.begin() as connection:
        for bundle in bundles.every(connection, residency=[Residency.ONLINE]):
            released = bundle.window_since
            is_kept = released is not None and released + release.keep_originals > now
            is_pinned = bundle.pinned_until is not None and bundle.pinned_until > now
            is_wanted = bundle.id == for_bundle.id or is_pinned or bundle.intent or bundle.hold_reason
            if not is_wanted and (not is_kept or release.shorten_when_full):
                yield is_kept, bundle


def _known_opened_ns(bundle: BundleRecord) -> int:
    """When the bundle was last wanted, as far as the catalogue knows: opened through the mount, or come near."""
    known = (bundle.last_opened_at, bundle.near_since)
    return max((_nanoseconds(at) for at in known if at is not None), default=0)


def _opened_by_disk_ns(site: Site, bundle: BundleRecord) -> int:
    """When any of the bundle's near files was last read, by its atime. Mounted with noatime: not at all."""
    with site.catalogue.begin() as connection:
        place = place_of(bundle, bundles.files(connection, bundle.id))
    return site.near.last_opened_ns(place)


def _nanoseconds(at: datetime) -> int:
    """A moment as atimes are given: nanoseconds since 1970."""
    return int(at.timestamp() * 1_000_000) * 1000
