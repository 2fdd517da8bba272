"""Standard input, output and error as a command finds them: closed, of another encoding, on a full disk."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from omero_archive.errors import DiskFailed


def prepare() -> None:
    """Make the streams of this process ones that can be used. Begins the process anew where it must."""
    _read_names_as_utf_8()
    _open_all()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # PYTHONIOENCODING may ask for one that lacks letters


@contextmanager
def written() -> Iterator[None]:
    """Around what is written to standard output. Ends the process where that is on a disk that does not take it.

    No `ArchiveError`: it is no failure of the bundle that was just done, and the next would not be told either.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # whoever reads it has seen enough
    except OSError as error:
        # What is left of it would be tried again at the end of the process, and that would be its exit code.
        sys.stdout = _nowhere()
        with suppress(OSError):
            sys.stderr.write(
                f"standard output: {error.strerror}. The command stopped there; what it had done is done. Run it again "
                "when that can be written.\n"
            )
        raise SystemExit(DiskFailed.exit_code) from error


def _read_names_as_utf_8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale has another encoding.

    There a name of a file would be read as other letters, and written so into the archive's manifests.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - the same program


def _open_all() -> None:
    """Open what is closed: else the next file or connection that is opened becomes standard output or error."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")
