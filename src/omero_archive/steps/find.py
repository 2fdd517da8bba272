"""Find: candidates for archiving, what the catalogue knows of them, and what stands in the way on disk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.errors import ArchiveError
from omero_archive.model import Bundle, BundleName, Key, ObjectRef, ObjectType
from omero_archive.omero.closure import RefusedBundle
from omero_archive.omero.closure import bundles as closure
from omero_archive.omero.find import Candidate, Filter, candidates
from omero_archive.steps.add import obstacles
from omero_archive.steps.site import Site


class By(StrEnum):
    """From when an age counts."""

    IMPORT = "import"
    ACQUISITION = "acquisition"
    ACCESS = "access"  # the latest atime of the files, as far as the file system keeps it


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One candidate. `state` is what the catalogue knows, None for nothing."""

    candidate: Candidate
    state: str | None
    obstacles: tuple[str, ...]


def find(site: Site, wanted: Filter, *, by: By, before: datetime | None) -> Iterator[Found]:
    """Candidates that match, the largest first; with `before` only what is older, by import, acquisition or access."""
    match by:
        case By.IMPORT:
            wanted = replace(wanted, imported_before=before)
        case By.ACQUISITION:
            wanted = replace(wanted, acquired_before=before)
        case By.ACCESS:
            pass
    known = _known(site)
    top = wanted.top
    if by is By.ACCESS and before is not None:
        wanted = replace(wanted, top=None)  # the disk decides which are left
    shown = 0
    for candidate in candidates(site.omero, wanted):
        found = _look(site, candidate, known.get(candidate.name))
        if by is By.ACCESS and before is not None and not _is_unopened_since(site, candidate, before):
            continue
        yield found
        shown += 1
        if top is not None and shown == top:
            return


def _known(site: Site) -> dict[BundleName, str]:
    """What the catalogue knows; nothing where there is no catalogue yet: `find` may be run before `init`."""
    try:
        site.catalogue.require_schema()
        with site.catalogue.begin() as connection:
            return {bundle.name: _state(bundle) for bundle in bundles.every(connection)}
    except ArchiveError:
        return {}


def _state(bundle: BundleRecord) -> str:
    return f"{bundle.decision}, {bundle.residency}"


def _ref(candidate: Candidate) -> ObjectRef:
    if candidate.fileset is not None:
        return ObjectRef(type=ObjectType.FILESET, id=candidate.fileset)
    return ObjectRef(type=ObjectType.IMAGE, id=candidate.image or 0)


def _look(site: Site, candidate: Candidate, state: str | None) -> Found:
    found: list[str] = []
    if state is None:
        for bundle in closure(site.omero, [_ref(candidate)]):
            found += [str(bundle.reason)] if isinstance(bundle, RefusedBundle) else obstacles(site, bundle)
    if candidate.missing_thumbnails:
        found.append(f"{candidate.missing_thumbnails} thumbnails are missing; view the images once before archiving")
    return Found(candidate=candidate, state=state, obstacles=tuple(found))


def _is_unopened_since(site: Site, candidate: Candidate, before: datetime) -> bool:
    limit_ns = before.astimezone(UTC).timestamp() * 1e9
    for bundle in closure(site.omero, [_ref(candidate)]):
        if isinstance(bundle, Bundle) and any(_opened_ns(site, f.key) >= limit_ns for f in bundle.files):
            return False
    return True


def _opened_ns(site: Site, key: Key) -> int:
    tree, relative = site.original(key)
    return tree.last_read_ns(relative)
