"""The proof that a release or an eviction was right, as it is kept in the event log.

For every file there was a permit; for a plate of 10^5 files they are not written out one by one. The proof holds what
they rest on: each service's word, when it was given and for how many files, and one digest that stands for all keys
and digests: the SHA-256 of the bundle's `manifest-sha256.txt`, which lies in the archive.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from omero_archive import __version__
from omero_archive.catalogue import copies
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.model import Key
from omero_archive.omero.offline import OfflineProof
from omero_archive.states import Permit
from omero_archive.steps.manifest import manifest_line
from omero_archive.steps.site import Site


def proof(
    site: Site,
    bundle: BundleRecord,
    files: Sequence[FileRecord],
    permits: Mapping[Key, Permit],
    *,
    offline: OfflineProof | None = None,
) -> dict[str, object]:
    """What is written into the event. `offline` is what the probes saw, None for an eviction, which needs none."""
    policy = site.settings.release.policy
    with site.catalogue.begin() as connection:
        vouched = copies.vouched(connection, bundle.id)
    digest = hashlib.sha256()
    for file in files:
        digest.update(manifest_line(file.key, permits[file.key].sha256))
    return {
        "version": __version__,
        "files": len(files),
        "size_bytes": sum(permits[file.key].size_bytes for file in files),
        "manifest_sha256": digest.hexdigest(),
        "policy": {
            "rules": [{"wanted": rule.wanted, "of": list(rule.of)} for rule in policy.rules],
            "proof_lifetime_s": policy.proof_lifetime.total_seconds(),
        },
        "permits_expire_at": _iso(min((permit.expires_at for permit in permits.values()), default=None)),
        "copies": [
            {
                "service": one.service,
                "files": one.files,
                "confirmed_from": _iso(one.confirmed_from),
                "confirmed_to": _iso(one.confirmed_to),
                "checked_from": _iso(one.checked_from),
                "words": list(one.words),
            }
            for one in vouched
        ],
        "probes": [] if offline is None else [str(result) for result in offline.results],
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
