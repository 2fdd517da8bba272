"""Compare: read what a service holds and say what it is. For verify, which begins to believe, and audit, which doubts.

Three answers are kept apart: these are the bytes; the service answers that it has no such object; it could not be
found out. Only the first two say anything about a copy.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from omero_archive.catalogue.copies import CopyRecord
from omero_archive.digests import FixityDigests
from omero_archive.errors import ArchiveError, ObjectMissing, ServiceUnavailable
from omero_archive.files import Tree
from omero_archive.model import Fixity, Key
from omero_archive.service import Answer, Location, ObjectStatus, Service
from omero_archive.steps.site import Site
from omero_archive.transfer import read_back
from omero_archive.wrapped.throttled import throttle_of

_PIECE_BYTES = 1 << 20

_OMERO_DIGESTS = {"MD5-128": "md5", "SHA1-160": "sha1"}
"""OMERO's checksums that a service may report, by the name that it then gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was read. `sha256` is None where the copy was read by its path: there XXH3 and the size are compared."""

    size_bytes: int
    xxh3: str
    sha256: str | None

    def is_same(self, wanted: Fixity) -> bool:
        """Whether these are the bytes that were written."""
        same_sha256 = self.sha256 is None or self.sha256 == wanted.sha256
        return same_sha256 and (self.size_bytes, self.xxh3) == (wanted.size_bytes, wanted.xxh3)

    def __str__(self) -> str:
        digest = f"XXH3 {self.xxh3}" if self.sha256 is None else f"SHA-256 {self.sha256}"
        return f"{self.size_bytes} bytes, {digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a service's own fixity of one copy says: what could be compared, and what of it is wrong."""

    compared: tuple[str, ...]  # digests that the service reports and that are known of what was written
    wrong: Mapping[str, object]  # of these, and of the size, those that differ: as the service reports them

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.wrong.items())


def reported(copy: CopyRecord, said: ObjectStatus) -> Reported:
    """Compare what a service reports of a copy with what was written. Pure: it asks nobody."""
    known = expected_digests(copy)
    compared = {name: value for name, value in said.digests.items() if name in known}
    wrong: dict[str, object] = {name: value for name, value in compared.items() if value != known[name]}
    if said.size_bytes not in (None, copy.file.source.fixity.size_bytes):
        wrong["size_bytes"] = said.size_bytes
    return Reported(compared=tuple(compared), wrong=wrong)


def expected_digests(copy: CopyRecord) -> dict[str, str]:
    """The digests that are known of what was written, by the names that services give them."""
    expected = {**copy.digests, "sha256": copy.file.source.fixity.sha256}
    checksum = copy.file.original.checksum
    if checksum is not None and checksum.algorithm in _OMERO_DIGESTS:
        expected[_OMERO_DIGESTS[checksum.algorithm]] = checksum.value.lower()
    return expected


def ask_first(service: Service, due: Sequence[CopyRecord]) -> Mapping[Key, ObjectStatus]:
    """What the service says of each copy, before any is opened; nothing where it has nothing to say of bytes."""
    if not due or not (service.capabilities.needs_staging or service.capabilities.digests):
        return {}
    return service.status([copy.key for copy in due])


def read_copy(site: Site, service: Service, record: CopyRecord) -> Found:
    """Read one copy, from the medium where it has a path. Raises `ObjectMissing`, `ObjectOffline`, or unavailable.

    `ObjectMissing` only if the service says so: a path that leads nowhere may be a mount that is not there.
    """
    location = service.locate(record.key)
    if location is None:
        return _streamed(service, record)
    try:
        throttle = throttle_of(service)
        if throttle is not None:
            throttle.pass_on(record.file.source.fixity.size_bytes)
        size_bytes, xxh3 = _from_medium(site, location)
    except FileNotFoundError as error:
        raise _not_found(service, record) from error
    except OSError as error:
        raise _unreadable(record, error) from error
    return Found(size_bytes=size_bytes, xxh3=xxh3, sha256=None)


def written_as(wanted: Fixity) -> str:
    """What a copy should be, for messages."""
    return f"{wanted.size_bytes} bytes, XXH3 {wanted.xxh3}, SHA-256 {wanted.sha256}"


def read_whole(service: Service, key: Key, *, at_most: int) -> bytes:
    """The bytes of a small object, `at_most` and one more. Raises what opening raises, and `ServiceUnavailable`."""
    pieces: list[bytes] = []
    left = at_most + 1
    try:
        with closing(service.open(key)) as stored:
            while left > 0 and (piece := stored.read(min(left, _PIECE_BYTES))):
                pieces.append(piece)
                left -= len(piece)
    except OSError as error:
        raise ServiceUnavailable(f"{key} could not be read: {error.strerror or error}.") from error
    return b"".join(pieces)


def _from_medium(site: Site, location: Location) -> tuple[int, str]:
    # Opened anew each time: a descriptor that is kept would go on to show what lay below a mount, or had lain.
    with Tree(location.root) as tree:
        return read_back(tree, location.relative, site.lanes)


def _not_found(service: Service, record: CopyRecord) -> ArchiveError:
    """What it means that there is nothing at a copy's path; the service says. Raises `ServiceUnavailable`."""
    answer = service.status([record.key])[record.key].present
    subject = f"{record.service}: {record.key}"
    if answer is Answer.NO:
        return ObjectMissing(f"{subject} is gone.")
    return ServiceUnavailable(f"{subject} is not at its path, and whether it is there the service answers: {answer}.")


def _streamed(service: Service, record: CopyRecord) -> Found:
    digests = FixityDigests()
    try:
        with closing(service.open(record.key)) as stored:
            while piece := stored.read(_PIECE_BYTES):
                digests.update(piece)
    except OSError as error:
        raise _unreadable(record, error) from error
    fixity = digests.fixity()
    return Found(size_bytes=fixity.size_bytes, xxh3=fixity.xxh3, sha256=fixity.sha256)


def _unreadable(record: CopyRecord, error: OSError) -> ArchiveError:
    return ServiceUnavailable(f"{record.service}: {record.key} could not be read back: {error.strerror or error}.")
