"""What is measured inside a process, since nobody runs it as a command: a mount's questions, a planner's look.

    python -m bench.scale_inside SETTINGS lookups|listings|planning

Prints the seconds, and how many questions they were for. What a mount asks the catalogue is asked here as the mount
does, by way of `catalogue.listing`; what the kernel adds to it is in "How fast the mount is".
"""

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from omero_archive.app import open_site
from omero_archive.catalogue import listing
from omero_archive.planning import due
from omero_archive.settings import load_settings
from omero_archive.steps.site import Site

LOOKUPS = 500
LISTINGS = 50


def _some(site: Site, count: int) -> list[str]:
    """Keys of released files, the same every time."""
    with site.catalogue.begin() as connection:
        homes = connection.exec_driver_sql(
            "SELECT home FROM bundle WHERE residency <> 'RESIDENT' ORDER BY id"
        ).scalars()
        known = [bytes(home).decode() for home in homes]
    source = random.Random(1)
    return [source.choice(known) for _ in range(count)]


def lookups(site: Site) -> int:
    """Names of files that were released, and of as many that are not there."""
    homes = _some(site, LOOKUPS // 2)
    for home in homes:
        for name in ("scan.tif", "no.tif"):
            with site.catalogue.begin() as connection:
                found = listing.at(connection, f"{home}/{name}")
            if (found is not None) != (name == "scan.tif"):
                raise AssertionError(f"{home}/{name}: {found}")
    return LOOKUPS


def listings(site: Site) -> int:
    """The directories from the root down to a fileset's own."""
    asked = 0
    for home in _some(site, LISTINGS // 5):
        parts = home.split("/")
        for depth in range(len(parts)):
            names = [known.name for known in listing.children(site.catalogue.begin, "/".join(parts[:depth]))]
            asked += 1
            if parts[depth] not in names:
                raise AssertionError(f"{home}: {parts[depth]} is not listed")
    return asked


def planning(site: Site) -> int:
    """What a worker looks at each time: which jobs are due."""
    return sum(1 for _ in due(site))


WAYS: dict[str, Callable[[Site], int]] = {"lookups": lookups, "listings": listings, "planning": planning}


def main() -> int:
    """Do it, and print seconds and number."""
    path, way = sys.argv[1:]
    with open_site(load_settings(Path(path))) as site:
        site.catalogue.versions()  # the connection is there
        started = time.perf_counter()
        count = WAYS[way](site)
        print(f"{time.perf_counter() - started:.6f} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
