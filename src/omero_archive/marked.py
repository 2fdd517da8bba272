"""A directory that is known by a marker file in it: nothing in it is "not there" before the marker was seen.

Where a disk is not mounted, its empty mount point looks like a disk on which every file is missing. So whoever asks a
`MarkedTree` for what the system says is not there makes it prove, by the marker and through the very descriptor that
was asked, that it is the directory that was meant. What is found needs no proof.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from omero_archive.files import Entry, Reading, Tree

_LARGEST_MARKER = 4096

Proof = Callable[["MarkedTree"], None]
"""Raises an `ArchiveError` unless the directory is the one that was meant."""


class MarkedTree(Tree):
    """A `Tree` whose every "not there" is proved first; then `proof` raises what it has to say, in its place."""

    def __init__(self, root: Path, proof: Proof) -> None:
        super().__init__(root)
        self._proof = proof
        self._unproved = Tree.__new__(Tree)  # the same directory, for looks that are proved here
        self._unproved.root, self._unproved._root_fd = self.root, self._root_fd

    def close(self) -> None:
        self._unproved._root_fd = -1
        super().close()

    def prove(self) -> None:
        """Raise what `proof` raises unless this is the directory that was meant."""
        self._proof(self)

    def marker(self, relative: str) -> bytes | None:
        """What the marker file says, None if there is none. Never asks for a proof itself."""
        try:
            fd = super()._open(relative, os.O_RDONLY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with Reading(fd) as file:
            return file.read(_LARGEST_MARKER)

    def has_marker(self, relative: str) -> bool:
        """Whether something lies there, without opening it: it may be on tape. Never asks for a proof itself."""
        return self._unproved.look(relative) is not None

    def is_at_its_path(self) -> bool:
        """Whether its path still leads to this directory, not to what was mounted over it or left below a mount."""
        try:
            with Tree(self.root) as now:
                there, here = now.look_at_root().identity, self.look_at_root().identity
        except OSError:
            return False
        return (there.device, there.inode) == (here.device, here.inode)

    # ---- answers that may be "not there"

    def look(self, relative: str) -> Entry | None:
        return self._proved(lambda: self._unproved.look(relative))

    def look_through(self, relative: str) -> Entry | None:
        return self._proved(lambda: self._unproved.look_through(relative))

    def _proved(self, look: Callable[[], Entry | None]) -> Entry | None:
        found = look()
        if found is None:
            self.prove()
            found = look()  # it may have been mounted between our look and the proof
        return found

    def names_in(self, relative: str) -> list[str]:
        found = super().names_in(relative)
        self.prove()  # what is listed may be less than there is
        return found

    def look_at_each(self, relative: str, names: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        yield from super().look_at_each(relative, names)
        self.prove()

    def directories_in(self, relative: str) -> list[str]:
        found = super().directories_in(relative)
        self.prove()
        return found

    def files_below(self, relative: str) -> Iterator[str]:
        yield from super().files_below(relative)
        self.prove()

    def open_plain(self, relative: str) -> int | None:
        try:
            return super().open_plain(relative)
        except FileNotFoundError:
            self.prove()
            raise

    # ---- the ways by which all others go

    def _open(self, relative: str, flags: int) -> int:
        try:
            return super()._open(relative, flags)
        except FileNotFoundError:
            self.prove()
            raise

    def _nothing_there(self) -> None:
        # What is done in an open directory counts too: most of all that there is no such name in it.
        self.prove()
