"""Confirm: ask a service whether it vouches for copies. VERIFIED -> DURABLE, and back if it takes its word back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from omero_archive.catalogue import copies
from omero_archive.catalogue.copies import CopyRecord, Failure, Slice
from omero_archive.errors import Unavailable
from omero_archive.model import ServiceName
from omero_archive.service import Answer, ObjectStatus
from omero_archive.states import CopyState
from omero_archive.steps.compare import Reported, reported
from omero_archive.steps.copy import Tally, damaged, failure
from omero_archive.steps.site import Site

ASKED = (CopyState.VERIFIED, CopyState.DURABLE)
"""The states in which a service is asked about a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a service's answer makes of one copy. `is_fresh`: it said "durable" when it was asked, `at` that time.

    `attention` is why a person should look, although the service goes on being asked.
    """

    copy: CopyRecord
    state: CopyState
    is_fresh: bool
    text: str
    at: datetime
    attention: str = ""


def confirm(site: Site, piece: Slice) -> Tally:
    """Ask about one slice of verified copies. "Not yet" is no failure: they are asked about again later."""
    with site.catalogue.begin() as connection:
        due = copies.in_slice(connection, piece, CopyState.VERIFIED, poll=site.poll)
    try:
        words = ask(site, piece.service, due)
    except Unavailable as error:
        with site.catalogue.begin() as connection:
            failures = {record.id: failure(site, record, error) for record in due}
            failed = copies.failed(connection, failures, state=CopyState.VERIFIED)
        return Tally(failed=failed)
    return record(site, words)


def ask(site: Site, service: ServiceName, due: Sequence[CopyRecord]) -> list[Word]:
    """The service's words about copies, in their order; nothing is recorded. Raises `ServiceUnavailable`."""
    if not due:
        return []
    # Before the answer, which may take hours: what was durable at its beginning need not be so at its end.
    at = site.clock()
    answers = site.services[service].status([copy.key for copy in due])
    wants_digest = bool(site.services[service].capabilities.digests)
    return [_word(copy, answers[copy.key], at, wants_digest=wants_digest) for copy in due]


def record(site: Site, words: Sequence[Word]) -> Tally:
    """Write the services' words into the catalogue, and the moves they cause."""
    moves: dict[tuple[CopyState, CopyState, str, datetime], list[int]] = {}
    same: dict[datetime, list[Word]] = {}
    for word in words:
        if word.state is word.copy.state:
            same.setdefault(word.at, []).append(word)
        else:
            moves.setdefault((word.copy.state, word.state, word.text, word.at), []).append(word.copy.id)
    lost = {
        word.copy.id: Failure(
            message=f"{word.copy.service}: {word.text}", retry_at=None, is_damage=word.state is CopyState.DAMAGED
        )
        for word in words
        if word.state in (CopyState.DAMAGED, CopyState.MISSING)
    }
    with site.catalogue.begin() as connection:
        for (old, new, text, at), ids in moves.items():
            copies.moved_by_word(connection, ids, old=old, new=new, word=text, at=at)
        for at, still in same.items():
            fresh = [word.copy.id for word in still if word.is_fresh]
            copies.asked(connection, {word.copy.id: word.text for word in still}, at=at, confirmed=fresh)
        for state in (CopyState.DAMAGED, CopyState.MISSING):
            copies.failed(connection, lost, state=state)
        overdue = {word.copy.id: _overdue(site, word) for word in words if word.attention}
        for state in ASKED:
            copies.failed(connection, overdue, state=state)
    newly = [word.copy for word in words if word.copy.state is not word.state is CopyState.DURABLE]
    for copy in newly:
        site.progress("confirm", 1, copy.file.source.fixity.size_bytes)
    return Tally(done=len(newly), failed=len(lost | overdue), damaged=damaged(lost.values()))


def _overdue(site: Site, word: Word) -> Failure:
    """A copy that a person should look at. It goes on being asked about: what is overdue may still come."""
    message = f"{word.copy.service}: {word.copy.key}: {word.attention}"
    return Failure(message=message, retry_at=site.clock() + site.poll)


def _word(copy: CopyRecord, status: ObjectStatus, at: datetime, *, wants_digest: bool) -> Word:
    said = reported(copy, status)
    is_believed = status.durable is Answer.YES and (bool(said.compared) or not wants_digest)
    state = _state(copy, status, said, is_believed=is_believed)
    text = status.word
    if status.durable is Answer.YES and not is_believed:
        text = f"{status.word}, but it reports no digest that is known here"
    is_fresh = state is CopyState.DURABLE and is_believed
    return Word(copy=copy, state=state, is_fresh=is_fresh, text=text, at=at, attention=status.attention)


def _state(copy: CopyRecord, status: ObjectStatus, said: Reported, *, is_believed: bool) -> CopyState:
    """The state that a copy has after the service's answer. Whatever it could not tell leaves things as they are."""
    if status.present is Answer.NO:
        return CopyState.MISSING
    if said.wrong:
        return CopyState.DAMAGED
    match status.durable:
        case Answer.YES if status.present is Answer.YES and is_believed:
            return CopyState.DURABLE
        case Answer.NO:
            return CopyState.VERIFIED
        case _:
            return copy.state
