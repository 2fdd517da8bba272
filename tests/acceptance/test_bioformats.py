"""Bio-Formats, as OMERO uses it, on every demo fileset along its way: the same pixels, or an exception."""

from pathlib import Path

import pytest

from bioformats_fixtures import BioFormats, NotOpened, Opened
from site_fixtures import CommandSite

pytestmark = pytest.mark.bioformats


def entries(site: CommandSite) -> list[Path]:
    """The file of each fileset that OMERO gives to Bio-Formats."""
    return [site.demo.path(fileset.entry) for fileset in site.good]


def test_bioformats_sees_the_same_pixels_all_the_way_and_none_while_they_are_offline(
    command_site: CommandSite, bioformats: BioFormats
) -> None:
    site = command_site
    before = bioformats.open(entries(site))
    assert all(isinstance(answer, Opened) for answer in before.values()), before
    site.run("add", *site.references)
    site.run("run")

    site.run("release", *site.references)
    assert all(site.demo.path(key).is_symlink() for fileset in site.good for key in fileset.keys)
    assert bioformats.open(entries(site)) == before

    site.run("evict", *site.references)
    formats = set()
    for path, answer in bioformats.open(entries(site)).items():
        assert isinstance(answer, NotOpened), (path, answer)
        found = before[path]
        assert isinstance(found, Opened)
        formats.add(found.format)
    assert formats == {"OME-TIFF", "Image Cytometry Standard", "DICOM", "Tagged Image File Format"}

    site.run("recall", *site.references)
    assert all(site.demo.path(key).is_symlink() for fileset in site.good for key in fileset.keys)
    assert bioformats.open(entries(site)) == before

    site.run("unarchive", *site.references)
    assert not any(site.demo.path(key).is_symlink() for fileset in site.good for key in fileset.keys)
    assert bioformats.open(entries(site)) == before
