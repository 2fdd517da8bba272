"""Services that name their places instead of paths: one place, one service."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from omero_archive.app import open_site, require_apart
from omero_archive.errors import SettingsError
from omero_archive.model import Key, ServiceName
from omero_archive.service import Location, Service
from omero_archive.settings import Settings
from omero_archive.wrapped.base import Wrapped
from omero_archive.wrapped.configured import configured_service


class Bucket(Wrapped):
    """A service that lies somewhere in the network."""

    def __init__(self, inner: Service, place: str) -> None:
        super().__init__(inner)
        self._place = place

    def locate(self, key: Key) -> Location | None:
        del key
        return None

    def place(self) -> str:
        return self._place


def require(tmp_path: Path, **places: str) -> None:
    """Open a site with such services, each wrapped as a site has it."""
    for directory in ("OMERO/ManagedRepository", "OMERO/Files", "OMERO/Pixels", *places):
        (tmp_path / directory).mkdir(parents=True)
    tables = {name: {"type": "directory", "path": str(tmp_path / name)} for name in places}
    settings = Settings.model_validate(
        {
            "omero": {"database": "dbname=none", "data_dir": str(tmp_path / "OMERO")},
            "catalogue": {"database": "dbname=none"},
            "archive": {"root": str(tmp_path / "near")},
            "services": tables,
            "release": {"copies": list(places)},
        }
    )
    with open_site(settings) as site:
        site.services = {
            ServiceName(name): Bucket(
                configured_service(ServiceName(name), tables[name], clock=lambda: datetime.now(UTC)), place
            )
            for name, place in places.items()
        }
        require_apart(site)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://store.example/omero", "s3://store.example/omero"),
        ("s3://store.example/omero/", "s3://store.example/omero"),
        ("s3://store.example/omero", "s3://store.example/omero/tape"),
        ("s3://store.example/omero/tape", "s3://store.example/omero"),
    ],
)
def test_two_services_in_one_place_are_refused(tmp_path: Path, one: str, other: str) -> None:
    with pytest.raises(SettingsError, match=r"one copy would count as two"):
        require(tmp_path, first=one, second=other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://store.example/omero", "s3://store.example/omero2"),
        ("s3://store.example/omero/a", "s3://store.example/omero/b"),
        ("s3://store.example/omero", "s3://mirror.example/omero"),
        ("", ""),
        ("", "s3://store.example/omero"),
    ],
)
def test_services_in_different_places_are_accepted(tmp_path: Path, one: str, other: str) -> None:
    require(tmp_path, first=one, second=other)
