"""Compares what lies at a bundle's paths in OMERO's repository with what should: originals, or links of ours.

An unmounted repository must never look like a thousand missing links: a root that cannot be read, that is empty or
in which OMERO's own marker is missing is not looked at.
"""

import hashlib
from collections.abc import Iterator

from omero_archive.catalogue.bundles import FileRecord
from omero_archive.errors import ArchiveError
from omero_archive.files import Entry, EntryKind, Reading, Tree, same_time, temporary_of
from omero_archive.model import Key, printable
from omero_archive.omero.repository import MANAGED
from omero_archive.states import Decision, Residency
from omero_archive.steps.originals import looked_at
from omero_archive.steps.reconcile.differences import Difference, Finding, Kind, NotLooked
from omero_archive.steps.reconcile.view import View
from omero_archive.steps.site import Site

MARKER = ".omero"
"""OMERO's server makes it in the root of the managed repository when it starts (FileMaker); it stays there."""


def why_not(site: Site, key: Key) -> str | None:
    """Why the root of this key's path cannot be believed, None if it can."""
    try:
        tree, _ = site.original(key)
        if key.startswith(f"{MANAGED}/"):
            is_there = tree.look(MARKER) is not None
        else:
            is_there = next(tree.files_below(""), None) is not None
    except (ArchiveError, OSError) as error:
        return str(error)
    if not is_there:
        lacks = f"it has no {MARKER}" if key.startswith(f"{MANAGED}/") else "it is empty"
        return f"{tree.root} does not look like OMERO's: {lacks}. Is it mounted?"
    return None


def is_looked_at(view: View) -> bool:
    """Whether anything can be said of what lies at the bundle's paths."""
    record = view.record
    if record.intent is not None or (view.omero is not None and view.omero.is_gone):
        return False  # in between both, or deleted with its paths
    # Else nothing is archived yet, or all is the users' again.
    return record.residency is not Residency.RESIDENT or record.decision is Decision.APPROVED


def differences(site: Site, view: View, *, is_read: bool) -> Iterator[Finding]:
    """What lies otherwise at a bundle's paths. With `is_read` files in links' places are read and hashed."""
    missing_directories: set[str] = set()
    keys = view.keys_in_omero()
    beside = _Beside()
    seen = looked_at(site, (file.key for file in view.files))
    for file, (_, found) in zip(view.files, seen, strict=True):
        # None: OMERO could not be asked; False: its row is gone or has another path, which is a difference of its own.
        is_in_omero = None if keys is None else keys.get((file.original.kind, file.original.omero_id)) == file.key
        try:
            if isinstance(found, ArchiveError | OSError):
                raise found
            yield from _file(
                site,
                view,
                file,
                found,
                is_in_omero=is_in_omero,
                is_read=is_read,
                missing_directories=missing_directories,
            )
            if (left := beside.temporary(site, file)) is not None:
                yield from _left(site, view, file, found, left)
        except (ArchiveError, OSError) as error:
            yield NotLooked(place="OMERO's disk", name=printable(file.key), reason=str(error))
            return


class _Beside:
    """Finds temporary names beside originals: the names of each directory are read once, the last one's kept."""

    def __init__(self) -> None:
        self._directory: tuple[Tree, str] | None = None
        self._names: frozenset[str] = frozenset()

    def temporary(self, site: Site, file: FileRecord) -> Entry | None:
        """What lies under the temporary name of an original, None if nothing does."""
        tree, relative = site.original(file.key)
        directory, _, name = temporary_of(relative).rpartition("/")
        if self._directory != (tree, directory):
            self._names, self._directory = frozenset(tree.names_in(directory)), (tree, directory)
        return tree.look(temporary_of(relative)) if name in self._names else None


def _left(site: Site, view: View, file: FileRecord, found: Entry | None, left: Entry) -> Iterator[Difference]:
    """The temporary name, where nothing else is wrong with the path."""
    if judge(file, found, is_released=view.is_released, target=site.link_target(file.key)) is None:
        tree, relative = site.original(file.key)
        yield _temporary(view, file, left, str(tree.path(temporary_of(relative))))


def _file(
    site: Site,
    view: View,
    file: FileRecord,
    found: Entry | None,
    *,
    is_in_omero: bool | None,
    is_read: bool,
    missing_directories: set[str],
) -> Iterator[Difference]:
    tree, relative = site.original(file.key)
    above = relative.rpartition("/")[0]
    if found is None and above and tree.look(above) is None:
        if above not in missing_directories:
            missing_directories.add(above)
            yield _difference(Kind.DIRECTORY_MISSING, view, file, f"{tree.path(above)} is not there.")
        return
    kind = judge(file, found, is_released=view.is_released, target=site.link_target(file.key))
    if kind is Kind.ORIGINAL_BACK and is_read and _sha256(tree, relative) != file.source.fixity.sha256:
        kind = Kind.OTHER_FILE
    if kind is Kind.LINK_MISSING:
        if is_in_omero is not False:
            yield _difference(kind, view, file, "nothing lies at its path.", is_safe=is_in_omero is True)
    elif kind is not None and not (kind is Kind.ORIGINAL_MISSING and is_in_omero is False):
        yield _difference(kind, view, file, _sentence(kind, site, file, found))


def judge(file: FileRecord, found: Entry | None, *, is_released: bool, target: str) -> Kind | None:
    """What is wrong at a path, None if nothing is. Pure."""
    if is_released:
        if found is None:
            return Kind.LINK_MISSING
        if found.kind is EntryKind.LINK:
            return None if found.target == target else Kind.LINK_RETARGETED
        return Kind.ORIGINAL_BACK if _is_original(file, found) else Kind.OTHER_FILE
    if file.read is None:
        return None  # not copied yet: `run` says what is wrong with it
    if found is None:
        return Kind.ORIGINAL_MISSING
    if found.target == target:
        return Kind.LINK_OF_RESIDENT
    return None if _is_original(file, found) else Kind.ORIGINAL_CHANGED


def _is_original(file: FileRecord, found: Entry) -> bool:
    read = file.source
    is_file = found.kind is EntryKind.FILE and found.identity.size_bytes == read.fixity.size_bytes
    return is_file and same_time(found.identity.mtime_ns, read.attributes.mtime_ns)


def _sentence(kind: Kind, site: Site, file: FileRecord, found: Entry | None) -> str:
    sha256 = file.source.fixity.sha256
    match kind:
        case Kind.LINK_RETARGETED if found is not None:
            ours = printable(site.link_target(file.key))
            return f"the link points to {printable(found.target or '')}, ours to {ours}."
        case Kind.ORIGINAL_BACK:
            return "a file with the archived size and mtime is in the link's place."
        case Kind.OTHER_FILE if found is not None:
            what = f"a {found.kind} of {found.identity.size_bytes} bytes" if found.target is None else "a link"
            return f"{what} is in the link's place; archived were {file.source.fixity.size_bytes}, SHA-256 {sha256}."
        case Kind.LINK_OF_RESIDENT:
            return "our link lies there, though the bundle is RESIDENT in the catalogue."
        case Kind.ORIGINAL_MISSING:
            return f"nothing lies at its path, though it was not released; archived was SHA-256 {sha256}."
        case _:
            return f"it has another size or mtime than when it was read; archived was SHA-256 {sha256}."


_WOULD = {
    Kind.LINK_MISSING: "make the link again, as long as nothing lies there.",
    Kind.DIRECTORY_MISSING: "a person must look: is a part of the repository not mounted? Its link is made when the "
    "directory is there again.",
    Kind.LINK_RETARGETED: "a person must look: whoever changed it may need it. Take it away, and the next "
    "reconcile makes ours again.",
    Kind.ORIGINAL_BACK: "run `omero-archive unarchive {name}`: it takes the files that came back as they are.",
    Kind.OTHER_FILE: "a person must look; the archived bytes are safe under that SHA-256.",
    Kind.LINK_OF_RESIDENT: "a person must look: was the catalogue restored from an older backup?",
    Kind.ORIGINAL_MISSING: "a person must look: fetch the file from the archive and put it back.",
    Kind.ORIGINAL_CHANGED: "a person must look: a release refuses it. `omero-archive release --rehash` if only "
    "its times changed.",
}


def _difference(kind: Kind, view: View, file: FileRecord, sentence: str, *, is_safe: bool = False) -> Difference:
    would = _WOULD[kind].format(name=view.record.name)
    if kind is Kind.LINK_MISSING and not is_safe:
        would = "ask OMERO's database first, which could not be reached: the file may have been deleted there."
    return Difference(
        kind=kind,
        bundle=view.record.name,
        key=file.key,
        sentence=f"{printable(file.key)}: {sentence}",
        would=would,
        is_safe=is_safe,
    )


def _temporary(view: View, file: FileRecord, left: Entry, path: str) -> Difference:
    # A link, or a second name: no bytes go with it.
    is_safe = left.kind is EntryKind.LINK or left.names > 1
    would = "take the name away; no bytes go with it." if is_safe else "the next release or unarchive replaces it."
    return Difference(
        kind=Kind.TEMPORARY_LEFT,
        bundle=view.record.name,
        key=file.key,
        sentence=f"{printable(path)} was left by an interruption.",
        would=would,
        is_safe=is_safe,
    )


def _sha256(tree: Tree, relative: str) -> str:
    with Reading(tree.open_to_read(relative)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
