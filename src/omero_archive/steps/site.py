"""Everything a step works with, wired by `app.py`."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.claims import Claim, record
from omero_archive.catalogue.database import Catalogue
from omero_archive.errors import ArchiveError, ObjectOffline, Unavailable
from omero_archive.files import Tree, disk_errors, only_holder
from omero_archive.model import BundleName, Clock, FileAttributes, Key, ServiceName
from omero_archive.near import LOCKS, Near, Place
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.offline import OfflineProof, ServerPorts, prove_offline
from omero_archive.omero.repository import Repository
from omero_archive.service import Service
from omero_archive.settings import Settings
from omero_archive.steps.breaker import Breaker
from omero_archive.steps.sight import Sight
from omero_archive.transfer import Lanes

_T = TypeVar("_T")

Progress = Callable[[str, int, int], None]
"""Told by a step, by its name, of so many files and bytes that are done."""


def no_progress(step: str, files: int, size_bytes: int) -> None:
    """Tells nobody."""
    del step, files, size_bytes


def place_of(bundle: BundleRecord, files: Sequence[FileRecord]) -> Place:
    """A bundle as `near` sees it."""
    return Place(name=bundle.name, home=bundle.home, keys=tuple(file.key for file in files))


@dataclass(slots=True, kw_only=True)
class Site:
    """One OMERO with its archive. Holds open directories: close it."""

    settings: Settings
    clock: Clock
    catalogue: Catalogue
    omero: OmeroDatabase
    repository: Repository
    services: Mapping[ServiceName, Service]
    lanes: Lanes
    breaker: Breaker
    progress: Progress = no_progress
    sight: Sight = field(init=False)
    _trees: dict[Path, Tree] = field(default_factory=dict)
    _lost: list[Tree] = field(default_factory=list)  # not the site's any more; others may still be reading there
    _near: Near | None = None

    def __post_init__(self) -> None:
        self.sight = Sight(self.settings, self.catalogue, self.services)

    def original(self, key: Key) -> tuple[Tree, str]:
        """Tree and path of an original. Raises `UnsafePath`, and as `tree`."""
        root, relative = self.repository.root_of(key)
        return self.tree(root), relative

    def sync_originals(self, keys: Iterable[Key]) -> None:
        """Make what was done at these originals' paths durable, on all the file systems that they lie on."""
        paths: dict[Tree, list[str]] = {}
        for key in keys:
            tree, relative = self.original(key)
            paths.setdefault(tree, []).append(relative)
        for tree, those in paths.items():
            tree.sync_around(those)

    def tree(self, root: Path) -> Tree:
        """A directory of the site, opened once and proved; what is not there in it has been proved too.

        Raises `NotMounted`, `DiskFailed`.
        """
        found = self._trees.get(root)
        if found is not None:
            return found
        opened = self.sight.open(root, lost=self._let_go)
        found = self._trees.setdefault(root, opened)
        if found is not opened:
            opened.close()  # another thread was faster
        return found

    def _let_go(self, tree: Tree) -> None:
        """Have a directory opened anew by the next that needs it: this one is not, or no longer, what lies there."""
        if self._trees.get(tree.root) is tree and self._trees.pop(tree.root, None) is tree:
            self._lost.append(tree)

    @property
    def near(self) -> Near:
        """The directory of near bytes."""
        tree = self.tree(self.settings.archive.near_directory)
        if self._near is None or self._near.tree is not tree:
            self._near = Near(tree, like=self._directory_attributes)
        return self._near

    @contextmanager
    def lock_bundle(self, name: BundleName) -> Iterator[None]:
        """Be the only one at work on a bundle; what disks refuse meanwhile is `DiskFailed`. Raises `Busy`.

        Two locks, and both are needed. PostgreSQL's goes when the connection does: it is restarted, a cable is pulled,
        and another host could have the lock while we still rename. The file's stays as long as this process does.
        """
        with disk_errors(name), self.catalogue.lock_bundle(name), only_holder(self.near.tree, LOCKS, name):
            yield

    def recorded(self, claim: Claim, act: Callable[[sa.Connection], _T]) -> _T:
        """What `act` recorded under a claim. Raises `WorkStopped` if others took the work over: nothing is changed."""
        return record(self.catalogue, claim, act, stalled_after=self.settings.work.stalled_after)

    def link_target(self, key: Key) -> str:
        """Where the link at an original's path points."""
        return os.path.join(self.settings.archive.root, key)  # for 10^5 files; a Path takes ten times as long

    def prove_offline(self) -> OfflineProof:
        """The proof that OMERO is off now. Raises `OmeroIsOn`."""
        where = ServerPorts(host=self.settings.omero.host, ports=self.settings.omero.ports)
        return prove_offline(self.omero, self.settings.omero.managed_repository, where)

    def retry_at(self, error: ArchiveError, attempts: int) -> datetime | None:
        """When to try again after the failure that follows `attempts` others; None: a person must look first."""
        work = self.settings.work
        if isinstance(error, ObjectOffline):
            # No failure: tapes are wound and Glacier takes two days. It is asked again, at least every hour.
            return self.clock() + min(work.retry_after * (1 << min(attempts, 10)), max(timedelta(hours=1), work.poll))
        if not error.retryable or attempts + 1 >= work.attempts:
            return None
        return self.clock() + work.retry_after * (1 << min(attempts, 10))

    def look_again_at(self, since: datetime) -> datetime:
        """When to look again at what a service brings back since then: a quarter of that time later, at least hourly.

        It counts no tries: after two days of waiting the first answer that is lost must not be the one too many.
        """
        now, work = self.clock(), self.settings.work
        return now + max(work.retry_after, min((now - since) / 4, max(timedelta(hours=1), work.poll)))

    def close_breaker(self) -> None:
        """Begin to count failures anew."""
        work = self.settings.work
        self.breaker = Breaker(max_failures=work.max_failures, max_failure_rate=work.max_failure_rate)

    @property
    def poll(self) -> timedelta:
        """How long to wait before a service is asked about the same thing again."""
        return self.settings.work.poll

    def close(self) -> None:
        """Let go of directories, connections and threads."""
        for service in self.services.values():
            service.close()
        for tree in (*self._trees.values(), *self._lost):
            tree.close()
        self._trees.clear()
        self._lost.clear()
        self._near = None
        self.catalogue.close()
        self.lanes.close()

    def _directory_attributes(self, directory: str) -> FileAttributes | None:
        """Mode and owner of OMERO's directory of that name, for its counterpart in `near`."""
        top, _, rest = directory.partition("/")
        probe = Key(f"{top}/{rest}/x" if rest else f"{top}/x")
        try:
            root, relative = self.repository.root_of(probe)
            found = self.tree(root).look(relative.rpartition("/")[0] or ".")
        except Unavailable:
            raise  # it may have one: with another mode than OMERO's nobody else could read what is made now
        except ArchiveError:
            return None  # not one of OMERO's directories: it keeps the default mode
        return None if found is None else found.attributes
