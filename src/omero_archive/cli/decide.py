"""`approve`, `decline` and `hold`: what an administrator decides about bundles."""

from collections.abc import Callable
from typing import Annotated

import sqlalchemy as sa
import typer

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import All, DryRun, Json, Objects, Reason, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.cli.things import known_bundles
from omero_archive.errors import ArchiveError, WrongUse
from omero_archive.model import BundleName
from omero_archive.states import DECISION_MOVES, Decision, check_move
from omero_archive.steps.release import load
from omero_archive.steps.site import Site

Lift = Annotated[bool, typer.Option("--lift", help="Take the hold away again.")]


def approve(
    objects: Objects = None,
    everything: All = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Approve requests: their files are copied from the next `run` on."""
    items = Items(command="approve", output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site:
        _settle(site, items, Decision.APPROVED, _requests(site, objects, everything=everything), reason)


def decline(
    objects: Objects = None,
    everything: All = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Decline requests; nothing was copied, and nothing is."""
    items = Items(command="decline", output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site:
        _settle(site, items, Decision.DECLINED, _requests(site, objects, everything=everything), reason)


def hold(
    objects: Objects = None,
    everything: All = False,
    reason: Reason = None,
    lift: Lift = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Put bundles on hold: not copied, released or evicted until the hold is lifted. Recalls still work."""
    if lift == (reason is not None):
        raise WrongUse("hold: give either --reason or --lift.")
    items = Items(command="hold", output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site:

        def act(connection: sa.Connection, bundle: BundleRecord) -> str:
            if bundle.hold_reason == reason:
                return "was not on hold" if lift else "was on hold already"
            if not dry_run:
                bundles.hold(connection, bundle, reason)
            return "hold lifted" if lift else f"on hold: {reason}"

        _each(site, items, list(known_bundles(site, objects, everything=everything)), act)


def _requests(site: Site, objects: list[str] | None, *, everything: bool) -> list[str]:
    return list(known_bundles(site, objects, everything=everything, decision=[Decision.REQUESTED]))


def _settle(site: Site, items: Items, new: Decision, names: list[str], reason: str | None) -> None:
    """Decide about each of these bundles; what is approved gets its copies."""

    def act(connection: sa.Connection, bundle: BundleRecord) -> str:
        if bundle.decision is new:
            return f"was {new} already"
        check_move(DECISION_MOVES, old=bundle.decision, new=new, subject=bundle.name)
        if not items.dry_run:
            bundles.decide(connection, bundle, new, note=reason)
            if new is Decision.APPROVED:
                copies.want(connection, bundle.id, site.settings.service_names)
        return f"{bundle.decision} -> {new}"

    _each(site, items, names, act)


def _each(site: Site, items: Items, names: list[str], act: Callable[[sa.Connection, BundleRecord], str]) -> None:
    for name in names:
        try:
            bundle = load(site, BundleName(name))
            with site.catalogue.begin() as connection:
                text = act(connection, bundle)
        except ArchiveError as error:
            items.failed(name, error)
        else:
            items.done(name, text)
    items.close()
