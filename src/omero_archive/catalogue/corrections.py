"""What `reconcile` corrects in the catalogue, and what a purge takes out of it. Events always stay."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger

from omero_archive.catalogue.arrays import array
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.events import WROTE, actor, now, record
from omero_archive.catalogue.tables import bundle, copy, event, file, image, manifest, recall, waiting_open
from omero_archive.model import Bundle, ServiceName, printable

PURGED = "purged"
"""The event of a bundle whose copies were deleted for good, and of each of those copies."""


def refresh_facts(connection: sa.Connection, found: BundleRecord, now_in_omero: Bundle) -> None:
    """Write down owner, group and containers as OMERO has them now; its files and its home stay as they are."""
    values: dict[str, Any] = {
        "owner": now_in_omero.owner,
        "owner_group": now_in_omero.group,
        "containers": list(now_in_omero.containers),
    }
    connection.execute(bundle.update().where(bundle.c.id == found.id).values(**values))


def forget_images(connection: sa.Connection, found: BundleRecord, ids: Sequence[int]) -> None:
    """Take images out of a bundle that OMERO has no more; their names and flags stay in an event."""
    gone = sa.and_(image.c.bundle_id == found.id, image.c.id == sa.any_(array(ids, BigInteger)))
    rows = connection.execute(image.delete().where(gone).returning(image.c.id, image.c.name, image.c.previous_archived))
    detail = [{"id": row.id, "name": row.name, "previous_archived": row.previous_archived} for row in rows]
    record(connection, found.id, "images", old=str(len(detail)), detail={"gone": detail})


def was_marked(connection: sa.Connection, bundle_id: int) -> bool:
    """Whether we ever marked this bundle, so that its images' flags from before are remembered."""
    marks = sa.select(event.c.id).where(event.c.bundle_id == bundle_id, event.c.what == "mark", event.c.new == "marked")
    return connection.scalar(marks.limit(1)) is not None


def manifest_lies_in(connection: sa.Connection, bundle_id: int, service: ServiceName, directory: str) -> None:
    """Record where a manifest that was written anew lies."""
    mine = sa.and_(manifest.c.bundle_id == bundle_id, manifest.c.service == service)
    connection.execute(manifest.update().where(mine).values(directory=directory, written_at=now(connection)))


def record_deletions(
    connection: sa.Connection, found: BundleRecord, deleted: Sequence[tuple[str, str, str | None]]
) -> None:
    """An event for each object that a purge deletes: service, key and SHA-256 (None: a manifest's file)."""
    connection.info[WROTE] = True
    fixed = {"at": now(connection), "actor": actor(connection), "bundle_id": found.id, "what": PURGED, "new": "deleted"}
    for start in range(0, len(deleted), 1000):
        rows = [
            fixed | {"service": service, "detail": {"key": printable(key), "sha256": sha256}}
            for service, key, sha256 in deleted[start : start + 1000]
        ]
        connection.execute(event.insert(), rows)


def forget_bundle(connection: sa.Connection, found: BundleRecord) -> None:
    """Take a bundle out of the catalogue with all that belongs to it; its events stay."""
    for table in (waiting_open, recall, manifest, copy, image, file):
        connection.execute(table.delete().where(table.c.bundle_id == found.id))
    connection.execute(bundle.delete().where(bundle.c.id == found.id))
    record(connection, found.id, PURGED, old=found.residency, detail={"bundle": found.name})
