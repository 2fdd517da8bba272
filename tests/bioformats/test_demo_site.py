"""What Bio-Formats makes of the demo's filesets: all open when whole, none opens with a member missing."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pydicom
import pytest

from bioformats_fixtures import BioFormats, NotOpened, Opened
from omero_archive.demo.pixels import pixel_digest, read_pixels
from omero_archive.demo.site import DemoFileset, DemoSite

pytestmark = pytest.mark.bioformats

Answers = Mapping[Path, Opened | NotOpened]

_FORMATS = {
    "ome-tiff": "OME-TIFF",
    "plate": "OME-TIFF",
    "ics": "Image Cytometry Standard",
    "dicom": "DICOM",
    "pyramid": "OME-TIFF",
    "rotted": "Tagged Image File Format",
    "in-place": "Tagged Image File Format",
    "hard-linked": "Tagged Image File Format",
    "omero4": "Tagged Image File Format",
}


@pytest.fixture(scope="module")
def answers(demo_template: DemoSite, bioformats: BioFormats) -> Answers:
    """What Bio-Formats says of every fileset, whole."""
    return bioformats.open([demo_template.path(fileset.entry) for fileset in demo_template.filesets])


def test_bioformats_opens_every_demo_fileset(demo_template: DemoSite, answers: Answers) -> None:
    for fileset in demo_template.filesets:
        answer = answers[demo_template.path(fileset.entry)]
        assert isinstance(answer, Opened), (fileset.slug, answer)
        assert answer.format == _FORMATS[fileset.slug]
        assert answer.series_count == len(fileset.image_ids), fileset.slug
        assert set(answer.used_files) == _files_of_bioformats(demo_template, fileset), fileset.slug


def test_bioformats_reads_the_pixels_that_the_demo_wrote(demo_template: DemoSite, answers: Answers) -> None:
    for fileset in demo_template.filesets:
        digest = hashlib.sha256()
        for path in _files_with_planes(demo_template, fileset):
            for pixels in read_pixels(path):
                digest.update(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
        answer = answers[demo_template.path(fileset.entry)]
        assert isinstance(answer, Opened)
        assert answer.sha256 == digest.hexdigest(), fileset.slug


def test_bioformats_refuses_every_fileset_of_which_one_member_is_offline(
    demo_template: DemoSite, bioformats: BioFormats, tmp_path: Path
) -> None:
    # The OMERO 4 pixels file is not Bio-Formats' business: OMERO reads it by itself.
    entries = [
        _copy_with_dangling(demo_template, fileset, {missing}, tmp_path / f"{fileset.slug}-{number}")
        for fileset in demo_template.filesets
        for number, missing in enumerate(sorted(_files_of_bioformats(demo_template, fileset)))
    ]
    opened = {entry for entry, answer in bioformats.open(entries).items() if isinstance(answer, Opened)}
    assert not opened


def test_bioformats_refuses_every_fileset_that_is_offline(
    demo_template: DemoSite, bioformats: BioFormats, tmp_path: Path
) -> None:
    entries = [
        _copy_with_dangling(demo_template, fileset, set(demo_template.paths(fileset)), tmp_path / fileset.slug)
        for fileset in demo_template.filesets
    ]
    for entry, answer in bioformats.open(entries).items():
        assert isinstance(answer, NotOpened), (entry, answer)
        assert "FileNotFoundException" in answer.error


def test_links_to_the_same_bytes_give_bioformats_the_same_pixels(
    demo_template: DemoSite, bioformats: BioFormats, tmp_path: Path
) -> None:
    linked = {}
    for fileset in demo_template.filesets:
        home = tmp_path / fileset.slug
        home.mkdir()
        for path in demo_template.paths(fileset):
            (home / path.name).symlink_to(path)
        linked[demo_template.path(fileset.entry)] = home / Path(fileset.entry).name
    answers = bioformats.open([*linked, *linked.values()])
    for original, link in linked.items():
        before, after = answers[original], answers[link]
        assert isinstance(before, Opened)
        assert isinstance(after, Opened)
        assert after.sha256 == before.sha256
        assert {path.name for path in after.used_files} == {path.name for path in before.used_files}


def test_the_demos_own_reader_raises_where_a_member_is_offline(demo_template: DemoSite, tmp_path: Path) -> None:
    for fileset in demo_template.filesets:
        pixel_digest(demo_template.paths(fileset))
        for number, missing in enumerate(demo_template.paths(fileset)):
            home = tmp_path / f"{fileset.slug}-{number}"
            _copy_with_dangling(demo_template, fileset, {missing}, home)
            with pytest.raises(FileNotFoundError):
                pixel_digest([home / path.name for path in demo_template.paths(fileset)])


def _files_with_planes(site: DemoSite, fileset: DemoFileset) -> list[Path]:
    """The files that hold planes, in the order in which Bio-Formats counts the planes."""
    files = [path for path in site.paths(fileset) if path in _files_of_bioformats(site, fileset)]
    if fileset.slug == "dicom":  # by place in the patient from the feet up; the instances are numbered downwards
        return sorted(files, key=lambda path: float(pydicom.dcmread(path).SliceLocation))
    return [path for path in files if path.suffix not in (".ome", ".ics")]


def _files_of_bioformats(site: DemoSite, fileset: DemoFileset) -> set[Path]:
    if fileset.fileset_id is None:
        return {site.path(fileset.entry)}
    return set(site.paths(fileset))


def _copy_with_dangling(site: DemoSite, fileset: DemoFileset, missing: set[Path], home: Path) -> Path:
    """The fileset in `home`, with links to nowhere for its `missing` files; its entry file there."""
    home.mkdir()
    for path in site.paths(fileset):
        if path in missing:
            os.symlink(home / "offline" / path.name, home / path.name)
        else:
            shutil.copy2(path, home / path.name)
    return home / Path(fileset.entry).name
