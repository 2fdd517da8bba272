"""Text for people, JSON for programs, progress on standard error."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from omero_archive.steps.site import Progress as Told
from omero_archive.steps.site import no_progress


class Output:
    """Where a command's words go. With `as_json` only the one document of `document` is on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(soft_wrap=True, highlight=False)
        self.messages = Console(stderr=True, soft_wrap=True, highlight=False)

    def say(self, text: str) -> None:
        """A sentence for people."""
        if not self.as_json:
            self.console.print(printable(text), markup=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people; numbers are right-aligned."""
        if self.as_json:
            return
        table = Table(box=None, pad_edge=False)
        for number, name in enumerate(columns):
            is_number = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
            table.add_column(name, justify="right" if is_number else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable("" if cell is None else str(cell))) for cell in row))
        self.console.print(table)

    def document(self, payload: Mapping[str, object]) -> None:
        """The JSON document for programs."""
        if self.as_json:
            sys.stdout.write(json.dumps(payload, default=_plain, indent=2) + "\n")

    @contextmanager
    def progress(self, totals: Mapping[str, int] | None = None) -> Iterator[Told]:
        """A bar for each step, by bytes, on standard error; nothing where that is not a terminal."""
        if self.as_json or not self.messages.is_terminal:
            yield no_progress
            return
        bars = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[files]} files"),
            TimeRemainingColumn(),
            console=self.messages,
        )
        tasks: dict[str, TaskID] = {}
        counts: dict[str, int] = {}
        with bars:

            def told(step: str, files: int, size_bytes: int) -> None:
                if step not in tasks:
                    tasks[step] = bars.add_task(step, total=(totals or {}).get(step), files=0)
                counts[step] = counts.get(step, 0) + files
                bars.update(tasks[step], advance=size_bytes, files=counts[step])

            yield told


def human_size(size_bytes: int) -> str:
    """A number of bytes for people, in powers of 1000 as disks are sold."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def printable(text: str) -> str:
    """Text that any terminal takes: bytes of file names that are no text become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: object) -> Any:
    match value:
        case datetime() | date():
            return value.isoformat()
        case Enum():
            return value.value
        case Path():
            return str(value)
        case set() | frozenset() | tuple():
            return list(value)
    raise TypeError(f"{type(value)} has no JSON")
