"""Java reads through the mount as from a disk; while bytes are away its exception says why, at open, in every way."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mounted_sites import MountedSite, mounted_site
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.errors import ArchiveError, Busy
from omero_archive.states import Residency
from reader_fixtures import FileWays
from site_fixtures import flip_a_byte

SLUGS = ("ome-tiff", "plate", "ics", "dicom", "pyramid", "omero4")
STREAMS = ("FileInputStream", "RandomAccessFile")
CHANNELS = ("FileChannel", "transferTo", "map")
WAIT_S = 1.0

# All but one fileset fail at once; which lies where is the demo's own template path.
POLICY = """
on_open = "fail"
[[mount.rules]]
under = "{ics}"
on_open = "deny"
[[mount.rules]]
under = "{plate}"
on_open = "wait"
wait = "1s"
[[mount.rules]]
under = "{pyramid}"
on_open = "wait"
wait = "30s"
[[mount.rules]]
under = "{dicom}"
on_open = "wait"
wait = "30s"
"""


@pytest.fixture(scope="module")
def site(
    demo_template: DemoSite,
    postgres: EmbeddedPostgres,
    catalogue_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MountedSite]:
    homes = {fileset.slug: os.path.dirname(fileset.keys[0]) for fileset in demo_template.filesets}
    with mounted_site(
        demo_template,
        tmp_path_factory.mktemp("java"),
        postgres=postgres,
        catalogue_template=catalogue_template,
        policy=POLICY.format(**homes),
    ) as site:
        site.release(*SLUGS)
        yield site


def all_right(site: MountedSite, ways: FileWays, slug: str) -> bool:
    """Whether every way gives the bytes of every file of a fileset."""
    return all(set(ways.ask("ways", path).values()) == {f"sha256 {site.digests[path]}"} for path in site.paths(slug))


def exceptions(path: Path, text: str) -> dict[str, str]:
    """What Java's ways say of a file that does not open for the reason `text`."""
    streams = dict.fromkeys(STREAMS, f"open java.io.FileNotFoundException: {path} ({text})")
    return streams | dict.fromkeys(CHANNELS, f"open java.nio.file.FileSystemException: {path}: {text}")


@pytest.mark.parametrize("slug", SLUGS)
def test_java_reads_near_bytes_in_every_way(site: MountedSite, file_ways: FileWays, slug: str) -> None:
    site.facility.recall(slug)
    assert all(path.is_symlink() for path in site.paths(slug))
    assert all_right(site, file_ways, slug)


@pytest.mark.parametrize(("slug", "text"), [("ome-tiff", "No data available"), ("ics", "No medium found")])
def test_an_offline_file_is_there_for_java_and_its_exception_says_why_it_does_not_open(
    site: MountedSite, file_ways: FileWays, slug: str, text: str
) -> None:
    site.facility.recall(slug)
    near = {path: (path.stat(), file_ways.ask("look", path)) for path in site.paths(slug)}
    site.evict(slug)
    for path, (before, looked) in near.items():
        assert file_ways.ask("ways", path) == exceptions(path, text)
        assert file_ways.ask("look", path) == looked
        assert looked == {
            "exists": "true",
            "isFile": "true",
            "canRead": "true",
            "length": str(before.st_size),
            "lastModified": str(before.st_mtime_ns // 1_000_000),
        }
        now = path.stat()
        assert (now.st_size, now.st_mtime_ns, now.st_mode) == (before.st_size, before.st_mtime_ns, before.st_mode)
    site.facility.recall(slug)
    assert all_right(site, file_ways, slug)


def test_a_wait_that_is_over_says_that_it_timed_out(site: MountedSite, file_ways: FileWays) -> None:
    site.facility.recall("plate")
    site.evict("plate")
    path = site.paths("plate")[0]
    started = time.monotonic()
    said = file_ways.ask("ways", path)
    assert said == exceptions(path, "Connection timed out")
    assert time.monotonic() - started >= len(said) * WAIT_S


def test_a_program_that_waits_gets_the_right_bytes_after_a_workers_recall(
    site: MountedSite, file_ways: FileWays
) -> None:
    site.facility.recall("dicom")
    site.evict("dicom")
    path = site.paths("dicom")[0]
    file_ways.tell("ways", path)
    time.sleep(0.3)
    assert file_ways.is_silent(), "it does not wait"
    with site.worker():
        assert set(file_ways.answer().values()) == {f"sha256 {site.digests[path]}"}
    assert site.facility.residency("dicom") is Residency.ONLINE
    assert all_right(site, file_ways, "dicom")


def test_what_was_opened_and_mapped_keeps_its_bytes_through_eviction_and_recall(
    site: MountedSite, file_ways: FileWays
) -> None:
    site.facility.recall("omero4")
    path = max(site.paths("omero4"), key=lambda one: one.stat().st_size)
    right = {"mapping": f"sha256 {site.digests[path]}", "open file": f"sha256 {site.digests[path]}"}
    file_ways.ask("hold", path)
    assert file_ways.ask("held", path) == right
    with pytest.raises(Busy):
        site.facility.evict("omero4")
    site.evict_under_readers("omero4")
    assert file_ways.ask("ways", path) == exceptions(path, "No data available")
    assert file_ways.ask("held", path) == right
    # It comes again as another inode on disk, while the old one is still open through the mount.
    site.facility.recall("omero4")
    assert all_right(site, file_ways, "omero4")
    assert file_ways.ask("held", path) == right
    file_ways.ask("drop", path)
    site.evict("omero4")


def test_a_recall_that_failed_says_that_the_archive_is_to_blame(site: MountedSite, file_ways: FileWays) -> None:
    site.facility.recall("pyramid")
    site.evict("pyramid")
    (key,) = site.demo.fileset("pyramid").keys
    archived = site.facility.archived_path(key)
    flip_a_byte(archived)
    try:
        with pytest.raises(ArchiveError):
            site.facility.recall("pyramid")
        site.facility.work()  # the engine tries, and gives up: a person must look
        assert site.facility.record("pyramid").needs_attention
        (path,) = site.paths("pyramid")
        assert file_ways.ask("ways", path) == exceptions(path, "Remote I/O error")
    finally:
        flip_a_byte(archived)
