"""Audit of manifests: both files are there and say the digests that the catalogue says.

What is missing is written anew, since the catalogue knows it all. What says other digests is damage: it is reported,
and only healed when that is asked for, after its bytes were put aside.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from omero_archive.catalogue import audits
from omero_archive.errors import ArchiveError
from omero_archive.model import BundleName, FileAttributes, Key, ServiceName
from omero_archive.service import Answer, Service, Staged
from omero_archive.steps.compare import read_whole
from omero_archive.steps.heal import look, put_aside
from omero_archive.steps.manifest import DESCRIPTION, expected, put_one
from omero_archive.steps.site import Site

_MOST_BYTES = 1 << 32  # of a manifest that is compared; one of 10^7 files has less


class ManifestVerdict(StrEnum):
    """What an audit says of a bundle's manifest or description."""

    GOOD = "good"
    CANNOT_TELL = "cannot tell"  # its bytes are offline
    UNREAD = "could not be read"
    WRITTEN_ANEW = "written anew"  # it was missing
    DAMAGED = "damaged"
    HEALED = "healed"  # it was damaged; its bytes were put aside


_NOTED = (ManifestVerdict.WRITTEN_ANEW, ManifestVerdict.DAMAGED, ManifestVerdict.HEALED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFinding:
    """What was found of one of the two files."""

    bundle: BundleName
    service: ServiceName
    key: Key
    verdict: ManifestVerdict
    text: str = ""
    error: ArchiveError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One of the two files as it should be."""

    bundle: BundleName
    service: ServiceName
    key: Key
    text: bytes
    attributes: FileAttributes

    def found(self, verdict: ManifestVerdict, told: str = "", error: ArchiveError | None = None) -> ManifestFinding:
        text = f"{self.service}: {self.key} {told}" if told else ""
        return ManifestFinding(
            bundle=self.bundle, service=self.service, key=self.key, verdict=verdict, text=text, error=error
        )


def audit_manifests(
    site: Site, service: ServiceName, bundle_ids: Sequence[int], *, heal: bool = False
) -> list[ManifestFinding]:
    """Audit the manifests of these bundles on one service; those that were never written are left out."""
    with site.catalogue.begin() as connection:
        directories = audits.manifests(connection, service, bundle_ids)
    found = []
    for bundle_id, directory in directories.items():
        bundle, content, attributes = expected(site, bundle_id)
        for name, text in content.items():
            key = Key(f"{directory}/{name}")
            wanted = _Wanted(bundle=bundle.name, service=service, key=key, text=text, attributes=attributes)
            try:
                found.append(_audited(site, wanted, heal=heal))
            except ArchiveError as error:
                found.append(wanted.found(ManifestVerdict.UNREAD, f"could not be compared: {error}", error))
            if found[-1].verdict in _NOTED:
                with site.catalogue.begin() as connection:
                    audits.noted(connection, bundle_id, {"service": service, "key": key, "manifest": found[-1].verdict})
    return found


def _audited(site: Site, wanted: _Wanted, *, heal: bool) -> ManifestFinding:
    service, key = site.services[wanted.service], wanted.key
    status = service.status([key])[key]
    if status.present is Answer.NO:
        put_one(service, key, wanted.text, wanted.attributes)
        return wanted.found(ManifestVerdict.WRITTEN_ANEW, "was missing and was written anew.")
    if status.staged is not Staged.ONLINE or status.present is not Answer.YES:
        return wanted.found(ManifestVerdict.CANNOT_TELL, f"is {status.staged}; it was not compared.")
    if _says_the_same(key, read_whole(service, key, at_most=_MOST_BYTES), wanted.text):
        return wanted.found(ManifestVerdict.GOOD)
    if not heal:
        return wanted.found(ManifestVerdict.DAMAGED, "says other digests than the catalogue.")
    with site.lock_bundle(wanted.bundle):
        if _says_the_same(key, read_whole(service, key, at_most=_MOST_BYTES), wanted.text):
            return wanted.found(ManifestVerdict.GOOD)  # another process was faster
        aside = _replace(site, service, wanted)
    return wanted.found(ManifestVerdict.HEALED, f"said other digests; it is kept as {aside} and was written anew.")


def _says_the_same(key: Key, stored: bytes, wanted: bytes) -> bool:
    """Whether a manifest is what it should be. A description may be older: of it the files and their digests count."""
    if stored == wanted or not key.endswith(f"/{DESCRIPTION}"):
        return stored == wanted
    try:
        return _digests(stored) == _digests(wanted)
    except (ValueError, KeyError, TypeError):
        return False  # not what `describe` writes


def _digests(description: bytes) -> tuple[object, ...]:
    told = json.loads(description)
    files = {file["key"]: (file["size_bytes"], file["sha256"]) for file in told["files"]}
    return told["format"], told["bundle"], files


def _replace(site: Site, service: Service, wanted: _Wanted) -> Key | None:
    """Put a damaged file aside and write it anew; where its bytes are kept, None if it went meanwhile."""
    found = look(service, wanted.key, wanted.attributes, site.lanes)
    aside = None
    if found is not None:
        aside = put_aside(service, wanted.bundle, wanted.key, found, wanted.attributes, lanes=site.lanes)
        service.delete(wanted.key)
    put_one(service, wanted.key, wanted.text, wanted.attributes)
    return aside
