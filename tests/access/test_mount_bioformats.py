"""Bio-Formats, as OMERO uses it, over every demo fileset through OMERO's links into a mount."""

from collections.abc import Iterator

import pytest

from bioformats_fixtures import BioFormats, NotOpened, Opened, StayingBioFormats
from mounted_sites import MountedSite, mounted_site
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


@pytest.fixture(scope="module")
def java(bioformats: BioFormats) -> Iterator[StayingBioFormats]:
    with bioformats.staying() as java:
        yield java


def test_bioformats_gets_the_same_pixels_through_the_mount_and_hears_the_reason_while_they_are_away(
    site: MountedSite, java: StayingBioFormats
) -> None:
    slugs = [fileset.slug for fileset in site.demo.filesets if fileset.expected is Expected.ARCHIVED]
    entries = [site.demo.path(site.demo.fileset(slug).entry) for slug in slugs]
    before = java.open(entries)
    formats = {answer.format for answer in before.values() if isinstance(answer, Opened)}
    assert formats == {"OME-TIFF", "Image Cytometry Standard", "DICOM", "Tagged Image File Format"}, before
    assert all(isinstance(answer, Opened) for answer in before.values()), before

    site.release(*slugs)
    assert all(path.is_symlink() for slug in slugs for path in site.paths(slug))
    assert java.open(entries) == before

    site.evict(*slugs)
    for path, answer in java.open(entries).items():
        assert isinstance(answer, NotOpened), (path, answer)
        assert "No data available" in answer.error, (path, answer)

    site.facility.recall(*slugs)
    assert java.open(entries) == before
