"""Cancel: give up recalls that are open. RECALLING -> OFFLINE.

What a service was asked to stage goes on there: nothing is deleted and nothing taken back at services. A program that
waits for the bundle gets an error; asking again begins anew.
"""

from dataclasses import dataclass

from omero_archive.catalogue import bundles, recalls
from omero_archive.errors import Busy
from omero_archive.model import BundleName
from omero_archive.states import Residency
from omero_archive.steps.recall import dropped
from omero_archive.steps.release import load
from omero_archive.steps.site import Site, place_of

CANCELLED = "cancelled"
"""The outcome of a recall that was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What became of a bundle whose recall was to be cancelled: whether one was open, and a sentence."""

    was_open: bool
    text: str


def cancel(site: Site, name: BundleName, *, dry_run: bool = False) -> Cancelled:
    """Cancel the open recall of a bundle, if there is one. Who brings its files at this moment stops soon."""
    number = load(site, name).id
    with site.catalogue.begin() as connection:
        if not recalls.is_open(connection, number, keep=not dry_run):
            return Cancelled(was_open=False, text="no recall was open")
        if dry_run:
            return Cancelled(was_open=True, text="its recall would be cancelled")
        bundle = bundles.by_id(connection, number)
        recalls.finish(connection, number, CANCELLED)
        if bundle.residency is Residency.RECALLING:
            bundles.move(connection, bundle, Residency.OFFLINE)
        elif bundle.residency is Residency.OFFLINE:
            bundles.try_again(connection, number)  # what went wrong with it is of no interest any more
    return Cancelled(was_open=True, text=f"its recall was cancelled; {_dropped(site, name)}")


def _dropped(site: Site, name: BundleName) -> str:
    try:
        with site.lock_bundle(name):
            bundle = load(site, name)
            with site.catalogue.begin() as connection:
                files = bundles.files(connection, bundle.id)
                if recalls.is_open(connection, bundle.id) or bundle.residency is not Residency.OFFLINE:
                    return f"it was asked for again meanwhile and is {bundle.residency}"
            return dropped(site, bundle, place_of(bundle, files))
    except Busy:
        return "who is bringing its files now stops after those at work"
