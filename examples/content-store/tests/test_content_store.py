"""The content store keeps the contract of an archive service."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from omero_archive.model import ServiceName
from omero_archive.testing.conformance import Bench
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for
from omero_archive_content_store import ContentStore


class TestContentStore(ServiceConformance):
    @pytest.fixture
    def service(self, tmp_path: Path) -> ContentStore:
        (tmp_path / "shelf").mkdir()
        settings = {"path": str(tmp_path / "shelf")}
        service = ContentStore.from_settings(ServiceName("shelf"), settings, clock=lambda: datetime.now(UTC))
        service.initialise()
        return service

    @pytest.fixture
    def bench(self, service: ContentStore, tmp_path: Path) -> Bench:
        return bench_for(service, cut_off=lambda: unmounted(tmp_path / "shelf"))


@contextmanager
def unmounted(path: Path) -> Iterator[None]:
    """The hook for the rule that a service that cannot be reached calls nothing missing: an empty mount point."""
    away = path.rename(path.with_name("away"))
    path.mkdir()
    yield
    path.rmdir()
    away.rename(path)
