"""Confirm: ask a service whether it vouches for copies. VERIFIED -> DURABLE, and back if it takes its word back."""

from omero_archive.catalogue import copies
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.copies import CopyRecord, Failure, Slice
from omero_archive.errors import Unavailable
from omero_archive.model import ServiceName
from omero_archive.service import Answer, ObjectStatus
from omero_archive.states import CopyState
from omero_archive.steps.copy import Tally, failure
from omero_archive.steps.site import Site


def confirm(site: Site, piece: Slice) -> Tally:
    """Ask about one slice of verified copies. "Not yet" is no failure: they are asked about again later."""
    with site.catalogue.begin() as connection:
        due = copies.in_slice(connection, piece, CopyState.VERIFIED, poll=site.poll)
    try:
        return _ask(site, piece.service, due)
    except Unavailable as error:
        with site.catalogue.begin() as connection:
            copies.failed(connection, {record.id: failure(site, record, error) for record in due})
        return Tally(failed=len(due))


def confirm_bundle(site: Site, bundle: BundleRecord) -> tuple[str, ...]:
    """Ask every service about every copy of a bundle now, so that the permits rest on fresh words.

    A service that cannot be asked changes nothing: its copies are not freshly confirmed, and do not count. What
    those services' errors were is returned.
    """
    unreachable = []
    with site.catalogue.begin() as connection:
        known = copies.of_bundle(connection, bundle.id)
    for service in site.settings.service_names:
        asked = [c for c in known if c.service == service and c.state in (CopyState.VERIFIED, CopyState.DURABLE)]
        try:
            _ask(site, service, asked)
        except Unavailable as error:
            unreachable.append(str(error))
    return tuple(unreachable)


def _ask(site: Site, service: ServiceName, due: list[CopyRecord]) -> Tally:
    if not due:
        return Tally()
    answers = site.services[service].status([record.key for record in due])
    said = {record.id: answers[record.key] for record in due}
    verdicts = {record.id: _verdict(record, answers[record.key]) for record in due}
    by_move: dict[tuple[CopyState, CopyState], list[int]] = {}
    for record in due:
        by_move.setdefault((record.state, verdicts[record.id]), []).append(record.id)
    durable = [number for number, verdict in verdicts.items() if verdict is CopyState.DURABLE]
    fresh = [number for number in durable if said[number].durable is Answer.YES]
    lost = {
        n: Failure(message=f"{service}: {said[n].word}", retry_at=None) for n, v in verdicts.items() if _is_bad(v)
    }
    with site.catalogue.begin() as connection:
        for (old, new), ids in by_move.items():
            if old is not new:
                copies.move(connection, ids, old=old, new=new)
        copies.asked(connection, {number: status.word for number, status in said.items()}, confirmed=fresh)
        copies.failed(connection, lost)
    newly = by_move.get((CopyState.VERIFIED, CopyState.DURABLE), [])
    for record in due:
        if record.id in set(newly):
            site.progress("confirm", 1, record.file.source.fixity.size_bytes)
    return Tally(done=len(newly), failed=len(lost))


def _verdict(record: CopyRecord, status: ObjectStatus) -> CopyState:
    """The state that a copy has after the service's answer. Whatever it could not tell leaves things as they are."""
    wanted = record.file.source.fixity
    if status.present is Answer.NO:
        return CopyState.MISSING
    if status.size_bytes is not None and status.size_bytes != wanted.size_bytes:
        return CopyState.DAMAGED
    if status.digests.get("sha256", wanted.sha256) != wanted.sha256:
        return CopyState.DAMAGED
    match status.durable:
        case Answer.YES if status.present is Answer.YES:
            return CopyState.DURABLE
        case Answer.NO:
            return CopyState.VERIFIED
        case _:
            return record.state


def _is_bad(state: CopyState) -> bool:
    return state in (CopyState.DAMAGED, CopyState.MISSING)
