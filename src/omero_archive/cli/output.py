"""Text for people, JSON for programs, progress on standard error."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from omero_archive.cli.columns import pages
from omero_archive.cli.harmless import harmless, in_one_line
from omero_archive.cli.streams import written

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Output:
    """Where a command's words go. With `as_json` only the one document of `document` is on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(soft_wrap=True, highlight=False)
        self.messages = Console(stderr=True, soft_wrap=True, highlight=False)

    def say(self, text: str) -> None:
        """A sentence for people, in one line."""
        self._print(in_one_line(text))

    def text(self, text: str) -> None:
        """A text of many lines for people, such as a file."""
        self._print(harmless(text))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table for people, shown as its rows come; numbers are right-aligned."""
        if not self.as_json:
            for page in pages(columns, rows):
                self._print(page)

    def document(self, payload: Mapping[str, object]) -> None:
        """The JSON document for programs."""
        if self.as_json:
            with written():
                json.dump(payload, sys.stdout, default=_plain, indent=2)
                sys.stdout.write("\n")

    def _print(self, text: str) -> None:
        if not self.as_json:
            with written():
                self.console.print(text, markup=False)

    @contextmanager
    def progress(self) -> Iterator["Bars"]:
        """A bar for each step, by bytes, on standard error; nothing where that is not a terminal."""
        if self.as_json or not self.messages.is_terminal:
            yield Bars(None)
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:>9}"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[files]} files"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.messages) as bars:
            yield Bars(bars)


class Bars:
    """The bars of one command. Called by the steps with what is done; `expect` says how much there will be."""

    def __init__(self, bars: "Progress | None") -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._files: dict[str, int] = {}

    def expect(self, step: str, size_bytes: int) -> None:
        """How many bytes a step will have done at its end."""
        if self._bars is not None and size_bytes:
            self._bars.update(self._task(step), total=size_bytes)

    def __call__(self, step: str, files: int, size_bytes: int) -> None:
        """So many files and bytes more are done."""
        if self._bars is not None:
            task = self._task(step)
            self._files[step] += files
            self._bars.update(task, advance=size_bytes, files=self._files[step])

    def _task(self, step: str) -> "TaskID":
        if step not in self._tasks and self._bars is not None:
            self._tasks[step] = self._bars.add_task(step, total=None, files=0)
            self._files[step] = 0
        return self._tasks[step]


def human_size(size_bytes: int) -> str:
    """A number of bytes for people, in powers of 1000 as disks are sold."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


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
