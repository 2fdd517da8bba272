"""Verify: compare copies with what was read from their originals. WRITTEN -> VERIFIED.

A copy is read back from the medium. Where its bytes went offline at once (Glacier, a quick HSM) the digest that the
service reports is compared with the one that was taken while the copy was written; it is staged only if there is none.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import sqlalchemy as sa

from omero_archive.catalogue import copies
from omero_archive.catalogue.claims import Claim
from omero_archive.catalogue.copies import FIXITY_OF_SERVICE, READ_BACK, CopyRecord, Failure
from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ObjectMissing,
    ObjectOffline,
    ServiceUnavailable,
    Unavailable,
    WorkStopped,
)
from omero_archive.model import Key
from omero_archive.service import Answer, ObjectStatus, Service, Staged
from omero_archive.states import CopyState
from omero_archive.steps.compare import ask_first, read_copy, reported, written_as
from omero_archive.steps.copy import Tally, damaged, failure
from omero_archive.steps.site import Site

_COMPUTED = frozenset({"md5", "sha1", "sha512"})
"""Digests of the whole content that can be taken here from bytes that were proved to be the right ones."""

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How a copy was found to be right, and digests of it that were not known before."""

    how: str
    learnt: Mapping[str, str] = field(default_factory=dict)


def verify(site: Site, claim: Claim) -> Tally:
    """Verify what was claimed. Wrong bytes make a copy DAMAGED, "could not read" is tried again."""
    service, due = site.services[claim.service], claim.copies
    try:
        said = ask_first(service, due)
    except Unavailable as error:
        return _record(site, claim, dict.fromkeys((copy.id for copy in due), error))
    _stage(service, due, said)

    def judge(record: CopyRecord) -> Compared | ArchiveError:
        try:
            claim.require()
            found = compare(site, service, record, said.get(record.key))
        except ArchiveError as error:
            return error
        claim.did(1, record.size_bytes)
        site.progress("verify", 1, record.file.source.fixity.size_bytes)
        return found

    return _record(site, claim, {copy.id: found for copy, found in zip(due, site.lanes.each(judge, due), strict=True)})


def compare(site: Site, service: Service, record: CopyRecord, said: ObjectStatus | None) -> Compared:
    """Compare one copy. Raises `FixityMismatch`, `ObjectMissing`, `ObjectOffline` or `ServiceUnavailable`.

    `said` is what the service says of it, None where its bytes are never offline.
    """
    if said is not None and service.capabilities.needs_staging and not _is_online(said):
        _compare_reported(record, said)
        return Compared(how=FIXITY_OF_SERVICE)
    wanted = record.file.source.fixity
    found = read_copy(site, service, record)
    if not found.is_same(wanted):
        raise FixityMismatch(
            f"{record.service}: {record.key} was read back as {found}, written were {written_as(wanted)}. "
            "The copy does not count; the original is in place."
        )
    return Compared(how=READ_BACK, learnt=_learnt(service, record, said))


def _is_online(said: ObjectStatus) -> bool:
    return said.present is Answer.YES and said.staged is Staged.ONLINE


def _stage(service: Service, due: Sequence[CopyRecord], said: Mapping[Key, ObjectStatus]) -> None:
    """Ask for what is offline and of which the service reports no digest: all at once, tapes want it so."""
    wanted = [
        copy.key
        for copy in due
        if copy.key in said
        and said[copy.key].present is Answer.YES
        and said[copy.key].staged is Staged.OFFLINE
        and not reported(copy, said[copy.key]).compared
    ]
    if wanted:
        try:
            service.stage(wanted)
        except ArchiveError:
            return  # each of them is told to be offline below, and is tried again


def _compare_reported(record: CopyRecord, said: ObjectStatus) -> None:
    """Compare what the service reports of an object that cannot be read now with what was written."""
    subject = f"{record.service}: {record.key}"
    match said.present:
        case Answer.NO:
            raise ObjectMissing(f"{subject} is not there, the service answers.")
        case Answer.CANNOT_TELL:
            raise ServiceUnavailable(f"{subject}: whether it is there the service cannot tell: {said.word}.")
        case _:
            found = reported(record, said)
    if found.wrong:
        raise FixityMismatch(
            f"{subject} is kept as {found}, the service answers; written were "
            f"{written_as(record.file.source.fixity)}. The copy does not count; the original is in place."
        )
    if not found.compared:
        raise ObjectOffline(
            f"{subject} is {said.staged} and the service reports no digest of it; it was asked to bring it back. "
            "It is compared when it is there."
        )


def _learnt(service: Service, record: CopyRecord, said: ObjectStatus | None) -> dict[str, str]:
    """Digests by which the service's answers will be judged, where none are on record: after a rebuild.

    The bytes were just proved to be right. What is a digest of the whole is taken from them; of what only the service
    can take, such as a digest of parts, its word at this moment is kept, to be compared with its later ones.
    """
    unknown = {name for name in service.capabilities.digests if name not in record.digests and name != "sha256"}
    learnt = {name: value for name, value in said.digests.items() if name in unknown - _COMPUTED} if said else {}
    return learnt | _computed(service, record, sorted(unknown & _COMPUTED))


def _computed(service: Service, record: CopyRecord, names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    sha256 = hashlib.sha256()
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    try:
        with closing(service.open(record.key)) as stored:
            while piece := stored.read(_PIECE_BYTES):
                for digest in (sha256, *digests.values()):
                    digest.update(piece)
    except OSError as error:
        problem = error.strerror or error
        raise ServiceUnavailable(f"{record.service}: {record.key} could not be read: {problem}.") from error
    if sha256.hexdigest() != record.file.source.fixity.sha256:
        raise FixityMismatch(f"{record.service}: {record.key} was read twice, and the second time with other bytes.")
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _record(site: Site, claim: Claim, found: Mapping[int, Compared | ArchiveError]) -> Tally:
    """Write down what was found, and count it. What was not looked at stays as it is."""
    good = {number: one for number, one in found.items() if isinstance(one, Compared)}
    failures: dict[CopyState, dict[int, Failure]] = {
        state: {} for state in (CopyState.DAMAGED, CopyState.MISSING, CopyState.WRITTEN)
    }
    for record in claim.copies:
        error = found[record.id]
        if isinstance(error, ArchiveError) and not isinstance(error, WorkStopped):
            failures[_state_after(error)][record.id] = failure(site, record, error)
    done, failed = site.recorded(claim, lambda connection: _write_down(connection, claim.attempt, good, failures))
    wrong = damaged(one for those in failures.values() for one in those.values())
    waiting = sum(isinstance(one, ObjectOffline) for one in found.values())
    return Tally(done=done, failed=max(0, failed - waiting), damaged=wrong, waiting=waiting)


def _write_down(
    connection: sa.Connection,
    attempt: int,
    good: Mapping[int, Compared],
    failures: Mapping[CopyState, Mapping[int, Failure]],
) -> tuple[int, int]:
    """How many were verified, and how many failed."""
    copies.know_digests(connection, {number: one.learnt for number, one in good.items()}, attempt=attempt)
    done = failed = 0
    for how in (READ_BACK, FIXITY_OF_SERVICE):
        right = [number for number, one in good.items() if one.how == how]
        done += copies.verified(connection, right, how=how, attempt=attempt)
    for state, those in failures.items():
        if state is CopyState.WRITTEN:
            failed += copies.failed(connection, those, state=state, attempt=attempt)
        else:
            copies.move(connection, list(those), old=CopyState.WRITTEN, new=state, attempt=attempt)
            failed += copies.failed(connection, those, state=state)
    return done, failed


def _state_after(error: ArchiveError) -> CopyState:
    match error:
        case FixityMismatch():
            return CopyState.DAMAGED
        case ObjectMissing():
            return CopyState.MISSING
        case _:
            return CopyState.WRITTEN
