"""The table of the mount: each kind of access on the file itself, through the mount, with the server reading. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.table import Times

DIRECT, MOUNT, SERVED = "the file itself", "the mount", "the mount, its server reading"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the mount is to reach: a part of the file's own speed, or so many microseconds more for each."""

    speed: float | None = None
    more_us: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One kind of access. The n-th seconds of all three were measured one soon after the other.

    `count` bytes (unit `MB/s`), reads (`IOPS`) or names and files (`µs`) were done in these seconds. Only the mount has
    a goal; where its server reads is for comparison. `missing` says why there are no times.
    """

    name: str
    unit: str
    count: int
    direct: tuple[float, ...] = ()
    mount: tuple[float, ...] = ()
    served: tuple[float, ...] = ()
    goal: Goal | None = None
    missing: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met, None where there is none. A goal that could not be measured is not met."""
        if self.goal is None:
            return None
        if not self.mount:
            return False
        if self.goal.speed is not None:
            return self.speed(self.mount) >= self.goal.speed
        assert self.goal.more_us is not None
        return self.more_us(self.mount) <= self.goal.more_us

    def speed(self, seconds: tuple[float, ...]) -> float:
        """The part of the file's own speed: the median of the rounds' ratios."""
        return 1 / Times(ours=seconds, peer=self.direct).ratio

    def more_us(self, seconds: tuple[float, ...]) -> float:
        """How many microseconds more each took than on the file itself: the median of the rounds' differences."""
        pairs = zip(seconds, self.direct, strict=True)
        return median((ours - peer) / self.count * 1e6 for ours, peer in pairs)

    def as_json(self) -> dict[str, object]:
        """One entry of `build/bench.json`, in which ratios are of times, the goal the largest that is good enough."""
        entry: dict[str, object] = {
            "name": f"{self.name}, through the mount",
            "peer": DIRECT,
            "ours_s": median(self.mount) if self.mount else None,
            "peer_s": median(self.direct) if self.direct else None,
            "ratio": None,
            "goal": None,
            "met": self.is_met,
        }
        if self.mount:
            entry["ratio"] = round(1 / self.speed(self.mount), 3)
        if self.goal is not None and self.goal.speed is not None:
            entry["goal"] = round(1 / self.goal.speed, 3)
        if self.goal is not None and self.goal.more_us is not None:
            entry |= {"goal_more_us": self.goal.more_us}
            entry |= {"more_us": round(self.more_us(self.mount), 1)} if self.mount else {}
        return entry | ({"missing": self.missing} if self.missing else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that is compared with nothing: its words."""

    name: str
    said: str


def render(accesses: Sequence[Access], figures: Sequence[Figure] = ()) -> str:
    """The table for people, as Markdown has it: medians, ratios of speed with their spread, goals."""
    head = ("what", DIRECT, MOUNT, "of its speed", "spread", "goal", "", SERVED, "of its speed")
    lines: list[tuple[str, ...]] = [head, ("---",) * len(head)]
    lines += [_cells(access) for access in accesses]
    text = [f"| {' | '.join(cells)} |" for cells in lines]
    if figures:
        text += ["", "| what | |", "|---|---|"]
        text += [f"| {figure.name} | {figure.said} |" for figure in figures]
    return "\n".join(text)


def _cells(access: Access) -> tuple[str, ...]:
    shown = _SHOWN[access.unit]
    cells = [access.name, _value(access, access.direct, shown), _value(access, access.mount, shown)]
    if access.mount:
        ratios = sorted(peer / ours for ours, peer in zip(access.mount, access.direct, strict=True))
        cells += [f"{access.speed(access.mount):.2f}", f"{ratios[0]:.2f}-{ratios[-1]:.2f}"]
    else:
        cells += ["", access.missing]
    cells += [_goal(access), {True: "met", False: "NOT MET", None: ""}[access.is_met]]
    cells += [_value(access, access.served, shown)]
    cells += [f"{access.speed(access.served):.2f}" if access.served else ""]
    return tuple(cells)


def _value(access: Access, seconds: tuple[float, ...], shown: Callable[[float, int], str]) -> str:
    return shown(median(seconds), access.count) if seconds else ""


def _goal(access: Access) -> str:
    goal = access.goal
    if goal is None:
        return ""
    if goal.speed is not None:
        return f"≥ {goal.speed:g}"
    more = f" ({access.more_us(access.mount):.0f} more)" if access.mount else ""
    return f"≤ {goal.more_us:g} µs more{more}"


_SHOWN: dict[str, Callable[[float, int], str]] = {
    "MB/s": lambda seconds, count: f"{count / seconds / 1e6:.0f} MB/s",
    "IOPS": lambda seconds, count: f"{count / seconds / 1e3:.1f} k IOPS",
    "µs": lambda seconds, count: f"{seconds / count * 1e6:.1f} µs",
    "ms": lambda seconds, _: f"{seconds * 1e3:.1f} ms",
}
"""How seconds for so many are shown, by unit."""
