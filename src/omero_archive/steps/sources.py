"""Sources: where the good bytes of a file are to be had, and the proof that they are good.

A source is believed when it was read from its beginning to its end and has the SHA-256 of record. What it then gives
is compared once more while it is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.copies import CopyRecord
from omero_archive.errors import ArchiveError, NoProvenSource, NotMounted, ObjectOffline, SourceUnreadable
from omero_archive.files import EntryKind, Reading, Tree
from omero_archive.model import Key
from omero_archive.near import Place
from omero_archive.service import Service, Staged
from omero_archive.states import Residency
from omero_archive.steps.nearest import USABLE, Supply
from omero_archive.steps.site import Site, place_of
from omero_archive.transfer import RecallReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where bytes come from: its name for people, and how it is opened."""

    name: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """A bundle with its files and all their copies, loaded once for many of its files."""

    bundle: BundleRecord
    place: Place
    files: tuple[FileRecord, ...]
    copies: tuple[CopyRecord, ...]


def load_bundled(site: Site, bundle: BundleRecord) -> Bundled:
    """The bundle with its files and copies as they are now."""
    with site.catalogue.begin() as connection:
        files = bundles.files(connection, bundle.id)
        known = tuple(copies.of_bundle(connection, bundle.id, files))
    return Bundled(bundle=bundle, place=place_of(bundle, files), files=files, copies=known)


def proven(site: Site, bundled: Bundled, copy: CopyRecord) -> Source:
    """The first source that was read whole and has the SHA-256 of record. Raises `NoProvenSource`, naming all.

    Raises `ObjectOffline` if there is none, but a service brings one back.
    """
    tried = []
    unseen: NotMounted | None = None
    for name, found in (("original", _original(site, copy)), ("near bytes", _near(site, bundled, copy))):
        if isinstance(found, NotMounted):
            unseen = found
        problem = _disproof(site, copy, found) if isinstance(found, Source) else found
        if problem is None and isinstance(found, Source):
            return found
        tried.append(f"{name}: {problem}")
    others = [one for one in bundled.copies if one.file.id == copy.file.id and one.service != copy.service]
    supply = Supply(site, [copy.file], [one for one in others if one.service in site.services])
    while (nearest := supply.readable(copy.file)) is not None:
        service = site.services[nearest.service]
        source = Source(name=str(nearest.service), open=partial(service.open, copy.key))
        error = _disproof(site, copy, source)
        if error is None:
            return source
        supply.failed(nearest, error)
    for bringing in supply.stage([copy.file]):
        raise ObjectOffline(
            f"{copy.service}: {copy.key} was not healed yet: the only other bytes are being staged by {bringing}. "
            "Try again when they are there."
        )
    if unseen is not None:
        raise unseen  # the good bytes may well be there
    unusable = _unusable(site, others)
    tried += unusable
    if len(unusable) < len(others):
        tried.append(str(supply.problem(copy.file)).removesuffix("."))
    raise NoProvenSource(
        f"{copy.service}: {copy.key} was not healed: no source with SHA-256 {copy.file.source.fixity.sha256}: "
        f"{'; '.join(tried)}. Nothing was changed; what lies in the archive is kept. Look for a backup of this file."
    )


def _disproof(site: Site, copy: CopyRecord, source: Source) -> ArchiveError | None:
    """What is wrong with a source that is read to its end; None if it has the right bytes."""
    try:
        for _ in reader(site, copy, source).pieces():
            continue
    except ArchiveError as error:
        return error
    return None


def _unusable(site: Site, others: Sequence[CopyRecord]) -> list[str]:
    """Which of the other copies may not be read, and why."""
    if not others:
        return ["other services: there is no other copy"]
    gone = "is not in the settings any more"
    return [
        f"{one.service}: {gone if one.state in USABLE else f'its copy is {one.state}'}"
        for one in others
        if one.state not in USABLE or one.service not in site.services
    ]


def reader(site: Site, copy: CopyRecord, source: Source) -> RecallReader:
    """Reads a source and compares it with what is on record."""
    read = copy.file.source
    return RecallReader(source.open, f"{source.name}: {copy.key}", read.fixity, read.attributes, site.lanes)


def open_stored(service: Service, key: Key, subject: str) -> BinaryIO:
    """An object of a service. Raises `ObjectOffline`, after asking for its bytes, and what opening raises."""
    if service.capabilities.needs_staging and service.status([key])[key].staged is not Staged.ONLINE:
        service.stage([key])
        raise ObjectOffline(f"{subject} is offline; it is being staged. Try again when it is there.")
    return service.open(key)


def _original(site: Site, copy: CopyRecord) -> Source | NotMounted | str:
    try:
        tree, relative = site.original(copy.key)
    except NotMounted as error:
        return error
    except ArchiveError as error:
        return str(error)
    return _file(tree, relative, "original")


def _near(site: Site, bundled: Bundled, copy: CopyRecord) -> Source | NotMounted | str:
    if bundled.bundle.residency is not Residency.ONLINE:
        return f"the bundle is {bundled.bundle.residency}"
    try:
        return _file(site.near.tree, site.near.path_of(bundled.place, copy.key), "near bytes")
    except NotMounted as error:
        return error
    except ArchiveError as error:
        return str(error)


def _file(tree: Tree, relative: str, name: str) -> Source | NotMounted | str:
    """A plain file on a disk of this machine as a source; or why it is none."""
    try:
        found = tree.look(relative)
    except NotMounted as error:
        return error
    except (OSError, ArchiveError) as error:
        return str(error)
    if found is None:
        return f"there is no {tree.path(relative)}"
    if found.kind is not EntryKind.FILE:
        return f"{tree.path(relative)} is a {found.kind}"
    return Source(name=name, open=partial(_open_file, tree, relative))


def _open_file(tree: Tree, relative: str) -> BinaryIO:
    try:
        return Reading(tree.open_to_read(relative))
    except OSError as error:
        raise SourceUnreadable(f"{tree.path(relative)} could not be read: {error.strerror}.") from error
