"""What the archive looks like as files, on the demo's filesets: the same near, away, and everywhere in between."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from omero_archive.access.items import Item, ItemKind, Opened
from omero_archive.access.tree import ArchiveTree
from omero_archive.model import ServiceName
from omero_archive.states import Residency
from site_fixtures import Facility, MakeFacility

SLUGS = ("ome-tiff", "plate", "ics", "dicom", "pyramid", "omero4")


def tree_of(facility: Facility) -> ArchiveTree:
    site = facility.site
    return ArchiveTree(
        near=site.near, catalogue=site.catalogue, services=site.services, settings=site.settings, clock=site.clock
    )


def walked(tree: ArchiveTree, path: str = "") -> Iterator[tuple[str, Item]]:
    """Everything below a directory."""
    for name, item in tree.list(path):
        below = f"{path}/{name}" if path else name
        yield below, item
        if item.kind is ItemKind.DIRECTORY:
            yield from walked(tree, below)


def files_of(tree: ArchiveTree) -> dict[str, Item]:
    """The files of the archive, each looked at by its path too."""
    found = list(walked(tree))
    assert len(dict(found)) == len(found), "a name was listed twice"
    for path, item in found:
        assert tree.look(path) == item, path
    return {path: item for path, item in found if item.kind is ItemKind.FILE}


def read(opened: Opened | None) -> bytes | None:
    if opened is None:
        return None
    try:
        return os.pread(opened.fd, opened.identity.size_bytes + 1, 0)
    finally:
        os.close(opened.fd)


def keys(facility: Facility, *slugs: str) -> set[str]:
    return {key for slug in slugs for key in facility.demo.fileset(slug).keys}


@pytest.fixture
def apart(make_facility: MakeFacility, tmp_path: Path) -> Facility:
    """A facility whose near bytes lie elsewhere than links point, as under a mount."""
    return make_facility(near=tmp_path / "site" / "OMERO" / "Near")


def test_every_fileset_looks_the_same_near_and_away(apart: Facility) -> None:
    before = {key: os.lstat(apart.demo.path(key)) for slug in SLUGS for key in apart.demo.fileset(slug).keys}
    contents = {key: apart.demo.path(key).read_bytes() for key in before}
    tree = tree_of(apart)
    assert files_of(tree) == {}
    apart.archive(*SLUGS)
    assert files_of(tree) == {}, "before the release the originals are where they are"
    apart.release(*SLUGS)
    near = list(walked(tree))
    found = files_of(tree)
    assert set(found) == set(before)
    for key, item in found.items():
        seen = before[key]
        assert (item.size_bytes, item.attributes.mtime_ns) == (seen.st_size, seen.st_mtime_ns)
        assert (item.attributes.uid, item.attributes.gid) == (seen.st_uid, seen.st_gid)
        assert item.attributes.mode == seen.st_mode & 0o7777
        assert tree.look_near(key) == item
        assert read(tree.open_near(key)) == contents[key]
    apart.evict(*SLUGS)
    assert sorted(walked(tree), key=str) == sorted(near, key=str)
    for key in before:
        assert tree.look_near(key) is None
        assert tree.open_near(key) is None
        away = tree.away(key)
        assert away is not None
        assert (away.bundle.residency, away.file.key) == (Residency.OFFLINE, key)
        assert away.services == (ServiceName("tape"),)
    apart.recall(*SLUGS)
    assert sorted(walked(tree), key=str) == sorted(near, key=str)
    assert {key: read(tree.open_near(key)) for key in before} == contents
