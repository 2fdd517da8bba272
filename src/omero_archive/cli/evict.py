"""`evict` deletes near bytes that the archive vouches for."""

from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import All, DryRun, Json, Objects, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.things import known_bundles, total_bytes
from omero_archive.errors import ArchiveError
from omero_archive.states import Residency
from omero_archive.steps.evict import evict as step
from omero_archive.steps.evict import evict_dry


def evict(
    objects: Objects = None,
    everything: All = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Delete the near bytes of released bundles: this frees the disk. Each file needs a fresh permit.

    Pinned bundles and bundles on hold stay. The images do not open until they are recalled.
    """
    items = Items(command="evict", output=Output(as_json=as_json), dry_run=dry_run)
    freed = 0
    with opened(settings) as site, items.output.progress() as told:
        site.progress = told
        names = known_bundles(site, objects, everything=everything, residency=[Residency.ONLINE])
        if everything:
            names += site.near.taken_out()  # interrupted before
        told.expect("evict", total_bytes(site, names))
        for name in dict.fromkeys(names):
            try:
                size_bytes = evict_dry(site, name) if dry_run else step(site, name)
            except ArchiveError as error:
                items.failed(name, error)
            else:
                freed += size_bytes
                verb = "would free" if dry_run else "freed"
                items.done(name, f"{verb} {human_size(size_bytes)}", freed_bytes=size_bytes)
        items.close(freed_bytes=freed)
