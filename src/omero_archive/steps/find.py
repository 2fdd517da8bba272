"""Find: candidates for archiving, what the catalogue knows of them, and what stands in the way on disk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice

from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.model import Bundle, BundleName, Key, ObjectRef, ObjectType
from omero_archive.omero.closure import RefusedBundle
from omero_archive.omero.closure import bundles as closure
from omero_archive.omero.find import Candidate, Filter, candidates
from omero_archive.steps.add import obstacles
from omero_archive.steps.sight import require_named
from omero_archive.steps.site import Site

_BATCH = 200
"""So many candidates are looked at together."""


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
    limit = before if by is By.ACCESS else None
    if limit is not None:
        wanted = replace(wanted, top=None)  # the disk decides which are left
    shown = 0
    # All at once: a reader who takes his time must not keep a transaction of OMERO's database open.
    for batch in _batches(list(candidates(site.omero, wanted))):
        # Those under archiving were looked at when they were added.
        looked_at = [one for one in batch if limit is not None or one.name not in known]
        seen = _look(site, looked_at)
        for candidate in batch:
            if limit is not None and seen[candidate.name].opened_at_or_after(limit):
                continue
            yield _found(candidate, known.get(candidate.name), seen.get(candidate.name))
            shown += 1
            if top is not None and shown == top:
                return


def _batches(found: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    left = iter(found)
    while batch := list(islice(left, _BATCH)):
        yield batch


def _known(site: Site) -> dict[BundleName, str]:
    """What the catalogue knows; nothing where there is none yet: `find` may be run before `init`.

    Raises `DatabaseUnavailable`, `SettingsError`: what is archived is not to be shown as if it could be.
    """
    if not site.catalogue.is_made():
        return {}
    site.catalogue.require_schema()
    require_named(site.catalogue, site.omero)
    with site.catalogue.begin() as connection:
        return {bundle.name: _state(bundle) for bundle in bundles.every(connection)}


def _state(bundle: BundleRecord) -> str:
    return f"{bundle.decision}, {bundle.residency}"


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What was seen of a candidate's files on the disk."""

    obstacles: list[str] = field(default_factory=list)
    last_opened_ns: int = 0  # 0: nothing was looked at, since its paths are not safe

    def opened_at_or_after(self, time: datetime) -> bool:
        return self.last_opened_ns >= time.astimezone(UTC).timestamp() * 1e9


def _look(site: Site, wanted: Sequence[Candidate]) -> dict[BundleName, _Seen]:
    """Look at the files of these, in one closure: the same queries for each alone would take much longer."""
    seen = {candidate.name: _Seen() for candidate in wanted}
    left = set(seen)
    for bundle in closure(site.omero, map(_ref, wanted), homes=False) if wanted else ():
        names = _members(bundle) & left
        one = _seen(site, bundle)
        seen.update(dict.fromkeys(names, one))
        left -= names
    # Of several that hang together and are refused together, only the first was named.
    for candidate in (candidate for candidate in wanted if candidate.name in left):
        for bundle in closure(site.omero, [_ref(candidate)], homes=False):
            seen[candidate.name] = _seen(site, bundle)
    return seen


def _members(bundle: Bundle | RefusedBundle) -> set[BundleName]:
    """The candidates whose files and images a bundle has."""
    if isinstance(bundle, RefusedBundle):
        return {bundle.name}
    alone = {BundleName(f"Image-{image.id}") for image in bundle.images if not image.is_fileset_image}
    return alone | {BundleName(f"Fileset-{number}") for number in bundle.fileset_ids}


def _seen(site: Site, bundle: Bundle | RefusedBundle) -> _Seen:
    if isinstance(bundle, RefusedBundle):
        return _Seen(obstacles=[str(bundle.reason)])
    opened = max((_opened_ns(site, file.key) for file in bundle.files), default=0)
    return _Seen(obstacles=list(obstacles(site, bundle)), last_opened_ns=opened)


def _found(candidate: Candidate, state: str | None, seen: _Seen | None) -> Found:
    found = list(seen.obstacles) if state is None and seen is not None else []
    if candidate.missing_thumbnails:
        found.append(f"{candidate.missing_thumbnails} thumbnails are missing; view the images once before archiving")
    return Found(candidate=candidate, state=state, obstacles=tuple(found))


def _ref(candidate: Candidate) -> ObjectRef:
    if candidate.fileset is not None:
        return ObjectRef(type=ObjectType.FILESET, id=candidate.fileset)
    return ObjectRef(type=ObjectType.IMAGE, id=candidate.image or 0)


def _opened_ns(site: Site, key: Key) -> int:
    tree, relative = site.original(key)
    return tree.last_read_ns(relative)
