"""Wires everything from the settings; the only place that knows every part."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from omero_archive.catalogue.database import Catalogue
from omero_archive.engine import Engine, apply_queue_schema
from omero_archive.errors import SettingsError
from omero_archive.model import Clock
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.repository import Repository
from omero_archive.service import load_service
from omero_archive.settings import Settings
from omero_archive.steps.site import Progress, Site, no_progress
from omero_archive.transfer import Lanes

__all__ = ["Engine", "initialise", "open_site", "utc_now", "who"]


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
    site = Site(
        settings=settings,
        clock=clock,
        catalogue=Catalogue(settings.catalogue.database, clock=clock, actor=who()),
        omero=OmeroDatabase(settings.omero.database, filename_encoding=settings.omero.filename_encoding),
        repository=Repository(data_dir=settings.omero.data_dir, managed_dir=settings.omero.managed_repository),
        services={
            name: load_service(name, table["type"], {key: table[key] for key in table if key != "type"}, clock=clock)
            for name, table in settings.services.items()
        },
        lanes=Lanes(),
        progress=progress,
    )
    try:
        yield site
    finally:
        site.close()


def initialise(site: Site) -> list[str]:
    """Make what a new site needs: the catalogue, the directories. What was made, as sentences; twice is once."""
    done = []
    if site.catalogue.create():
        done.append("made the catalogue's database")
    found, wanted = site.catalogue.versions()
    if found != wanted:
        site.catalogue.migrate()
        done.append(f"brought the catalogue's schema to version {wanted}")
    if apply_queue_schema(site.catalogue.dsn):
        done.append("made the tables of the job queue")
    archive = site.settings.archive
    for directory in sorted({archive.root, archive.near_directory}):
        if not directory.is_dir():
            try:
                directory.mkdir(parents=True, mode=0o755)
            except OSError as error:
                raise SettingsError(f"archive: {directory} could not be made: {error.strerror}.") from error
            done.append(f"made {directory}")
    for name, service in site.services.items():
        service.initialise()
        done.append(f"service {name} is ready")
    return done
