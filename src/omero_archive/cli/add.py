"""`add` puts objects under archiving; `request` asks an administrator to."""

from datetime import UTC, date, datetime
from typing import Annotated

import typer

from omero_archive.app import who
from omero_archive.catalogue.bundles import Request
from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import DryRun, Json, Objects, Reason, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.things import closure
from omero_archive.errors import ArchiveError, WrongUse
from omero_archive.omero.closure import RefusedBundle
from omero_archive.states import Decision
from omero_archive.steps import add as steps
from omero_archive.steps.site import Site

KeepUntil = Annotated[
    datetime | None,
    typer.Option(
        "--keep-until", formats=["%Y-%m-%d"], help="Until when the archive has to keep it.", show_default=False
    ),
]
For = Annotated[str | None, typer.Option("--for", help="The user who wishes it; default: you.", show_default=False)]


def add(
    objects: Objects = None,
    reason: Reason = None,
    keep_until: KeepUntil = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Put objects under archiving: all files and all images of every fileset they touch.

    Nothing is copied yet; `run` does that. In-place imports, hard links and missing files are refused with their
    reasons. Adding again picks up what OMERO gained since, and lets failed copies be tried again.
    """
    items = Items(command="add", output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site:
        request = Request(by=who(), reason=reason, keep_until=_date(keep_until))
        _each(site, items, objects, request, Decision.APPROVED)


def request(
    objects: Objects = None,
    wished_by: For = None,
    reason: Reason = None,
    keep_until: KeepUntil = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Ask for objects to be archived; an administrator approves or declines."""
    items = Items(command="request", output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site:
        wish = Request(by=wished_by or who(), reason=reason, keep_until=_date(keep_until))
        _each(site, items, objects, wish, Decision.REQUESTED)


def _each(site: Site, items: Items, objects: list[str] | None, request: Request, decision: Decision) -> None:
    total, found = 0, False
    for bundle in closure(site, objects):  # one at a time: a group may have a million files
        found = True
        try:
            if isinstance(bundle, RefusedBundle):
                raise bundle.reason
            added = steps.add(site, bundle, request, decision=decision, dry_run=items.dry_run)
        except ArchiveError as error:
            items.failed(bundle.name, error)
        else:
            total += added.size_bytes
            text = f"{added.did} ({added.files} files, {human_size(added.size_bytes)})"
            items.done(added.name, text, files=added.files, size_bytes=added.size_bytes, is_new=added.is_new)
    if not found:
        raise WrongUse(f"{', '.join(objects or ())}: there are no images with files.")
    items.close(size_bytes=total)


def _date(moment: datetime | None) -> date | None:
    return None if moment is None else moment.replace(tzinfo=UTC).date()
