"""Tables for people: columns that line up, a page at a time as the rows come."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from rich.cells import cell_len

from omero_archive.cli.harmless import in_one_line

PAGE = 200
"""So many rows are aligned together: more are not held, nor waited for."""

_GAP = "  "


def pages(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The table as texts of many lines each, the names of the columns first; numbers are right-aligned.

    A column is as wide as its page needs, and never narrower than on the page before. Nothing is folded: a terminal
    does that at its edge, and who searches a file finds each row in one line.
    """
    left = iter(rows)
    page = list(islice(left, PAGE))
    are_numbers = [bool(page) and all(_is_number(row[number]) for row in page) for number in range(len(columns))]
    widths = [0] * len(columns)
    head = [list(columns)]
    while page or head:
        cells = head + [[in_one_line("" if cell is None else str(cell)) for cell in row] for row in page]
        widths = [
            max(width, *map(cell_len, column)) for width, column in zip(widths, zip(*cells, strict=True), strict=True)
        ]
        yield "\n".join(_line(row, widths, are_numbers) for row in cells)
        page, head = list(islice(left, PAGE)), []


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float)


def _line(cells: Sequence[str], widths: Sequence[int], are_numbers: Sequence[bool]) -> str:
    padded = []
    for cell, width, is_number in zip(cells, widths, are_numbers, strict=True):
        blank = " " * (width - cell_len(cell))
        padded.append(blank + cell if is_number else cell + blank)
    return _GAP.join(padded).rstrip()
