"""`reconcile` compares everything with everything, and repairs what is safe."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Annotated

import typer

from omero_archive.app import open_site
from omero_archive.cli.options import DryRun, Json, Objects, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.cli.purge import Yes, purge_each
from omero_archive.cli.things import look_up
from omero_archive.errors import ArchiveError, Damage, Unavailable, WrongUse
from omero_archive.model import ServiceName
from omero_archive.settings import load_settings, settings_file
from omero_archive.steps.reconcile.differences import DAMAGE, Difference, Kind, NotLooked
from omero_archive.steps.reconcile.fix import fix as repair
from omero_archive.steps.reconcile.look import Scope, look
from omero_archive.steps.site import Site

EXAMPLES = 3
"""Differences of a kind that are shown to people; `--json` has all."""

Everything = Annotated[bool, typer.Option("--all", help="Everything; the default where no object is named.")]
OneService = Annotated[
    str | None, typer.Option("--service", help="Look at this archive service and nothing else.", show_default=False)
]
Read = Annotated[
    bool, typer.Option("--read", help="Read and hash files that lie in links' places, instead of size and mtime.")
]
Fix = Annotated[bool, typer.Option("--fix", help="Repair the differences that are safe to repair; deletes nothing.")]
Purge = Annotated[
    list[str] | None,
    typer.Option(
        "--purge",
        help="Delete the copies of this bundle, typed in full (Fileset-12), which OMERO has deleted. Looks at nothing "
        "else.",
        show_default=False,
    ),
]


def reconcile(
    objects: Objects = None,
    everything: Everything = False,
    service: OneService = None,
    read: Read = False,
    fix: Fix = False,
    purge: Purge = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Compare OMERO's database, its disk, near bytes, archive services and catalogue, and name each difference.

    Changes nothing without --fix, deletes nothing without --purge and a bundle's name. A place that cannot be looked
    at, such as a disk that is not mounted, is named, and nothing is concluded about it. Ends with 0 if there is no
    difference, 1 if some are left, 3 if a purge was refused, 4 if a place could not be looked at, 5 if any is damage.
    """
    output = Output(as_json=as_json)
    if everything and objects:
        raise WrongUse("name objects, or give --all.")
    if purge and (objects or everything or fix or read or service):
        raise WrongUse("--purge goes with bundles' names alone: nothing else may be named with it.")
    with open_site(load_settings(settings_file(settings))) as site, output.progress() as told:
        site.progress = told
        if purge:
            purge_each(site, output, purge, yes=yes, dry_run=dry_run)
            return
        report = Report(output=output, is_fixing=fix and not dry_run)
        scope = _scope(site, objects, service, report, is_read=read)
        with site.omero.keeping_connections():
            for finding in look(site, scope):
                report.take(site, finding)
    report.close(dry_run=dry_run)


def _scope(site: Site, objects: list[str] | None, service: str | None, report: "Report", *, is_read: bool) -> Scope:
    site.catalogue.require_schema()
    if service is not None and service not in site.services:
        raise WrongUse(f"--service: there is no [services.{service}]; there are {', '.join(site.services)}.")
    names = None
    if objects:
        named = look_up(site, objects)
        named.tell_others(report.output)
        report.not_archived = list(named.others)
        names = tuple(record.name for record in named.records)
    return Scope(names=names, service=None if service is None else ServiceName(service), is_read=is_read)


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found, what was repaired, and what was left and why."""

    output: Output
    is_fixing: bool
    rows: list[dict[str, object]] = field(default_factory=list)  # all of them, for --json only
    examples: dict[Kind, list[tuple[str, str]]] = field(default_factory=dict)
    found: Counter[Kind] = field(default_factory=Counter)
    fixed: Counter[Kind] = field(default_factory=Counter)
    not_looked: list[NotLooked] = field(default_factory=list)
    not_archived: list[str] = field(default_factory=list)  # of the objects named

    def take(self, site: Site, finding: Difference | NotLooked) -> None:
        """One finding: repaired if that is wanted and safe, and remembered."""
        if isinstance(finding, NotLooked):
            self.not_looked.append(finding)
            return
        self.found[finding.kind] += 1
        outcome, text = "found", ""
        if self.is_fixing and finding.is_safe:
            try:
                outcome, text = "fixed", repair(site, finding)
                self.fixed[finding.kind] += 1
            except ArchiveError as error:
                outcome, text = "left", str(error)
        if self.output.as_json:
            self.rows.append({**asdict(finding), "outcome": outcome, "text": text})
        shown = self.examples.setdefault(finding.kind, [])
        if len(shown) < EXAMPLES:
            whose = f"{finding.bundle}: " if finding.bundle else ""
            then = {"fixed": f"fixed: {text}", "left": f"left: {text}"}.get(outcome, f"would: {finding.would}")
            shown.append((f"  {whose}{finding.sentence}", f"    {then}"))

    def close(self, *, dry_run: bool) -> None:
        """The report; ends the command with the exit code if it is not 0."""
        self._say()
        total, fixed = self.found.total(), self.fixed.total()
        damage = sum(count for kind, count in self.found.items() if kind in DAMAGE)
        summary = {
            "found": total,
            "fixed": fixed,
            "left": total - fixed,
            "damage": damage,
            "not_looked": len(self.not_looked),
        }
        self.output.document(
            {
                "command": "reconcile",
                "dry_run": dry_run,
                "differences": self.rows,
                "not_looked": [asdict(one) for one in self.not_looked],
                "not_archived": self.not_archived,
                "summary": summary,
            }
        )
        code = Damage.exit_code if damage else Unavailable.exit_code if self.not_looked else int(total > fixed)
        if code:
            raise typer.Exit(code)

    def _say(self) -> None:
        for kind in sorted(self.found, key=list(Kind).index):
            count, fixed = self.found[kind], self.fixed[kind]
            self.output.say(f"{count} x {kind}" + (f", {fixed} fixed" if fixed else ""))
            for line in chain.from_iterable(self.examples[kind]):
                self.output.say(line)
            if count > EXAMPLES:
                self.output.say(f"  and {count - EXAMPLES} more; --json shows all.")
        for one in self.not_looked:
            self.output.say(f"Not looked at: {one.place} {one.name}: {one.reason} Nothing is concluded about it.")
        total, fixed = self.found.total(), self.fixed.total()
        if total:
            self.output.say(f"{total} differences; {fixed} fixed, {total - fixed} left.")
        else:
            self.output.say("No difference." if not self.not_looked else "No difference in what could be looked at.")
