"""Bio-Formats, as OMERO uses it, over every demo fileset through OMERO's links into a mount."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bioformats_fixtures import BioFormats, NotOpened, Opened
from mounts import MountedSite, mounted_site
from omero_archive.demo.filesets import Expected
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite

pytestmark = pytest.mark.bioformats


@pytest.fixture(scope="module")
def site(
    demo_template: DemoSite,
    postgres: EmbeddedPostgres,
    catalogue_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MountedSite]:
    with mounted_site(
        demo_template,
        tmp_path_factory.mktemp("bioformats"),
        postgres=postgres,
        catalogue_template=catalogue_template,
    ) as site:
        yield site


def slugs(site: MountedSite) -> list[str]:
    """The filesets that can be archived: all that lie in the archive."""
    return [fileset.slug for fileset in site.demo.filesets if fileset.expected is Expected.ARCHIVED]


def test_bioformats_gets_the_same_pixels_through_the_mount_and_hears_the_reason_while_they_are_away(
    site: MountedSite, bioformats: BioFormats
) -> None:
    entries = {slug: site.demo.path(site.demo.fileset(slug).entry) for slug in slugs(site)}
    paths: list[Path] = list(entries.values())
    before = bioformats.open(paths)
    assert all(isinstance(answer, Opened) for answer in before.values()), before

    site.release(*entries)
    assert all(path.is_symlink() for slug in entries for path in site.paths(slug))
    assert bioformats.open(paths) == before

    site.facility.evict(*entries)
    away = bioformats.open(paths)
    for slug, path in entries.items():
        answer = away[path]
        assert isinstance(answer, NotOpened), (slug, answer)
        assert "No data available" in answer.error, (slug, answer.error)

    site.facility.recall(*entries)
    assert bioformats.open(paths) == before
