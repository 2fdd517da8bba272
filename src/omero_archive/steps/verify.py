"""Verify: read copies back from the medium and compare them with what was read. WRITTEN -> VERIFIED."""

from contextlib import closing

from omero_archive.catalogue import copies
from omero_archive.catalogue.copies import CopyRecord, Failure, Slice
from omero_archive.digests import FixityDigests
from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ObjectMissing,
    ServiceUnavailable,
)
from omero_archive.files import Tree
from omero_archive.model import Fixity, Key
from omero_archive.service import Location, Service
from omero_archive.states import CopyState
from omero_archive.steps.copy import Tally, damaged, failure
from omero_archive.steps.site import Site
from omero_archive.transfer import read_back


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
    location = service.locate(record.key)
    if location is None:
        found = _streamed(service, record.key)
        is_same = found == wanted
        said = found.sha256
    else:
        size_bytes, xxh3 = _from_medium(site, location, record.key)
        is_same = (size_bytes, xxh3) == (wanted.size_bytes, wanted.xxh3)
        said = f"{size_bytes} bytes, XXH3 {xxh3}"
    if not is_same:
        raise FixityMismatch(
            f"{record.service}: {record.key} was read back as {said}, written were {wanted.size_bytes} bytes, "
            f"XXH3 {wanted.xxh3}, SHA-256 {wanted.sha256}. The copy does not count; the original is in place."
        )


def _from_medium(site: Site, location: Location, key: Key) -> tuple[int, str]:
    tree: Tree = site.tree(location.root)
    try:
        return read_back(tree, location.relative, site.lanes)
    except FileNotFoundError as error:
        raise ObjectMissing(f"{tree.path(location.relative)} is gone.") from error
    except OSError as error:
        raise ServiceUnavailable(f"{key} could not be read back: {error.strerror}.") from error


def _streamed(service: Service, key: Key) -> Fixity:
    digests = FixityDigests()
    with closing(service.open(key)) as stored:
        while piece := stored.read(1 << 20):
            digests.update(piece)
    return digests.fixity()
