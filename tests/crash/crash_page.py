"""Runs the crash matrix and writes docs/reference/crash-matrix.md: `make crash-matrix`, ARGS="--minutes 15".

Two processes take pieces of it, each with a site of its own: first every place where a process can stop, then every
COMMIT and every call that changes a disk in one of the ways in which it can go wrong, then so every other call, then
all the other ways, as long as there is time.
"""

import argparse
import itertools
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from crash_matrix import Kind, Outcome, Plan, Point, one_of_each, tried  # noqa: E402
from crash_site import STEPS, CrashSite  # noqa: E402
from postgres_proxy import Loss  # noqa: E402

from omero_archive import disk  # noqa: E402
from omero_archive.demo.postgres import EmbeddedPostgres  # noqa: E402
from omero_archive.demo.site import DemoSite, build_site  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "reference" / "crash-matrix.md"
SLUGS = ("ics", "omero4")
PIECE = 12
TO_THE_END = 12
"""Every so manieth point of a piece goes on to the end of the cycle."""

COLUMNS = (
    *("step", "calls", "process stops", "call fails", "connection lost"),
    *("stopped, then finished", "error, then finished", "not noticed, all was right", "wrong"),
)
RANKS = range(4)
CODES = ("ENOSPC", "EIO", "EROFS", "EDQUOT", "ESTALE", "half of it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some points of one step of one fileset, tried by one process."""

    slug: str
    points: tuple[Point, ...]


class Worker:
    """What one process keeps between its pieces."""

    def __init__(self, template: DemoSite, postgres: EmbeddedPostgres, directory: Path, deadline: float) -> None:
        self._template, self._postgres, self._directory = template, postgres, directory
        self._deadline = deadline
        self._sites: dict[str, CrashSite] = {}
        self._plans: dict[str, Plan] = {}

    def site(self, slug: str) -> CrashSite:
        if slug not in self._sites:
            directory = Path(tempfile.mkdtemp(prefix=slug, dir=self._directory))
            self._sites[slug] = CrashSite(self._template, slug, directory, postgres=self._postgres)
        return self._sites[slug]

    def outcomes(self, piece: Piece) -> list[Outcome]:
        site = self.site(piece.slug)
        if time.monotonic() >= self._deadline:
            return []
        plan = self._plans.setdefault(piece.slug, Plan())
        for step in (piece.points[0].step, STEPS[-1]):
            if step not in plan.after:
                plan.learn(site, step)
        found = []
        for number, point in enumerate(piece.points):
            if time.monotonic() >= self._deadline:
                break
            found.append(tried(site, plan, point, to_the_end=number % TO_THE_END == TO_THE_END - 1))
        return found


_worker: Worker  # of each forked process


def main() -> None:
    """Run it, show what is wrong, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="stop then")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    chosen = parser.parse_args()
    began = time.monotonic()
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="oa-matrix-", dir=memory if memory.is_dir() else None))
    directory.chmod(0o755)
    try:
        with EmbeddedPostgres(directory / "postgres", durable=False) as postgres:
            template = build_site(directory / "demo", postgres=postgres, large_mib=4, omero_database="template_omero")
            plans = _plans(template, postgres, directory)
            _set_worker(Worker(template, postgres, directory, began + chosen.minutes * 60))
            outcomes = list(_run(plans, chosen.jobs))
    finally:
        shutil.rmtree(directory)
    command = "make crash-matrix" + (f' ARGS="--minutes {chosen.minutes:g}"' if chosen.minutes < 24 * 60 else "")
    PAGE.write_text(page(plans, outcomes, command=command, seconds=time.monotonic() - began))
    (HERE.parents[1] / "build").mkdir(exist_ok=True)
    (HERE.parents[1] / "build" / "crash-matrix.json").write_text(
        json.dumps([(slug, str(o.point), o.ending, o.code, o.wrong, o.text) for slug, o in outcomes], indent=1)
    )
    sys.exit(1 if any(outcome.wrong for _, outcome in outcomes) else 0)


def _set_worker(worker: Worker) -> None:
    global _worker
    _worker = worker


def _plans(template: DemoSite, postgres: EmbeddedPostgres, directory: Path) -> dict[str, Plan]:
    plans = {}
    for slug in SLUGS:
        below = directory / f"plan-{slug}"
        below.mkdir()
        with CrashSite(template, slug, below, postgres=postgres) as site:
            plans[slug] = Plan.of(site)
    return plans


def _run(plans: dict[str, Plan], jobs: int) -> Iterator[tuple[str, Outcome]]:
    pieces = [piece for rank in RANKS for piece in _in_turns(plans, rank)]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for number, found in enumerate(pool.imap_unordered(_tried, pieces), 1):
            for slug, outcome in found:
                if outcome.wrong:
                    print(f"WRONG {slug}: {outcome.point}, exit code {outcome.code}")
                    for one in outcome.wrong:
                        print(f"    {one[:1500]}")
                yield slug, outcome
            print(f"{number} of {len(pieces)} pieces, {time.strftime('%H:%M:%S')}", file=sys.stderr, flush=True)


def _tried(piece: Piece) -> list[tuple[str, Outcome]]:
    return [(piece.slug, outcome) for outcome in _worker.outcomes(piece)]


def _in_turns(plans: dict[str, Plan], rank: int) -> Iterator[Piece]:
    """The pieces of all steps in turns, so that a run that ends early has tried something of each."""
    turns = [_pieces(plans[slug], slug, step, rank) for step in STEPS for slug in SLUGS]
    return (piece for turn in itertools.zip_longest(*turns) for piece in turn if piece is not None)


def _pieces(plan: Plan, slug: str, step: str, rank: int) -> Iterator[Piece]:
    others = [*plan.faults(step), *plan.losses(step)]
    first = [*one_of_each(plan.faults(step)), *one_of_each(plan.losses(step))]
    changes = [point for point in first if point.kind is Kind.COMMIT or point.call in disk.CHANGES]
    reads = [point for point in first if point not in changes]
    points = (plan.stops(step), changes, reads, [point for point in others if point not in first])[rank]
    if rank:
        random.Random(f"{slug} {step}").shuffle(points)
    for start in range(0, len(points), PIECE):
        yield Piece(slug=slug, points=tuple(points[start : start + PIECE]))


# ---- the page


def page(plans: dict[str, Plan], outcomes: Sequence[tuple[str, Outcome]], *, command: str, seconds: float) -> str:
    """The page's text."""
    wrong = sum(bool(outcome.wrong) for _, outcome in outcomes)
    every = sum(len(plan.every(step)) for plan in plans.values() for step in STEPS)
    head = f"""# The crash matrix

Generated by `{command}` on {datetime.now(UTC):%Y-%m-%d}, in {seconds / 60:.0f} minutes; do not edit.

Every command of the cycle is run again and again, each time with one thing that goes wrong at another place:

- **the process stops**, without any cleaning up, after each call that changes the disk (between calls that only read,
  the disk is the same);
- **a call fails**: one that changes the disk with ENOSPC, EIO, EROFS, EDQUOT and ESTALE, one that reads it with EIO
  and ESTALE; a write takes only half;
- **the connection to a database is lost** at each COMMIT: before it reaches the server, after the server has done it
  but before we hear of it, and after it while our process stops too. OMERO's database and the catalogue's alike.

After each, an independent checker looks at the disk, at the archive and at both databases: each file's bytes are near,
or in enough durable copies; each path has an entry, and gives its bytes where it must; a fileset opens as a whole or
not at all; OMERO's images are all marked or none, and all where a link stands. Then the command is run again without a
fault, and everything is compared with what an undisturbed run leaves: every state in the catalogue, every mark in
OMERO, every file, link and directory with its bytes, times and modes; no temporary file may be left. After every
twelfth point the whole cycle goes on to its end and the originals are compared with what they were. A command must end
with an error that has a name (exit codes 1, 3, 4), and a copy that could not be read must not be called damaged or
missing.

**{len(outcomes)} of {every} points tried, {wrong} with something wrong.**

"""
    tables = "\n".join(_by_step(slug, plans[slug], [o for s, o in outcomes if s == slug]) for slug in SLUGS)
    return head + tables + "\n" + _by_call([o for _, o in outcomes]) + "\n" + _by_commit([o for _, o in outcomes])


def _by_step(slug: str, plan: Plan, outcomes: Sequence[Outcome]) -> str:
    what = {
        "ics": "A fileset of two files, with a directory of its own",
        "omero4": "An OMERO 4 image: pixels file and uploaded originals, in directories that it shares",
    }
    lines = [
        f"## {what[slug]}",
        "",
        "`run` is copy, manifest, verify and confirm. Tried / all there are.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for step in STEPS:
        mine = [outcome for outcome in outcomes if outcome.point.step == step]
        kinds = Counter(outcome.point.kind for outcome in mine)
        endings = Counter(outcome.ending for outcome in mine if not outcome.wrong)
        lines.append(
            f"| {step} | {len(plan.calls[step])} | {kinds[Kind.STOP]} / {len(plan.stops(step))} "
            f"| {kinds[Kind.FAIL] + kinds[Kind.SHORT]} / {len(plan.faults(step))} "
            f"| {kinds[Kind.COMMIT]} / {len(plan.losses(step))} "
            f"| {endings['stopped']} | {endings['error']} | {endings['unnoticed'] + endings['not reached']} "
            f"| {sum(bool(outcome.wrong) for outcome in mine)} |"
        )
    return "\n".join(lines) + "\n"


def _by_call(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "## Calls and faults",
        "",
        "How often each call was stopped after, or failed, over all steps; in brackets the exit codes of the command.",
        "0: it was not noticed, or was not needed. `create` to `close_written` change a disk, the others read it.",
        "",
        f"| call | stops | {' | '.join(CODES)} |",
        "|---|" + "---|" * (len(CODES) + 1),
    ]
    calls = dict.fromkeys(o.point.call for o in outcomes if o.point.kind is not Kind.COMMIT)
    for call in calls:
        mine = [o for o in outcomes if o.point.call == call]
        stops = sum(o.point.kind is Kind.STOP for o in mine)
        cells = [_cell([o for o in mine if o.point.how == code]) for code in CODES]
        lines.append(f"| `{call}` | {stops or ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _by_commit(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "## COMMITs",
        "",
        f"| database | {' | '.join(Loss)} |",
        "|---|" + "---|" * len(Loss),
    ]
    for database in ("catalogue", "omero"):
        mine = [o for o in outcomes if o.point.kind is Kind.COMMIT and o.point.call == database]
        cells = [_cell([o for o in mine if o.point.how == loss]) for loss in Loss]
        lines.append(f"| {database} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(outcomes: Sequence[Outcome]) -> str:
    """`12 (1: 8, 4: 4)`: how many, and how many of them ended with which code."""
    if not outcomes:
        return ""
    codes = Counter("stopped" if outcome.ending == "stopped" else str(outcome.code) for outcome in outcomes)
    return f"{len(outcomes)} ({', '.join(f'{code}: {count}' for code, count in sorted(codes.items()))})"


if __name__ == "__main__":
    main()
