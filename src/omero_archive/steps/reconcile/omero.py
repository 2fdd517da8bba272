"""Compares a bundle of the catalogue with OMERO's database, and our marks there with the catalogue."""

from collections.abc import Iterator, Sequence

from omero_archive.catalogue import corrections, overview, pages
from omero_archive.errors import ArchiveError
from omero_archive.model import Bundle, OriginalFile, printable
from omero_archive.omero.closure import RefusedBundle
from omero_archive.omero.presence import marked_names
from omero_archive.states import CopyState, Decision, Residency
from omero_archive.steps.reconcile.differences import Difference, Kind
from omero_archive.steps.reconcile.view import InOmero, View
from omero_archive.steps.site import Site

_HELD = (CopyState.WRITTEN, CopyState.VERIFIED, CopyState.DURABLE, CopyState.DAMAGED)


def differences(site: Site, view: View) -> Iterator[Difference]:
    """What OMERO's database says otherwise. Nothing if it could not be asked."""
    if view.omero is None:
        return
    if view.omero.is_gone:
        yield _deleted(site, view)
        return
    same = view.omero.same(view.record)
    if same is None:
        yield _others(view, view.omero)
        return
    yield from _facts(view, same)
    yield from _images(view, view.omero, same)
    if view.record.decision is Decision.APPROVED:
        yield from _files(view, same)
    if view.record.intent is None:
        yield from _marks(site, view, view.omero)


def unknown_marks(site: Site) -> Iterator[Difference]:
    """Our annotations that name bundles which the catalogue does not have. Raises `DatabaseUnavailable`."""
    for names in marked_names(site.omero):
        with site.catalogue.begin() as connection:
            known = pages.known_names(connection, names)
        for name in names:
            if name not in known:
                yield Difference(
                    kind=Kind.MARK_OF_UNKNOWN,
                    bundle=name,
                    sentence=f"OMERO has our annotation of {printable(name)}, which the catalogue does not know.",
                    would="a person must look: was the catalogue lost, or restored from an older backup?",
                )


def _deleted(site: Site, view: View) -> Difference:
    record = view.record
    with site.catalogue.begin() as connection:
        counts = [count for count in overview.copies(connection, record.id) if count.state in _HELD]
    held = ", ".join(f"{c.copies} copies ({c.size_bytes} bytes) {c.state} on {c.service}" for c in counts)
    left = sum(_lies_at_path(site, view, number) for number in range(len(view.files)))
    at_paths = f"; at {left} of {len(view.files)} paths something lies still" if left else ""
    return Difference(
        kind=Kind.DELETED_IN_OMERO,
        bundle=record.name,
        sentence=f"OMERO has deleted it; it is {record.residency} here, with {held or 'no copies'}{at_paths}.",
        would=f"nothing is deleted unless you say so: `omero-archive reconcile --purge {record.name}` deletes it.",
    )


def _lies_at_path(site: Site, view: View, number: int) -> bool:
    try:
        tree, relative = site.original(view.files[number].key)
        return tree.look(relative) is not None
    except (ArchiveError, OSError):
        return False  # a sentence for people: the purge itself asks strictly


def _others(view: View, omero: InOmero) -> Difference:
    record = view.record
    refused = next((found for found in omero.found if isinstance(found, RefusedBundle)), None)
    if refused is not None:
        kind, sentence = Kind.UNSAFE_PATH, str(refused.reason)
    elif set(record.fileset_ids) - omero.filesets or not omero.found:
        kind = Kind.PARTLY_DELETED
        sentence = (
            f"OMERO has {len(omero.filesets)} of its {len(record.fileset_ids)} filesets and {len(omero.images)} of its "
            f"{len(view.images)} images."
        )
    else:
        now = ", ".join(f"{found.name}" for found in omero.found)
        kind, sentence = Kind.REGROUPED, f"its files and images hang together otherwise in OMERO now, as {now}."
    return Difference(kind=kind, bundle=record.name, sentence=sentence, would="a person must look.")


def _facts(view: View, same: Bundle) -> Iterator[Difference]:
    record = view.record
    changes = [
        f"{what} is {new} there, {old} here"
        for what, old, new in (
            ("its owner", record.owner, same.owner),
            ("its group", record.owner_group, same.group),
            ("it", f"in {', '.join(record.containers) or 'nothing'}", f"in {', '.join(same.containers) or 'nothing'}"),
        )
        if old != new
    ]
    if changes:
        yield Difference(
            kind=Kind.FACTS_CHANGED,
            bundle=record.name,
            sentence="; ".join(changes) + ".",
            would="write down what OMERO says.",
            is_safe=True,
        )


def _images(view: View, omero: InOmero, same: Bundle) -> Iterator[Difference]:
    name = view.record.name
    known, now = {image.id for image in view.images}, {image.id for image in same.images}
    added, missing = sorted(now - known), sorted(known - now)
    gone = [number for number in missing if number not in omero.images]
    moved = [number for number in missing if number in omero.images]
    if added:
        would = "add them to the bundle" + (" and mark them, with OMERO off." if view.is_released else ".")
        is_safe = view.record.intent is None
        yield Difference(
            kind=Kind.IMAGES_ADDED, bundle=name, sentence=f"new in OMERO: {_ids(added)}.", would=would, is_safe=is_safe
        )
    if gone:
        would = "take them out of the bundle; an event keeps their names."
        is_safe = view.record.intent is None
        yield Difference(
            kind=Kind.IMAGES_GONE, bundle=name, sentence=f"not in OMERO: {_ids(gone)}.", would=would, is_safe=is_safe
        )
    if moved:
        sentence = f"in another fileset now: {_ids(moved)}."
        yield Difference(kind=Kind.IMAGES_MOVED, bundle=name, sentence=sentence, would="a person must look.")


def _ids(numbers: Sequence[int]) -> str:
    shown = ", ".join(f"Image:{number}" for number in numbers[:5])
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"


def _files(view: View, same: Bundle) -> Iterator[Difference]:
    """OMERO's rows of files against those that were archived, each known by its id."""
    name = view.record.name
    known = {(file.original.kind, file.original.omero_id): file.original for file in view.files}
    now = {(file.kind, file.omero_id): file for file in same.files}
    look = "a person must look: what was archived is safe under its old path."
    again = f"`omero-archive add {name.replace('-', ':', 1)}` archives it too."
    if view.record.residency is not Residency.RESIDENT:
        again = f"a person must look: to archive it too, unarchive {name} and add it again."
    for one in sorted(now.keys() - known.keys()):
        yield _file(Kind.FILE_ADDED, view, now[one], "the fileset has it, the archive has not.", again)
    for one in sorted(known.keys() - now.keys()):
        yield _file(Kind.FILE_GONE, view, known[one], "the fileset has it no more.", look)
    for one in sorted(known.keys() & now.keys()):
        old, new = known[one], now[one]
        if old.key != new.key:
            yield _file(Kind.FILE_MOVED, view, old, f"OMERO has it as {printable(new.key)} now.", look)
        elif (old.size_bytes, old.checksum) != (new.size_bytes, new.checksum):
            yield _file(Kind.FILE_CHANGED, view, old, f"OMERO records {_said(new)} now, was {_said(old)}.", look)


def _said(file: OriginalFile) -> str:
    checksum = "no checksum" if file.checksum is None else f"{file.checksum.algorithm} {file.checksum.value}"
    return f"{file.size_bytes} bytes, {checksum}"


def _file(kind: Kind, view: View, file: OriginalFile, sentence: str, would: str) -> Difference:
    text = f"{printable(file.key)}: {sentence}"
    return Difference(kind=kind, bundle=view.record.name, key=file.key, sentence=text, would=would)


def _marks(site: Site, view: View, omero: InOmero) -> Iterator[Difference]:
    marks, name = omero.marks, view.record.name
    if view.is_released and not (marks.is_whole and view.record.is_marked):
        missing = [
            *([] if marks.has_annotation else ["its annotation"]),
            *(f"the link from Fileset:{number}" for number in marks.unlinked_filesets[:3]),
            *([f"links from {_ids(marks.unlinked_images)}"] if marks.unlinked_images else []),
            *([f"the flag of {_ids(marks.unflagged_images)}"] if marks.unflagged_images else []),
        ]
        yield Difference(
            kind=Kind.MARK_INCOMPLETE,
            bundle=name,
            sentence=f"released, but {', '.join(missing) or 'the note that it is marked'} is missing.",
            would="add what is missing of the mark, with OMERO off.",
            is_safe=True,
        )
    if view.record.residency is Residency.RESIDENT and (marks.has_annotation or view.record.is_marked):
        yield mark_of_resident(site, view)


def mark_of_resident(site: Site, view: View) -> Difference:
    """The difference of a bundle that is marked although its originals are in place."""
    with site.catalogue.begin() as connection:
        is_remembered = corrections.was_marked(connection, view.record.id)
    would = "take the mark away, with OMERO off, and put the flags back to what they were."
    if not is_remembered:
        would = "a person must look: the catalogue never marked it, so it does not know what the flags were before."
    return Difference(
        kind=Kind.MARK_OF_RESIDENT,
        bundle=view.record.name,
        sentence="marked as archived in OMERO, but RESIDENT here.",
        would=would,
        is_safe=is_remembered,
    )
