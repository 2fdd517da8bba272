"""Bundles leave and come back again and again while programs read them through the mount: right bytes, or our errno.

OMERO_ARCHIVE_FLIPS sets how often; `make flips` does it 300 times. A flip is an eviction and a recall by the real
steps, with the mount as a process of its own. An eviction is refused while a file of the bundle is open: then it is
tried again; after half a second its bytes go under the readers, as they do if somebody opens a file between the
step's question and its rename. Of two bundles opens fail while they are away, of the third they wait.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mounted_sites import MountedSite, mounted_site
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.errors import Busy
from omero_archive.states import Residency
from reader_fixtures import Ends, looping_readers, started_file_ways

FLIPS = int(os.environ.get("OMERO_ARCHIVE_FLIPS", "30"))
SLUGS = ("plate", "dicom", "omero4")  # many files in one directory; many small ones; without a directory of their own
PATIENCE_S = 0.5
WAYS = ("read", "pread", "mmap", "set")


@pytest.fixture
def site(
    demo_template: DemoSite,
    postgres: EmbeddedPostgres,
    catalogue_template: str,
    tmp_path: Path,
) -> Iterator[MountedSite]:
    waits = os.path.dirname(demo_template.fileset("dicom").keys[0])
    with mounted_site(
        demo_template,
        tmp_path,
        postgres=postgres,
        catalogue_template=catalogue_template,
        policy=f'on_open = "fail"\n[[mount.rules]]\nunder = "{waits}"\non_open = "wait"\nwait = "60s"\n',
    ) as site:
        site.release(*SLUGS)
        yield site


@dataclass(slots=True, kw_only=True)
class Flips:
    """What was done: evictions by the step, how often it was refused, and evictions under open files."""

    by_the_step: int = 0
    refused: int = 0
    under_readers: int = 0

    def flip(self, site: MountedSite, slug: str) -> None:
        """One eviction and one recall."""
        end = time.monotonic() + PATIENCE_S
        while site.facility.residency(slug) is not Residency.OFFLINE:
            try:
                if time.monotonic() < end:
                    site.facility.evict(slug)
                    self.by_the_step += 1
                else:
                    site.evict_under_readers(slug)
                    self.under_readers += 1
            except Busy:
                self.refused += 1
                time.sleep(0.002)
        site.facility.recall(slug)
        assert site.facility.residency(slug) is Residency.ONLINE


def test_readers_of_flipping_bundles_get_the_right_bytes_or_our_errno_and_never_part_of_a_set(
    site: MountedSite, tmp_path: Path
) -> None:
    flips = Flips()
    sets = [site.read_set(slug) for slug in SLUGS]
    with (
        started_file_ways() as java,
        looping_readers(WAYS, sets, stop=tmp_path / "stop", pause_s=0.005, java=java) as readers,
    ):
        started = time.monotonic()
        for number in range(FLIPS):
            flips.flip(site, SLUGS[number % len(SLUGS)])
        seconds = time.monotonic() - started
        ends = readers.ends()
    print(report(ends, flips, seconds))
    for end in ends:
        assert end.wrong == [], (end.way, end.wrong)
        assert set(end.refused) <= {"ENODATA"}, (end.way, end.refused)
        assert end.right > 0, end.way
    # Without both of them nothing was tried.
    assert flips.by_the_step > 0
    assert sum(end.refused.get("ENODATA", 0) for end in ends) > FLIPS
    (whole,) = (end.sets for end in ends if end.way == "set")
    assert min(whole["whole"], whole["nothing"]) > 0, whole
    assert all(site.facility.reads_as_before(slug) for slug in SLUGS)


def report(ends: list[Ends], flips: Flips, seconds: float) -> str:
    """What was seen, for people: `pytest -s`."""
    step = f"{flips.by_the_step} by the step, which was refused {flips.refused} times while a file was open"
    lines = [f"{FLIPS} flips in {seconds:.1f} s: {step}, {flips.under_readers} under open files"]
    for end in ends:
        sets = f", sets {json.dumps(end.sets)}" if end.sets else ""
        lines.append(f"  {end.way}: right {end.right}, refused {json.dumps(end.refused)}, wrong {end.wrong}{sets}")
    total = sum(end.right for end in ends), sum(sum(end.refused.values()) for end in ends)
    return "\n".join([*lines, f"  together: right {total[0]}, refused {total[1]}"])
