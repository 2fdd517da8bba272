"""Repairs what is safe to repair, each difference on its own: under the bundle's lock, looked at again before acting.

Nothing here deletes bytes or overwrites anything. Every repair is written into the event log with the difference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from omero_archive.catalogue import bundles, copies, corrections, pages, recalls
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.catalogue.copies import Failure
from omero_archive.errors import UnknownObject, WrongState
from omero_archive.files import EntryKind, temporary_of, translated
from omero_archive.model import Bundle, Key, printable
from omero_archive.omero.marks import read_flags, unmark
from omero_archive.omero.presence import present_files
from omero_archive.service import Answer
from omero_archive.states import CopyState, Residency
from omero_archive.steps.manifest import manifest
from omero_archive.steps.reconcile.differences import Difference, Kind
from omero_archive.steps.reconcile.look import look_again
from omero_archive.steps.reconcile.services import compare_size
from omero_archive.steps.reconcile.view import View, views
from omero_archive.steps.release import mark_in_omero
from omero_archive.steps.site import Site, place_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One difference to repair, with the bundle as it is now, its lock held."""

    site: Site
    record: BundleRecord
    difference: Difference

    def view(self) -> View:
        (view,) = views(self.site, [self.record], is_omero_there=True)
        return view

    def files(self) -> tuple[FileRecord, ...]:
        with self.site.catalogue.begin() as connection:
            return bundles.files(connection, self.record.id)


def fix(site: Site, difference: Difference) -> str:
    """Repair one difference that is safe; what was done, as a sentence.

    Raises `Busy`, `WrongState` if it is no longer so, `OmeroIsOn` for what is written to OMERO's database, and what
    services raise; then nothing was changed.
    """
    repair = REPAIRS.get(difference.kind)
    if repair is None or not difference.is_safe or difference.bundle is None:
        raise WrongState(f"{difference.kind}: {difference.would}")
    with site.lock_bundle(difference.bundle):
        with site.catalogue.begin() as connection:
            record = bundles.by_name(connection, difference.bundle)
        if record is None:
            raise UnknownObject(f"{difference.bundle} is not in the catalogue any more.")
        try:
            done = repair(_Work(site=site, record=record, difference=difference))
        except OSError as error:
            raise translated(error, f"{difference.bundle}: {difference.kind}") from error
        with site.catalogue.begin() as connection:
            bundles.note(connection, record, "reconciled", _detail(difference, done))
    return done


def _detail(difference: Difference, done: str) -> dict[str, object]:
    return {
        "difference": difference.kind,
        "key": None if difference.key is None else printable(difference.key),
        "service": difference.service,
        "saw": printable(difference.sentence),
        "did": done,
    }


# ---- OMERO's disk


def _make_link(work: _Work) -> str:
    site, file = work.site, _file(work)
    if work.record.residency is Residency.RESIDENT or work.record.intent is not None:
        raise WrongState(f"{work.record.name} is not released any more; no link was made.")
    there = present_files(site.omero, {file.original.kind: [file.original.omero_id]})
    if file.original.omero_id not in there[file.original.kind]:
        raise WrongState(f"{printable(file.key)} is not in OMERO's database any more; no link was made.")
    tree, relative = site.original(file.key)
    # OMERO may be on: the call fails if anything lies at the path by now.
    tree.make_link(relative, site.link_target(file.key))
    tree.sync_around([relative])
    return "made the link again"


def _drop_temporary(work: _Work) -> str:
    if work.record.intent is not None:
        raise WrongState(f"{work.record.name}: {work.record.intent} goes on; nothing was taken away.")
    tree, relative = work.site.original(_file(work).key)
    left = tree.look(temporary_of(relative))
    if left is not None and left.kind is not EntryKind.LINK and left.names < 2:
        raise WrongState(f"{printable(str(tree.path(temporary_of(relative))))} has bytes of its own; it stays.")
    tree.drop_temporary(relative)
    tree.sync_around([relative])
    return "took the temporary name away"


def _file(work: _Work) -> FileRecord:
    for file in work.files():
        if file.key == work.difference.key:
            return file
    raise WrongState(f"{work.record.name} has no file {printable(work.difference.key or '')} any more.")


# ---- OMERO's database


def _same(work: _Work) -> tuple[View, Bundle]:
    view = work.view()
    same = None if view.omero is None else view.omero.same(work.record)
    if same is None:
        raise WrongState(f"{work.record.name} is not the same bundle in OMERO any more; nothing was changed.")
    return view, same


def _refresh(work: _Work) -> str:
    _, same = _same(work)
    with work.site.catalogue.begin() as connection:
        corrections.refresh_facts(connection, work.record, same)
    return "wrote down what OMERO says"


def _add_images(work: _Work) -> str:
    site, record = work.site, work.record
    view, same = _same(work)
    _require_no_intent(record)
    known = {image.id for image in view.images}
    if not view.is_released:
        with site.catalogue.begin() as connection:
            bundles.add_images(connection, record.id, same.images)
        return f"added {len(same.images) - len(known)} images"
    site.prove_offline()
    flags = read_flags(site.omero, same)
    with site.catalogue.begin() as connection:
        bundles.add_images(connection, record.id, same.images)
        # Those that were there before are marked: their flags from before are remembered already.
        bundles.remember_flags(connection, {number: flag for number, flag in flags.items() if number not in known})
    mark_in_omero(site, record, same)
    return f"added and marked {len({image.id for image in same.images} - known)} images"


def _forget_images(work: _Work) -> str:
    view, same = _same(work)
    _require_no_intent(work.record)
    there = view.omero.images if view.omero is not None else frozenset()
    gone = sorted({image.id for image in view.images} - {image.id for image in same.images} - there)
    with work.site.catalogue.begin() as connection:
        corrections.forget_images(connection, work.record, gone)
    return f"took {len(gone)} images out of the bundle"


def _mark(work: _Work) -> str:
    view, same = _same(work)
    if not view.is_released:
        raise WrongState(f"{work.record.name} is not released any more; it was not marked.")
    known = {image.id for image in view.images}
    if {image.id for image in same.images} - known:
        # Marked now, the flags that the new ones had before would be lost.
        raise WrongState(f"{work.record.name} has new images; they are added first. Run it again.")
    work.site.prove_offline()
    mark_in_omero(work.site, work.record, same)
    return "added what was missing of the mark"


def _unmark(work: _Work) -> str:
    site, record = work.site, work.record
    _require_no_intent(record)
    if record.residency is not Residency.RESIDENT:
        raise WrongState(f"{record.name} is {record.residency} now; the mark stays.")
    with site.catalogue.begin() as connection:
        is_remembered = corrections.was_marked(connection, record.id)
        images = bundles.images(connection, record.id)
    links = [file.key for file in work.files() if _is_link(site, file.key)]
    if not is_remembered or links:
        raise WrongState(f"{record.name}: {len(links)} of its paths are links; a person must look, the mark stays.")
    site.prove_offline()
    previous = {image.id: image.previous_archived for image in images if image.is_fileset_image}
    unmark(site.omero, record.name, [image.id for image in images], previous=previous)
    with site.catalogue.begin() as connection:
        bundles.set_marked(connection, record, False, {})
    return "took the mark away, and put the flags back"


def _is_link(site: Site, key: Key) -> bool:
    tree, relative = site.original(key)
    found = tree.look(relative)
    return found is not None and found.kind is EntryKind.LINK


def _require_no_intent(record: BundleRecord) -> None:
    if record.intent is not None:
        raise WrongState(f"{record.name}: {record.intent} was begun and not finished; run it again first.")


# ---- near


def _as_seen(work: _Work) -> None:
    """Raise `WrongState` unless the very difference is still there."""
    found = look_again(work.site, work.record.name)
    kinds = {one.kind for one in found if isinstance(one, Difference)}
    if work.difference.kind not in kinds:
        raise WrongState(f"{work.record.name}: {work.difference.kind} is not so any more; nothing was changed.")


def _record_offline(work: _Work) -> str:
    _as_seen(work)
    with work.site.catalogue.begin() as connection:
        bundles.move(connection, work.record, Residency.OFFLINE, near_since=None)
    return "recorded it OFFLINE"


def _record_online(work: _Work) -> str:
    _as_seen(work)
    with work.site.catalogue.begin() as connection:
        # The table has no arrow from OFFLINE to ONLINE: bytes come back by way of a recall.
        bundles.move(connection, work.record, Residency.RECALLING)
        record = bundles.by_id(connection, work.record.id)
        bundles.move(connection, record, Residency.ONLINE, near_since=connection.info["clock"]())
        recalls.finish(connection, record.id, "done")
    return "recorded it ONLINE"


def _put_back(work: _Work) -> str:
    _as_seen(work)
    work.site.near.put_back(place_of(work.record, work.files()))
    return "put its bytes back where they are read"


def _forget_ways(work: _Work) -> str:
    _as_seen(work)
    work.site.near.forget(place_of(work.record, work.files()))
    return "took the links inside near away"


# ---- services


def _write_manifest(work: _Work) -> str:
    service = work.difference.service
    if service is None or service not in work.site.services:
        raise WrongState(f"{service} is not in the settings; nothing was written.")
    directory = manifest(work.site, work.record.id, service)
    with work.site.catalogue.begin() as connection:
        corrections.manifest_lies_in(connection, work.record.id, service, directory)
    return f"wrote it to {service} again, as {directory}"


def _judge_copy(work: _Work) -> str:
    """Asks the service for the one object by name, and writes down what it definitely says."""
    service, key = work.difference.service, Key(work.difference.key or "")
    if service is None or service not in work.site.services:
        raise WrongState(f"{service} is not in the settings; nothing was written.")
    status = work.site.services[service].status([key])[key]
    with work.site.catalogue.begin() as connection:
        copy = pages.known_copies(connection, service, keys=[key]).get(key)
        if copy is None or copy.id is None or copy.state is None:
            raise WrongState(f"the catalogue has no copy of {printable(key)} on {service} any more.")
        again = compare_size(service, copy, status.size_bytes) if status.present is Answer.YES else None
        new = _JUDGED[work.difference.kind]
        is_still = again is not None and again.kind is work.difference.kind
        if work.difference.kind is Kind.COPY_MISSING:
            is_still = status.present is Answer.NO and copy.state is not CopyState.MISSING
        if not is_still:
            raise WrongState(f"{service} says of {printable(key)} now: {status.word or status.present}.")
        copies.move(connection, [copy.id], old=copy.state, new=new)
        if new is not CopyState.WRITTEN:
            retry_at: datetime | None = None
            failure = Failure(message=printable(work.difference.sentence), retry_at=retry_at)
            copies.failed(connection, {copy.id: failure}, state=new)
    return f"recorded the copy {new}"


_JUDGED = {
    Kind.COPY_MISSING: CopyState.MISSING,
    Kind.COPY_SIZE: CopyState.DAMAGED,
    Kind.COPY_BACK: CopyState.WRITTEN,
}


# ---- recalls


def _open_recall(work: _Work) -> str:
    if work.record.residency is not Residency.RECALLING:
        raise WrongState(f"{work.record.name} is {work.record.residency} now.")
    with work.site.catalogue.begin() as connection:
        recalls.ask(connection, work.record.id, "reconcile", "its recall was lost")
    return "opened the recall again"


def _close_recall(work: _Work) -> str:
    if work.record.residency not in (Residency.ONLINE, Residency.RESIDENT):
        raise WrongState(f"{work.record.name} is {work.record.residency} now; the recall stays open.")
    with work.site.catalogue.begin() as connection:
        recalls.finish(connection, work.record.id, "done")
    return "closed the recall"


REPAIRS: Mapping[Kind, Callable[[_Work], str]] = {
    Kind.LINK_MISSING: _make_link,
    Kind.TEMPORARY_LEFT: _drop_temporary,
    Kind.FACTS_CHANGED: _refresh,
    Kind.IMAGES_ADDED: _add_images,
    Kind.IMAGES_GONE: _forget_images,
    Kind.MARK_INCOMPLETE: _mark,
    Kind.MARK_OF_RESIDENT: _unmark,
    Kind.NEAR_GONE: _record_offline,
    Kind.NEAR_READABLE: _record_online,
    Kind.NOT_READABLE: _put_back,
    Kind.NEAR_WAYS_LEFT: _forget_ways,
    Kind.MANIFEST_MISSING: _write_manifest,
    Kind.COPY_MISSING: _judge_copy,
    Kind.COPY_SIZE: _judge_copy,
    Kind.COPY_BACK: _judge_copy,
    Kind.RECALL_LOST: _open_recall,
    Kind.RECALL_OPEN: _close_recall,
}
"""What is done about each kind that can be safe. A test compares it with `docs/howto/reconcile.md`."""
