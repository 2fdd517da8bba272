"""From times to ratios to a table: what was measured, against whom, which goal, met or not. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of two programs, round by round: the n-th of both were measured one soon after the other."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.ours or len(self.ours) != len(self.peer):
            raise ValueError(f"{len(self.ours)} rounds of ours, {len(self.peer)} of the peer")

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: what slows the machine for a while slows both of a round."""
        return median(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `goal` is the largest ratio that is good enough, None where the line only informs.

    `missing` says why there is no comparison. A goal that could not be measured is not met.
    """

    name: str
    peer: str
    times: Times | None = None
    goal: float | None = None
    missing: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met, None where there is none."""
        if self.goal is None:
            return None
        return self.times is not None and self.times.ratio <= self.goal

    def as_json(self) -> dict[str, object]:
        """One entry of `build/bench.json`."""
        times = self.times
        entry: dict[str, object] = {
            "name": self.name,
            "peer": self.peer,
            "ours_s": None if times is None else round(median(times.ours), 3),
            "peer_s": None if times is None else round(median(times.peer), 3),
            "ratio": None if times is None else round(times.ratio, 3),
            "goal": self.goal,
            "met": self.is_met,
        }
        return entry | ({"missing": self.missing} if self.missing else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """A peak of memory and the most it may be, both in bytes; as a line of the table its ratio is to that limit."""

    name: str
    size_bytes: int
    limit_bytes: int

    @property
    def is_met(self) -> bool:
        """Whether it stayed below the limit."""
        return self.size_bytes <= self.limit_bytes

    def as_json(self) -> dict[str, object]:
        """One entry of `build/bench.json`: there are no seconds in it."""
        return {
            "name": self.name,
            "peer": f"{self.limit_bytes / 1e6:.0f} MB",
            "ours_s": None,
            "peer_s": None,
            "ratio": round(self.size_bytes / self.limit_bytes, 3),
            "goal": 1.0,
            "met": self.is_met,
            "ours_mb": round(self.size_bytes / 1e6, 1),
        }


def render(rows: Sequence[Row], peaks: Sequence[Peak] = ()) -> str:
    """The table for people: medians in seconds, the spread of the ratios, goals."""
    lines: list[tuple[str, ...]] = [("what", "against", "ours", "peer", "ratio", "spread", "goal", "")]
    lines += [_cells(row) for row in rows]
    for peak in peaks:
        limit = f"{peak.limit_bytes / 1e6:.0f} MB"
        lines.append((peak.name, "-", f"{peak.size_bytes / 1e6:.0f} MB", "", "", "", f"≤ {limit}", _said(peak.is_met)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths).rstrip())
    return "\n".join(text)


def _cells(row: Row) -> tuple[str, ...]:
    goal = "" if row.goal is None else f"≤ {row.goal:g}"
    if row.times is None:
        return row.name, row.peer, "", "", "", row.missing, goal, _said(row.is_met)
    times = row.times
    ratios = sorted(ours / peer for ours, peer in zip(times.ours, times.peer, strict=True))
    return (
        row.name,
        row.peer,
        f"{median(times.ours):.2f} s",
        f"{median(times.peer):.2f} s",
        f"{times.ratio:.2f}",
        f"{ratios[0]:.2f}-{ratios[-1]:.2f}",
        goal,
        _said(row.is_met),
    )


def _said(is_met: bool | None) -> str:
    return {True: "met", False: "NOT MET", None: ""}[is_met]
