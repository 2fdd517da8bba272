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
from omero_archive.settings import LONGEST, parse_duration
from omero_archive.steps.release import load

_DAY = timedelta(days=1)

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
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return _after(text)
    left = day - utc_now()
    if left > LONGEST:
        raise WrongUse(f"--until {text}: that is more than 100 years away; nothing was pinned.")
    if left <= -_DAY:
        # Who mistypes the year believes the bytes safe from eviction, and they are not.
        raise WrongUse(f"--until {text}: that day is over; nothing was pinned.")
    return day + _DAY


def _after(text: str) -> datetime:
    try:
        duration = parse_duration(text)
    except ValueError as error:
        problem = f"is neither a date such as 2027-01-31 nor a duration such as 14d: {error}"
        raise WrongUse(f"--until {text!r} {problem}.") from error
    if not duration:
        raise WrongUse(f"--until {text}: that is now; nothing was pinned. `--off` takes a pin away.")
    return utc_now() + duration
