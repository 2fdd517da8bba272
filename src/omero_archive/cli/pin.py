"""`pin` keeps bytes near."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from omero_archive.app import utc_now
from omero_archive.catalogue import bundles
from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import DryRun, Json, Objects, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.cli.things import known_bundles
from omero_archive.errors import ArchiveError, WrongUse
from omero_archive.settings import parse_duration
from omero_archive.steps.release import load

Until = Annotated[
    str | None, typer.Option("--until", help="A date (2027-01-31) or a duration from now (14d).", show_default=False)
]
Off = Annotated[bool, typer.Option("--off", help="Take the pin away.")]


def pin(
    objects: Objects = None,
    until: Until = None,
    off: Off = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Keep bytes near until a day: neither `evict` nor a full disk takes them. Recall them first if they are away."""
    if off == (until is not None):
        raise WrongUse("pin: give either --until or --off.")
    end = None if until is None else _moment(until)
    items = Items(command="pin", output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site:
        for name in known_bundles(site, objects, everything=False):
            try:
                bundle = load(site, name)
                if not dry_run and bundle.pinned_until != end:
                    with site.catalogue.begin() as connection:
                        bundles.pin(connection, bundle, end)
            except ArchiveError as error:
                items.failed(name, error)
            else:
                text = "pin taken away" if end is None else f"{bundle.residency}, pinned until {end:%Y-%m-%d %H:%M %Z}"
                items.done(name, text, pinned_until=end, residency=bundle.residency)
        items.close()


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except ValueError:
        pass
    try:
        return utc_now() + parse_duration(text)
    except ValueError as error:
        raise WrongUse(f"--until {text!r} is neither a date such as 2027-01-31 nor a duration such as 14d.") from error
