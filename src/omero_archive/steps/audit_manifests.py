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


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFinding:
    """What was found of one of the two files."""

    bundle: BundleName
    service: ServiceName
    key: Key
    verdict: ManifestVerdict
    text: str = ""
    error: ArchiveError | None = None


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
            verdict, told, error = _audited(site, service, key, text, attributes, bundle=bundle.name, heal=heal)
            found.append(
                ManifestFinding(bundle=bundle.name, service=service, key=key, verdict=verdict, text=told, error=error)
            )
            if verdict not in (ManifestVerdict.GOOD, ManifestVerdict.CANNOT_TELL, ManifestVerdict.UNREAD):
                with site.catalogue.begin() as connection:
                    audits.noted(connection, bundle_id, {"service": service, "key": key, "manifest": verdict})
    return found


def _audited(
    site: Site,
    name: ServiceName,
    key: Key,
    text: bytes,
    attributes: FileAttributes,
    *,
    bundle: BundleName,
    heal: bool,
) -> tuple[ManifestVerdict, str, ArchiveError | None]:
    """The verdict on one file with a sentence and, where it could not be found out, the error."""
    service, subject = site.services[name], f"{name}: {key}"
    try:
        status = service.status([key])[key]
        if status.present is Answer.NO:
            put_one(service, key, text, attributes)
            return ManifestVerdict.WRITTEN_ANEW, f"{subject} was missing and was written anew.", None
        if status.staged is not Staged.ONLINE or status.present is not Answer.YES:
            return ManifestVerdict.CANNOT_TELL, f"{subject} is {status.staged}; it was not compared.", None
        if _says_the_same(key, read_whole(service, key, at_most=_MOST_BYTES), text):
            return ManifestVerdict.GOOD, "", None
        if not heal:
            return ManifestVerdict.DAMAGED, f"{subject} says other digests than the catalogue.", None
        aside = _replace(site, service, key, text, attributes, bundle=bundle)
        return ManifestVerdict.HEALED, f"{subject} was damaged; it is kept as {aside} and was written anew.", None
    except ArchiveError as error:
        return ManifestVerdict.UNREAD, f"{subject}: {error}", error


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


def _replace(
    site: Site, service: Service, key: Key, text: bytes, attributes: FileAttributes, *, bundle: BundleName
) -> Key | None:
    """Put a damaged file aside and write it anew; where its bytes are kept, None if it went meanwhile."""
    found = look(service, key, attributes, site.lanes)
    aside = None
    if found is not None:
        aside = put_aside(service, bundle, key, found, attributes, lanes=site.lanes)
        service.delete(key)
    put_one(service, key, text, attributes)
    return aside
