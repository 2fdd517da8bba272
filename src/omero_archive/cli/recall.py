"""`recall` asks for bytes to come near."""

from typing import Annotated

import typer

from omero_archive.app import who
from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import All, DryRun, Json, Objects, Reason, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.things import known_bundles, total_bytes
from omero_archive.errors import ArchiveError
from omero_archive.states import Residency
from omero_archive.steps.recall import recall as bring
from omero_archive.steps.recall import request_recall
from omero_archive.steps.release import load

Now = Annotated[bool, typer.Option("--now/--later", help="Bring the bytes now, or leave it to `run` or a worker.")]


def recall(
    objects: Objects = None,
    everything: All = False,
    now: Now = True,
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Bring bytes back near, whole bundles, each file compared with the SHA-256 of its original."""
    items = Items(command="recall", output=Output(as_json=as_json), dry_run=dry_run)
    away = [Residency.OFFLINE, Residency.RECALLING]
    with opened(settings) as site, items.output.progress() as told:
        site.progress = told
        names = known_bundles(site, objects, everything=everything, residency=away)
        told.expect("recall", total_bytes(site, names))
        for name in names:
            try:
                bundle = load(site, name)
                size = human_size(bundle.size_bytes)
                if bundle.residency not in away:
                    if not dry_run:
                        bring(site, name)  # undoes an eviction that was interrupted
                    items.done(name, f"is {bundle.residency} already", residency=bundle.residency)
                elif dry_run:
                    items.done(name, f"would be recalled, {size}", residency=bundle.residency)
                else:
                    request_recall(site, name, by=who(), reason=reason)
                    if now:
                        bring(site, name)
                    items.done(
                        name, f"near again, {size}" if now else "asked for", residency=load(site, name).residency
                    )
            except ArchiveError as error:
                items.failed(name, error)
        items.close()
