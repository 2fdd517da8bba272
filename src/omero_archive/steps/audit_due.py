"""The audit that nobody asked for: copies whose bytes were last compared longer ago than `[audit] interval`.

One call is one slice of one service, so that a recall or a copy never waits long for it.
"""

from collections import Counter

import sqlalchemy as sa

from omero_archive.catalogue import audits
from omero_archive.model import ServiceName
from omero_archive.steps.audit import Verdict, answered, audit
from omero_archive.steps.audit_manifests import ManifestVerdict, audit_manifests
from omero_archive.steps.copy import Tally
from omero_archive.steps.pace import Pace
from omero_archive.steps.site import Site

_SECONDS = 60
"""How long one slice is read at the slowest, where a rate is set: whatever else is due then has its turn."""


def is_audit_due(site: Site, connection: sa.Connection, service: ServiceName) -> bool:
    """Whether any copy on the service is to be compared again now."""
    wanted = _due(site, connection, service)
    return wanted is not None and audits.is_any(connection, wanted)


def audit_due(site: Site, service: ServiceName) -> Tally:
    """Audit the least recently compared of what is due, one slice. Raises `Busy` if another process does."""
    settings = site.settings
    size_bytes = settings.work.slice_size
    if settings.audit.rate:
        size_bytes = min(size_bytes, settings.audit.rate * _SECONDS)
    with site.catalogue.lock_audit(service):
        with site.catalogue.begin() as connection:
            wanted = _due(site, connection, service)
            if wanted is None:
                return Tally()
            piece = audits.first_slice(connection, wanted, size_bytes=size_bytes, files=settings.work.slice_files)
        if piece is None:
            return Tally()
        found = audit(site, piece, pace=Pace(rate=settings.audit.rate))
        counted = Counter[str](finding.verdict for finding in found)
        counted.update(f"manifest {one.verdict}" for one in audit_manifests(site, service, sorted(answered(found))))
    damaged = counted[Verdict.DAMAGED] + counted[Verdict.MISSING] + counted[f"manifest {ManifestVerdict.DAMAGED}"]
    unread = counted[Verdict.UNREAD] + counted[f"manifest {ManifestVerdict.UNREAD}"]
    return Tally(done=counted[Verdict.GOOD] + counted[Verdict.VOUCHED], failed=damaged + unread, damaged=damaged)


def _due(site: Site, connection: sa.Connection, service: ServiceName) -> sa.Select[tuple[object, ...]] | None:
    interval = site.settings.audit.interval
    if not interval:
        return None
    needs_staging = site.services[service].capabilities.needs_staging
    return audits.due(connection, service, before=site.clock() - interval, needs_staging=needs_staging)
