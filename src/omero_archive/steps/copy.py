"""Copy: read originals once, write them to a service, record what was read. PENDING -> WRITTEN."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

import sqlalchemy as sa

from omero_archive.catalogue import copies
from omero_archive.catalogue.claims import Claim
from omero_archive.catalogue.copies import CopyRecord, Failure
from omero_archive.errors import ArchiveError, Damage, NotMounted, ObjectOffline, WorkStopped
from omero_archive.service import Incoming, Outcome
from omero_archive.states import CopyState
from omero_archive.steps.site import Site
from omero_archive.transfer import SourceRead, SourceReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many items a step moved on, how many failed, and on how many of these bytes are not what they were.

    `waiting` are those that neither went on nor failed: the service is bringing their bytes back.
    """

    done: int = 0
    failed: int = 0
    damaged: int = 0
    waiting: int = 0


def copy(site: Site, claim: Claim) -> Tally:
    """Copy what was claimed. A failing file does not stop the others; a failing service stops none of what it took.

    An open circuit breaker or the end of the claim stops it: what was not tried stays as it is.
    """
    if not site.breaker.allows(0):
        return Tally()
    work = _Work(site, claim)
    try:
        with closing(site.services[claim.service].put_group(work.group())) as outcomes:
            for outcome in outcomes:
                work.take(outcome)
                if not site.breaker.allows(len(work.failures)):
                    break
    except (WorkStopped, NotMounted):
        pass  # what was done is recorded
    except ArchiveError as error:
        work.give_up(error)
    site.breaker.count(done=len(work.written), failed=len(work.failures))
    return site.recorded(claim, work.record)


def failure(site: Site, record: CopyRecord, error: ArchiveError) -> Failure:
    """An error as it is written beside the state of a copy."""
    return Failure(
        message=str(error),
        retry_at=site.retry_at(error, record.attempts),
        is_damage=isinstance(error, Damage),
        most_attempts=max(0, site.settings.work.attempts - 4) if isinstance(error, ObjectOffline) else None,
    )


def damaged(failures: Iterable[Failure]) -> int:
    """How many of these failures are damage."""
    return sum(failure.is_damage for failure in failures)


class _Work:
    """One slice on its way: the readers, and what became of each copy."""

    def __init__(self, site: Site, claim: Claim) -> None:
        self._site = site
        self._claim = claim
        self._due = {record.key: record for record in claim.copies}
        self._readers: dict[str, SourceReader] = {}
        self.written: dict[int, tuple[int, SourceRead]] = {}
        self.digests: dict[int, Mapping[str, str]] = {}
        self.failures: dict[int, Failure] = {}

    def group(self) -> list[Incoming]:
        group = []
        for key, record in self._due.items():
            try:
                tree, relative = self._site.original(key)
            except NotMounted:
                raise
            except ArchiveError as error:
                self.failures[record.id] = failure(self._site, record, error)
                continue
            reader = _ClaimedReader(tree, relative, record.file.original, self._site.lanes)
            reader.claim = self._claim
            self._readers[key] = reader
            # What was read before, for another service, must come again.
            expected = None if record.file.read is None else record.file.read.fixity
            group.append(Incoming(key=key, reader=reader, expected=expected))
        return group

    def take(self, outcome: Outcome) -> None:
        record = self._due[outcome.key]
        if isinstance(outcome.error, WorkStopped | NotMounted):
            return  # not tried, so no failure: of a disk that is not there nothing is known
        if outcome.error is not None:
            self.failures[record.id] = failure(self._site, record, outcome.error)
            return
        if outcome.receipt is not None:
            self.digests[record.id] = outcome.receipt.digests
        read = self._readers[outcome.key].read
        self.written[record.id] = (record.file.id, read)
        self._claim.did(1, read.fixity.size_bytes)
        self._site.progress("copy", 1, read.fixity.size_bytes)

    def give_up(self, error: ArchiveError) -> None:
        for record in self._due.values():
            if record.id not in self.written and record.id not in self.failures:
                self.failures[record.id] = failure(self._site, record, error)

    def record(self, connection: sa.Connection) -> Tally:
        """Write down what became of all of them."""
        attempt = self._claim.attempt
        done = copies.written(connection, self.written, self.digests, attempt=attempt)
        failed = copies.failed(connection, self.failures, state=CopyState.PENDING, attempt=attempt)
        return Tally(done=done, failed=failed, damaged=damaged(self.failures.values()))


class _ClaimedReader(SourceReader):
    """An original that is read for as long as the claim on its copy lasts. `pieces` raises `WorkStopped` too."""

    claim: Claim

    def pieces(self) -> Generator[memoryview, None, None]:
        self.claim.require()
        with closing(super().pieces()) as pieces:
            for piece in pieces:
                yield piece
                self.claim.require()
