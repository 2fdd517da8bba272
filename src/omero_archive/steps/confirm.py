"""Confirm: ask a service whether it vouches for copies. VERIFIED -> DURABLE, and back if it takes its word back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from omero_archive.catalogue import copies
from omero_archive.catalogue.claims import Claim
from omero_archive.catalogue.copies import CopyRecord, Failure
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


def confirm(site: Site, claim: Claim) -> Tally:
    """Ask about the verified copies that were claimed. "Not yet" is no failure: they are asked about again later."""
    try:
        words = ask(site, claim.service, claim.copies)
    except Unavailable as error:
        failures = {record.id: failure(site, record, error) for record in claim.copies}
        failed = site.recorded(
            claim,
            lambda connection: copies.failed(connection, failures, state=CopyState.VERIFIED, attempt=claim.attempt),
        )
        return Tally(failed=failed)
    tally = _record(site, words, claim)
    claim.did(tally.done, sum(word.copy.size_bytes for word in _newly_durable(words)))
    return tally


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
    return _record(site, words, None)


def _record(site: Site, words: Sequence[Word], claim: Claim | None) -> Tally:
    """Under the claim, where the words are about what was claimed."""
    lost = {
        word.copy.id: Failure(
            message=f"{word.copy.service}: {word.text}", retry_at=None, is_damage=word.state is CopyState.DAMAGED
        )
        for word in words
        if word.state in (CopyState.DAMAGED, CopyState.MISSING)
    }
    overdue = {word.copy.id: _overdue(site, word) for word in words if word.attention}

    def write_down(connection: sa.Connection) -> None:
        attempt = None if claim is None else claim.attempt
        _write_down(connection, words, attempt)
        for state in (CopyState.DAMAGED, CopyState.MISSING):
            copies.failed(connection, lost, state=state)
        for state in ASKED:
            copies.failed(connection, overdue, state=state)

    if claim is None:
        with site.catalogue.begin() as connection:
            write_down(connection)
    else:
        site.recorded(claim, write_down)
    newly = _newly_durable(words)
    for word in newly:
        site.progress("confirm", 1, word.copy.file.source.fixity.size_bytes)
    return Tally(done=len(newly), failed=len(lost | overdue), damaged=damaged(lost.values()))


def _write_down(connection: sa.Connection, words: Sequence[Word], attempt: int | None) -> None:
    moves: dict[tuple[CopyState, CopyState, str, datetime], list[int]] = {}
    same: dict[datetime, list[Word]] = {}
    for word in words:
        if word.state is word.copy.state:
            same.setdefault(word.at, []).append(word)
        else:
            moves.setdefault((word.copy.state, word.state, word.text, word.at), []).append(word.copy.id)
    for (old, new, text, at), ids in moves.items():
        copies.moved_by_word(connection, ids, old=old, new=new, word=text, at=at, attempt=attempt)
    for at, still in same.items():
        fresh = [word.copy.id for word in still if word.is_fresh]
        told = {word.copy.id: word.text for word in still}
        copies.asked(connection, told, at=at, confirmed=fresh, attempt=attempt)


def _newly_durable(words: Sequence[Word]) -> list[Word]:
    return [word for word in words if word.copy.state is not word.state is CopyState.DURABLE]


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
