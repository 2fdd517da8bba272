"""Compares the directory of near bytes with the catalogue's residencies.

What an interrupted step explains is no difference: its bundle has an intent, or is RECALLING.
"""

from collections.abc import Iterator
from itertools import groupby, islice

from omero_archive.catalogue import pages
from omero_archive.catalogue.bundles import FileRecord
from omero_archive.errors import ArchiveError
from omero_archive.files import Entry, same_time
from omero_archive.looking import look_at_all
from omero_archive.model import printable
from omero_archive.near import Place
from omero_archive.states import Residency
from omero_archive.steps.reconcile.differences import Difference, Finding, Kind, NotLooked
from omero_archive.steps.reconcile.view import View
from omero_archive.steps.site import Site, place_of

_PAGE = 5_000


def why_not(site: Site, *, is_anything_released: bool) -> str | None:
    """Why the directory of near bytes cannot be believed, None if it can."""
    try:
        if site.near.is_begun() or not is_anything_released:
            return None
    except (ArchiveError, OSError) as error:
        return str(error)
    return f"{site.near.tree.root} has nothing of ours, though bundles were released. Is it mounted?"


def differences(site: Site, view: View) -> Iterator[Finding]:
    """What lies otherwise near of one bundle."""
    if view.record.intent is not None:
        return
    place = place_of(view.record, view.files)
    try:
        match view.record.residency:
            case Residency.RESIDENT:
                yield from _resident(site, view, place)
            case Residency.ONLINE:
                yield from _online(site, view, place)
            case Residency.OFFLINE:
                yield from _offline(site, view, place)
            case Residency.RECALLING:
                return  # anything may be there; the recall goes on
    except (ArchiveError, OSError) as error:
        yield NotLooked(place="near", name=view.record.name, reason=str(error))


def unknown_bytes(site: Site) -> Iterator[Difference]:
    """What lies near of bundles and under keys that the catalogue does not know. One for each directory."""
    names = list(site.near.private_names())
    with site.catalogue.begin() as connection:
        known = pages.known_names(connection, [name for _, name in names])
    for directory, name in names:
        if name not in known:
            yield _unknown(f".omero-archive/{directory}/{name}", "it names a bundle that the catalogue does not have.")
    paths = site.near.visible_files()
    while page := list(islice(paths, _PAGE)):
        with site.catalogue.begin() as connection:
            keys = pages.known_keys(connection, page)
        strange = (path for path in page if path not in keys)
        for directory, files in groupby(strange, key=lambda path: path.rpartition("/")[0]):
            some = list(files)
            yield _unknown(some[0], f"{len(some)} files in {printable(directory) or 'the top'} are of no known bundle.")


def _unknown(path: str, sentence: str) -> Difference:
    return Difference(
        kind=Kind.NEAR_UNKNOWN,
        bundle=None,
        key=path,
        sentence=f"{printable(path)}: {sentence}",
        would="a person must look: was the catalogue lost? Nothing is deleted.",
    )


def _resident(site: Site, view: View, place: Place) -> Iterator[Difference]:
    near = site.near
    where = [
        word
        for word, is_there in (
            # The directory alone tells nothing: it may hold the ways of bundles that came into it later.
            ("in place", near.is_in(place) and any(found is not None for _, found in _seen(site, view, place))),
            ("in outgoing", near.is_taken_out(place)),
            ("in incoming", near.is_prepared(place)),
        )
        if is_there
    ]
    if where:
        sentence = f"RESIDENT, but bytes of it are near, {' and '.join(where)}."
        yield _of(Kind.NEAR_LEFT, view, sentence, "a person must look: nothing is deleted without a release.")
    elif near.has_ways(place):
        sentence = "RESIDENT, but links inside the directory of near bytes still lead to it."
        yield _of(Kind.NEAR_WAYS_LEFT, view, sentence, "take those links of ours away.", is_safe=True)


def _online(site: Site, view: View, place: Place) -> Iterator[Difference]:
    near = site.near
    if not near.is_in(place):
        if near.is_taken_out(place):
            sentence = "ONLINE, but its bytes are in outgoing: an eviction was interrupted, and nobody can read it."
            yield _of(Kind.NOT_READABLE, view, sentence, "put the bytes back.", is_safe=True)
        else:
            would = "record it OFFLINE, as it is; `omero-archive recall` brings it back."
            yield _of(Kind.NEAR_GONE, view, "ONLINE, but nothing of it is near.", would, is_safe=True)
        return
    missing: list[FileRecord] = []
    changed: list[FileRecord] = []
    for file, found in _seen(site, view, place):
        if found is None:
            missing.append(file)
        elif not _is_unchanged(file, found):
            changed.append(file)
    if missing:
        sentence = (
            f"ONLINE, but {len(missing)} of {len(view.files)} files are not near, such as {printable(missing[0].key)}: "
            "it may open with wrong pixels."
        )
        would = "a person must look: move what is left of it aside, and the next reconcile records it OFFLINE."
        yield _of(Kind.NEAR_INCOMPLETE, view, sentence, would)
    for file in changed:
        text = f"{printable(file.key)}: its near bytes have another size or mtime than was archived."
        would = f"a person must look; archived was SHA-256 {file.source.fixity.sha256}."
        yield _of(Kind.NEAR_CHANGED, view, text, would, key=file.key)
    left = [
        word
        for word, is_there in (("outgoing", near.is_taken_out(place)), ("incoming", near.is_prepared(place)))
        if is_there
    ]
    if left:
        sentence = f"ONLINE, and older bytes of it are left in {' and '.join(left)}."
        yield _of(Kind.NEAR_LEFT, view, sentence, "the next eviction or unarchive deletes them, with their permits.")


def _offline(site: Site, view: View, place: Place) -> Iterator[Difference]:
    near = site.near
    if near.is_in(place):
        if all(_is_unchanged(file, found) for file, found in _seen(site, view, place)):
            sentence = "OFFLINE, but all its bytes are near."
            yield _of(Kind.NEAR_READABLE, view, sentence, "record it ONLINE, as it is.", is_safe=True)
        else:
            sentence = "OFFLINE, but some of its bytes are near: it may open with wrong pixels."
            would = "a person must look: move what is there aside; a recall brings the whole."
            yield _of(Kind.NEAR_PARTLY_READABLE, view, sentence, would)
    if near.is_taken_out(place):
        sentence = "an eviction was interrupted: bytes of it wait in outgoing."
        yield _of(Kind.EVICTION_LEFT, view, sentence, "`omero-archive run` deletes them, each with its permit.")
    if near.is_prepared(place) and not view.has_open_recall:
        sentence = "OFFLINE, no recall is open, but bytes of it are in incoming."
        yield _of(Kind.NEAR_LEFT, view, sentence, f"`omero-archive recall {view.record.name}` uses and finishes them.")


def _seen(site: Site, view: View, place: Place) -> Iterator[tuple[FileRecord, Entry | None]]:
    """Each file, and what lies near of it."""
    paths = (site.near.path_of(place, file.key) for file in view.files)
    for file, (_, found) in zip(view.files, look_at_all(site.near.tree, paths), strict=True):
        yield file, found


def _is_unchanged(file: FileRecord, found: Entry | None) -> bool:
    if found is None or file.read is None:
        return False
    is_same_size = found.identity.size_bytes == file.read.fixity.size_bytes
    return is_same_size and same_time(found.identity.mtime_ns, file.read.attributes.mtime_ns)


def _of(
    kind: Kind, view: View, sentence: str, would: str, *, is_safe: bool = False, key: str | None = None
) -> Difference:
    return Difference(kind=kind, bundle=view.record.name, sentence=sentence, would=would, is_safe=is_safe, key=key)
