"""What `service test` saw, for people and for programs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from omero_archive.cli.output import Output
from omero_archive.testing.conformance import CHECKS, Bench, Judgement, Leftover, Verdict

SHOWN = 10  # leftovers; all are in the JSON


def tell(output: Output, judgement: Judgement) -> None:
    """One rule, as soon as it was tried."""
    mark = {Verdict.KEPT: "ok", Verdict.BROKEN: "FAIL", Verdict.UNAVAILABLE: "FAIL"}.get(judgement.verdict, "-")
    output.say(f"{mark:<5} {judgement.seconds:6.1f} s  {judgement.name}")
    if judgement.verdict is not Verdict.KEPT:
        is_wrong = judgement.verdict in (Verdict.BROKEN, Verdict.UNAVAILABLE)
        if is_wrong:
            output.say(f"      The rule: {judgement.rule}")
        output.say(f"      {judgement.verdict.capitalize()}: {judgement.seen}")


def tell_leftovers(output: Output, bench: Bench, left: Sequence[Leftover], *, problem: str, is_kept: bool) -> None:
    """What is still in the archive."""
    if is_kept:
        output.say(f"Kept: what was stored lies below {bench.prefix}. Nobody needs it; delete it when you have looked.")
    elif problem:
        output.say(f"NOT cleaned up: {problem} Delete what lies below {bench.prefix} once it can be asked.")
    elif left:
        output.say(f"{len(left)} objects are left below {bench.prefix}; nobody needs them:")
        for leftover in left[:SHOWN]:
            output.say(f"  {leftover.key}: {leftover.reason}")
    else:
        output.say(f"Cleaned up: nothing is listed below {bench.prefix} any more.")


def tell_end(output: Output, name: str, judgements: Sequence[Judgement]) -> None:
    """How many rules were kept."""
    verdicts = Counter(each.verdict for each in judgements)
    counts = [f"{verdicts[verdict]} {verdict}" for verdict in Verdict if verdicts[verdict]]
    untried = len(CHECKS) - len(judgements)
    if untried:
        counts.append(f"{untried} not tried: {name} cannot be reached any more")
    output.say(f"{name}: {', '.join(counts)}.")


def document(
    name: str, bench: Bench, judgements: Sequence[Judgement], left: Sequence[Leftover], *, problem: str, is_kept: bool
) -> Mapping[str, object]:
    """The JSON document."""
    verdicts = Counter(each.verdict for each in judgements)
    return {
        "command": "service test",
        "dry_run": False,
        "service": name,
        "prefix": bench.prefix,
        "checks": [asdict(each) for each in judgements],
        "kept": is_kept,
        "leftovers": [asdict(each) for each in left],
        "not_cleaned": problem or None,
        "summary": {verdict.name.lower(): verdicts[verdict] for verdict in Verdict}
        | {"not_tried": len(CHECKS) - len(judgements), "leftovers": len(left)},
    }
