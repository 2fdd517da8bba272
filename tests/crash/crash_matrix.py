"""The crash matrix: every place in which a command can be stopped or fail, what is seen then, and how it ends.

A point is one command of the cycle with one fault in it. For each: bring the site to where the command begins; run
it with the fault, as a process; look; run it again without; look again, and compare all states and the whole disk
with those after an undisturbed run. What is looked at is in `tests/witness.py`, which asks no code of ours.
"""

import errno
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from crash_site import DATABASES, STEPS, CrashSite, Ended, Seen
from postgres_proxy import Cut, Loss

from omero_archive.testing.faulty_disk import Call, Fail, Fault, Shorten, Stop

READABLE = ("add", "run", "release", "unarchive")
"""The steps in which every path gives its bytes at every moment: evict takes them away, recall brings them."""


class Kind(StrEnum):
    """What goes wrong."""

    STOP = "process stops"  # after a call that changed the disk
    FAIL = "call fails"
    SHORT = "write is short"
    COMMIT = "connection lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One fault: at call or COMMIT `number` of a step. `how` is the error's name, or how the connection is lost."""

    step: str
    kind: Kind
    number: int
    call: str  # the name of the call, or of the database
    how: str
    path: str = ""

    def __str__(self) -> str:
        where = f" on {self.path}" if self.path else ""
        return f"{self.step}, {self.kind} at {self.number} ({self.call}{where}), {self.how}"

    @property
    def stops(self) -> bool:
        """Whether the process ends in it."""
        return self.kind is Kind.STOP or self.how == Loss.STOP

    @property
    def fault(self) -> Fault | None:
        match self.kind:
            case Kind.STOP:
                return Stop(after=self.number)
            case Kind.FAIL:
                return Fail(at=self.number, code=getattr(errno, self.how))
            case Kind.SHORT:
                return Shorten(at=self.number)
            case Kind.COMMIT:
                return None

    @property
    def cuts(self) -> dict[str, Cut] | None:
        if self.kind is not Kind.COMMIT:
            return None
        return {self.call: Cut(at=self.number, loss=Loss(self.how))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a point ended; `wrong` says everything that must not be."""

    point: Point
    ending: str  # "stopped", "error", "unnoticed" or "not reached"
    code: int
    text: str
    wrong: tuple[str, ...]
    seconds: float


@dataclass(slots=True)
class Plan:
    """What an undisturbed cycle does and leaves: the calls and commits of each step, and what is seen after it."""

    calls: dict[str, tuple[Call, ...]] = field(default_factory=dict)
    commits: dict[str, dict[str, int]] = field(default_factory=dict)
    after: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def of(cls, site: CrashSite, *, steps: Sequence[str] = STEPS) -> "Plan":
        """Of these steps, as `learn` learns them."""
        plan = cls()
        for step in steps:
            plan.learn(site, step)
        return plan

    def learn(self, site: CrashSite, step: str) -> None:
        """Run a step twice, each time prepared as for a point; `AssertionError` if it does not leave the same."""
        for is_second in (False, True):
            site.prepare(step)
            ended = site.command(step, watched=True)
            assert ended.code == 0, (step, ended.text)
            seen = site.seen()
            assert not (wrong := site.witness.look(at_rest=True)), (step, wrong)
            assert not is_second or not (new := differences(self.after[step], seen)), (step, new)
            self.calls[step], self.commits[step], self.after[step] = ended.calls, ended.commits, seen

    # ---- the points

    def stops(self, step: str) -> list[Point]:
        """The process stops after each call that changed something; between those the disk is the same."""
        return [
            Point(step=step, kind=Kind.STOP, number=number, call=call.name, how="after it", path=_short(call.path))
            for number, call in enumerate(self.calls[step], 1)
            if call.is_change
        ]

    def faults(self, step: str) -> list[Point]:
        """Each call fails in each of its ways; each write is a short one."""
        found = []
        for number, call in enumerate(self.calls[step], 1):
            ways = [(Kind.FAIL, errno.errorcode[code]) for code in call.codes]
            ways += [(Kind.SHORT, "half of it")] if call.name == "write" else []
            found += [
                Point(step=step, kind=kind, number=number, call=call.name, how=how, path=_short(call.path))
                for kind, how in ways
            ]
        return found

    def losses(self, step: str) -> list[Point]:
        """The connection is lost before and after each COMMIT, and the process stops after it."""
        return [
            Point(step=step, kind=Kind.COMMIT, number=number, call=database, how=str(loss))
            for database in DATABASES
            for number in range(1, self.commits[step][database] + 1)
            for loss in Loss
        ]

    def every(self, step: str) -> list[Point]:
        return [*self.stops(step), *self.faults(step), *self.losses(step)]


def tried(site: CrashSite, plan: Plan, point: Point, *, to_the_end: bool = False) -> Outcome:
    """Let it go wrong at a point, look, start again, look; `to_the_end`: go on with the whole cycle then."""
    began = time.monotonic()
    site.prepare(point.step)
    ended = site.command(point.step, point.fault, cuts=point.cuts)
    wrong = [f"at once: {one}" for one in _wrong_at_once(site, point, ended)]
    site.time_passes()
    again = site.command(point.step)
    if again.code in (5, 70):
        wrong.append(f"started again: ended with {again.code}: {again.text[-600:]}")
    wrong += [f"afterwards: {one}" for one in site.witness.look(at_rest=True)]
    left = differences(plan.after[point.step], site.seen())
    wrong += [f"afterwards: {one}" for one in left]
    if wrong and left:
        wrong.append(f"started again: ended with {again.code}: {again.text[-300:]}")
    if to_the_end and not wrong:
        wrong += [f"in the end: {one}" for one in _gone_on(site, plan, point.step)]
    if wrong:
        site.renew()
    return Outcome(
        point=point,
        ending=_ending(point, ended),
        code=ended.code,
        text=ended.text,
        wrong=tuple(wrong),
        seconds=time.monotonic() - began,
    )


def differences(wanted: Seen, found: Seen) -> list[str]:
    """What is not as it is after an undisturbed run."""
    wrong = []
    for name in sorted({*wanted.disk, *found.disk}):
        one, other = wanted.disk.get(name), found.disk.get(name)
        if one != other:
            wrong.append(f"{name}: is {other}, undisturbed {one}")
    for table, rows in wanted.catalogue.items():
        if found.catalogue[table] != rows:
            wrong.append(f"{table}: is {found.catalogue[table]}, undisturbed {rows}")
    if wanted.marks != found.marks:
        wrong.append(f"marks: are {found.marks}, undisturbed {wanted.marks}")
    return wrong


def _wrong_at_once(site: CrashSite, point: Point, ended: Ended) -> Iterator[str]:
    yield from site.witness.look(at_rest=False)
    if point.step in READABLE:
        yield from (problem for key in site.fileset.keys if (problem := site.cannot_read(key)))
    if ended.code not in (0, 1, 3, 4) and not ended.was_stopped:
        yield f"ended with {ended.code}: {ended.text[-600:]}"
    if ended.code not in (0, 75) and not ended.text.strip():
        yield f"ended with {ended.code} and said nothing"
    states = site.states()
    for row in (*states["bundle"], *states["copy"]):
        if "a fault in omero-archive" in (row["last_error"] or "") or "a person must look" in (row["last_error"] or ""):
            yield f"noted: {row['last_error']}"
        if row.get("state") in ("DAMAGED", "MISSING"):
            yield f"{row['key']} is {row['state']}, which it is not: {row['last_error']}"
    for event in site.events():
        if event["new"] in ("DAMAGED", "MISSING"):
            yield f"an event says {event['new']}"


def _gone_on(site: CrashSite, plan: Plan, step: str) -> Iterator[str]:
    for later in STEPS[STEPS.index(step) + 1 :]:
        ended = site.command(later)
        if ended.code != 0:
            yield f"{later} ended with {ended.code}: {ended.text[-600:]}"
            return
    yield from site.witness.look(at_rest=True)
    yield from site.witness.came_back()
    yield from differences(plan.after[STEPS[-1]], site.seen())


def _ending(point: Point, ended: Ended) -> str:
    if ended.was_stopped:
        return "stopped"
    if ended.code == 0:
        return "not reached" if point.stops else "unnoticed"
    return "error"


def _short(path: str) -> str:
    """The end of a path, enough for people to know it again."""
    return "/".join(path.split("/")[-2:])


def one_of_each(points: Sequence[Point]) -> list[Point]:
    """For each call and each COMMIT one of the ways in which it goes wrong: the ways take turns."""
    by_place: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        by_place.setdefault((point.call if point.kind is Kind.COMMIT else "", point.number), []).append(point)
    return [ways[turn % len(ways)] for turn, ways in enumerate(by_place.values())]
