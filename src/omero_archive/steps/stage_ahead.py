"""Stage ahead: look at many recalls together, and ask each service once for all that none can give now.

A tape library reads its tapes in order if it knows all files that are wanted; asked bundle by bundle it winds to and
fro. So before recalls bring anything, one call asks a service what can be read, and one asks it to stage the rest of
many bundles. A bundle of which nothing can be read yet is set to be looked at again later; the others are settled:
their recall can go on. Done twice is done once, and where this stops half-way, a recall asks by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from omero_archive.catalogue import bundles, copies, recalls, turns
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.copies import CopyRecord
from omero_archive.errors import ArchiveError
from omero_archive.model import ServiceName
from omero_archive.states import Residency
from omero_archive.steps.nearest import Supply
from omero_archive.steps.recall import prepared, staged
from omero_archive.steps.site import Site, place_of

FILES = 10_000
"""Services are asked about so many files together, or about one bundle that has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What became of the bundles that were looked at, by number: settled, or waiting for a service."""

    settled: tuple[int, ...]
    waiting: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    bundle: BundleRecord
    missing: Sequence[FileRecord]
    copies: Sequence[CopyRecord]


def stage_ahead(site: Site, numbers: Sequence[int]) -> Looked:
    """Look at the recalls of these bundles, the first of them up to `FILES` files; the rest is for the next time."""
    settled: list[int] = []
    wanted: list[_Wanted] = []
    for one in _first(site, numbers):
        try:
            found = _look(site, one)
        except ArchiveError:
            found = None  # its recall runs into the same, and writes it down
        if found is None or not found.missing:
            settled.append(one.id)
        else:
            wanted.append(found)
    files = [file for each in wanted for file in each.missing]
    supply = Supply(site, files, [copy for each in wanted for copy in each.copies])
    readable = {file.id for file in files if supply.readable(file)}
    bringing = supply.stage(sorted((file for file in files if file.id not in readable), key=lambda file: file.key))
    waiting: list[int] = []
    for each in wanted:
        mine = _of(each.bundle, bringing)
        is_whole = sum(map(len, mine.values())) == len(each.missing)  # else something can be read, or had nowhere
        (waiting if is_whole else settled).append(each.bundle.id)
        if is_whole:
            _waits(site, each.bundle, mine)
    with site.catalogue.begin() as connection:
        turns.settle(connection, settled)
    return Looked(settled=tuple(settled), waiting=tuple(waiting))


def _first(site: Site, numbers: Sequence[int]) -> Iterator[BundleRecord]:
    files = 0
    for number in numbers:
        with site.catalogue.begin() as connection:
            bundle = bundles.by_id(connection, number)
        if files and files + bundle.file_count > FILES:
            return
        files += bundle.file_count
        yield bundle


def _look(site: Site, bundle: BundleRecord) -> _Wanted | None:
    """What is missing of a bundle, with room made for it; None if there is nothing to be staged. Raises `Busy`."""
    with site.lock_bundle(bundle.name):
        with site.catalogue.begin() as connection:
            bundle = bundles.by_id(connection, bundle.id)
            files = bundles.files(connection, bundle.id)
            known = copies.of_bundle(connection, bundle.id, files)
            is_open = recalls.is_open(connection, bundle.id)
        place = place_of(bundle, files)
        if not is_open or bundle.residency not in (Residency.OFFLINE, Residency.RECALLING) or site.near.is_in(place):
            return None
        return _Wanted(bundle=bundle, missing=prepared(site, bundle, files, place), copies=known)


def _of(
    bundle: BundleRecord, bringing: Mapping[ServiceName, Sequence[FileRecord]]
) -> dict[ServiceName, list[FileRecord]]:
    found = {name: [file for file in files if file.bundle_id == bundle.id] for name, files in bringing.items()}
    return {name: files for name, files in found.items() if files}


def _waits(site: Site, bundle: BundleRecord, bringing: Mapping[ServiceName, Sequence[FileRecord]]) -> None:
    told = staged(site, bundle, bringing)
    text = f"{bundle.name}: {'; '.join(told)}. The recall goes on when they are here."
    with site.catalogue.begin() as connection:
        since = recalls.turn_since(connection, bundle.id)
        if since is not None and recalls.is_open(connection, bundle.id, keep=True):  # else it was cancelled meanwhile
            bundles.waits(connection, bundle.id, text, site.look_again_at(since))
