"""`service test`: does a live archive keep the contract? The conformance checks below a scratch prefix of it."""

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from omero_archive.app import open_site
from omero_archive.cli.options import DryRun, Json, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.service_report import document, tell, tell_end, tell_leftovers
from omero_archive.errors import ArchiveError, ServiceIsReadOnly, ServiceUnavailable, Unavailable, WrongUse
from omero_archive.model import ServiceName
from omero_archive.service import SCRATCH, Service
from omero_archive.settings import load_settings, parse_duration, settings_file
from omero_archive.signals import told_to_stop
from omero_archive.steps.check import check_service
from omero_archive.steps.site import Site
from omero_archive.testing.conformance import (
    CHECKS,
    LARGE_SIZES,
    SMALL_SIZES,
    Bench,
    Judgement,
    Leftover,
    Verdict,
    clean,
    judge,
    name_of,
    rule_of,
    sizes,
)

Name = Annotated[str, typer.Argument(help="The archive service, by its name in the settings.")]
Quick = Annotated[bool, typer.Option("--quick", help="Only small objects: for an archive that is far away.")]
Slow = Annotated[bool, typer.Option("--slow", help="Also objects of 16 and 32 MiB, which go in several parts.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave what was stored, to look at it; delete it yourself then.")]
Wait = Annotated[str, typer.Option("--wait", help="How long to wait for staging or a word of durability, such as 2h.")]


def service_test(
    name: Name,
    quick: Quick = False,
    slow: Slow = False,
    wait: Wait = "1min",
    keep: Keep = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Try every rule of the contract on a live archive, with objects of its own below omero-archive-test/.

    Nothing else in the archive is touched, and what was stored is deleted at the end. What needs staging that takes
    longer than --wait is reported as not done, never as kept.
    """
    output = Output(as_json=as_json)
    with open_site(load_settings(settings_file(settings))) as site:
        bench = _bench(_service(site, name), _sizes(quick=quick, slow=slow), wait)
        if dry_run:
            _tell_plan(output, name, bench, keep=keep)
            return
        _require_order(output, site, ServiceName(name))
        output.say(f"Testing {name} below {bench.prefix}: {len(CHECKS)} rules.")
        judgements: list[Judgement] = []
        try:
            with told_to_stop(_interrupt) as came:
                for judgement in _judged(bench, site, ServiceName(name)):
                    judgements.append(judgement)
                    tell(output, judgement)
                    if came:  # Python drops an exception that a signal raises while it runs a finaliser
                        _interrupt()
        finally:
            # Also after Ctrl-C or SIGTERM: what was stored is nobody's, and nobody would look for it.
            left, problem = ((), "") if keep else _clean(bench)
            tell_leftovers(output, bench, left, problem=problem, is_kept=keep)
    tell_end(output, name, judgements)
    output.document(document(name, bench, judgements, left, problem=problem, is_kept=keep))
    _end(judgements, left, problem)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _service(site: Site, name: str) -> Service:
    service = site.services.get(ServiceName(name))
    if service is None:
        raise WrongUse(f"there is no [services.{name}]; there are {', '.join(site.services)}.")
    return service


def _sizes(*, quick: bool, slow: bool) -> tuple[int, ...]:
    if quick and slow:
        raise WrongUse("give --quick or --slow, not both.")
    if quick:
        return SMALL_SIZES
    return LARGE_SIZES if slow else sizes()


def _bench(service: Service, sizes: tuple[int, ...], wait: str) -> Bench:
    try:
        wait_s = parse_duration(wait).total_seconds()
    except ValueError as error:
        raise WrongUse(f"--wait: {error}.") from error
    return Bench(service=service, prefix=f"{SCRATCH}{secrets.token_hex(6)}/", sizes=sizes, wait_s=wait_s)


def _tell_plan(output: Output, name: str, bench: Bench, *, keep: bool) -> None:
    output.say(f"{name} would be tested below {bench.prefix}, with objects of up to {human_size(max(bench.sizes))}:")
    for check in CHECKS:
        output.say(f"  {name_of(check)}: {rule_of(check)}")
    output.say(f"All of it would {'stay there' if keep else 'be deleted at the end'}. Nothing was stored.")
    rules = [{"name": name_of(check), "rule": rule_of(check)} for check in CHECKS]
    output.document({"command": "service test", "dry_run": True, "service": name, "checks": rules})


def _require_order(output: Output, site: Site, name: ServiceName) -> None:
    """Raise unless the service may be written to and finds itself in order: nothing is stored in what is not."""
    if site.settings.common(name).read_only:
        raise ServiceIsReadOnly(f"services.{name}.read_only is true in the settings; nothing was tested.")
    wrong = [finding for finding in check_service(site, name) if not finding.is_fine]
    for finding in wrong:
        output.say(f"FAIL  {finding.subject}: {finding.text}")
        if finding.advice:
            output.say(f"      {finding.advice}")
    if wrong:
        texts = "; ".join(finding.text for finding in wrong)
        raise ServiceUnavailable(f"{name} is not in order, so that nothing was tested and nothing stored: {texts}.")


def _judged(bench: Bench, site: Site, name: ServiceName) -> Iterator[Judgement]:
    """Each check in turn, until the archive cannot be reached any more."""
    for check in CHECKS:
        judgement = judge(check, bench)
        yield judgement
        if judgement.verdict is Verdict.UNAVAILABLE and not all(each.is_fine for each in check_service(site, name)):
            return


def _clean(bench: Bench) -> tuple[Sequence[Leftover], str]:
    """What is left below the prefix, or why that could not be found out."""
    try:
        return clean(bench), ""
    except ArchiveError as error:
        return (), str(error)
    except Exception as error:  # noqa: BLE001 - a plugin may be anybody's; what was seen of it must be told to the end
        return (), f"asked what is left, the plugin raised {type(error).__name__}: {error}."


def _end(judgements: Sequence[Judgement], left: Sequence[Leftover], problem: str) -> None:
    verdicts = Counter(each.verdict for each in judgements)
    if verdicts[Verdict.BROKEN] or any(not each.is_refused for each in left):
        raise typer.Exit(1)
    if verdicts[Verdict.UNAVAILABLE] or problem:
        raise typer.Exit(Unavailable.exit_code)
