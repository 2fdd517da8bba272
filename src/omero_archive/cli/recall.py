"""`recall` asks for bytes to come near, or gives up asking."""

from collections.abc import Sequence
from typing import Annotated

import typer

from omero_archive.app import who
from omero_archive.catalogue import recalls
from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import All, DryRun, Json, Objects, Reason, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.things import known_bundles, total_bytes
from omero_archive.errors import ArchiveError, WrongUse
from omero_archive.model import BundleName
from omero_archive.states import Residency
from omero_archive.steps.cancel import cancel as give_up
from omero_archive.steps.expected import expected
from omero_archive.steps.recall import recall as bring
from omero_archive.steps.recall import request_recall
from omero_archive.steps.release import load
from omero_archive.steps.site import Site

Now = Annotated[
    bool | None, typer.Option("--now/--later", help="Bring the bytes now (default), or leave it to `run` or a worker.")
]
Cancel = Annotated[
    bool, typer.Option("--cancel", help="Give up recalls that were asked for; with --all every open one.")
]

AWAY = (Residency.OFFLINE, Residency.RECALLING)


def recall(
    objects: Objects = None,
    everything: All = False,
    now: Now = None,
    cancel: Cancel = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Bring bytes back near, whole bundles, each file compared with the SHA-256 of its original."""
    if cancel and (now is not None or reason is not None):
        raise WrongUse("recall: --cancel goes with neither --now, --later nor --reason.")
    items = Items(command="recall", output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site, items.output.progress() as told:
        site.progress = told
        if cancel:
            _cancel(site, items, _open_ones(site) if everything and not objects else known(site, objects, everything))
        else:
            names = known(site, objects, everything)
            told.expect("recall", total_bytes(site, names))
            for name in names:
                _recall(site, items, name, now=now is not False, reason=reason)
        items.close()


def known(site: Site, objects: Sequence[str] | None, everything: bool) -> list[BundleName]:
    """The bundles of what was typed, or with `--all` those that are away."""
    return known_bundles(site, objects, everything=everything, residency=AWAY)


def _open_ones(site: Site) -> list[BundleName]:
    with site.catalogue.begin() as connection:
        return recalls.open_ones(connection)


def _cancel(site: Site, items: Items, names: Sequence[BundleName]) -> None:
    for name in names:
        try:
            cancelled = give_up(site, name, dry_run=items.dry_run)
        except ArchiveError as error:
            items.failed(name, error)
        else:
            items.done(name, cancelled.text, cancelled=cancelled.was_open, residency=load(site, name).residency)


def _recall(site: Site, items: Items, name: BundleName, *, now: bool, reason: str | None) -> None:
    try:
        bundle = load(site, name)
        size = human_size(bundle.size_bytes)
        if bundle.residency not in AWAY:
            if not items.dry_run:
                bring(site, name)  # undoes an eviction that was interrupted
            items.done(name, f"is {bundle.residency} already", residency=bundle.residency)
        elif items.dry_run:
            items.done(name, f"would be recalled, {size}", residency=bundle.residency)
        else:
            request_recall(site, name, by=who(), reason=reason)
            if now:
                bring(site, name)
            when = expected(site, bundle.id)
            text = f"near again, {size}" if now else "asked for" + ("" if when is None else f"; {when.text}")
            at = None if when is None else when.at
            items.done(name, text, residency=load(site, name).residency, expected_at=at)
    except ArchiveError as error:
        items.failed(name, error)
