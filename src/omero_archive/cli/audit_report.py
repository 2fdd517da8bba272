"""What an audit tells: lines for problems, a summary, a JSON document, one exit code."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import typer

from omero_archive.catalogue import audits
from omero_archive.catalogue.audits import BROKEN, AuditSlice, Choice, Scope
from omero_archive.cli.items import exit_code
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.things import Known
from omero_archive.errors import ArchiveError, Damage, ObjectOffline
from omero_archive.model import BundleName
from omero_archive.states import CopyState
from omero_archive.steps.audit import Finding, Verdict
from omero_archive.steps.audit_manifests import ManifestFinding, ManifestVerdict
from omero_archive.steps.heal import Healed
from omero_archive.steps.site import Site

_WHY_NOT = {
    CopyState.PENDING: "not written yet",
    CopyState.WRITTEN: "not verified yet; run `omero-archive run`",
    CopyState.DAMAGED: "damaged; heal them: the same with `--heal`",
    CopyState.MISSING: "missing; heal them: the same with `--heal`",
}
_FINE = (Verdict.GOOD, Verdict.VOUCHED, Verdict.CANNOT_TELL)
_FINE_MANIFEST = (ManifestVerdict.GOOD, ManifestVerdict.CANNOT_TELL)


_SUMMARY = {
    Verdict.VOUCHED: "offline and good by the service's digest",
    Verdict.DAMAGED: "damaged",
    Verdict.MISSING: "missing",
    Verdict.UNREAD: "could not be read",
    Verdict.CANNOT_TELL: "cannot be told (offline, and the service reports no digest)",
}


@dataclass(slots=True, kw_only=True)
class Report:
    """The account of one audit."""

    output: Output
    dry_run: bool
    _codes: Counter[int] = field(default_factory=Counter)
    _copies: Counter[Verdict] = field(default_factory=Counter)
    _manifests: Counter[ManifestVerdict] = field(default_factory=Counter)
    _healed: int = 0
    _not_healed: int = 0
    _waiting: int = 0  # of those that were not healed
    _read_bytes: int = 0
    _problems: list[dict[str, object]] = field(default_factory=list)
    _mended: list[dict[str, object]] = field(default_factory=list)
    _facts: dict[str, object] = field(default_factory=dict)

    # ---- telling

    def begin(self, site: Site, choice: Choice, pieces: Sequence[AuditSlice]) -> None:
        """What will be read, and which copies of the scope cannot be audited and why."""
        number, size_bytes = Counter[str](), Counter[str]()
        for piece in pieces:
            number[piece.service] += len(piece.ids)
            size_bytes[piece.service] += piece.size_bytes
        if choice.part is not None:
            self.output.say(f"A sample of {choice.part:.4%}, drawn with --seed {choice.seed}.")
            self._facts["seed"] = choice.seed
        if self.dry_run:
            rows = [[name, number[name], human_size(size_bytes[name]), _how(site, name)] for name in sorted(number)]
            self.output.table(["would be audited on", "copies", "size", "how"], rows)
        self._facts["chosen"] = [
            {"service": name, "copies": number[name], "size_bytes": size_bytes[name]} for name in sorted(number)
        ]
        with site.catalogue.begin() as connection:
            counts = audits.counts(connection, choice.scope, tuple(_WHY_NOT))
        for one in counts:
            self.output.say(f"Not auditable on {one.service}: {one.copies} copies that are {_WHY_NOT[one.state]}.")
        self._facts["not_auditable"] = [
            {"service": one.service, "state": one.state, "copies": one.copies} for one in counts
        ]

    def leave_out(self, named: Known) -> None:
        """What of the objects named is not under archiving."""
        named.tell_others(self.output)
        self._facts["not_archived"] = list(named.others)

    def take(self, site: Site, found: Sequence[Finding]) -> None:
        """What was found of one slice: a line for each bundle that has a problem."""
        by_bundle: dict[int, list[Finding]] = {}
        for finding in found:
            self._copies[finding.verdict] += 1
            if finding.verdict is Verdict.GOOD:
                self._read_bytes += finding.copy.file.source.fixity.size_bytes
            if finding.verdict is not Verdict.CANNOT_TELL:
                self._codes[_code(finding)] += 1
            if finding.verdict not in _FINE:
                by_bundle.setdefault(finding.copy.file.bundle_id, []).append(finding)
        with site.catalogue.begin() as connection:
            names = audits.names(connection, list(by_bundle))
        for number, problems in by_bundle.items():
            self._tell(names[number], problems)

    def take_manifests(self, found: Sequence[ManifestFinding]) -> None:
        """What was found of manifests."""
        for finding in found:
            self._manifests[finding.verdict] += 1
            if finding.verdict is ManifestVerdict.DAMAGED:
                self._codes[Damage.exit_code] += 1
            elif finding.error is not None:
                self._codes[finding.error.exit_code] += 1
            if finding.verdict not in _FINE_MANIFEST:
                self._problem(finding.bundle, finding.service, finding.key, finding.verdict, finding.text)
                self.output.say(f"{finding.bundle}: manifest {finding.verdict}: {finding.text}")

    def mend(self, name: BundleName, heal: Callable[[BundleName], Sequence[Healed]]) -> None:
        """Heal one bundle and tell what became of it."""
        try:
            became = heal(name)
        except ArchiveError as error:
            self._not_healed += 1
            self._codes[error.exit_code] += 1
            self.output.say(f"{name}: NOT healed, {type(error).__name__}: {error}")
            self._mended.append({"bundle": name, "ok": False, "text": str(error), "error": type(error).__name__})
            return
        for one in became:
            self._mended.append(
                {"bundle": name, "service": one.copy.service, "key": one.copy.key, "ok": one.error is None}
                | {"text": one.text, "error": None if one.error is None else type(one.error).__name__}
            )
        good = [one for one in became if one.error is None]
        self._healed += len(good)
        self._not_healed += len(became) - len(good)
        if good:
            self.output.say(f"{name}: {len(good)} healed, such as {_subject(good[0])}: {good[0].text}.")
        for one in became:
            if isinstance(one.error, ObjectOffline):
                self._waiting += 1
                self.output.say(f"{name}: not healed yet: {one.text}")
            elif one.error is not None:
                self.output.say(f"{name}: NOT healed, {type(one.error).__name__}: {one.text}")

    def remaining(self, site: Site, scope: Scope) -> None:
        """What is damaged or missing now, found now or before: it decides the exit code."""
        with site.catalogue.begin() as connection:
            broken = sum(one.copies for one in audits.counts(connection, scope, BROKEN))
        self._codes[Damage.exit_code] += broken
        self._facts["broken_now"] = broken

    def close(self) -> None:
        """The summary and the JSON document; ends the command with the exit code if it is not 0."""
        summary = self._summary()
        if not self.dry_run:
            self._say_summary()
        self.output.document(
            {"command": "audit", "dry_run": self.dry_run, **self._facts}
            | {"problems": self._problems, "healed": self._mended, "summary": summary}
        )
        checked = sum(self._copies[verdict] for verdict in Verdict if verdict is not Verdict.CANNOT_TELL)
        if self._copies[Verdict.CANNOT_TELL] and not checked:
            self._codes[ObjectOffline.exit_code] += 1  # an audit that could tell nothing did not find all in order
        if code := exit_code(self._codes):
            raise typer.Exit(code)

    # ---- the inside

    def _tell(self, name: BundleName, problems: Sequence[Finding]) -> None:
        counted = Counter(finding.verdict for finding in problems)
        told = ", ".join(f"{number} {verdict}" for verdict, number in counted.items())
        worst = min(problems, key=lambda finding: finding.verdict is Verdict.UNREAD)
        self.output.say(f"{name}: {told}, such as {worst.text}")
        for finding in problems:
            self._problem(name, finding.copy.service, finding.copy.key, finding.verdict, finding.text)

    def _problem(self, bundle: str, service: str, key: str, verdict: str, text: str) -> None:
        self._problems.append({"bundle": bundle, "service": service, "key": key, "verdict": verdict, "text": text})

    def _summary(self) -> dict[str, object]:
        copies = {verdict.name.lower(): self._copies[verdict] for verdict in Verdict}
        manifests = {verdict.name.lower(): self._manifests[verdict] for verdict in ManifestVerdict}
        healed = {"healed": self._healed, "not_healed": self._not_healed}
        return {**copies, "read_bytes": self._read_bytes, "manifests": manifests, **healed}

    def _say_summary(self) -> None:
        told = [f"{self._copies[verdict]} {words}" for verdict, words in _SUMMARY.items() if self._copies[verdict]]
        read = f"{self._copies[Verdict.GOOD]} copies read and good ({human_size(self._read_bytes)})"
        self.output.say(f"{', '.join([read, *told])}.")
        manifests = ", ".join(f"{number} {verdict}" for verdict, number in self._manifests.items())
        if manifests:
            self.output.say(f"Manifests: {manifests}.")
        if self._healed:
            self.output.say(f"{self._healed} copies healed; `omero-archive run` verifies and confirms them.")
        if self._waiting:
            self.output.say(f"{self._waiting} wait for bytes that an archive brings back; say the same again then.")
        if self._not_healed > self._waiting:
            self.output.say(f"{self._not_healed - self._waiting} not healed: a person must look.")
        elif not self._waiting and self._facts.get("broken_now"):
            self.output.say(f"{self._facts['broken_now']} copies are damaged or missing: say the same with `--heal`.")


def _code(finding: Finding) -> int:
    # What is damaged or missing counts at the end: it may be healed by then.
    return 0 if finding.error is None else finding.error.exit_code


def _how(site: Site, name: str) -> str:
    needs_staging = any(one == name and site.services[one].capabilities.needs_staging for one in site.services)
    return "read what is online, ask for digests of the rest" if needs_staging else "read"


def _subject(healed: Healed) -> str:
    return f"{healed.copy.service}: {healed.copy.key}"
