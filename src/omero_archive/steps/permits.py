"""Permits for all near bytes of a bundle, from copies that were just confirmed."""

from collections import Counter

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.errors import PermitRefused
from omero_archive.model import Key
from omero_archive.states import Permit, permit
from omero_archive.steps.confirm import confirm_bundle
from omero_archive.steps.site import Site


def permits(site: Site, bundle: BundleRecord) -> dict[Key, Permit]:
    """A permit for every file of the bundle, or `PermitRefused` with every reason and how many files it holds."""
    unreachable = confirm_bundle(site, bundle)
    with site.catalogue.begin() as connection:
        bundle = bundles.by_id(connection, bundle.id)
        files = bundles.files(connection, bundle.id)
        evidence = copies.evidence(connection, bundle.id)
    granted: dict[Key, Permit] = {}
    refusals: Counter[str] = Counter()
    for file in files:
        try:
            granted[file.key] = permit(
                file.key,
                size_bytes=0 if file.read is None else file.read.fixity.size_bytes,
                sha256=None if file.read is None else file.read.fixity.sha256,
                copies=evidence.get(file.id, []),
                policy=site.settings.release.policy,
                hold=bundle.hold_reason,
                now=site.clock(),
            )
        except PermitRefused as refusal:
            refusals.update(refusal.reasons)
    if refusals:
        total = len(files)
        reasons = tuple(f"{reason} ({count} of {total} files)" for reason, count in refusals.items())
        raise PermitRefused(bundle.name, reasons + unreachable)
    return granted
