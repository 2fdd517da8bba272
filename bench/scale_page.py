"""Writes what `python -m bench.scale` measured into the docs: the table of at-scale.md, and two pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.scale_chart import chart
from bench.scale_table import Point, render

BEGIN = "<!-- Written by `make bench-scale`, from here: -->"
END = "<!-- to here. -->"


def page(docs: Path, points: Sequence[Point], machine: str) -> None:
    """Put the table between its two marks, and the pictures beside the page."""
    path = docs / "at-scale.md"
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for the table")
    measured = f"{BEGIN}\nMeasured {machine}.\n\n{render(points).markdown}\n{END}"
    path.write_text(before + measured + after, encoding="utf-8")
    pictures: dict[str, tuple[str, str, Callable[[Point], float]]] = {
        "time": ("Seconds of each command", "s", lambda point: point.seconds),
        "memory": ("Peak memory of each command", "MB", lambda point: point.peak_bytes / 1e6),
    }
    for name, (title, unit, value) in pictures.items():
        curves = {
            line: [(float(p.originals), value(p)) for p in points if p.name == line]
            for line in dict.fromkeys(point.name for point in points)
        }
        (docs / f"at-scale-{name}.svg").write_text(chart(title, unit, curves), encoding="utf-8")
