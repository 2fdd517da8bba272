"""The directory of near bytes, to which links point: bring a bundle in, take it out, say what it holds.

A bundle becomes readable or unreadable in one rename. It is prepared under `.omero-archive/incoming/<bundle>` and
renamed to its home, the directory it has for itself (`ManagedRepository/alice_2/2026-11/22/20-00-00.000`); to go,
it is renamed to `.omero-archive/outgoing/<bundle>`, and only there are bytes deleted.

Some bundles have no directory for themselves: OMERO 4 images, filesets that share a directory. They live in
`.omero-archive/bundles/<bundle>`, and at each key lies a relative link into that directory, which dangles while
the bundle is away; so for them too one rename is all. The link in OMERO's repository is the same for both.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from omero_archive.errors import BrokenInvariant, DiskFailed, UnsafePath, WrongState
from omero_archive.files import (
    Entry,
    EntryKind,
    Model,
    Tree,
    delete_near,
    delete_twins,
    no_model,
    remove_empty_directories,
    remove_links,
    temporary_of,
)
from omero_archive.looking import look_at_all
from omero_archive.model import BundleName, FileAttributes, Key, printable
from omero_archive.states import Permit

_PRIVATE = ".omero-archive"

LOCKS = f"{_PRIVATE}/locks"
"""An empty file: whoever is at work on a bundle holds a lock on it, one for each bundle's name."""

_NOT_OF_BUNDLES = {"site", "locks"}

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""What the system says of a path at which there is nothing, or at which nothing can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A bundle as `near` sees it: its name, the directory it has for itself or None, and the keys of its files."""

    name: BundleName
    home: str | None
    keys: tuple[Key, ...]


class Near:
    """The directory of near bytes. New directories take mode and owner of OMERO's, which `like` tells."""

    def __init__(self, tree: Tree, like: Model = no_model) -> None:
        self.tree = tree
        self._like = like

    # ---- where things are

    def path_of(self, place: Place, key: Key) -> str:
        """The path of a near file below the tree, whether it is there or not."""
        return self._inside(place, self._visible(place), key)

    def incoming_path_of(self, place: Place, key: Key) -> str:
        """The path under which a near file is prepared."""
        return self._inside(place, _incoming(place), key)

    def is_in(self, place: Place) -> bool:
        """Whether the bundle is readable: its directory is in place."""
        return self.tree.look(self._visible(place)) is not None

    def is_prepared(self, place: Place) -> bool:
        """Whether files of the bundle were being prepared, by a release or a recall that did not come to its end."""
        return self.tree.look(_incoming(place)) is not None

    def is_taken_out(self, place: Place) -> bool:
        """Whether bytes of the bundle wait to be deleted, or to be put back."""
        return self.tree.look(_outgoing(place)) is not None

    def has_ways(self, place: Place) -> bool:
        """Whether any of our links inside the tree lead to the bundle, which has no directory for itself."""
        if place.home is not None:
            return False
        found = ((key, self.tree.look(key)) for key in place.keys)
        return any(entry is not None and entry.target == _way(place, key) for key, entry in found)

    def private_names(self) -> Iterator[tuple[str, BundleName]]:
        """The bundles that have a directory in ours: `incoming`, `outgoing` or `bundles`, and the bundle's name."""
        for directory in ("incoming", "outgoing", "bundles"):
            for name in self.tree.directories_in(f"{_PRIVATE}/{directory}"):
                yield directory, BundleName(name)

    def is_begun(self) -> bool:
        """Whether anything ever was near: there are directories that only its coming makes."""
        return bool(set(self.tree.names_in(_PRIVATE)) - _NOT_OF_BUNDLES)

    def visible_files(self) -> Iterator[str]:
        """The paths of all files and links of the tree but those in our own directory."""
        return (path for path in self.tree.files_below("") if not path.startswith(_PRIVATE + "/"))

    # ---- what readers find, by looking at the disk alone

    def find(self, path: str) -> tuple[str, Entry] | None:
        """What is readable at a path of the archive: the plain file or directory, and its own path below the tree.

        They differ for a bundle without a home: its file lies behind a link. Only our own links are followed, and not
        by the system: any other thing, and all in our own directory, is None, as is what is not near. None says nothing
        about the archive. Raises `DiskFailed` where the disk could not be asked.
        """
        with _looking(self.tree, path):
            if not path:
                return path, self.tree.look_at_root()
            entry = self.tree.look(path) if _is_shown(path) else None
            return None if entry is None else self._behind(path, entry)
        return None

    def names_in(self, path: str) -> list[str]:
        """The names in a directory of the archive as far as it is near, readable or not; none if there is none.

        Raises `DiskFailed`.
        """
        with _looking(self.tree, path):
            names = self.tree.names_in(path) if _is_shown(path) else []
            return names if path else [name for name in names if name != _PRIVATE]
        return []

    def find_each(self, path: str, names: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        """As `find`, for names in a directory; those of which nothing is near, or no longer, are left out."""
        if not _is_shown(path):
            return
        with _looking(self.tree, path):
            for name, entry in self.tree.look_at_each(path, names):
                found = self._behind(f"{path}/{name}" if path else name, entry)
                if found is not None:
                    yield name, found[1]

    def open(self, path: str) -> int | None:
        """A descriptor of the plain file that is readable at a path of the archive; None if it is not near.

        Between looking and opening it may be evicted: then it is not near. Or replaced by another thing, which nothing
        of ours does: whoever gets the descriptor looks at what it is. Raises `DiskFailed`.
        """
        if not path or not _is_shown(path):
            return None
        with _looking(self.tree, path):
            return self._open_at(path)
        return None

    def _open_at(self, path: str) -> int | None:
        """As `open`. Most files lie at their own path; what lies behind a link of ours is looked for after that."""
        try:
            return self.tree.open_plain(path)
        except UnsafePath:
            found = self.find(path)
        if found is None or found[0] == path or found[1].kind is not EntryKind.FILE:
            return None
        try:
            return self.tree.open_plain(found[0])
        except UnsafePath:
            return None

    def model_of(self, directory: str) -> FileAttributes | None:
        """Mode, owner and mtime of OMERO's directory of that name, None if it has none. Raises `DiskFailed`."""
        with _looking(self.tree, directory):
            return self._like(directory)
        return None

    def _behind(self, path: str, entry: Entry) -> tuple[str, Entry] | None:
        """What a reader who opens the path finds, given what lies there."""
        match entry.kind:
            case EntryKind.FILE | EntryKind.DIRECTORY:
                return path, entry
            case EntryKind.LINK:
                inside = _led_to(path, entry.target or "")
                with _looking(self.tree, path):
                    there = None if inside is None else self.tree.look(inside)
                    if inside is not None and there is not None and there.kind is EntryKind.FILE:
                        return inside, there
                return None
            case EntryKind.OTHER:
                return None
            case _:
                assert_never(entry.kind)

    # ---- coming

    def prepare(self, place: Place) -> None:
        """Make the directories into which the bundle's files are then linked or written."""
        incoming = _incoming(place)

        def like(directory: str) -> FileAttributes | None:
            if directory != incoming and not directory.startswith(incoming + "/"):
                return None  # above the bundle's directory all is ours
            inside = directory.removeprefix(incoming)
            return self._like((place.home or "") + inside if place.home else inside.lstrip("/"))

        for directory in sorted({self.incoming_path_of(place, key).rpartition("/")[0] for key in place.keys}):
            self.tree.make_directories(directory, like=like)

    def bring_in(self, place: Place) -> None:
        """Make the prepared bundle readable, in one rename. All its files must be there; done twice is done once.

        Raises `BrokenInvariant` if a file is missing: a fileset that is partly there would show wrong data.
        """
        if self.is_in(place):
            missing = self._missing(place, self._visible(place))
            if missing is not None:
                raise BrokenInvariant(f"{place.name}: {missing} is missing from {self.tree.root}; a person must look.")
            return
        missing = self._missing(place, _incoming(place))
        if missing is not None:
            raise BrokenInvariant(f"{place.name}: {missing} was not prepared; the bundle was not made readable.")
        visible = self._visible(place)
        self._make_ways(place, visible)
        self.tree.sync()
        self.tree.move_directory(_incoming(place), visible)
        self.tree.sync()

    # ---- going

    def require_alone(self, place: Place) -> None:
        """Raise `WrongState` if anything else lies in the directory of a bundle that is in."""
        stranger = self._stranger(place)
        if stranger is not None:
            raise WrongState(
                f"{printable(str(self.tree.path(stranger)))} lies in the directory of {place.name} and is not of it; "
                f"{place.name} stays there. Unarchive first what it is of, or move it elsewhere; then run it again."
            )

    def take_out(self, place: Place) -> None:
        """Make the bundle unreadable, in one rename. Its bytes are all still there afterwards.

        Raises `WrongState` if anything else lies in its directory: that would go out of sight too, and keep its bytes.
        """
        if not self.is_in(place):
            return
        if self.is_taken_out(place):
            raise BrokenInvariant(f"{place.name} is both in {self.tree.root} and on its way out; a person must look.")
        self.require_alone(place)
        self.tree.make_directories(_outgoing(place).rpartition("/")[0])
        self.tree.move_directory(self._visible(place), _outgoing(place))
        self.tree.sync()

    def put_back(self, place: Place) -> None:
        """Undo `take_out`. Raises `WrongState` once anything was deleted: the rest alone would show wrong data."""
        if self.is_taken_out(place) and not self.is_in(place):
            missing = self._missing(place, _outgoing(place))
            if missing is not None:
                raise WrongState(f"{place.name}: {missing} was deleted already; it was not put back. Recall it.")
            self.tree.move_directory(_outgoing(place), self._visible(place))
            self.tree.sync()

    def reuse(self, place: Place) -> None:
        """Let what an interrupted eviction left of a bundle be the beginning of its recall, instead of deleting it.

        Some files may be gone already; the recall reads back what is there and brings the rest.
        """
        if self.is_taken_out(place) and self.tree.look(_incoming(place)) is None:
            self.tree.make_directories(_incoming(place).rpartition("/")[0])
            self.tree.move_directory(_outgoing(place), _incoming(place))
            self.tree.sync()

    def taken_out(self) -> list[BundleName]:
        """The bundles of which bytes wait to be deleted, by name."""
        return [BundleName(name) for name in self.tree.directories_in(f"{_PRIVATE}/outgoing")]

    def delete(self, place: Place, permits: Mapping[Key, Permit], now: datetime) -> int:
        """Delete the bytes of a bundle that was taken out, with a permit for every file; the bytes freed."""
        keys = {self._inside(place, _outgoing(place), key): key for key in place.keys}
        return delete_near(self.tree, _outgoing(place), keys, permits=permits, now=now)

    def are_second_names(self, place: Place, originals: Mapping[Key, tuple[Tree, str]]) -> bool:
        """Whether every file of a bundle that was taken out is the very file at its original's path."""
        return self._are_twins(place, _outgoing(place), originals)

    def give_up(self, place: Place, originals: Mapping[Key, tuple[Tree, str]]) -> None:
        """Take back what a release prepared and did not make readable, if all of it is second names of originals.

        Copies on another file system stay: the next release begins with them.
        """
        if self.is_prepared(place) and self._are_twins(place, _incoming(place), originals):
            inside = {self.incoming_path_of(place, key): originals[key] for key in place.keys}
            delete_twins(self.tree, _incoming(place), inside)

    def delete_second_names(self, place: Place, originals: Mapping[Key, tuple[Tree, str]]) -> None:
        """Delete a bundle that was taken out and whose very files are the originals in place again."""
        inside = {self._inside(place, _outgoing(place), key): originals[key] for key in place.keys}
        delete_twins(self.tree, _outgoing(place), inside)

    def drop_incoming(self, place: Place, permits: Mapping[Key, Permit], now: datetime) -> int:
        """Give up a recall: delete what was prepared. It is a copy of what the permits name."""
        keys = {self.incoming_path_of(place, key): key for key in place.keys}
        return delete_near(self.tree, _incoming(place), keys, permits=permits, now=now)

    def forget(self, place: Place) -> None:
        """Remove what a bundle leaves when it is gone for good: its ways and its empty directories."""
        if place.home is None:
            remove_links(self.tree, {key: _way(place, key) for key in place.keys})
        else:
            remove_empty_directories(self.tree, place.home.rpartition("/")[0])

    # ---- how much

    def last_opened_ns(self, place: Place) -> int:
        """When any of the bundle's near files was last read, as the file system tells (atime, ns); 0 for never."""
        found = (self.tree.last_read_ns(self.path_of(place, key)) for key in place.keys)
        return max(found, default=0)

    def file_in_use(self, place: Place) -> Key | None:
        """A near file of the bundle that somebody has open now, None if none is known to be."""
        return next((key for key in place.keys if self.tree.is_open(self.path_of(place, key))), None)

    def free_bytes(self) -> int:
        """The free space of the file system that near bytes lie on."""
        return self.tree.free_bytes()

    def space(self) -> tuple[int, int]:
        """The bytes of the file system that near bytes lie on, and those that are free. Raises `DiskFailed`."""
        try:
            return self.tree.space()
        except OSError as error:
            raise DiskFailed(f"{self.tree.root}: {error.strerror}.") from error

    # ---- the inside

    def _visible(self, place: Place) -> str:
        return f"{_PRIVATE}/bundles/{place.name}" if place.home is None else place.home

    def _inside(self, place: Place, directory: str, key: Key) -> str:
        if place.home is None:
            return f"{directory}/{key}"
        if not key.startswith(place.home + "/"):
            raise BrokenInvariant(f"{key} does not lie in the directory of {place.name}, {place.home}.")
        return directory + key[len(place.home) :]

    def _are_twins(self, place: Place, directory: str, originals: Mapping[Key, tuple[Tree, str]]) -> bool:
        paths = (self._inside(place, directory, key) for key in place.keys)
        for key, (_, near) in zip(place.keys, look_at_all(self.tree, paths), strict=True):
            if near is None:
                continue  # gone before an interruption, or not there yet
            tree, relative = originals[key]
            original = tree.look(relative)
            if original is None or near.identity.inode != original.identity.inode:
                return False
            if near.identity.device != original.identity.device:
                return False
        return True

    def _missing(self, place: Place, directory: str) -> Key | None:
        """The first file that is not there, None if all are."""
        paths = (self._inside(place, directory, key) for key in place.keys)
        found = zip(place.keys, look_at_all(self.tree, paths), strict=True)
        return next((key for key, (_, entry) in found if entry is None), None)

    def _stranger(self, place: Place) -> str | None:
        """What lies in the bundle's directory and is none of its files, nor what a killed transfer left of one."""
        known = {self._inside(place, self._visible(place), key) for key in place.keys}
        others = [path for path in self.tree.files_below(self._visible(place)) if path not in known]
        left = {temporary_of(path) for path in known} if others else set()
        return next((path for path in others if path not in left), None)

    def _make_ways(self, place: Place, visible: str) -> None:
        """The directories above a bundle's place; for one without a home, the links that lead into it."""
        self.tree.make_directories(visible.rpartition("/")[0], like=self._like)
        if place.home is not None:
            return
        for key in place.keys:
            self.tree.make_directories(key.rpartition("/")[0], like=self._like)
            self.tree.make_link(key, _way(place, key))


def is_elsewhere(error: OSError) -> bool:
    """Whether a hard link failed because it cannot be made there, so that a verified copy is the way."""
    return error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)


def _incoming(place: Place) -> str:
    return f"{_PRIVATE}/incoming/{place.name}"


def _outgoing(place: Place) -> str:
    return f"{_PRIVATE}/outgoing/{place.name}"


def _way(place: Place, key: Key) -> str:
    """The target of the link at `key`: up to the tree's root, then down into the bundle's own directory."""
    return _way_into(place.name, key)


def _way_into(bundle: str, path: str) -> str:
    return "../" * path.count("/") + f"{_PRIVATE}/bundles/{bundle}/{path}"


def _led_to(path: str, target: str) -> str | None:
    """Where below the tree our way at a path leads; None for any other link."""
    bundle = target.removeprefix("../" * path.count("/") + f"{_PRIVATE}/bundles/").partition("/")[0]
    if bundle in ("", ".", "..") or target != _way_into(bundle, path):
        return None
    return f"{_PRIVATE}/bundles/{bundle}/{path}"


def _is_shown(path: str) -> bool:
    """Whether it is a path of the archive as programs see it: nothing of ours, nothing that leads back or out."""
    components = path.split("/")
    return not path or (components[0] != _PRIVATE and not {"", ".", ".."} & set(components))


class _looking:  # noqa: N801 - used as a context manager
    """Ends where the system says that there is nothing, or a link that nobody follows; else raises `DiskFailed`."""

    def __init__(self, tree: Tree, path: str) -> None:
        self._tree, self._path = tree, path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, OSError) and error.errno not in _NOTHING_THERE:
            where = printable(str(self._tree.path(self._path)))
            raise DiskFailed(f"{where}: {error.strerror or error}.") from error
        return isinstance(error, OSError | UnsafePath)
