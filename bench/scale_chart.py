"""A picture of how seconds and memory grow with a site, as SVG: a few lines of our own, no library. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 860, 470
LEFT, RIGHT, TOP, BOTTOM = 70, 290, 40, 50
COLOURS = ("#1b6ca8", "#c0392b", "#1e8449", "#8e44ad", "#d68910", "#148f77", "#2c3e50", "#a04000", "#7d6608", "#633974")
DASHES = ("", "6 3", "2 2")

Curve = Sequence[tuple[float, float]]
"""Points: originals of the site, and what was measured there."""


def chart(title: str, unit: str, curves: Mapping[str, Curve]) -> str:
    """One picture with both axes logarithmic: a line that is as steep as the grid's diagonal grows as the site does."""
    points = [point for curve in curves.values() for point in curve if point[1] > 0]
    across, up = _decades(x for x, _ in points), _decades(y for _, y in points)
    scale = _Scale(across, up)
    lines = [*_grid(scale, unit)]
    for number, (name, curve) in enumerate(curves.items()):
        lines += _curve(scale, name, curve, number)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
    head += ' font-size="12">'
    label = f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', label, *lines, "</svg>"]) + "\n"


class _Scale:
    def __init__(self, across: range, up: range) -> None:
        self.across, self.up = across, up

    def x(self, value: float) -> float:
        return self._place(math.log10(value), self.across, LEFT, WIDTH - RIGHT)

    def y(self, value: float) -> float:
        return self._place(math.log10(value), self.up, HEIGHT - BOTTOM, TOP)

    @staticmethod
    def _place(exponent: float, decades: range, start: float, end: float) -> float:
        return start + (exponent - decades[0]) / (decades[-1] - decades[0]) * (end - start)


def _decades(values: Iterable[float]) -> range:
    """The powers of ten that enclose the values, at least two of them."""
    exponents = [math.log10(value) for value in values]
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    return range(low, max(high, low + 1) + 1)


def _grid(scale: _Scale, unit: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines = []
    for exponent in scale.across:
        x = scale.x(10**exponent)
        lines.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{_power(exponent)}</text>')
    for exponent in scale.up:
        y = scale.y(10**exponent)
        lines.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:g} {unit}</text>')
    lines.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">originals of the site</text>')
    return lines


def _power(exponent: int) -> str:
    return f'10<tspan dy="-5" font-size="9">{exponent}</tspan>'


def _curve(scale: _Scale, name: str, curve: Curve, number: int) -> list[str]:
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
    places = [(scale.x(x), scale.y(y)) for x, y in curve if y > 0]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    style = f'fill="none" stroke="{colour}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")
    lines = [f'<polyline points="{path}" {style}/>']
    lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    key = TOP + 8 + 17 * number
    start = WIDTH - RIGHT + 20
    lines.append(f'<line x1="{start}" y1="{key}" x2="{start + 24}" y2="{key}" {style}/>')
    lines.append(f'<text x="{start + 30}" y="{key + 4}">{escape(name)}</text>')
    return lines
