"""Directories that must not lie in each other: settings by which an eviction would delete the archive."""

import time
from pathlib import Path

import pytest

import mounts
from omero_archive import app
from omero_archive.app import open_site
from omero_archive.errors import SettingsError
from omero_archive.settings import Settings


def settings(tmp_path: Path, *, service: str, root: str = "OMERO/Archive", near: str | None = None) -> Settings:
    for directory in ("OMERO/ManagedRepository", "OMERO/Files", "OMERO/Pixels", "OMERO/Archive", "tape"):
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
    archive = {"root": str(tmp_path / root)} | ({} if near is None else {"near": str(tmp_path / near)})
    return Settings.model_validate(
        {
            "omero": {"database": "dbname=none", "data_dir": str(tmp_path / "OMERO")},
            "catalogue": {"database": "dbname=none"},
            "archive": archive,
            "services": {"tape": {"type": "directory", "path": str(tmp_path / service)}},
            "release": {"copies": ["tape"]},
        }
    )


def opened(wanted: Settings) -> None:
    with open_site(wanted):
        pass


def test_a_service_beside_the_archive_root_is_accepted(tmp_path: Path) -> None:
    opened(settings(tmp_path, service="tape"))


@pytest.mark.parametrize("service", ["OMERO/Archive", "OMERO/Archive/tape", "OMERO", "OMERO/ManagedRepository/x", "."])
def test_a_service_may_not_share_its_directory_with_near_bytes_or_originals(tmp_path: Path, service: str) -> None:
    with pytest.raises(SettingsError, match=r"services\.tape\.path"):
        opened(settings(tmp_path, service=service))


def test_a_service_that_reaches_the_near_directory_through_a_link_is_refused(tmp_path: Path) -> None:
    wanted = settings(tmp_path, service="link")
    (tmp_path / "link").symlink_to(tmp_path / "OMERO" / "Archive")
    with pytest.raises(SettingsError, match=r"services\.tape\.path"):
        opened(wanted)


@pytest.mark.parametrize("second", ["tape", "tape/second", "link"])
def test_two_services_may_not_share_a_directory_since_one_copy_would_count_as_two(tmp_path: Path, second: str) -> None:
    wanted = settings(tmp_path, service="tape")
    (tmp_path / "link").symlink_to(tmp_path / "tape")
    other = {"type": "directory", "path": str(tmp_path / second)}
    both = wanted.model_copy(update={"services": {**wanted.services, "disk2": other}})
    with pytest.raises(SettingsError, match=r"services\.disk2\.path.*services\.tape"):
        opened(both)


@pytest.mark.parametrize("near", ["OMERO/Archive/near", "OMERO/Archive/deep/near", "link/near"])
def test_near_bytes_may_not_lie_below_the_root_where_a_mount_would_hide_them(tmp_path: Path, near: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "OMERO" / "Archive")
    with pytest.raises(SettingsError, match=r"archive\.near: .* lie in each other"):
        opened(settings(tmp_path, service="tape", near=near))


def test_the_root_may_not_lie_among_near_bytes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"archive\.near: .* lie in each other"):
        opened(settings(tmp_path, service="tape", near="store", root="store/root"))


@pytest.mark.parametrize("near", ["OMERO/Archive", "OMERO/Near", "link", "not/there/yet"])
def test_near_bytes_lie_in_the_root_itself_or_beside_it(tmp_path: Path, near: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "OMERO" / "Archive")
    opened(settings(tmp_path, service="tape", near=near))


@pytest.mark.parametrize("near", ["OMERO", "OMERO/ManagedRepository", "OMERO/Files/near"])
def test_near_bytes_may_not_lie_among_the_originals(tmp_path: Path, near: str) -> None:
    with pytest.raises(SettingsError, match=r"archive\.near"):
        opened(settings(tmp_path, service="tape", near=near))


def test_a_mount_that_hangs_does_not_keep_every_command_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the catalogue knows can be asked all the same; it is the service's use that fails, or waits."""
    monkeypatch.setattr(app, "_PATIENCE_S", 0.5)
    wanted = settings(tmp_path, service="tape")
    with mounts.silent(tmp_path / "tape"):
        began = time.monotonic()
        opened(wanted)
        assert time.monotonic() - began < 5


def test_a_mount_that_hangs_is_known_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_PATIENCE_S", 0.5)
    wanted = settings(tmp_path, service="OMERO/Archive/tape")
    (tmp_path / "OMERO/Archive/tape").mkdir()
    refused = pytest.raises(SettingsError, match=r"services\.tape\.path")
    with mounts.silent(tmp_path / "OMERO/Archive/tape"), refused:
        opened(wanted)
