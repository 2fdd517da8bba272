"""What the archive looks like as files: the one definition, for whatever serves it. It knows nothing of FUSE.

A file is there if its bundle's originals are links, or if it lies in `near`. Whether its bytes are near is always
found out by looking at the disk: a bundle comes and goes there in one rename, which is seen at once, and without the
catalogue. Size, times, mode and owner are those of the original, near or away.

Paths are relative to the archive's root, which is the empty text. Nothing here waits for tape, and nothing is changed.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

import sqlalchemy as sa

from omero_archive.access.direct import Direct
from omero_archive.access.items import Item, ItemKind, Opened
from omero_archive.access.reach import Reach
from omero_archive.catalogue import listing
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.listing import Known
from omero_archive.errors import DiskFailed, NotMounted
from omero_archive.files import Entry, EntryKind, entry_of
from omero_archive.model import Clock, FileAttributes, Key, ServiceName
from omero_archive.near import Near
from omero_archive.service import Service
from omero_archive.settings import Settings
from omero_archive.states import Residency

_NO_MODEL = FileAttributes(mtime_ns=0, mode=0o755, uid=0, gid=0)
"""Of a directory that neither OMERO nor `near` has. It has no time: any would be made up."""

_REST_S = 1.0
"""So long nobody asks a catalogue that did not answer: where it hangs, each question takes as long as its patience."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A file that is not near, as the catalogue knows it: its bundle, in whatever state, and who could bring it.

    `services` have a copy of the file that a recall may read, nearest first. None at all is possible: then a person
    must look.
    """

    bundle: BundleRecord
    file: FileRecord
    services: tuple[ServiceName, ...]


class ArchiveTree:
    """The archive as files. Safe to use from several threads; closed are what it is made of, by whoever made them.

    `catalogue` should be one with little patience: who asks is a program that opens a file.
    """

    def __init__(
        self,
        *,
        near: Near,
        catalogue: Catalogue,
        services: Mapping[ServiceName, Service],
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._near = near
        self._reach = Reach(catalogue, monotonic, rest_s=_REST_S)
        self._nearest_first = settings.nearest_first
        direct = [name for name in settings.nearest_first if name in settings.mount.direct]
        self._direct = Direct({name: services[name] for name in direct}, begin=self._ask, clock=clock)

    @property
    def reach(self) -> Reach:
        """The catalogue as it is asked here: whoever asks it beside us knows at once what we found out."""
        return self._reach

    # ---- looking

    def look_near(self, path: str) -> Item | None:
        """What is near at a path: a file with its bytes, or a directory. From the disk alone, at once.

        None says nothing about the archive. Raises `DiskFailed`.
        """
        found = self._near.find(path)
        return None if found is None else self._near_item(path, found[1])

    def look(self, path: str) -> Item | None:
        """What lies at a path; None: there is no such thing. May ask the catalogue.

        Raises `DatabaseUnavailable` or `DiskFailed` where that could not be found out.
        """
        item = self.look_near(path)
        if item is not None or not _is_path(path):
            return item
        with self._ask() as connection:
            known = listing.at(connection, path)
        return None if known is None else self._away_item(path, known)

    def list(self, path: str) -> Iterator[tuple[str, Item]]:
        """All that lies in a directory, near and away, each name once, in no order; nothing where there is none.

        Raises `DatabaseUnavailable` or `DiskFailed`: at once where the catalogue cannot be asked, and later where it is
        lost on the way. What was listed until then is not the directory.
        """
        # In this order: what is released and evicted while we look is in one of both at every moment.
        names = self._near.names_in(path)
        children = listing.children(self._ask, path) if not path or _is_path(path) else iter(())
        return self._listed(path, names, children)

    def away(self, path: str) -> Away | None:
        """What the catalogue knows of a file; None: it knows no such file. Raises `DatabaseUnavailable`."""
        if not _is_path(path):
            return None
        with self._ask() as connection:
            found = listing.with_bundle(connection, Key(path))
        if found is None:
            return None
        bundle, file, services = found
        nearest = tuple(name for name in self._nearest_first if name in services)
        return Away(bundle=bundle, file=file, services=nearest)

    def room(self) -> tuple[int, int]:
        """The size and the free space of the file system of near bytes, in bytes. Raises `DiskFailed`."""
        return self._near.space()

    # ---- opening

    def open_near(self, path: str) -> Opened | None:
        """The bytes of a file that is near, at once; None: it is not near. Raises `DiskFailed`."""
        fd = self._near.open(path)
        if fd is None:
            return None
        found = entry_of(fd)
        if found.kind is EntryKind.FILE:
            return Opened(fd=fd, identity=found.identity)
        os.close(fd)
        return None

    def open_direct(self, path: str) -> Opened | None:
        """The bytes of a file where a service of `mount.direct` keeps it; None: from none of them now.

        May take time, but never that of a tape. Raises `DatabaseUnavailable`.
        """
        if not self._direct.is_wanted:
            return None
        away = self.away(path)
        if away is None or away.bundle.residency is Residency.RESIDENT:
            return None
        return self._direct.open(away.bundle, away.file, away.services)

    # ---- the inside

    @contextmanager
    def _ask(self) -> Iterator[sa.Connection]:
        """A connection in a transaction. Raises `DatabaseUnavailable`, at once if another question just failed so."""
        self._reach.require()
        with self._reach.begin() as connection:
            yield connection

    def _listed(self, path: str, names: Sequence[str], children: Iterator[Known]) -> Iterator[tuple[str, Item]]:
        shown = set()
        for name, entry in self._near.find_each(path, names):
            shown.add(name)
            yield name, self._near_item(_inside(path, name), entry)
        for known in children:
            if known.name not in shown:
                yield known.name, self._away_item(_inside(path, known.name), known)

    def _near_item(self, path: str, entry: Entry) -> Item:
        if entry.kind is EntryKind.DIRECTORY:
            return self._directory_item(path, entry)
        return Item(kind=ItemKind.FILE, size_bytes=entry.identity.size_bytes, attributes=entry.attributes)

    def _away_item(self, path: str, known: Known) -> Item:
        if known.attributes is None:
            return self._directory_item(path, None)
        return Item(kind=ItemKind.FILE, size_bytes=known.size_bytes, attributes=known.attributes)

    def _directory_item(self, path: str, near: Entry | None) -> Item:
        """A directory with mode, owner and time of OMERO's of that name, which is there whether bytes are near or not.

        Only where OMERO has none, or cannot tell, those of the directory in `near` apply. So what is shown does not
        change when a bundle comes or goes.
        """
        try:
            attributes = self._near.model_of(path) if path else None
        except (DiskFailed, NotMounted):
            if near is None:
                raise
            attributes = None
        if attributes is None:
            attributes = _NO_MODEL if near is None else near.attributes
        return Item(kind=ItemKind.DIRECTORY, size_bytes=0, attributes=attributes)


def _inside(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _is_path(path: str) -> bool:
    """Whether a file of the archive can lie there: not the root, and a text that stands for bytes."""
    try:
        return bool(path) and b"\0" not in path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
