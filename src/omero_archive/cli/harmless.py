"""Text as people are shown it: users choose the names of files and images, and may choose what moves a terminal."""

import re

from omero_archive.model import printable

# Control characters, and those of Unicode that end a line or turn the direction in which it is read.
_MOVING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_IN_A_TEXT = re.compile(f"[{_MOVING}]")
_IN_A_LINE = re.compile(f"[\t\n{_MOVING}]")


def harmless(text: str) -> str:
    """A text of one or more lines; what would do more to a terminal than write there becomes escapes, as `\\x1b`."""
    return _IN_A_TEXT.sub(_escape, printable(text))


def in_one_line(text: str) -> str:
    """As `harmless`, with escapes for the ends of lines and for tabulators too."""
    return _IN_A_LINE.sub(_escape, printable(text))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
