"""Many small bundles in a catalogue, written there at once, for tests of queues: one file each, if any."""

import hashlib
import os
from collections.abc import Sequence

import sqlalchemy as sa

from omero_archive.catalogue.database import Catalogue
from omero_archive.digests import FixityDigests
from omero_archive.model import FileAttributes, Key
from omero_archive.service import Service
from omero_archive.steps.site import Site
from omero_archive.transfer import BytesReader

FIRST_NUMBER = 5000  # of filesets, beyond those of the demo
MTIME_NS = 1_700_000_000_000_000_000

_BUNDLES = """
    INSERT INTO bundle (name, home, fileset_ids, owner, owner_group, containers, file_count, size_bytes, decision,
                        requested_by, requested_at, residency, is_marked, released_at)
    SELECT 'Fileset-' || n, convert_to('ManagedRepository/many/' || n, 'UTF8'), ARRAY[n], 'u', 'g', '{}', 1, :size,
           'APPROVED', 'tester', :now, 'OFFLINE', true, :now
    FROM generate_series(CAST(:first AS bigint), :last) AS n RETURNING id
"""

_FILES = """
    INSERT INTO file (bundle_id, kind, omero_id, key, recorded_size, read_at, size_bytes, sha256, xxh3, device, inode,
                      mtime_ns, ctime_ns, mode, uid, gid)
    SELECT id, 'original', 900000 + id, convert_to('ManagedRepository/many/' || substr(name, 9) || '/a.tif', 'UTF8'),
           :size, :now, :size, :sha256, :xxh3, 1, 1, :mtime, :mtime, 33188, :uid, :gid
    FROM bundle WHERE id = ANY(:ids)
"""

_COPIES = """
    INSERT INTO copy (bundle_id, file_id, service, state, sha256, verified_at, confirmed_at, checked_at)
    SELECT bundle_id, id, :service, 'DURABLE', :sha256, :now, :now, :now FROM file WHERE bundle_id = ANY(:ids)
"""


def away(catalogue: Catalogue, count: int, *, content: bytes = b"", services: Sequence[str] = ()) -> list[int]:
    """Bundles that are OFFLINE, with durable copies on these services; their numbers, in order."""
    digests = FixityDigests()
    digests.update(memoryview(content))
    with catalogue.begin() as connection:
        last = connection.scalar(sa.text("SELECT count(*) FROM bundle")) or 0
        values = {
            "now": catalogue.clock(),
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "xxh3": digests.fixity().xxh3,
            "mtime": MTIME_NS,
            "uid": os.getuid(),
            "gid": os.getgid(),
            "first": FIRST_NUMBER + last,
            "last": FIRST_NUMBER + last + count - 1,
        }
        ids = sorted(connection.scalars(sa.text(_BUNDLES), values))
        connection.execute(sa.text(_FILES), values | {"ids": ids})
        for service in services:
            connection.execute(sa.text(_COPIES), values | {"ids": ids, "service": service})
    return ids


def stored(site: Site, service: Service, numbers: Sequence[int], content: bytes) -> list[Key]:
    """Store the file of each bundle on a service."""
    with site.catalogue.begin() as connection:
        rows = connection.execute(
            sa.text("SELECT key FROM file WHERE bundle_id = ANY(:ids) ORDER BY id"), {"ids": list(numbers)}
        )
        keys = [Key(os.fsdecode(bytes(row.key))) for row in rows]
    attributes = FileAttributes(mtime_ns=MTIME_NS, mode=0o644, uid=os.getuid(), gid=os.getgid())
    for key in keys:
        service.put(key, BytesReader(content, attributes), None)
    return keys
