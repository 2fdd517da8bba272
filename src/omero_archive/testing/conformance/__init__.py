"""The contract of `omero_archive.service`, as checks: plain functions over a service, one for each rule.

    bench = Bench(service=service, prefix="omero-archive-test/1/")
    for check in CHECKS:
        print(judge(check, bench))
    for leftover in clean(bench):
        print(leftover)

Everything is stored below the prefix, so that the same checks run on an empty service of a test and on a live
archive (`omero-archive service test NAME`). `omero_archive.testing.pytest_suite` makes a test of each.
"""

from omero_archive.testing.conformance.bench import (
    LARGE_SIZES,
    SMALL_SIZES,
    Bench,
    ConformanceFailure,
    DoesNotApply,
    NotDone,
    TookTooLong,
    sizes,
)
from omero_archive.testing.conformance.judging import (
    CHECKS,
    Check,
    Judgement,
    Leftover,
    Verdict,
    clean,
    judge,
    name_of,
    rule_of,
)
from omero_archive.testing.conformance.naming import NAMES

__all__ = [
    "CHECKS",
    "LARGE_SIZES",
    "NAMES",
    "SMALL_SIZES",
    "Bench",
    "Check",
    "ConformanceFailure",
    "DoesNotApply",
    "Judgement",
    "Leftover",
    "NotDone",
    "TookTooLong",
    "Verdict",
    "clean",
    "judge",
    "name_of",
    "rule_of",
    "sizes",
]
