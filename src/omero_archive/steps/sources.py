"""Sources: where the good bytes of a file are to be had, and the proof that they are good.

A source is believed when it was read from its beginning to its end and has the SHA-256 of record. What it then gives
is compared once more while it is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.copies import CopyRecord
from omero_archive.errors import ArchiveError, NoProvenSource, ObjectOffline, SourceUnreadable
from omero_archive.files import EntryKind, Reading, Tree
from omero_archive.model import Key
from omero_archive.near import Place
from omero_archive.service import Service, Staged
from omero_archive.states import CopyState, Residency
from omero_archive.steps.site import Site, place_of
from omero_archive.transfer import RecallReader

_USABLE = (CopyState.DURABLE, CopyState.VERIFIED, CopyState.WRITTEN)


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
        known = tuple(copies.of_bundle(connection, bundle.id))
    return Bundled(bundle=bundle, place=place_of(bundle, files), files=files, copies=known)


def proven(site: Site, bundled: Bundled, copy: CopyRecord) -> Source:
    """The first source that was read whole and has the SHA-256 of record. Raises `NoProvenSource`, naming all."""
    wanted = copy.file.source.fixity.sha256
    tried = []
    for name, source in _candidates(site, bundled, copy):
        if isinstance(source, str):
            tried.append(f"{name}: {source}")
            continue
        try:
            for _ in reader(site, copy, source).pieces():
                continue
        except ArchiveError as error:
            tried.append(f"{name}: {error}")
        else:
            return source
    raise NoProvenSource(
        f"{copy.service}: {copy.key} was not healed: no source with SHA-256 {wanted}: {'; '.join(tried)}. "
        "Nothing was changed; what lies in the archive is kept. Look for a backup of this file."
    )


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


def _candidates(site: Site, bundled: Bundled, copy: CopyRecord) -> Iterator[tuple[str, Source | str]]:
    """The sources in the order of their nearness; for one that there is not, why not."""
    yield "original", _original(site, copy)
    yield "near bytes", _near(site, bundled, copy)
    others = [one for one in bundled.copies if one.file.id == copy.file.id and one.service != copy.service]
    for other in others:
        name = str(other.service)
        if other.state not in _USABLE:
            yield name, f"its copy is {other.state}"
        elif other.service not in site.services:
            yield name, "is not in the settings any more"
        else:
            service = site.services[other.service]
            yield name, Source(name=name, open=partial(open_stored, service, copy.key, f"{name}: {copy.key}"))
    if not others:
        yield "other services", "there is no other copy"


def _original(site: Site, copy: CopyRecord) -> Source | str:
    try:
        tree, relative = site.original(copy.key)
    except ArchiveError as error:
        return str(error)
    return _file(tree, relative, "original")


def _near(site: Site, bundled: Bundled, copy: CopyRecord) -> Source | str:
    if bundled.bundle.residency is not Residency.ONLINE:
        return f"the bundle is {bundled.bundle.residency}"
    try:
        return _file(site.near.tree, site.near.path_of(bundled.place, copy.key), "near bytes")
    except ArchiveError as error:
        return str(error)


def _file(tree: Tree, relative: str, name: str) -> Source | str:
    """A plain file on a disk of this machine as a source; or why it is none."""
    try:
        found = tree.look(relative)
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
