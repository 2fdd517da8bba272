"""Compares what a service lists with the copies and manifests that the catalogue knows there.

The listing is taken page by page, in whatever order it comes; which copies were seen is kept as one bit each. What
was not seen, once the whole listing was had, is asked for by name before it is called missing: a listing may be
older than the copy.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from omero_archive.catalogue import pages
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.pages import KnownCopy, KnownManifest
from omero_archive.errors import ArchiveError
from omero_archive.model import BundleName, Key, ServiceName, printable
from omero_archive.service import Answer, Listed, ObjectStatus
from omero_archive.states import CopyState
from omero_archive.steps.manifest import DESCRIPTION, MANIFEST
from omero_archive.steps.reconcile.differences import Difference, Finding, Kind, NotLooked
from omero_archive.steps.site import Site

OURS = ("damaged/", ".omero-archive/")
"""Prefixes of keys that are ours and no copies."""

MANIFESTS = "manifests/"

EXPECTED = (CopyState.WRITTEN, CopyState.VERIFIED, CopyState.DURABLE)
"""The states in which an object has to be there."""

_PAGE = 5_000


class Seen:
    """Numbers that were seen, one bit each: a million copies take 125 kB."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        """Remember a number, from 0."""
        place, bit = divmod(number, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits) + (len(self._bits) >> 3)))
        self._bits[place] |= 1 << bit

    def __contains__(self, number: int) -> bool:
        place, bit = divmod(number, 8)
        return place < len(self._bits) and bool(self._bits[place] >> bit & 1)


def differences(site: Site, name: ServiceName) -> Iterator[Finding]:
    """All that is otherwise on one service. If it cannot be asked, nothing is concluded."""
    if name not in site.services:
        yield NotLooked(place="service", name=name, reason="the catalogue knows copies there, the settings do not.")
        return
    try:
        seen: dict[str, Seen] = {"copies": Seen(), MANIFEST: Seen(), DESCRIPTION: Seen()}
        listing = iter(site.services[name].list(""))
        while page := list(islice(listing, _PAGE)):
            yield from _listed(site, name, page, seen)
            site.progress("list", len(page), sum(one.size_bytes for one in page))
        for copies in pages.copies_in_pages(site.catalogue, name, EXPECTED, but=seen["copies"].__contains__):
            yield from _missing(site, name, copies)
        for manifests in pages.manifests_in_pages(site.catalogue, name):
            unseen = [
                one for one in manifests if not all(one.bundle_id in seen[file] for file in (MANIFEST, DESCRIPTION))
            ]
            yield from _manifests(site, name, unseen)
    except (ArchiveError, OSError) as error:
        yield NotLooked(place="service", name=name, reason=str(error))


def of_bundle(site: Site, name: ServiceName, record: BundleRecord) -> Iterator[Finding]:
    """What is otherwise of one bundle on one service, its objects asked for by name."""
    try:
        with site.catalogue.begin() as connection:
            known = list(pages.known_copies(connection, name, bundle_id=record.id).values())
        known = [copy for copy in known if copy.state in EXPECTED or copy.state is CopyState.MISSING]
        for start in range(0, len(known), _PAGE):
            some = known[start : start + _PAGE]
            answers = site.services[name].status([copy.key for copy in some])
            for copy in some:
                yield from _asked(name, copy, answers[copy.key])
        for manifests in pages.manifests_in_pages(site.catalogue, name, bundle_id=record.id):
            yield from _manifests(site, name, manifests)
    except (ArchiveError, OSError) as error:
        yield NotLooked(place="service", name=name, reason=str(error))


def _listed(site: Site, name: ServiceName, page: Sequence[Listed], seen: dict[str, Seen]) -> Iterator[Difference]:
    yield from _listed_manifests(site, name, [one for one in page if one.key.startswith(MANIFESTS)], seen)
    objects = [one for one in page if not one.key.startswith((MANIFESTS, *OURS))]
    with site.catalogue.begin() as connection:
        known = pages.known_copies(connection, name, keys=[one.key for one in objects])
    for one in objects:
        copy = known.get(one.key)
        if copy is None or copy.id is None:
            yield _unknown(name, one, None if copy is None else copy.bundle)
            continue
        seen["copies"].add(copy.id)
        difference = compare_size(name, copy, one.size_bytes)
        if difference is not None:
            yield difference


def compare_size(name: ServiceName, copy: KnownCopy, size_bytes: int | None) -> Difference | None:
    """What is wrong with an object that is there, None if nothing is. Pure."""
    is_same = size_bytes is None or size_bytes == copy.size_bytes
    if copy.state in EXPECTED and not is_same:
        sentence = f"{name} has it with {size_bytes} bytes; {copy.size_bytes} were written."
        return _copy(Kind.COPY_SIZE, name, copy, sentence, "record it DAMAGED; `audit --heal` mends it.", is_safe=True)
    if copy.state is CopyState.MISSING and is_same and size_bytes is not None:
        sentence = f"{name} has it, though it was MISSING."
        would = "record it WRITTEN; `run` then reads it back before it counts."
        return _copy(Kind.COPY_BACK, name, copy, sentence, would, is_safe=True)
    return None


def _missing(site: Site, name: ServiceName, unseen: Sequence[KnownCopy]) -> Iterator[Difference]:
    if unseen:
        answers = site.services[name].status([copy.key for copy in unseen])
        for copy in unseen:
            yield from _asked(name, copy, answers[copy.key])


def _asked(name: ServiceName, copy: KnownCopy, status: ObjectStatus) -> Iterator[Difference]:
    """What an answer of the service about one copy makes. "Cannot tell" makes nothing."""
    if status.present is Answer.NO and copy.state in EXPECTED:
        sentence = f"{name} answers that it has no such object; it is {copy.state} here."
        would = "record it MISSING; `audit --heal` mends it."
        yield _copy(Kind.COPY_MISSING, name, copy, sentence, would, is_safe=True)
    elif status.present is Answer.YES:
        difference = compare_size(name, copy, status.size_bytes)
        if difference is not None:
            yield difference


def _manifests(site: Site, name: ServiceName, wanted: Sequence[KnownManifest]) -> Iterator[Difference]:
    keys = {one: [Key(f"{one.directory}/{file}") for file in (MANIFEST, DESCRIPTION)] for one in wanted}
    if not keys:
        return
    answers = site.services[name].status([key for both in keys.values() for key in both])
    for one, both in keys.items():
        gone = [key for key in both if answers[key].present is Answer.NO]
        if gone:
            yield Difference(
                kind=Kind.MANIFEST_MISSING,
                bundle=one.bundle,
                key=gone[0],
                service=name,
                sentence=f"{name} answers that it has no {' and no '.join(gone)}.",
                would="write it again.",
                is_safe=True,
            )


def _listed_manifests(
    site: Site, name: ServiceName, page: Iterable[Listed], seen: dict[str, Seen]
) -> Iterator[Difference]:
    by_directory: dict[str, list[str]] = {}
    for one in page:
        directory, _, file = one.key.rpartition("/")
        by_directory.setdefault(directory, []).append(file)
    if not by_directory:
        return
    with site.catalogue.begin() as connection:
        written = pages.manifests_in(connection, name, list(by_directory))
        bundles = pages.known_names(connection, [_bundle_of(directory) for directory in by_directory])
    for directory, files in by_directory.items():
        if directory in written:
            for file in files:
                if file in seen:
                    seen[file].add(written[directory])
        elif (bundle := _bundle_of(directory)) not in bundles:
            yield Difference(
                kind=Kind.MANIFEST_UNKNOWN,
                bundle=bundle,
                key=directory,
                service=name,
                sentence=f"{name} has {printable(directory)}, of a bundle that the catalogue does not know.",
                would="`omero-archive rebuild` puts bundles into an empty catalogue; else a person must look.",
            )


def _bundle_of(directory: str) -> BundleName:
    """`manifests/Fileset-12.2` is the second manifest of Fileset-12."""
    return BundleName(printable(directory.removeprefix(MANIFESTS).partition(".")[0]))


def _unknown(name: ServiceName, one: Listed, bundle: BundleName | None) -> Difference:
    whose = "the catalogue does not know it" if bundle is None else f"{bundle} has no copy there by the catalogue"
    return Difference(
        kind=Kind.OBJECT_UNKNOWN,
        bundle=bundle,
        key=one.key,
        service=name,
        sentence=f"{printable(one.key)}, {one.size_bytes} bytes on {name}: {whose}.",
        would="a person must look: nothing that we did not put there is ever deleted.",
    )


def _copy(kind: Kind, name: ServiceName, copy: KnownCopy, sentence: str, would: str, *, is_safe: bool) -> Difference:
    return Difference(
        kind=kind,
        bundle=copy.bundle,
        key=copy.key,
        service=name,
        sentence=f"{printable(copy.key)}: {sentence}",
        would=would,
        is_safe=is_safe,
    )
