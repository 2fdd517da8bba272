"""Roll back a release that was begun and cannot be finished: a copy was lost meanwhile, an original was changed.

Where links stand already the bytes are near, and the way back is that of any unarchive: the bundle is recorded ONLINE
with that intent, which is exactly what an interrupted unarchive leaves. Where none stands, only the mark and the
second names have to go.
"""

from collections.abc import Sequence

from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.errors import BrokenInvariant
from omero_archive.states import Residency
from omero_archive.steps.site import Site, place_of


def begin_back(site: Site, bundle: BundleRecord, *, intent: str) -> BundleRecord:
    """Record a RESIDENT bundle, whose release was interrupted when its bytes were near, as being on its way back."""
    with site.catalogue.begin() as connection:
        bundles.move(connection, bundle, Residency.ONLINE, intent=intent, near_since=site.clock())
        return bundles.by_id(connection, bundle.id)


def is_near(site: Site, bundle: BundleRecord, files: Sequence[FileRecord]) -> bool:
    """Whether the interrupted release came as far as to make the bytes near; before that no link was made.

    Raises `BrokenInvariant` if a link of ours stands all the same: its bytes are nowhere to be seen.
    """
    if site.near.is_in(place_of(bundle, files)):
        return True
    for file in files:
        tree, relative = site.original(file.key)
        found = tree.look(relative)
        if found is not None and found.target == site.link_target(file.key):
            raise BrokenInvariant(
                f"{tree.path(relative)} is a link of ours, but no bytes are near; a person must look."
            )
    return False


def give_up(site: Site, bundle: BundleRecord, files: Sequence[FileRecord]) -> None:
    """Take away what a release prepared: second names, as far as they are no more than that, and ways to them."""
    place = place_of(bundle, files)
    site.near.give_up(place, {file.key: site.original(file.key) for file in files})
    site.near.forget(place)
