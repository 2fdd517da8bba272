"""`audit` compares copies in the archive again, and heals them where that is asked for."""

import re
import secrets
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer

from omero_archive.catalogue import audits
from omero_archive.catalogue.audits import AuditSlice, Choice, Scope
from omero_archive.cli.audit_report import Report
from omero_archive.cli.open import opened
from omero_archive.cli.options import DryRun, Json, Objects, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.cli.things import look_up
from omero_archive.errors import WrongUse
from omero_archive.model import ServiceName
from omero_archive.settings import parse_size
from omero_archive.steps.audit import answered
from omero_archive.steps.audit import audit as step
from omero_archive.steps.audit_manifests import audit_manifests
from omero_archive.steps.heal import heal as mend
from omero_archive.steps.pace import Pace
from omero_archive.steps.site import Site

All = Annotated[bool, typer.Option("--all", help="All copies of every approved bundle.")]
Due = Annotated[bool, typer.Option("--due", help="Only copies last compared longer ago than `[audit] interval`.")]
Services = Annotated[
    list[str] | None, typer.Option("--service", help="Only on this service; may be given again.", show_default=False)
]
Sample = Annotated[
    str | None, typer.Option("--sample", help="A random part of the copies, such as 1%.", show_default=False)
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="The number that a sample is drawn by, to draw it again.", show_default=False),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many copies, least recently compared first.")
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate", help="At most so many bytes a second from each service, such as '50 MB'; else `[audit] rate`."
    ),
]
Stage = Annotated[
    bool, typer.Option("--stage", help="Ask services to bring offline bytes online; audit again to compare them.")
]
Heal = Annotated[
    bool,
    typer.Option("--heal", help="Write damaged and missing copies anew, from bytes with the right SHA-256."),
]


def audit(
    objects: Objects = None,
    everything: All = False,
    due: Due = False,
    service: Services = None,
    sample: Sample = None,
    seed: Seed = None,
    limit: Limit = None,
    rate: Rate = None,
    stage: Stage = False,
    heal: Heal = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Compare copies in the archive with what was written, least recently compared first: of objects, or of all.

    Bytes that a service has offline are not brought back: the service is asked for its own digest of them. What could
    not be read changes nothing; other bytes make a copy DAMAGED. May be killed and run again: it goes on with the rest.
    With --heal, copies that are damaged or missing are written anew and what was damaged is kept aside; then run `run`.
    """
    if everything and objects:
        raise WrongUse("name objects, such as Image:1 or Dataset:5, or give --all.")
    if not (objects or everything or due or sample or limit):
        # A sample, or so many, of all is a modest wish; all of it has to be said.
        raise WrongUse("name objects, such as Image:1 or Dataset:5, or give --all, --due, --sample or --limit.")
    report = Report(output=Output(as_json=as_json), dry_run=dry_run)
    with opened(settings) as site, report.output.progress() as told:
        site.progress = told
        choice = Choice(
            scope=_scope(site, objects, service, report),
            compared_before=_before(site) if due else None,
            part=None if sample is None else _part(sample),
            seed=secrets.randbelow(1 << 31) if seed is None else seed,
            limit=limit,
        )
        pace = Pace(rate=site.settings.audit.rate if rate is None else _rate(rate))
        pieces = _chosen(site, choice)
        report.begin(site, choice, pieces)
        told.expect("audit", sum(piece.size_bytes for piece in pieces))
        if not dry_run:
            _audit(site, pieces, report, pace=pace, stage=stage, heal=heal)
            if heal:
                _heal(site, choice.scope, report)
            report.remaining(site, choice.scope)
    report.close()


def _audit(site: Site, pieces: list[AuditSlice], report: Report, *, pace: Pace, stage: bool, heal: bool) -> None:
    seen: set[tuple[ServiceName, int]] = set()
    for piece in pieces:
        found = step(site, piece, pace=pace, stage=stage)
        report.take(site, found)
        new = sorted(number for number in answered(found) if (piece.service, number) not in seen)
        seen.update((piece.service, number) for number in new)
        report.take_manifests(audit_manifests(site, piece.service, new, heal=heal))


def _heal(site: Site, scope: Scope, report: Report) -> None:
    """Heal what the audit found and what was broken before, bundle by bundle."""
    with site.catalogue.begin() as connection:
        broken = sorted({copy.file.bundle_id for copy in audits.broken(connection, scope)})
        names = audits.names(connection, broken)
    for number in broken:
        report.mend(names[number], lambda name: mend(site, name, services=scope.services))


def _chosen(site: Site, choice: Choice) -> list[AuditSlice]:
    work = site.settings.work
    with site.catalogue.begin() as connection:
        return audits.chosen(connection, choice, size_bytes=work.slice_size, files=work.slice_files)


def _scope(site: Site, objects: list[str] | None, services: list[str] | None, report: Report) -> Scope:
    known = tuple(site.services)
    if unknown := [name for name in services or () if name not in known]:
        raise WrongUse(f"--service: {', '.join(unknown)}: there are {', '.join(known)}.")
    scope = Scope(services=tuple(ServiceName(name) for name in services) if services else known)
    if objects:
        named = look_up(site, objects)
        report.leave_out(named)
        scope = replace(scope, bundle_ids=tuple(record.id for record in named.records))
    return scope


def _before(site: Site) -> datetime:
    if not site.settings.audit.interval:
        raise WrongUse("--due: `[audit] interval` is 0 in the settings, so that no copy is ever due by itself.")
    return site.clock() - site.settings.audit.interval


def _part(text: str) -> float:
    """`1%` as 0.01."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise WrongUse(f"--sample: {text!r} is not a part such as 1% or 0.5%.")
    return float(match[1]) / 100


def _rate(text: str) -> int:
    try:
        rate = parse_size(text)
    except ValueError as error:
        raise WrongUse(f"--rate: {error}.") from error
    if rate < 1:
        raise WrongUse("--rate: nothing could be read at that rate.")
    return rate
