"""Permits for all near bytes of a bundle, from copies that the services confirm at this moment."""

from collections import Counter
from collections.abc import Sequence

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.errors import PermitRefused, Unavailable
from omero_archive.model import Key, ServiceName
from omero_archive.states import CopyEvidence, Permit, permit
from omero_archive.steps.confirm import ASKED, Word, ask, record
from omero_archive.steps.site import Site

PAGE_FILES = 5_000
"""For so many files the services are asked at once: of a plate of 10^5 only the permits are kept."""


def permits(site: Site, bundle: BundleRecord, *, dry_run: bool = False) -> dict[Key, Permit]:
    """A permit for every file of the bundle, or `PermitRefused` with every reason and how many files it holds.

    What the services say is recorded, unless `dry_run`. A service that cannot be asked changes nothing: its
    copies are not freshly confirmed, and do not count.
    """
    with site.catalogue.begin() as connection:
        pages = bundles.in_pages(connection, bundle.id, PAGE_FILES)
    granted: dict[Key, Permit] = {}
    refusals: Counter[str] = Counter()
    unreachable: dict[ServiceName, str] = {}
    for page in pages:
        words = _ask_all(site, page, unreachable)
        if not dry_run:
            record(site, words)
        _judge(site, bundle, page, words if dry_run else [], granted, refusals)
    if refusals:
        count = sum(map(len, pages))
        reasons = tuple(f"{reason} ({held} of {count} files)" for reason, held in refusals.items())
        raise PermitRefused(bundle.name, reasons + tuple(unreachable.values()))
    return granted


def _ask_all(site: Site, page: Sequence[int], unreachable: dict[ServiceName, str]) -> list[Word]:
    """Every service's words about every copy of these files; why one could not be asked goes into `unreachable`."""
    with site.catalogue.begin() as connection:
        known = copies.of_files(connection, page)
    words: list[Word] = []
    for service in site.settings.service_names:
        if service in unreachable:
            continue  # it was given its time
        try:
            words += ask(site, service, [copy for copy in known if copy.service == service and copy.state in ASKED])
        except Unavailable as error:
            unreachable[service] = str(error)
    return words


def _judge(
    site: Site,
    bundle: BundleRecord,
    page: Sequence[int],
    unrecorded: Sequence[Word],
    granted: dict[Key, Permit],
    refusals: Counter[str],
) -> None:
    """Grant or refuse for each file of a page, as the catalogue has it now, and as `unrecorded` words would make it."""
    with site.catalogue.begin() as connection:
        bundle = bundles.by_id(connection, bundle.id)
        files = bundles.files_of_page(connection, page)
        evidence = copies.evidence(connection, page)
    evidence = _with_words(evidence, unrecorded)
    for file in files:
        try:
            granted[file.key] = _permit(site, bundle, file, evidence.get(file.id, []))
        except PermitRefused as refusal:
            refusals.update(refusal.reasons)


def _with_words(evidence: dict[int, list[CopyEvidence]], words: Sequence[Word]) -> dict[int, list[CopyEvidence]]:
    """The evidence as it would be, had the words been recorded."""
    said = {(word.copy.file.id, word.copy.service): word for word in words}
    for file_id, known in evidence.items():
        for number, copy in enumerate(known):
            word = said.get((file_id, copy.service))
            if word is not None:
                known[number] = CopyEvidence(
                    service=copy.service,
                    state=word.state,
                    sha256=copy.sha256,
                    confirmed_at=word.at if word.is_fresh else copy.confirmed_at,
                )
    return evidence


def _permit(site: Site, bundle: BundleRecord, file: FileRecord, evidence: Sequence[CopyEvidence]) -> Permit:
    return permit(
        file.key,
        size_bytes=0 if file.read is None else file.read.fixity.size_bytes,
        sha256=None if file.read is None else file.read.fixity.sha256,
        copies=evidence,
        policy=site.settings.release.policy,
        hold=bundle.hold_reason,
        now=site.clock(),
    )
