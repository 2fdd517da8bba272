"""Release: put links in the originals' places, with OMERO off and the bytes near. RESIDENT -> ONLINE.

The order is what makes it safe to kill at any instruction: the permits, the intent and the flags as they were, the
mark in OMERO's database (too early is harmless), the bytes near (now each original has two names), the proof that
they can be seen where links will point, then the swap of each original for a link, in one rename each, then the record.
"""

from collections.abc import Sequence
from dataclasses import replace

from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.errors import (
    BrokenInvariant,
    FixityMismatch,
    OmeroIsOn,
    OriginalUnfit,
    SourceChanged,
    UnknownObject,
    WrongState,
)
from omero_archive.files import Entry, EntryKind, disk_errors, same_file, translated, unchanged
from omero_archive.model import Bundle, BundleName, Key, ObjectRef, ObjectType, printable
from omero_archive.near import Place, is_elsewhere
from omero_archive.omero.closure import bundles as closure
from omero_archive.omero.marks import MarkFacts, mark, read_flags
from omero_archive.states import Decision, Residency
from omero_archive.steps.add import lives_there
from omero_archive.steps.originals import entries
from omero_archive.steps.permits import permits
from omero_archive.steps.proof import proof
from omero_archive.steps.served import require_served, require_shown
from omero_archive.steps.site import Site, place_of
from omero_archive.transfer import SourceRead, SourceReader, read_back, write_temporary

INTENT = "release"


def release(site: Site, name: BundleName, *, rehash: bool = False) -> None:
    """Release one bundle. Done twice is done once; an interrupted release is finished.

    Raises `OmeroIsOn`, `PermitRefused`, `SourceChanged`, `OriginalUnfit`, `RootNotServed`, `WrongState`; then nothing
    was changed that matters, and every path still gives its bytes.
    """
    with site.lock_bundle(name):
        bundle = load(site, name)
        why, checked = _require_releasable(site, bundle, rehash=rehash, dry_run=False)
        now_in_omero = _same_in_omero(site, bundle)
        _require_apart(site, bundle)
        files = _files(site, bundle)
        if hash(files) != checked:
            raise WrongState(f"{name} was changed in the catalogue meanwhile; it was not released. Run it again.")
        _intend(site, bundle, now_in_omero, why)
        mark_in_omero(site, bundle, now_in_omero)
        if bring_near(site, bundle, files):
            require_still_off(site, name)
        require_shown(site, files)
        _swap(site, files)
        _record(site, name)


def release_dry(site: Site, name: BundleName, *, rehash: bool = False) -> None:
    """Raise what `release` would raise, and change nothing."""
    with disk_errors(name):
        bundle = load(site, name)
        _require_releasable(site, bundle, rehash=rehash, dry_run=True)
        _same_in_omero(site, bundle)
        _require_apart(site, bundle)


def load(site: Site, name: BundleName) -> BundleRecord:
    """The bundle's row. Raises `UnknownObject`."""
    with site.catalogue.begin() as connection:
        bundle = bundles.by_name(connection, name)
    if bundle is None:
        raise UnknownObject(f"{name} is not under archiving; run `omero-archive add` first.")
    return bundle


def _require_releasable(
    site: Site, bundle: BundleRecord, *, rehash: bool, dry_run: bool
) -> tuple[dict[str, object], int]:
    """The proof that the release may be; raises whatever forbids it. OMERO's state is asked for last.

    With the hash of the files that this is true of: the files themselves go, so that those of a plate are not in
    memory together with what OMERO says of them.
    """
    if bundle.residency is not Residency.RESIDENT:
        raise WrongState(f"{bundle.name} is {bundle.residency}; only a RESIDENT bundle can be released.")
    if bundle.intent not in (None, INTENT):
        raise WrongState(f"{bundle.name}: {bundle.intent} was begun and not finished; run it again first.")
    if bundle.decision is not Decision.APPROVED:
        raise WrongState(f"{bundle.name} is {bundle.decision}, not APPROVED; add it, or approve the request.")
    require_served(site)
    files = _files(site, bundle)
    granted = permits(site, bundle, dry_run=dry_run)
    seen = entries(site, (file.key for file in files))
    for file, (_, found) in zip(files, seen, strict=True):
        if not _is_unchanged(site, bundle, file, found):
            if not rehash:
                raise _touched(bundle, file, found)
            _rehash(site, file, dry_run=dry_run)
    why = proof(site, bundle, files, granted, offline=site.prove_offline())
    if rehash:
        files = _files(site, bundle)  # again: those that were read anew have another identity now
    return why, hash(files)


def _files(site: Site, bundle: BundleRecord) -> tuple[FileRecord, ...]:
    with site.catalogue.begin() as connection:
        return bundles.files(connection, bundle.id)


def _is_unchanged(site: Site, bundle: BundleRecord, file: FileRecord, found: Entry | None) -> bool:
    """Whether the original, as it was found, is what was read. Raises for what no reading again could mend."""
    read = file.source
    if found is None:
        raise OriginalUnfit(f"{file.key} is not on OMERO's disk; {bundle.name} was not released.")
    if found.kind is EntryKind.LINK and found.target == site.link_target(file.key):
        if bundle.intent == INTENT:
            return True  # swapped before the interruption
        raise OriginalUnfit(f"{file.key} is a link of ours, but {bundle.name} is RESIDENT; a person must look.")
    if found.kind is not EntryKind.FILE:
        raise OriginalUnfit(f"{file.key} is a {found.kind}, not a plain file; {bundle.name} was not released.")
    is_near_too = bundle.intent == INTENT and found.names == 2 and same_file(found.identity, read.identity)
    if is_near_too:
        return True  # given its second name before the interruption, which changed ctime
    if found.names != 1:
        raise OriginalUnfit(
            f"{file.key} has {found.names} names (hard links); releasing it would free nothing. Not released."
        )
    return unchanged(found.identity, read.identity)


def _touched(bundle: BundleRecord, file: FileRecord, found: Entry | None) -> SourceChanged:
    what = "" if found is None else _difference(found, file.source)
    return SourceChanged(
        f"{file.key} was touched since it was read ({what}); {bundle.name} was not "
        "released. If that is in order, run `omero-archive release --rehash` for it, which reads it again."
    )


def _difference(found: Entry, read: SourceRead) -> str:
    names = ("inode", "size_bytes", "mtime_ns", "ctime_ns")
    return ", ".join(name for name in names if getattr(found.identity, name) != getattr(read.identity, name))


def _rehash(site: Site, file: FileRecord, *, dry_run: bool) -> None:
    """Read the original again; remember its new identity if its bytes are those that were archived."""
    tree, relative = site.original(file.key)
    reader = SourceReader(tree, relative, file.original, site.lanes)
    for _ in reader.pieces():
        continue
    if reader.fixity != file.source.fixity:
        raise SourceChanged(f"{file.key} has other bytes than were archived; it was not released.")
    if dry_run:
        return
    with site.catalogue.begin() as connection:
        bundles.identified(connection, {file.id: (reader.read.identity, reader.read.attributes)})


def _same_in_omero(site: Site, bundle: BundleRecord) -> Bundle:
    """The bundle as OMERO has it now, without files and home. Raises `WrongState` if others were archived."""
    with site.catalogue.begin() as connection:
        keys = bundles.keys(connection, bundle.id)
    kind = ObjectType.IMAGE if bundle.name.startswith("Image-") else ObjectType.FILESET
    number = int(bundle.name.partition("-")[2])
    for found in closure(site.omero, [ObjectRef(type=kind, id=number)], homes=False):
        if isinstance(found, Bundle) and found.name == bundle.name:
            _require_same_keys(bundle, keys, {original.key for original in found.files})
            return replace(found, files=())
    raise WrongState(f"{bundle.name} is not in OMERO any more, or belongs to another bundle now; not released.")


def _require_same_keys(bundle: BundleRecord, archived: set[Key], now: set[Key]) -> None:
    if now - archived:
        raise WrongState(
            f"{bundle.name} has other files in OMERO than were archived; it was not released. "
            f"Run `omero-archive add {bundle.name.replace('-', ':', 1)}` again."
        )
    if archived - now:
        raise WrongState(
            f"{bundle.name} has fewer files in OMERO than were archived, it lacks {printable(min(archived - now))}; it "
            "was not released. What was archived is safe. `omero-archive reconcile` tells more; a person must look."
        )


def _require_apart(site: Site, bundle: BundleRecord) -> None:
    """Raise `WrongState` if near one rename would take files of two bundles: a later import shares its directory."""
    if bundle.intent == INTENT:
        return  # its bytes may lie there by now; whoever came since is kept apart from it
    with site.catalogue.begin() as connection:
        if bundle.home is None:
            owners = bundles.names_living_above(connection, bundles.keys(connection, bundle.id), but=bundle.name)
            guests: set[BundleName] = set()
        else:
            owners, guests = set(), bundles.names_below(connection, bundle.home, but=bundle.name)
    if owners:
        raise WrongState(lives_there(bundle.name, owners, "released"))
    if guests:
        raise WrongState(
            f"{bundle.name} had its directory to itself when it was added; {', '.join(sorted(guests))} lies there too "
            f"now. It was not released. Run `omero-archive add {bundle.name.replace('-', ':', 1)}`, then release it."
        )


def _intend(site: Site, bundle: BundleRecord, found: Bundle, why: dict[str, object]) -> None:
    """The proof goes into the log before anything is done, each time a release is begun or taken up again.

    The flags as they were go into the catalogue with the intent: after the mark they can no longer be read.
    """
    flags = {} if bundle.intent == INTENT else read_flags(site.omero, found)
    with site.catalogue.begin() as connection:
        bundles.note(connection, bundle, "release proof", why)
        # With their flags, also when a release is taken up again: what OMERO has gained since is marked only now.
        bundles.add_images(connection, bundle.id, found.images)
        if bundle.intent == INTENT:
            return
        bundles.remember_flags(connection, flags)
        bundles.intend(connection, bundle, INTENT)


def mark_in_omero(site: Site, bundle: BundleRecord, found: Bundle) -> None:
    """Mark a bundle in OMERO's database, with OMERO off, or add what is missing of its mark; then record it."""
    facts = MarkFacts(
        services=site.settings.service_names,
        date=site.clock(),
        location=str(site.settings.archive.root / (bundle.home or "")),
        size_bytes=bundle.size_bytes,
    )
    made = mark(site.omero, found, facts)
    with site.catalogue.begin() as connection:
        detail: dict[str, object] = {"event": made.event_id, "annotation": made.annotation_id}
        bundles.set_marked(connection, bundle, True, detail)


def require_still_off(site: Site, name: BundleName) -> None:
    """Prove once more that OMERO is off, after bytes were copied: that may have taken hours. Raises `OmeroIsOn`."""
    try:
        site.prove_offline()
    except OmeroIsOn as error:
        raise OmeroIsOn(
            f"{name}: while its bytes were copied, OMERO was started; no path was changed after that. {error}"
        ) from error


def bring_near(site: Site, bundle: BundleRecord, files: Sequence[FileRecord]) -> bool:
    """Give each original its second name in `near`; on another file system, a verified copy. Done once.

    Whether bytes were read, which takes its time.
    """
    place = place_of(bundle, files)
    if site.near.is_in(place):
        return _require_twins(site, place, files)
    was_copied = False
    site.near.prepare(place)
    for file in files:
        tree, relative = site.original(file.key)
        incoming = site.near.incoming_path_of(place, file.key)
        try:
            site.near.tree.link_from(tree, relative, incoming)
        except OSError as error:
            if not is_elsewhere(error):
                raise translated(error, str(site.near.tree.path(incoming))) from error
            _copy_near(site, file, incoming)
            was_copied = True
    site.near.bring_in(place)
    return was_copied


def _copy_near(site: Site, file: FileRecord, incoming: str) -> None:
    tree, relative = site.original(file.key)
    near = site.near.tree
    if near.look(incoming) is None:
        reader = SourceReader(tree, relative, file.original, site.lanes)
        write_temporary(reader, near, incoming)
        if reader.fixity != file.source.fixity:
            near.drop_temporary(incoming)
            raise SourceChanged(f"{file.key} has other bytes than were archived; it was not released.")
        near.sync()
        near.publish(incoming)
    fixity = file.source.fixity
    if read_back(near, incoming, site.lanes) != (fixity.size_bytes, fixity.xxh3):
        raise FixityMismatch(f"{near.path(incoming)} was read back with other bytes than were written.")


def _require_twins(site: Site, place: Place, files: Sequence[FileRecord]) -> bool:
    """What lies near already must be these files, not what an older release left. Whether bytes were read for that."""
    was_read = False
    for file in files:
        path = site.near.path_of(place, file.key)
        near = site.near.tree.look(path)
        tree, relative = site.original(file.key)
        original = tree.look(relative)
        if near is None or original is None:
            raise BrokenInvariant(f"{file.key} is not both near and in its place; a person must look.")
        is_swapped = original.kind is EntryKind.LINK
        if is_swapped or same_file(near.identity, original.identity):
            continue
        # Another file system: the near copy was verified before the interruption; verify it again.
        fixity = file.source.fixity
        if read_back(site.near.tree, path, site.lanes) != (fixity.size_bytes, fixity.xxh3):
            raise BrokenInvariant(f"{file.key} lies near with other bytes; a person must look.")
        was_read = True
    return was_read


def _swap(site: Site, files: Sequence[FileRecord]) -> None:
    """Swap every original for its link, then make that durable."""
    for file in files:
        tree, relative = site.original(file.key)
        try:
            tree.swap_in_link(relative, site.link_target(file.key), original=file.source.identity)
        except OSError as error:
            raise translated(error, str(tree.path(relative))) from error
        site.progress("release", 1, file.source.fixity.size_bytes)
    site.sync_originals(file.key for file in files)


def _record(site: Site, name: BundleName) -> None:
    with site.catalogue.begin() as connection:
        bundle = bundles.by_name(connection, name)
        if bundle is not None and bundle.residency is Residency.RESIDENT:
            now = site.clock()
            bundles.move(connection, bundle, Residency.ONLINE, released_at=now, near_since=now, intent=None)
