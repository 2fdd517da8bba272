"""Keys and the names of objects: one object for each key, one key for each object.

A key is the name of its object, below the prefix, wherever it can be: an archivist finds the files under their own
paths. It cannot where a name holds what S3 or one of its servers takes badly: bytes that are not UTF-8, control
characters (no XML listing may hold them), U+FFFE and U+FFFF, a backslash (some servers make a slash of it). Such an
object lies under `.omero-archive/names/`, its whole path percent-encoded. So no other name needs any escape: a `%`
stays a `%`, and a listing in the order of names is one in the order of keys but for those few, which are merged in.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from omero_archive.errors import ItemFailed
from omero_archive.model import Key, printable

OURS = ".omero-archive/"
"""What lies here is the service's own and never listed as a key of itself."""

ESCAPED = f"{OURS}names/"
MARKER = f"{OURS}service"
"""Lies in every bucket and prefix that `omero-archive init` prepared."""

MOST_BYTES = 1024
"""The longest name that S3 takes, in UTF-8 (AWS, "Naming Amazon S3 objects")."""

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\\\\\ud800-\udfff\ufffe\uffff]")
_PIECES = re.compile("(?:%..|[^%]){1,80}", re.DOTALL)  # at most 240 characters, no escape torn apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names below one prefix. `prefix` is without slashes at its ends."""

    prefix: str

    @property
    def top(self) -> str:
        """What all names begin with: empty, or ending in a slash."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def marker(self) -> str:
        return self.top + MARKER

    def name(self, key: Key) -> str:
        """The name of a key's object. Raises `ItemFailed` for one that is too long for S3."""
        name = self.top + (ESCAPED + escaped(key) if needs_escape(key) else key)
        length = len(name.encode("utf-8"))
        if length > MOST_BYTES:
            raise ItemFailed(
                f"{printable(key)}: its object would have a name of {length} bytes, S3 takes {MOST_BYTES}. "
                "Such a file can be archived to a service that has directories only."
            )
        return name

    def key(self, name: str) -> Key | None:
        """The key of an object, None for an object that is none of ours."""
        if not name.startswith(self.top):
            return None
        below = name.removeprefix(self.top)
        if below.startswith(ESCAPED):
            key = unescaped(below.removeprefix(ESCAPED))
            # What we did not write ourselves could give one key to two objects.
            return key if needs_escape(key) and ESCAPED + escaped(key) == below else None
        if not below or below.startswith(OURS) or below.endswith("/") or needs_escape(Key(below)):
            return None
        return Key(below)


def needs_escape(key: str) -> bool:
    """Whether a key, or the beginning of one, cannot be a name as it is."""
    return _UNFIT.search(key) is not None


def escaped(key: str) -> str:
    """The path percent-encoded, its slashes as they are. What a beginning of a key gives, its whole key begins with.

    A component that becomes longer than a file name may be goes on in the next, after a `%`: there are servers that
    keep objects as files.
    """
    return "/".join(_cut(quote_from_bytes(os.fsencode(part), safe="")) for part in key.split("/"))


def unescaped(text: str) -> Key:
    """The key of `escaped`."""
    return Key(os.fsdecode(unquote_to_bytes(text.replace("%/", ""))))


def _cut(component: str) -> str:
    return "%/".join(_PIECES.findall(component))
