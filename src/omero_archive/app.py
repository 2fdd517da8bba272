"""Wires everything from the settings; the only place that knows every part."""

import getpass
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import combinations
from pathlib import Path

from omero_archive.catalogue import counts
from omero_archive.catalogue.database import Catalogue
from omero_archive.errors import ServiceIsReadOnly, SettingsError
from omero_archive.files import disk_errors
from omero_archive.model import Clock, Key, ServiceName
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.repository import Repository
from omero_archive.settings import Settings
from omero_archive.steps.breaker import Breaker
from omero_archive.steps.marking import mark_site
from omero_archive.steps.site import Progress, Site, no_progress
from omero_archive.transfer import Lanes
from omero_archive.waiting import NoAnswer, answer_within
from omero_archive.wrapped.configured import configured_service


def utc_now() -> datetime:
    """The clock of the real world."""
    return datetime.now(UTC)


def who() -> str:
    """The person at the keyboard, for the event log: the one behind `sudo`, if there is one."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@contextmanager
def open_site(settings: Settings, *, clock: Clock = utc_now, progress: Progress = no_progress) -> Iterator[Site]:
    """The site of these settings; nothing is connected to before it is used."""
    if sys.getfilesystemencoding() != "utf-8":
        raise SettingsError(
            f"names of files are read as {sys.getfilesystemencoding()} here, and the archive's manifests would name "
            "other files. Set PYTHONUTF8=1, or a locale such as LC_ALL=C.UTF-8."
        )
    site = Site(
        settings=settings,
        clock=clock,
        catalogue=Catalogue(settings.catalogue.database, clock=clock, actor=who()),
        omero=OmeroDatabase(
            settings.omero.database,
            filename_encoding=settings.omero.filename_encoding,
            managed_dir=settings.omero.managed_repository,
        ),
        repository=Repository(data_dir=settings.omero.data_dir, managed_dir=settings.omero.managed_repository),
        services={name: configured_service(name, table, clock=clock) for name, table in settings.services.items()},
        lanes=Lanes(),
        breaker=Breaker(max_failures=settings.work.max_failures, max_failure_rate=settings.work.max_failure_rate),
        progress=progress,
    )
    try:
        require_apart(site)
        yield site
    finally:
        site.close()


def require_apart(site: Site) -> None:
    """Raise `SettingsError` if directories lie in each other that must not.

    Were the archive service's directory the directory of near bytes, evicting a bundle would delete its copy; were
    it another service's directory too, one copy would count as two.
    """
    omero, archive = site.settings.omero, site.settings.archive
    repository = {
        "the managed repository": omero.managed_repository,
        "OMERO's Files": omero.data_dir / "Files",
        "OMERO's Pixels": omero.data_dir / "Pixels",
    }
    places = {"archive.near": archive.near_directory} if archive.near else {}
    places["archive.root"] = archive.root
    services: dict[str, Path] = {}
    look = cache(_look)
    for name, service in site.services.items():
        location = service.locate(Key("x"))
        if location is not None:
            _require_outside(f"services.{name}.path", location.root, places | repository | services, look)
            services[f"services.{name}"] = location.root
    for setting, place in places.items():
        _require_outside(setting, place, repository, look)
    _require_root_apart(archive.root, archive.near_directory, look)
    _require_places_apart({name: service.place() for name, service in site.services.items()})


@dataclass(frozen=True, slots=True)
class _Place:
    """What a path leads to: by name, and by device and inode, its own first, then those above it."""

    real: Path
    numbers: tuple[tuple[int, int] | None, ...]

    def is_at(self, other: "_Place") -> bool:
        """Whether both are one directory, by whatever link or bind mount it is reached."""
        return self.real == other.real or (self.numbers[0] is not None and self.numbers[0] == other.numbers[0])

    def lies_in(self, other: "_Place") -> bool:
        """Whether it is the other directory or lies below it, by whatever link or bind mount it is reached."""
        return self.real.is_relative_to(other.real) or (
            other.numbers[0] is not None and other.numbers[0] in self.numbers
        )


_Look = Callable[[Path], _Place]

_PATIENCE_S = 5.0
"""How long a path may take to be looked at before every command; what hangs is told when its bytes are wanted."""


def _look(path: Path) -> _Place:
    """What a path leads to; where a mount does not answer, what its name says."""
    try:
        return answer_within(_PATIENCE_S, lambda: _looked_at(path))
    except NoAnswer:
        return _Place(Path(os.path.normpath(path)), (None,))


def _looked_at(path: Path) -> _Place:
    real = Path(os.path.realpath(path))
    return _Place(real, tuple(_number(place) for place in (real, *real.parents)))


def _require_root_apart(root: Path, near: Path, look: _Look) -> None:
    """The archive root and the directory of near bytes are one, or neither lies in the other.

    What is mounted at the root would hide `near` from everybody, and the mount would serve itself.
    """
    if not look(root).is_at(look(near)) and (look(near).lies_in(look(root)) or look(root).lies_in(look(near))):
        raise SettingsError(f"archive.near: {near} and archive.root, {root}, lie in each other; they must be apart.")


def _require_places_apart(places: Mapping[ServiceName, str]) -> None:
    """The same for services without paths, which name their places, such as a bucket and a prefix in it."""
    for (name, place), (other, there) in combinations(places.items(), 2):
        if place and there and f"{place.rstrip('/')}/".startswith(f"{there.rstrip('/')}/"):
            inner, outer = name, other
        elif place and there and f"{there.rstrip('/')}/".startswith(f"{place.rstrip('/')}/"):
            inner, outer = other, name
        else:
            continue
        raise SettingsError(
            f"services.{inner}: its place {places[inner]} lies in that of services.{outer}, {places[outer]}; one copy "
            "would count as two. They must be apart."
        )


def _require_outside(name: str, place: Path, others: Mapping[str, Path], look: _Look) -> None:
    for other, there in others.items():
        if look(place).lies_in(look(there)) or look(there).lies_in(look(place)):
            raise SettingsError(f"{name}: {place} and {other}, {there}, lie in each other; they must be apart.")


def _number(path: Path) -> tuple[int, int] | None:
    """Device and inode of what lies at a path; None if nothing does, or a mount whose server died."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def initialise(site: Site) -> list[str]:
    """Make what a new site needs: the catalogue, the directories. What was made, as sentences; twice is once."""
    # Imported here: only this command and those that run jobs need the queue's library.
    from omero_archive.engine import apply_queue_schema

    done = []
    if site.catalogue.create():
        done.append("made the catalogue's database")
    found, wanted = site.catalogue.versions()
    if found != wanted:
        site.catalogue.migrate()
        done.append(f"brought the catalogue's schema to version {wanted}")
    with site.catalogue.begin() as connection:
        is_wrong = bool(counts.differences(connection))
    if is_wrong:
        with site.catalogue.begin() as connection:
            counts.count_anew(connection)
        done.append("counted the copies anew: what was kept of them was wrong")
    if apply_queue_schema(site.catalogue.dsn):
        done.append("made the tables of the job queue")
    archive = site.settings.archive
    for directory in sorted({archive.root, archive.near_directory}):
        if _is_to_be_made(directory):
            try:
                directory.mkdir(parents=True, mode=0o755)
            except OSError as error:
                raise SettingsError(f"archive: {directory} could not be made: {error.strerror}.") from error
            done.append(f"made {directory}")
    with disk_errors("init"):
        done += mark_site(site)
    for name, service in site.services.items():
        try:
            service.initialise()
        except ServiceIsReadOnly:
            done.append(f"service {name} is read-only; it was left as it is")
        else:
            done.append(f"service {name} is ready")
    return done


def _is_to_be_made(directory: Path) -> bool:
    """Whether a directory is not there. A mount whose server died cannot be looked at, but is there."""
    try:
        return not directory.is_dir()
    except OSError:
        return False
