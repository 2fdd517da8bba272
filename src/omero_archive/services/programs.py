"""Running a site's or a system's commands: without a shell, about many files at once, for a bounded time.

Paths are absolute, so none can be taken for an option. They are appended to the arguments, or go to standard input,
or into a file whose path takes the place of `{list}`.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import IO

from omero_archive.errors import ServiceUnavailable
from omero_archive.model import printable

LIST = "{list}"
"""Stands in a command for the path of a file that holds one path on each line."""

_ARGUMENT_BYTES = 100_000  # of paths in one command; Linux takes two million with the environment, others less
_KILLED_S = 5.0  # how long a killed command may take to go: one that hangs in a system call never does


class Feed(StrEnum):
    """How a command takes the paths."""

    ARGUMENTS = "arguments"
    NUL = "nul"  # on standard input, each ended by a NUL byte
    LINES = "lines"  # on standard input, one a line
    LIST = "list"  # in a file, one a line

    @property
    def takes_any_name(self) -> bool:
        """Whether a name with a newline can be told apart from two names."""
        return self in (Feed.ARGUMENTS, Feed.NUL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with its arguments, and how it takes the paths."""

    argv: tuple[str, ...]
    feed: Feed = Feed.ARGUMENTS

    def __str__(self) -> str:
        return " ".join(self.argv)

    def line(self, paths: Sequence[bytes], *, list_file: Path | None = None) -> list[str | bytes]:
        """The arguments to run it with."""
        if list_file is not None:
            argv = [part.replace(LIST, str(list_file)) for part in self.argv]
            return [*argv] if any(LIST in part for part in self.argv) else [*argv, str(list_file)]
        return [*self.argv, *(paths if self.feed is Feed.ARGUMENTS else ())]

    def standard_input(self, paths: Sequence[bytes]) -> bytes:
        """What goes to its standard input."""
        end = {Feed.NUL: b"\0", Feed.LINES: b"\n"}.get(self.feed, b"")
        return b"".join(path + end for path in paths) if end else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What a command printed. `failure` is empty if it ended with status 0."""

    output: bytes
    failure: str


def run(command: Command, paths: Sequence[bytes], *, timeout: timedelta) -> Printed:
    """Run a command to its end. Raises `ServiceUnavailable` if it cannot be started or takes too long."""
    process = start(command.line(paths), standard_input=subprocess.PIPE, output=subprocess.PIPE, what=str(command))
    try:
        output, errors = process.communicate(command.standard_input(paths), timeout=timeout.total_seconds())
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise ServiceUnavailable(f"{command}: no answer within {timeout.total_seconds():g} s.") from error
    except BaseException:
        _kill(process)  # it has a session of its own: Ctrl-C at our terminal does not reach it
        raise
    failure = f"{command}: exit status {process.returncode}: {shown(errors or output)}" if process.returncode else ""
    return Printed(output=output, failure=failure)


def start(
    argv: Sequence[str | bytes], *, standard_input: int | IO[bytes], output: int | IO[bytes], what: str
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that it outlives us. Raises `ServiceUnavailable`."""
    errors = subprocess.PIPE if output == subprocess.PIPE else subprocess.STDOUT
    try:
        return subprocess.Popen(
            argv,
            stdin=standard_input,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},  # the words of the parsers are the English ones
        )
    except OSError as error:
        raise ServiceUnavailable(f"{what}: cannot be started: {error.strerror or error}.") from error


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_KILLED_S)


def batches(
    paths: Sequence[bytes], feed: Feed, *, at_most: int, one_directory: bool = False, newlines_alone: bool = True
) -> Iterator[list[bytes]]:
    """The paths in groups for one command each, bounded in number, and in bytes where they are arguments.

    `newlines_alone`: a path with a newline goes alone, since no line of the answer could be told to be about it.
    """
    group: list[bytes] = []
    room = start_room = _ARGUMENT_BYTES if feed is Feed.ARGUMENTS else 1 << 62
    for path in paths:
        is_odd = newlines_alone and b"\n" in path
        is_elsewhere = one_directory and bool(group) and _directory(group[0]) != _directory(path)
        if group and (is_odd or is_elsewhere or len(group) == at_most or len(path) > room):
            yield group
            group, room = [], start_room
        if is_odd:
            yield [path]
        else:
            group.append(path)
            room -= len(path) + 1
    if group:
        yield group


def _directory(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def shown(raw: bytes, *, at_most: int = 200) -> str:
    """What a command printed, for messages: on one line, escapes for what is no text, the rest cut off."""
    text = printable(raw.decode("utf-8", "surrogateescape")).strip().replace("\n", "\\n")
    return text if len(text) <= at_most else text[:at_most] + "..."
