"""Everything a step works with, wired by `app.py`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.claims import Claim, record
from omero_archive.catalogue.database import Catalogue
from omero_archive.errors import ArchiveError, DiskFailed, ObjectOffline, OriginalUnfit
from omero_archive.files import Tree, disk_errors
from omero_archive.model import BundleName, Clock, FileAttributes, Key, ServiceName
from omero_archive.near import Near, Place
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.offline import OfflineProof, ServerPorts, prove_offline
from omero_archive.omero.repository import Repository
from omero_archive.service import Service
from omero_archive.settings import Settings
from omero_archive.steps.breaker import Breaker
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
    _trees: dict[Path, Tree] = field(default_factory=dict)
    _near: Near | None = None

    def original(self, key: Key) -> tuple[Tree, str]:
        """Tree and path of an original. Raises `UnsafePath`, or `OriginalUnfit` if there is no root, `DiskFailed`."""
        root, relative = self.repository.root_of(key)
        return self.tree(root), relative

    def tree(self, root: Path) -> Tree:
        """A directory, opened once."""
        if root not in self._trees:
            try:
                opened = Tree(root)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise OriginalUnfit(f"{root} cannot be opened: {error.strerror}. Is it mounted?") from error
            except OSError as error:
                raise DiskFailed(f"{root} cannot be opened: {error.strerror}.") from error
            if self._trees.setdefault(root, opened) is not opened:
                opened.close()  # another thread was faster
        return self._trees[root]

    @property
    def near(self) -> Near:
        """The directory of near bytes."""
        if self._near is None:
            self._near = Near(self.tree(self.settings.archive.near_directory), like=self._directory_attributes)
        return self._near

    @contextmanager
    def lock_bundle(self, name: BundleName) -> Iterator[None]:
        """Be the only one at work on a bundle; what disks refuse meanwhile is `DiskFailed`. Raises `Busy`."""
        with disk_errors(name), self.catalogue.lock_bundle(name):
            yield

    def recorded(self, claim: Claim, act: Callable[[sa.Connection], _T]) -> _T:
        """What `act` recorded under a claim. Raises `WorkStopped` if others took the work over: nothing is changed."""
        return record(self.catalogue, claim, act, stalled_after=self.settings.work.stalled_after)

    def link_target(self, key: Key) -> str:
        """Where the link at an original's path points."""
        return str(self.settings.archive.root / key)

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
        for tree in self._trees.values():
            tree.close()
        self._trees.clear()
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
        except ArchiveError:
            return None  # not one of OMERO's directories: it keeps the default mode
        return None if found is None else found.attributes
