"""Unarchive: put the originals back, with OMERO off; then the marks away. ONLINE -> RESIDENT.

Release backwards. Every near file gets a second name beside its link and is renamed over it; on another file system
it is copied and verified first. Then OMERO's rows get their previous values back. The near names go last, a moment
later: a reader may just have resolved the old link.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import BinaryIO

from omero_archive.catalogue import bundles, recalls
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.errors import ArchiveError, BrokenInvariant, SourceUnreadable, WrongState
from omero_archive.files import Entry, EntryKind, Reading, Tree, same_time, temporary_of, translated
from omero_archive.model import BundleName, Fixity, Key
from omero_archive.near import Place, is_elsewhere
from omero_archive.omero.marks import unmark
from omero_archive.states import Decision, Permit, Residency, permit_by_original
from omero_archive.steps.originals import entries
from omero_archive.steps.recall import recall
from omero_archive.steps.release import load, require_still_off
from omero_archive.steps.rollback import begin_back, give_up, is_near
from omero_archive.steps.site import Site, place_of
from omero_archive.transfer import RecallReader, read_back, write_temporary

INTENT = "unarchive"
GRACE_S = 1.0

_PAGE_FILES = 5_000


def unarchive(site: Site, names: Sequence[BundleName]) -> Iterator[tuple[BundleName, ArchiveError | None]]:
    """Put bundles back, recalling them first if need be; what became of each. Interrupted ones are finished.

    The errors: `OmeroIsOn`, `WrongState` and what a recall raises; then every path still gives its bytes.
    """
    back: list[BundleName] = []
    for name in names:
        try:
            put_back(site, name)
            back.append(name)
        except ArchiveError as error:
            yield name, error
    if back:
        time.sleep(GRACE_S)  # once for all of them
    for name in back:
        try:
            clear(site, name)
        except ArchiveError as error:
            yield name, error
        else:
            yield name, None


def require_unarchivable(bundle: BundleRecord) -> None:
    """Raise `WrongState` unless there is something to put back: links, or a release that was begun."""
    if bundle.residency is Residency.RESIDENT and bundle.intent is None:
        raise WrongState(f"{bundle.name} is RESIDENT already; there is nothing to put back.")


def put_back(site: Site, name: BundleName) -> None:
    """Put one bundle's originals in the places of their links and take the marks away; near names stay."""
    bundle = load(site, name)
    require_unarchivable(bundle)
    site.prove_offline()
    if bundle.residency in (Residency.OFFLINE, Residency.RECALLING):
        recall(site, name)
        site.prove_offline()  # again: that may have taken hours
    with site.lock_bundle(name):
        bundle, files = _load(site, name)
        require_unarchivable(bundle)
        if bundle.residency is Residency.RESIDENT:
            if not is_near(site, bundle, files):
                _give_up_release(site, bundle, files)
                return
            bundle = begin_back(site, bundle, intent=INTENT)
        place = place_of(bundle, files)
        # All of them are looked at before anything is changed or intended.
        were_back = [is_back for _, is_back in _restored(site, place, files)]
        if not all(were_back):
            # Else an interrupted `clear` took it out, and may have begun to delete.
            site.near.put_back(place)
        with site.catalogue.begin() as connection:
            bundles.intend(connection, bundle, INTENT)
        was_copied = [_restore(site, place, file, is_back=is_back) for file, is_back in _restored(site, place, files)]
        site.sync_originals(file.key for file in files)
        if any(was_copied):
            require_still_off(site, name)
        _swap_back(site, place, files)
        _unmark(site, bundle)


def _give_up_release(site: Site, bundle: BundleRecord, files: Sequence[FileRecord]) -> None:
    """Undo a release that was interrupted before any link was made: nothing of `clear` is left to do."""
    _unmark(site, bundle)
    give_up(site, bundle, files)
    _identify(site, files)
    with site.catalogue.begin() as connection:
        bundle = bundles.by_id(connection, bundle.id)
        bundles.intend(connection, bundle, None)
        if bundle.decision is Decision.APPROVED:
            bundles.decide(connection, bundle, Decision.RETURNED, note="its release was given up")


def clear(site: Site, name: BundleName) -> None:
    """Take the near names of a bundle away whose originals are back, and record it RESIDENT."""
    with site.lock_bundle(name):
        bundle, files = _load(site, name)
        if bundle.intent != INTENT:
            return  # another process finished it
        place = place_of(bundle, files)
        deque(_in_place(site, files), maxlen=0)
        _clear_near(site, place, files)
        # Looked at again after the second names went, which changed ctime.
        _identify(site, files)
        site.near.forget(place)  # before it is recorded: afterwards nobody would come back for it
        with site.catalogue.begin() as connection:
            recalls.finish(connection, bundle.id, "done")  # asked for while it was near already
            bundles.move(connection, bundle, Residency.RESIDENT, intent=None, near_since=None, released_at=None)
            if bundle.decision is Decision.APPROVED:
                bundles.decide(connection, bundle, Decision.RETURNED, note="unarchived")


def _load(site: Site, name: BundleName) -> tuple[BundleRecord, tuple[FileRecord, ...]]:
    bundle = load(site, name)
    with site.catalogue.begin() as connection:
        return bundle, bundles.files(connection, bundle.id)


def _restore(site: Site, place: Place, file: FileRecord, *, is_back: bool) -> bool:
    """Prepare one original beside its link: a second name of the near file, or a verified copy of it; then True."""
    tree, relative = site.original(file.key)
    if is_back:
        tree.drop_temporary(relative)  # the link that an interrupted release had made to swap it in
        return False
    near_path = site.near.path_of(place, file.key)
    try:
        tree.link_temporary_from(site.near.tree, near_path, relative)
    except FileNotFoundError as error:
        raise BrokenInvariant(f"{file.key} is ONLINE, but {near_path} is not near; a person must look.") from error
    except OSError as error:
        if not is_elsewhere(error):
            raise translated(error, str(tree.path(relative))) from error
        _copy_back(site, file, near_path)
        return True
    return False


def _copy_back(site: Site, file: FileRecord, near_path: str) -> None:
    tree, relative = site.original(file.key)
    read, near = file.source, site.near.tree
    reader = RecallReader(partial(open_near, near, near_path), near_path, read.fixity, read.attributes, site.lanes)
    write_temporary(reader, tree, relative)
    tree.sync_around([relative])
    if read_back(tree, temporary_of(relative), site.lanes) != _fast(read.fixity):
        tree.drop_temporary(relative)
        raise SourceUnreadable(f"{tree.path(relative)} was read back with other bytes than were written.")


def open_near(near: Tree, path: str) -> BinaryIO:
    """A near file, to be copied."""
    return Reading(near.open_to_read(path))


def _swap_back(site: Site, place: Place, files: Sequence[FileRecord]) -> None:
    for file, is_back in _restored(site, place, files):
        tree, relative = site.original(file.key)
        if not is_back:
            try:
                tree.swap_in_file(relative, link_target=site.link_target(file.key))
            except OSError as error:
                raise translated(error, str(tree.path(relative))) from error
        site.progress("unarchive", 1, file.source.fixity.size_bytes)
    site.sync_originals(file.key for file in files)


def _restored(site: Site, place: Place, files: Sequence[FileRecord]) -> Iterator[tuple[FileRecord, bool]]:
    """Each file, and whether its original is back. It is looked at shortly before; `swap_in_file` looks again."""
    for file, (_, found) in zip(files, entries(site, (file.key for file in files)), strict=True):
        if found is None:
            _require_directory(site, place, file)
        yield file, found is not None and found.kind is EntryKind.FILE and _is_restored(site, place, file, found)


def _require_directory(site: Site, place: Place, file: FileRecord) -> None:
    """Raise `WrongState` where OMERO's directory is gone too, as after OMERO deleted the images."""
    tree, relative = site.original(file.key)
    above = relative.rpartition("/")[0]
    if above and tree.look(above) is None:
        raise WrongState(
            f"{tree.path(above)} is not there, so {file.key} cannot be put back; {place.name} was not unarchived. "
            "If OMERO deleted its images, there is nothing to put back (`omero-archive reconcile` tells). If they are "
            "wanted, make the directory, or mount it, then run it again."
        )


def _is_restored(site: Site, place: Place, file: FileRecord, found: Entry) -> bool:
    """Whether the plain file in the original's place was put back before an interruption; raises if it is another.

    It is known by its size and mtime, or as the very file that is near: a user may have written to that through the
    link, and what he wrote goes back too.
    """
    if _is_as_read(file, found):
        return True
    near = site.near.tree.look(site.near.path_of(place, file.key))
    is_near_too = near is not None and (near.identity.device, near.identity.inode) == (
        found.identity.device,
        found.identity.inode,
    )
    if not is_near_too:
        tree, relative = site.original(file.key)
        raise WrongState(
            f"{tree.path(relative)} is a file that we did not put there; it was not replaced. A person must look: "
            f"the archived bytes are safe, SHA-256 {file.source.fixity.sha256}."
        )
    return True


def _in_place(site: Site, files: Sequence[FileRecord]) -> Iterator[tuple[FileRecord, Entry]]:
    """Each file with what lies in its original's place. Raises `BrokenInvariant` unless that is a plain file."""
    for file, (_, found) in zip(files, entries(site, (file.key for file in files)), strict=True):
        if found is None or found.kind is not EntryKind.FILE:
            tree, relative = site.original(file.key)
            raise BrokenInvariant(f"{tree.path(relative)} is not back in its place; a person must look.")
        yield file, found


def _identify(site: Site, files: Sequence[FileRecord]) -> None:
    """Remember by what the originals in place are known from now on, so many at a time. Twice is once.

    One that somebody wrote to, through its link or in its place, keeps its old identity: the archive does not have
    these bytes, and the next release must see that it was touched since it was read.
    """
    in_place = _in_place(site, files)
    while some := list(islice(in_place, _PAGE_FILES)):
        known = {file.id: (found.identity, found.attributes) for file, found in some if _is_as_read(file, found)}
        with site.catalogue.begin() as connection:
            bundles.identified(connection, known)


def _is_as_read(file: FileRecord, found: Entry) -> bool:
    read = file.source
    is_same_size = found.identity.size_bytes == read.fixity.size_bytes
    return is_same_size and same_time(found.identity.mtime_ns, read.attributes.mtime_ns)


def _unmark(site: Site, bundle: BundleRecord) -> None:
    with site.catalogue.begin() as connection:
        images = bundles.images(connection, bundle.id)
    previous = {image.id: image.previous_archived for image in images if image.is_fileset_image}
    unmark(site.omero, bundle.name, [image.id for image in images], previous=previous)
    with site.catalogue.begin() as connection:
        bundles.set_marked(connection, bundle, False, {})


def _clear_near(site: Site, place: Place, files: Sequence[FileRecord]) -> None:
    """Take the bundle out of `near` and delete what is left: second names, or copies of what is in place."""
    if site.near.is_in(place) and site.near.is_taken_out(place):
        # An eviction was interrupted, and then the bundle was recalled: the older bytes go first.
        _delete_taken_out(site, place, files)
    site.near.take_out(place)
    if site.near.is_taken_out(place):
        _delete_taken_out(site, place, files)


def _delete_taken_out(site: Site, place: Place, files: Sequence[FileRecord]) -> None:
    originals = {file.key: site.original(file.key) for file in files}
    if site.near.are_second_names(place, originals):
        site.near.delete_second_names(place, originals)
    else:
        permits: dict[Key, Permit] = {file.key: _permit(site, file) for file in files}
        site.near.delete(place, permits, site.clock())


def _permit(site: Site, file: FileRecord) -> Permit:
    """The permit to delete the near copy of an original that is back, read from its medium."""
    tree, relative = site.original(file.key)
    found = read_back(tree, relative, site.lanes)
    return permit_by_original(file.key, fixity=file.source.fixity, found=found, now=site.clock())


def _fast(fixity: Fixity) -> tuple[int, str]:
    return fixity.size_bytes, fixity.xxh3
