"""Programs that read files as OMERO's do, as processes: Java in all its ways, and readers that loop.

The fixture `file_ways` is a JVM. Without Java the tests are skipped, unless OMERO_ARCHIVE_REQUIRE_TOOLS=1: then they
fail.
"""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_PROGRAMS = Path(__file__).resolve().parent / "access"
ANSWER_S = 60.0


class FileWays:
    """A JVM that reads files in every way Java has; see `access/FileWays.java`."""

    def __init__(self, java: str) -> None:
        self._process = subprocess.Popen(
            # Small: several of them run beside a test.
            [java, "-Xmx256m", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(_PROGRAMS / "FileWays.java")],
            # A JVM takes the encoding of file names from the locale.
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self._unanswered = 0
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, *words: str | Path) -> dict[str, str]:
        """One order and its answer."""
        while self._unanswered:  # of a test that failed before it asked for it
            self.answer()
        self.tell(*words)
        return self.answer()

    def tell(self, *words: str | Path) -> None:
        """An order; its answer comes later."""
        self._unanswered += 1
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def answer(self, timeout_s: float = ANSWER_S) -> dict[str, str]:
        """The next answer. Raises `queue.Empty` if there is none in time."""
        lines = list(iter(lambda: self.line(timeout_s), "."))
        self._unanswered -= 1
        return dict(line.split("\t", 1) for line in lines)

    def line(self, timeout_s: float = ANSWER_S) -> str:
        """The next line of an answer."""
        return self._said.get(timeout=timeout_s)

    def is_silent(self) -> bool:
        """Whether nothing was answered that was not asked for yet."""
        return self._said.empty()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(timeout=ANSWER_S)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line.rstrip("\n"))


@contextmanager
def started_file_ways() -> Iterator[FileWays]:
    """A JVM of its own, or a skip (or failure, see above)."""
    java = shutil.which("java")
    if java is None:
        if os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
            pytest.fail("Java is required but not installed")
        pytest.skip("Java is not installed")
    ways = FileWays(java)
    try:
        yield ways
    finally:
        ways.close()


@pytest.fixture(scope="module")
def file_ways() -> Iterator[FileWays]:
    """One JVM for a module's tests."""
    with started_file_ways() as ways:
        yield ways


# ---- readers that loop


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSet:
    """Files that belong together, with their digests; `home` is their directory on the disk beneath the mount."""

    home: Path
    files: Mapping[Path, str]


@dataclass(slots=True, kw_only=True)
class Ends:
    """How the readings of one reader ended."""

    way: str
    right: int
    refused: dict[str, int]  # by errno
    wrong: list[str]
    sets: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class LoopingReaders:
    """Processes that read until they are told to stop: `java` too, which is one more, if it is given."""

    processes: "list[tuple[str, subprocess.Popen[str]]]"
    java: FileWays | None
    stop: Path

    def ends(self) -> list[Ends]:
        """Stop them; how it ended. A reader that was killed by a signal (SIGBUS) fails here."""
        self.stop.touch()
        found = [_ended(way, process) for way, process in self.processes]
        if self.java is not None:
            found.append(_java_ends(self.java.answer()))
        return found


_ERRNO_OF_TEXT = {
    "No data available": "ENODATA",
    "No medium found": "ENOMEDIUM",
    "Connection timed out": "ETIMEDOUT",
    "Remote I/O error": "EREMOTEIO",
    "Transport endpoint is not connected": "ENOTCONN",
    "Software caused connection abort": "ECONNABORTED",
}


@contextmanager
def looping_readers(
    ways: Sequence[str], sets: Sequence[ReadSet], *, stop: Path, pause_s: float = 0.002, java: FileWays | None = None
) -> Iterator[LoopingReaders]:
    """One process for each way, and the JVM, all of them ready."""
    processes = []
    try:
        for way in ways:
            told = [{"home": str(one.home), "files": {str(p): d for p, d in one.files.items()}} for one in sets]
            order = {"stop": str(stop), "way": way, "pause_s": pause_s, "sets": told}
            command = [sys.executable, "-S", str(_PROGRAMS / "looping_reader.py"), json.dumps(order)]
            processes.append((way, subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
        for _, process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        if java is not None:
            pairs = [word for one in sets for path, digest in one.files.items() for word in (path, digest)]
            java.tell("loop", stop, "all", *pairs)
            assert java.line() == "ready\t"
        yield LoopingReaders(processes=processes, java=java, stop=stop)
    finally:
        stop.touch()
        for _, process in processes:
            process.kill()
            process.wait(timeout=ANSWER_S)


def _ended(way: str, process: "subprocess.Popen[str]") -> Ends:
    said, _ = process.communicate(timeout=ANSWER_S)
    assert process.returncode == 0, f"the reader by {way} ended with {process.returncode} (negative: a signal): {said}"
    counts = json.loads(said)
    return Ends(way=way, right=counts["right"], refused=counts["refused"], wrong=counts["wrong"], sets=counts["sets"])


def _java_ends(answer: Mapping[str, str]) -> Ends:
    refused = {}
    for end, count in answer.items():
        if end.startswith("refused "):
            text = end.removeprefix("refused ")
            refused[_ERRNO_OF_TEXT.get(text, text)] = int(count)
    wrong = [f"{end} ({count} times)" for end, count in answer.items() if end.startswith("wrong")]
    return Ends(way="Java", right=int(answer.get("right", 0)), refused=refused, wrong=wrong)
