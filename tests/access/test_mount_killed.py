"""kill -9 of the mount's process under readers: what is open goes on, and a restart takes over what is left."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mounted_sites import MountedSite, mounted_site
from omero_archive.access.fuse.mounts import all_mounted_at
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from reader_fixtures import looping_readers
from site_fixtures import sha256_of

NEAR, AWAY = "plate", "ics"
WHILE_DOWN = {"ENOTCONN", "ECONNABORTED"}
KILLS = 3


@pytest.fixture(scope="module")
def site(
    demo_template: DemoSite,
    postgres: EmbeddedPostgres,
    catalogue_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MountedSite]:
    with mounted_site(
        demo_template,
        tmp_path_factory.mktemp("killed"),
        postgres=postgres,
        catalogue_template=catalogue_template,
    ) as site:
        site.release(NEAR, AWAY)
        site.evict(AWAY)
        yield site


def test_files_that_are_open_or_mapped_outlive_the_mounts_process_and_its_successor(site: MountedSite) -> None:
    with ExitStack() as opened:
        files = {path: opened.enter_context(path.open("rb")) for path in site.paths(NEAR)}
        maps = {
            path: opened.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)) for path, file in files.items()
        }
        for happens in (site.mount.kill, site.mount.start, lambda: None):
            happens()
            for path, file in files.items():
                right = path_bytes(site, path)
                assert os.pread(file.fileno(), 1 << 24, 0) == right
                assert maps[path][:] == right
    assert {path: sha256_of(path) for path in site.paths(NEAR)} == dict(site.read_set(NEAR).files)


def test_readers_see_only_that_nobody_answers_until_a_restart_takes_over(site: MountedSite, tmp_path: Path) -> None:
    sets = [site.read_set(NEAR), site.read_set(AWAY)]
    # Hardly a pause: the moment between two servers is short.
    with looping_readers(("open", "read", "mmap"), sets, stop=tmp_path / "stop", pause_s=0.0003) as readers:
        for _ in range(KILLS):
            time.sleep(0.3)
            site.mount.kill()
            time.sleep(0.2)
            site.mount.start()
        time.sleep(0.3)
        ends = readers.ends()
    assert len(all_mounted_at(str(site.mount.root))) == 1, "dead mounts lie about"
    for end in ends:
        assert end.wrong == [], (end.way, end.wrong)
        assert set(end.refused) <= {"ENODATA", *WHILE_DOWN}, (end.way, end.refused)
        assert end.right > 0 or end.way == "open", end.way
        assert WHILE_DOWN & set(end.refused), (end.way, end.refused)


def path_bytes(site: MountedSite, path: Path) -> bytes:
    """The bytes of a file as they lie near, beneath the mount."""
    (key,) = (key for key in site.demo.fileset(NEAR).keys if site.demo.path(key) == path)
    return (site.near / key).read_bytes()
