"""`unarchive` puts originals back, with OMERO off."""

from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import All, DryRun, Json, Objects, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.cli.things import known_bundles, total_bytes
from omero_archive.errors import ArchiveError
from omero_archive.model import BundleName
from omero_archive.states import Residency
from omero_archive.steps.release import load
from omero_archive.steps.site import Site
from omero_archive.steps.unarchive import require_unarchivable
from omero_archive.steps.unarchive import unarchive as step


def unarchive(
    objects: Objects = None,
    everything: All = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Put originals back in their places, with OMERO off, and take links and marks away. Recalls first if need be.

    The copies in the archive stay. An interrupted unarchive is finished by running it again; a release that was begun
    and cannot be finished is undone.
    """
    items = Items(command="unarchive", output=Output(as_json=as_json), dry_run=dry_run)
    released = [Residency.ONLINE, Residency.OFFLINE, Residency.RECALLING]
    with opened(settings) as site, site.omero.keeping_connections(), items.output.progress() as told:
        site.progress = told
        names = known_bundles(site, objects, everything=everything, residency=released)
        told.expect("unarchive", total_bytes(site, names))
        if dry_run:
            for name in names:
                _dry(site, items, name)
            names = []
        for name, error in step(site, names):
            if error is None:
                items.done(name, "originals back in their places")
            else:
                items.failed(name, error)
        items.close()


def _dry(site: Site, items: Items, name: BundleName) -> None:
    try:
        bundle = load(site, name)
        require_unarchivable(bundle)
        site.prove_offline()
    except ArchiveError as error:
        items.failed(name, error)
    else:
        items.done(name, f"would be put back from {bundle.residency}")
