"""Verify: read copies back from the medium and compare them with what was read. WRITTEN -> VERIFIED."""

from omero_archive.catalogue import copies
from omero_archive.catalogue.copies import CopyRecord, Failure, Slice
from omero_archive.errors import ArchiveError, FixityMismatch, ObjectMissing
from omero_archive.service import Service
from omero_archive.states import CopyState
from omero_archive.steps.compare import read_copy, written_as
from omero_archive.steps.copy import Tally, damaged, failure
from omero_archive.steps.site import Site


def verify(site: Site, piece: Slice) -> Tally:
    """Verify one slice. Wrong bytes make a copy DAMAGED, "could not read" is tried again."""
    with site.catalogue.begin() as connection:
        due = copies.in_slice(connection, piece, CopyState.WRITTEN, poll=site.poll)
    service = site.services[piece.service]
    good: list[int] = []
    bad: dict[CopyState, list[int]] = {CopyState.DAMAGED: [], CopyState.MISSING: []}
    failures: dict[int, Failure] = {}

    def judge(record: CopyRecord) -> ArchiveError | None:
        try:
            compare(site, service, record)
        except ArchiveError as error:
            return error
        return None

    for record, error in zip(due, site.lanes.each(judge, due), strict=True):
        match error:
            case None:
                good.append(record.id)
                site.progress("verify", 1, record.file.source.fixity.size_bytes)
            case FixityMismatch() | ObjectMissing():
                bad[CopyState.DAMAGED if isinstance(error, FixityMismatch) else CopyState.MISSING].append(record.id)
                failures[record.id] = failure(site, record, error)
            case _:
                failures[record.id] = failure(site, record, error)
    wrong = damaged(failures.values())
    failed = 0
    with site.catalogue.begin() as connection:
        done = copies.verified(connection, good)
        for state, ids in bad.items():
            copies.move(connection, ids, old=CopyState.WRITTEN, new=state)
            failed += copies.failed(connection, {number: failures.pop(number) for number in ids}, state=state)
        failed += copies.failed(connection, failures, state=CopyState.WRITTEN)
    return Tally(done=done, failed=failed, damaged=wrong)


def compare(site: Site, service: Service, record: CopyRecord) -> None:
    """Read one copy from the medium. Raises `FixityMismatch`, `ObjectMissing` or `ServiceUnavailable`."""
    wanted = record.file.source.fixity
    found = read_copy(site, service, record)
    if not found.is_same(wanted):
        raise FixityMismatch(
            f"{record.service}: {record.key} was read back as {found}, written were {written_as(wanted)}. "
            "The copy does not count; the original is in place."
        )
