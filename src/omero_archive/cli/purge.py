"""`reconcile --purge` deletes the copies of named bundles that OMERO has deleted."""

import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from omero_archive.cli.items import Items
from omero_archive.cli.output import Output, human_size
from omero_archive.errors import ArchiveError, WrongUse
from omero_archive.model import BundleName
from omero_archive.steps.reconcile.purge import Doomed, purge, purge_dry
from omero_archive.steps.site import Site

Yes = Annotated[bool, typer.Option("--yes", help="Purge without asking; needed where there is no terminal to ask on.")]

_NAME = re.compile(r"(Fileset|Image)-\d+")


def purge_each(site: Site, output: Output, names: Sequence[str], *, yes: bool, dry_run: bool) -> None:
    """Purge bundles, each on its own, after saying what goes and asking."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise WrongUse(f"--purge: {name!r} is no bundle's name in full, such as Fileset-12.")
    if not (yes or dry_run) and (output.as_json or not sys.stdin.isatty()):
        raise WrongUse("--purge deletes copies for good: give --yes, or --dry-run to see what would go.")
    site.catalogue.require_schema()
    site.omero.check_version()
    items = Items(command="reconcile", output=output, dry_run=dry_run)
    for name in dict.fromkeys(map(BundleName, names)):
        try:
            _one(site, items, name, yes=yes)
        except ArchiveError as error:
            items.failed(name, error)
    items.close()


def _one(site: Site, items: Items, name: BundleName, *, yes: bool) -> None:
    doomed = purge_dry(site, name)
    if items.dry_run:
        items.done(name, f"would delete {_told(doomed)}", **_facts(doomed))
        return
    if not yes and not typer.confirm(f"{name}: delete {_told(doomed)}, for good?"):
        items.output.say(f"{name}: not purged.")
        return
    doomed = purge(site, name)
    items.done(name, f"deleted {_told(doomed)}", **_facts(doomed))


def _told(doomed: Doomed) -> str:
    where = sorted({service for service, _, _ in doomed.objects})
    objects = f"{len(doomed.objects)} objects ({human_size(doomed.size_bytes)}) on {', '.join(where) or 'no service'}"
    return f"{objects} and {human_size(doomed.near_bytes)} near"


def _facts(doomed: Doomed) -> dict[str, object]:
    return {
        "near_bytes": doomed.near_bytes,
        "size_bytes": doomed.size_bytes,
        "objects": [{"service": service, "key": key, "sha256": sha256} for service, key, sha256 in doomed.objects],
    }
