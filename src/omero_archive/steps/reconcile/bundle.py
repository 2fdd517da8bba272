"""Compares a bundle of the catalogue with itself: what was begun and is not finished."""

from collections.abc import Iterator

from omero_archive.states import Residency
from omero_archive.steps.reconcile.differences import Difference, Kind
from omero_archive.steps.reconcile.view import View


def differences(view: View) -> Iterator[Difference]:
    """What does not fit together in the catalogue. The caller has the bundle's lock: nobody is at it."""
    record = view.record
    if record.intent is not None:
        sentence = f"its {record.intent} was begun and not finished; every path gives its bytes."
        would = f"run `omero-archive {record.intent} {record.name}` again, with OMERO off."
        yield Difference(kind=Kind.INTENT_LEFT, bundle=record.name, sentence=sentence, would=would)
    if record.residency is Residency.RECALLING and not view.has_open_recall:
        yield Difference(
            kind=Kind.RECALL_LOST,
            bundle=record.name,
            sentence="RECALLING, but no recall is open: nobody would finish it.",
            would="open the recall again; `omero-archive run` finishes it.",
            is_safe=True,
        )
    if record.residency in (Residency.ONLINE, Residency.RESIDENT) and view.has_open_recall:
        yield Difference(
            kind=Kind.RECALL_OPEN,
            bundle=record.name,
            sentence=f"{record.residency}, but a recall is still open.",
            would="close it: the bytes are there.",
            is_safe=True,
        )
