"""`release` puts links in the originals' places, with OMERO off."""

from datetime import timedelta
from typing import Annotated

import typer

from omero_archive.catalogue import bundles
from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import All, DryRun, Json, Objects, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.things import known_bundles, total_bytes
from omero_archive.errors import ArchiveError, Busy
from omero_archive.model import BundleName
from omero_archive.states import Decision, Residency
from omero_archive.steps.evict import evict
from omero_archive.steps.release import load, release_dry
from omero_archive.steps.release import release as step
from omero_archive.steps.site import Site

Rehash = Annotated[bool, typer.Option("--rehash", help="Read originals again that were touched since they were read.")]


def release(
    objects: Objects = None,
    everything: All = False,
    rehash: Rehash = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Replace originals by links, with OMERO off; then evict, unless `keep_originals` is set.

    Every file needs a permit: enough copies, each durable and confirmed just now. Marks the images archived in
    OMERO's database. An interrupted release is finished by running it again.
    """
    items = Items(command="release", output=Output(as_json=as_json), dry_run=dry_run)
    freed = 0
    with opened(settings) as site, site.omero.keeping_connections(), items.output.progress() as told:
        site.progress = told
        again = rehash or site.settings.release.rehash
        names = _names(site, objects, everything=everything)
        told.expect("release", total_bytes(site, names))
        for name in names:
            if site.breaker.is_open:
                break
            try:
                if dry_run:
                    release_dry(site, name, rehash=again)
                    items.done(name, "would be released")
                else:
                    freed += _release(site, items, name, rehash=again)
            except ArchiveError as error:
                items.failed(name, error)
                site.breaker.count(failed=1)
            else:
                site.breaker.count(done=1)
        if site.breaker.is_open:
            left = len(names) - site.breaker.tried
            items.output.say(f"Releasing stopped by itself: {site.breaker.reason}. {left} were not tried; nothing of")
            items.output.say("them was changed. Look at the cause first, then run this again.")
        items.close(freed_bytes=freed, not_tried=len(names) - site.breaker.tried, stopped=site.breaker.reason)


def _release(site: Site, items: Items, name: BundleName, *, rehash: bool) -> int:
    """Release one bundle, and evict it if that is wished for; the bytes freed."""
    step(site, name, rehash=rehash)
    try:
        freed = _evict(site, name)
    except Busy as error:
        items.done(name, f"released; links in place. {error}", freed_bytes=0)  # `run` evicts it when its time has come
        return 0
    items.done(name, _told(freed), freed_bytes=freed or 0)
    return freed or 0


def _names(site: Site, objects: list[str] | None, *, everything: bool) -> list[BundleName]:
    names = known_bundles(
        site, objects, everything=everything, residency=[Residency.RESIDENT], decision=[Decision.APPROVED]
    )
    if everything:
        with site.catalogue.begin() as connection:
            names += [bundle.name for bundle in bundles.every(connection) if bundle.intent == "release"]
    return list(dict.fromkeys(names))


def _evict(site: Site, name: BundleName) -> int | None:
    """Evict at once, unless originals are kept a while (None)."""
    if site.settings.release.keep_originals > timedelta(0) or load(site, name).residency is not Residency.ONLINE:
        return None
    return evict(site, name)


def _told(freed: int | None) -> str:
    if freed is None:
        return "released; links in place, bytes still near"
    return f"released and evicted, {human_size(freed)} freed"
