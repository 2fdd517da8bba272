"""Where OMERO's files lie: from rows of its database to keys, from keys to paths, and back. Changes no disk.

Paths in the database come from users' file names, so each is checked before it becomes a `Key`: nothing leads
out of the repository. Names are text in the database and bytes on disk.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from omero_archive.errors import UnsafePath
from omero_archive.model import Key

MANAGED = "ManagedRepository"
FILES = "Files"
PIXELS = "Pixels"
THUMBNAILS = "Thumbnails"

_LONGEST_COMPONENT = 255  # bytes; NAME_MAX of every file system OMERO runs on


def omero_path(kind: str, id_: int) -> str:
    """The path of an object that OMERO files by id: `Pixels/Dir-123/123456`, `Files/999`.

    Three digits a directory, as OMERO's romio does it (AbstractFileSystemService.getPath); omero-py's
    `long_to_path` differs for some ids and is not what the server uses.
    """
    directories = ""
    rest = id_
    while rest > 999:
        rest //= 1000
        directories = f"Dir-{rest % 1000:03d}/{directories}"
    return f"{kind}/{directories}{id_}"


def managed_key(path: str, name: str, *, encoding: str) -> Key:
    """The key of an original file in the managed repository, from its row's `path` and `name`.

    `path` ends in `/` and is `/` alone at the root. Empty components are collapsed, as every file system does.
    Raises `UnsafePath`.
    """
    if "/" in name or name in {"", ".", ".."}:
        raise UnsafePath(f"{path + name!r}: {name!r} is no file name.")
    text = name if path == "/" else f"{path}/{name}"
    return Key(f"{MANAGED}/{relative_path(text, encoding=encoding)}")


class ManagedKeys:
    """`managed_key` for many files: what stands before a name is looked at once for each directory."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._above: dict[str, str] = {}

    def key(self, path: str, name: str) -> Key:
        """The key of an original file. Raises `UnsafePath`."""
        above = self._above.get(path)
        if above is None or "/" in name:
            key = managed_key(path, name, encoding=self._encoding)
            self._above[path] = key.rpartition("/")[0]
            return key
        return Key(f"{above}/{relative_path(name, encoding=self._encoding)}")


def relative_path(text: str, *, encoding: str) -> str:
    """A relative path of the database as the file system has it, without empty components or a trailing slash.

    Raises `UnsafePath` where it is absolute or empty, has a `.` or `..` component, a NUL, a component of more
    than 255 bytes or a character that the encoding lacks.
    """
    if text.startswith("/"):
        raise UnsafePath(f"{text!r} is absolute.")
    try:
        raw = text.encode(encoding)
    except UnicodeEncodeError as error:
        raise UnsafePath(f"{text!r} cannot be written in {encoding}.") from error
    components = [component for component in raw.split(b"/") if component]
    if not components:
        raise UnsafePath(f"{text!r} is empty.")
    for component in components:
        if component in {b".", b".."} or b"\0" in component:
            raise UnsafePath(f"{text!r} has the component {component!r}.")
        if len(component) > _LONGEST_COMPONENT:
            raise UnsafePath(f"{text!r} has a component of {len(component)} bytes; 255 are possible.")
    return os.fsdecode(b"/".join(components))


def database_text(relative: str, *, encoding: str) -> str | None:
    """The text that stands in the database for a path on disk; None if its bytes are no text of the encoding."""
    try:
        return os.fsencode(relative).decode(encoding)
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """OMERO's directories: `data_dir` (`omero.data.dir`) and `managed_dir` (`omero.managed.dir`), absolute."""

    data_dir: Path
    managed_dir: Path

    def root_of(self, key: Key) -> tuple[Path, str]:
        """The root that a key lies under, and the rest of the key. Raises `UnsafePath` for another root."""
        top, _, rest = key.partition("/")
        if not rest or any(component in {"", ".", ".."} for component in key.split("/")):
            raise UnsafePath(f"{key!r} is no path of a file in OMERO's repository.")
        match top:
            case "ManagedRepository":
                return self.managed_dir, rest
            case "Files" | "Pixels":
                return self.data_dir / top, rest
            case _:
                raise UnsafePath(f"{key!r} is neither in {MANAGED} nor in {FILES} nor in {PIXELS}.")

    def path_of(self, key: Key) -> Path:
        root, rest = self.root_of(key)
        return root / rest

    def key_of(self, path: Path) -> Key:
        """The key of a path, absolute or relative to the data directory. Raises `UnsafePath` if it is outside.

        The last component is never followed: it may be our own link.
        """
        if ".." in path.parts:
            raise UnsafePath(f"{path} has a component `..`.")
        absolute = self.data_dir / path
        if path.parts[:1] == (MANAGED,):  # as a key is written, wherever the managed repository lies
            absolute = self.managed_dir.joinpath(*path.parts[1:])
        key = self._key_below(absolute, self.data_dir, self.managed_dir)
        if key is None:  # the site may reach its repository through a link, as /OMERO often is one
            real = Path(os.path.realpath(absolute.parent), absolute.name)
            key = self._key_below(real, Path(os.path.realpath(self.data_dir)), Path(os.path.realpath(self.managed_dir)))
        if key is None:
            raise UnsafePath(f"{path} is neither below {self.managed_dir} nor below {self.data_dir}/Files or Pixels.")
        return key

    def thumbnail(self, id_: int) -> Path:
        """Where OMERO keeps the thumbnail with this id."""
        return self.data_dir / omero_path(THUMBNAILS, id_)

    def lock_file(self, database_uuid: str) -> Path:
        """The file on which a running server holds a lock."""
        return self.managed_dir / ".omero" / "repository" / database_uuid / ".lock"

    @staticmethod
    def _key_below(path: Path, data_dir: Path, managed_dir: Path) -> Key | None:
        for top, root in ((MANAGED, managed_dir), (FILES, data_dir / FILES), (PIXELS, data_dir / PIXELS)):
            if path != root and path.is_relative_to(root):
                return Key(f"{top}/{path.relative_to(root)}")
        return None
