"""The table of `python -m bench.scale`: a line for each command, a column for each size of the site. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

MEMORY_LIMIT_BYTES = 300 * 1000 * 1000
STATUS_S = 1.0
ADD_S = 20.0
GOALS = {("status of the site", 1_000_000): STATUS_S, ("closure and add of a plate", 100_000): ADD_S}
"""Seconds that a command may take for so much work; of the plate these are its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one command took on one site. `work` is how much it was asked for: files, copies, questions."""

    name: str
    originals: int
    work: int
    seconds: float
    peak_bytes: int
    peer: str
    peer_s: float | None

    @property
    def ratio(self) -> float | None:
        """To the peer."""
        return None if self.peer_s is None else self.seconds / self.peer_s

    @property
    def goal_s(self) -> float | None:
        """The seconds that it may take, None if there is no such goal."""
        return GOALS.get((self.name, self.work))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The table as text and as Markdown, the missed goals, and whether there are none."""

    text: str
    markdown: str
    missed: tuple[str, ...]

    @property
    def is_met(self) -> bool:
        """Whether every goal that was measured is met."""
        return not self.missed


def render(points: Sequence[Point]) -> Table:
    """The table: seconds for each size, how time and work grew in the last step, the ratio, the most memory."""
    sizes = sorted({point.originals for point in points})
    head = [
        "command",
        *(f"{size:,}".replace(",", " ") for size in sizes),
        "grew",
        "work grew",
        "against",
        "ratio",
        "MB",
    ]
    rows = [head]
    for name in dict.fromkeys(point.name for point in points):
        mine = {point.originals: point for point in points if point.name == name}
        rows.append([name, *(_seconds(mine.get(size)) for size in sizes), *_growth(mine), *_last(mine)])
    missed = _missed(points)
    verdict = "All goals are met." if not missed else "Missed: " + "; ".join(missed) + "."
    return Table(
        text="\n".join([*_aligned(rows), "", verdict]),
        markdown="\n".join([*_markdown(rows), "", verdict]),
        missed=missed,
    )


def _seconds(point: Point | None) -> str:
    return "" if point is None else f"{point.seconds:.2f} s"


def _growth(mine: dict[int, Point]) -> list[str]:
    if len(mine) < 2:
        return ["", ""]
    before, last = (mine[size] for size in sorted(mine)[-2:])
    return [f"x {last.seconds / before.seconds:.1f}", f"x {last.work / before.work:.0f}"]


def _last(mine: dict[int, Point]) -> list[str]:
    last = mine[max(mine)]
    ratio = "" if last.ratio is None else f"{last.ratio:.2f}"
    return [last.peer, ratio, "-".join(f"{point.peak_bytes / 1e6:.0f}" for point in _ends(mine))]


def _ends(mine: dict[int, Point]) -> list[Point]:
    return [mine[size] for size in sorted({min(mine), max(mine)})]


def _missed(points: Sequence[Point]) -> tuple[str, ...]:
    slow = [
        f"{point.name} took {point.seconds:.1f} s, the goal is {point.goal_s:g} s"
        for point in points
        if point.goal_s is not None and point.seconds > point.goal_s
    ]
    fat = [
        f"{point.name} took {point.peak_bytes / 1e6:.0f} MB at {point.originals}, the goal is 300 MB"
        for point in points
        if point.peak_bytes > MEMORY_LIMIT_BYTES
    ]
    return (*slow, *fat)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return lines
