"""`rebuild` makes a lost catalogue anew from the archive's own manifests."""

from collections import Counter
from typing import Annotated

import typer

from omero_archive.cli.items import Items
from omero_archive.cli.open import opened
from omero_archive.cli.options import DryRun, Json, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.errors import WrongUse
from omero_archive.model import ServiceName
from omero_archive.steps.rebuild import Plan, plan
from omero_archive.steps.rebuild import rebuild as step
from omero_archive.steps.rebuild_bundle import Rebuilt
from omero_archive.steps.site import Site

Only = Annotated[
    list[str] | None,
    typer.Option("--service", help="Read only this service; may be given again. Default: all.", show_default=False),
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        help="Rebuild without this service, which cannot be asked now: its copies will not be known.",
        show_default=False,
    ),
]
GoOn = Annotated[
    bool, typer.Option("--continue", help="Go on with a rebuild that was killed, or that left bundles out.")
]


def rebuild(
    service: Only = None,
    without: Without = None,
    go_on: GoOn = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Make an empty catalogue anew from the manifests in the archive, the disk and OMERO's database.

    For a catalogue that is lost: run `init` first, then this, then `run`, which verifies the copies again. Reads the
    manifests only, no archived file, and changes neither the archive nor OMERO. Refused if the catalogue has bundles.
    """
    items = Items(command="rebuild", output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site, items.output.progress() as told:
        site.progress = told
        wanted = plan(site, _services(site, service, without), go_on=go_on)
        for stranger in wanted.strangers:
            items.output.say(f"Not a manifest of ours, passed over: {stranger}")
        made: list[Rebuilt] = []
        for outcome in step(site, wanted, dry_run=dry_run):
            if isinstance(outcome, Rebuilt):
                made.append(outcome)
                _tell(items, outcome)
            else:
                items.failed(outcome.name, outcome.error)
        _close(items, wanted, made)


def _services(site: Site, only: list[str] | None, without: list[str] | None) -> list[ServiceName]:
    """The services to read, in the policy's order. Raises `WrongUse`."""
    if only and without:
        raise WrongUse("give --service or --without, not both.")
    for name in (*(only or ()), *(without or ())):
        if ServiceName(name) not in site.services:
            raise WrongUse(f"{name}: the settings have no service of that name.")
    every = dict.fromkeys((*site.settings.service_names, *site.services))
    chosen = [name for name in every if (name in only if only else name not in (without or ()))]
    if not chosen:
        raise WrongUse("--without leaves no service to read manifests from.")
    return chosen


def _tell(items: Items, made: Rebuilt) -> None:
    copies = [{"service": service, "state": state, "copies": count} for (service, state), count in made.copies.items()]
    text = f"{made.residency}, {made.files} files, {human_size(made.size_bytes)}"
    text += "".join(f", {one['copies']} {one['state']} on {one['service']}" for one in copies)
    if made.intent is not None:
        text += f"; {made.intent} was interrupted, run it again"
    if made.attention is not None:
        text += f"; NEEDS ATTENTION: {made.attention}"
    text += "".join(f"; {difference}" for difference in made.differences)
    items.done(
        made.name,
        text,
        residency=made.residency,
        intent=made.intent,
        files=made.files,
        size_bytes=made.size_bytes,
        service=made.service,
        manifest=made.directory,
        copies=copies,
        attention=made.attention,
        differences=made.differences,
    )


def _close(items: Items, wanted: Plan, made: list[Rebuilt]) -> None:
    copies: Counter[str] = Counter()
    for one in made:
        copies.update({f"{service} {state}": count for (service, state), count in one.copies.items()})
    facts: dict[str, object] = {
        "files": sum(one.files for one in made),
        "size_bytes": sum(one.size_bytes for one in made),
        "residency": dict(Counter(str(one.residency) for one in made)),
        "copies": dict(copies),
        "with_differences": sum(bool(one.differences) for one in made),
        "need_attention": sum(one.attention is not None for one in made),
        "passed_over": wanted.passed_over,
        "strangers": wanted.strangers,
    }
    say = items.output.say
    if wanted.passed_over:
        say(f"{wanted.passed_over} bundles are in the catalogue from an earlier rebuild.")
    if made:
        residency = ", ".join(f"{count} {name}" for name, count in Counter(str(one.residency) for one in made).items())
        say(
            f"{len(made)} bundles ({residency}), {facts['files']} files, {human_size(sum(m.size_bytes for m in made))}."
        )
        say(f"{facts['with_differences']} differ from OMERO, {facts['need_attention']} need attention.")
    if made and not items.dry_run:
        say("Next: `omero-archive run` reads and confirms the copies again; until then nothing is released or evicted.")
        say("Then: `omero-archive reconcile`, which names and repairs what OMERO and the disk have otherwise.")
    items.close(**facts)
