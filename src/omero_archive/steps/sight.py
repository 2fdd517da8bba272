"""Sight: which of the site's directories this host really sees, proved by marker files.

`omero-archive init` puts `.omero-archive/site` into the directory of near bytes and into OMERO's ManagedRepository,
Files and Pixels. It carries the site's id, which the catalogue knows. A directory without it, or with another id, is
not the site's on this host: most often its disk is not mounted. Then nothing is concluded from it (`NotMounted`): no
file is missing, none is to be copied from there. A site that was made before there were markers has no id, and
nothing is proved; commands ask for `omero-archive init` first.
"""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

import structlog

from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.whose import belongs_to, knows_files_below, whose
from omero_archive.errors import (
    ArchiveError,
    DatabaseUnavailable,
    DiskFailed,
    NotMounted,
    SettingsError,
)
from omero_archive.marked import MarkedTree
from omero_archive.model import ServiceName
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.repository import FILES, PIXELS
from omero_archive.service import Service
from omero_archive.settings import Settings

_log = structlog.get_logger()

MARKER = ".omero-archive/site"
"""Lies in every directory that all hosts of a site must see alike."""

_ID = re.compile(rb"^site = ([0-9a-f-]{36})$", re.MULTILINE)

_REMEMBERED_S = 1.0

_READS_ORIGINALS = frozenset({"copy", "recall"})  # a recall gives its directories the owner and mode of OMERO's
_TOUCHES_NEAR = frozenset({"recall", "evict", "stage"})


class Sight:
    """What this host sees. Asks anew each time but for the site's id, which never changes; safe for several threads."""

    def __init__(self, settings: Settings, catalogue: Catalogue, services: Mapping[ServiceName, Service]) -> None:
        self._settings, self._catalogue, self._services = settings, catalogue, services
        self._id: UUID | None = None
        self._told: dict[str, tuple[float, str]] = {}  # when what was said of what

    # ---- one directory

    def open(self, root: Path, *, lost: Callable[[MarkedTree], None] = lambda _: None) -> MarkedTree:
        """A directory of the site, proved. Raises `NotMounted`, `DiskFailed`, `DatabaseUnavailable`.

        `lost` is told when its proof fails later: the next one that needs it should open it anew.
        """

        def proof(tree: MarkedTree) -> None:
            try:
                self.prove(tree)
            except NotMounted:
                lost(tree)
                raise

        try:
            opened = MarkedTree(root, proof)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotMounted(f"{root} cannot be opened: {error.strerror}. Is it mounted?") from error
        except OSError as error:
            raise DiskFailed(f"{root} cannot be opened: {error.strerror}.") from error
        try:
            self.prove(opened)
        except BaseException:
            opened.close()
            raise
        return opened

    def prove(self, tree: MarkedTree) -> None:
        """Raise `NotMounted` unless a directory is the site's and still lies at its path; then nothing is known of it.

        Raises `DiskFailed` where the marker could not be read.
        """
        try:
            found = marked_as(tree.marker(MARKER))
        except (ArchiveError, OSError) as error:
            raise DiskFailed(f"{tree.path(MARKER)} could not be read: {error}.") from error
        wanted = self._wanted(found)
        if wanted is not None and found != wanted:
            raise NotMounted(_refusal(tree.root, found))
        if not tree.is_at_its_path():
            raise NotMounted(f"{tree.root} is another directory now than it was: was it unmounted? Nothing was done.")

    def _wanted(self, found: UUID | None) -> UUID | None:
        """The site's id; None for a site without one. Without the catalogue any site's marker must do, but one must."""
        if self._id is None:
            try:
                with self._catalogue.begin() as connection:
                    known = whose(connection)
            except DatabaseUnavailable:
                if found is None and self._catalogue.is_made():
                    raise
                return found
            self._id = None if known is None else known.id
        return self._id

    # ---- what work needs

    def near_problem(self) -> str | None:
        """Why this host does not see the directory of near bytes, None if it does."""
        return self._problem(self._settings.archive.near_directory)

    def originals_problem(self) -> str | None:
        """Why this host does not see all of OMERO's directories that the catalogue's files lie in; None if it does."""
        omero = self._settings.omero
        roots = [omero.managed_repository]
        with self._catalogue.begin() as connection:
            roots += [omero.data_dir / top for top in (FILES, PIXELS) if knows_files_below(connection, top)]
        problems = (self._problem(root) for root in roots)
        return next((problem for problem in problems if problem is not None), None)

    def service_problem(self, name: ServiceName) -> str | None:
        """Why this host does not see what a service keeps on a mount, None if it does or if there is no mount."""
        service = self._services.get(name)
        return f"services.{name} is not in the settings" if service is None else service.unseen()

    def sees_near(self) -> bool:
        """Whether the directory of near bytes is there."""
        return self.near_problem() is None

    def sees_originals(self) -> bool:
        """Whether OMERO's directories are there."""
        return self.originals_problem() is None

    def sees(self, service: ServiceName) -> bool:
        """Whether the service's directory is there; True for one that needs none."""
        return self.service_problem(service) is None

    def problem(self, step: str, service: ServiceName | None) -> str | None:
        """Why this host cannot do a step now, with a service or for none in particular; None if it can.

        A recall takes what it can get: it wants one service that is seen, not all. Raises `DatabaseUnavailable`.
        """
        if (found := self._problem_of_site(step)) is not None:
            return found
        if service is not None:
            return self.service_problem(service)
        unseen = [self.service_problem(name) for name in self._services] if step in _TOUCHES_NEAR else []
        return None if None in unseen or not unseen else "; ".join(filter(None, unseen))

    def _problem_of_site(self, step: str) -> str | None:
        if step in _READS_ORIGINALS and (found := self.originals_problem()) is not None:
            return found
        return self.near_problem() if step in _TOUCHES_NEAR else None

    def may_try(self, step: str, service: ServiceName | None) -> bool:
        """Whether this host sees what a step needs of the site itself: as `may_serve`, the services left out.

        For `run`, which somebody started on this very host: what a service that is not mounted cannot do is written
        beside the copies, where `status` shows it, and is tried again later.
        """
        del service
        return not self._remembered(f"{step}, the site", lambda: self._problem_of_site(step))

    def may_serve(self, step: str, service: ServiceName | None) -> bool:
        """Whether this host sees all that a step needs: as `problem`, asked once a second at most.

        What it says may be over a moment later; what a step then does not find it proves for itself. Without the
        catalogue nothing can be done either: False.
        """
        return not self.reason(step, service)

    def forget(self) -> None:
        """Look anew at the next question, however soon it comes."""
        self._told.clear()

    def reason(self, step: str, service: ServiceName | None) -> str:
        """Why `may_serve` is False; empty if it is not."""
        return self._remembered(f"{step}, {service}" if service else step, lambda: self.problem(step, service))

    def _remembered(self, what: str, ask: Callable[[], str | None]) -> str:
        now, known = time.monotonic(), self._told.get(what)
        if known is not None and now - known[0] < _REMEMBERED_S:
            return known[1]
        try:
            found = ask() or ""
        except DatabaseUnavailable as error:
            found = str(error)
        if found and (known is None or not known[1]):
            _log.warning("left to other hosts", action="look", what=what, text=found)
        elif known is not None and known[1] and not found:
            _log.info("seen again", action="look", what=what)
        self._told[what] = now, found
        return found

    def _problem(self, root: Path) -> str | None:
        try:
            self.open(root).close()
        except (NotMounted, DiskFailed) as error:
            return str(error)
        return None


def marked_as(content: bytes | None) -> UUID | None:
    """The id in a marker's content; None if it is no marker."""
    match = _ID.search(content or b"")
    try:
        return None if match is None else UUID(match[1].decode())
    except ValueError:
        return None


def require_named(catalogue: Catalogue, omero: OmeroDatabase) -> None:
    """Raise `SettingsError` for a catalogue that never had `init`, or one of another OMERO than this; else remember it.

    Two OMEROs count their files from 1 alike: with the other's catalogue each would be taken for the other's.
    """
    uuid = omero.uuid()
    with catalogue.begin() as connection:
        known = whose(connection)
        found = uuid if known is None else belongs_to(connection, uuid)
    if known is None:
        raise SettingsError(
            "the catalogue has no id of this site yet, by which its disks are known; run "
            "`omero-archive init`. Nothing was done."
        )
    if found != uuid:
        raise SettingsError(
            f"omero.database has the uuid {uuid}, and this catalogue belongs to the OMERO with the uuid {found}. "
            "Nothing was done. Correct `omero.database` or `catalogue.database`."
        )


def _refusal(root: Path, found: UUID | None) -> str:
    if found is None:
        return (
            f"{root} has no {MARKER}: it is not mounted on this host, or `omero-archive init` never saw it. "
            "Nothing is concluded from what is not there. Mount it; if it is new, run `omero-archive init`."
        )
    return (
        f"{root} carries the marker of another site ({found}). Nothing was done with it. Mount the right disk, or "
        "correct the settings."
    )
