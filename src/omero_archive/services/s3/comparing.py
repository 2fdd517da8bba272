"""Whether what is there already is what is to be stored: by S3's checksums, so that nothing needs to be restored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omero_archive.errors import ObjectExists, ServiceUnavailable
from omero_archive.model import Fixity, Key, ServiceName, printable
from omero_archive.service import Receipt
from omero_archive.services.s3.checksums import PARTS, WHOLE, PartDigests
from omero_archive.services.s3.connection import Connection, Refusal
from omero_archive.services.s3.objects import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came out of a reader: the evidence, and the digests of the parts into which it was cut."""

    fixity: Fixity
    digests: PartDigests


class Comparer:
    """Compares what was read with what is there.

    `read_back` gives the SHA-256 of an object that is there, for servers whose checksums cannot be compared; it
    raises `ObjectOffline` for one that would have to be staged.
    """

    def __init__(self, name: ServiceName, connection: Connection, read_back: Callable[[Key, Head], str]) -> None:
        self._name = name
        self._connection = connection
        self._read_back = read_back

    def head(self, key: Key, object_name: str) -> Head | None:
        """What lies under a key, None if nothing does. Raises `ServiceUnavailable`."""
        try:
            return self._connection.head(object_name, key)
        except Refusal as refusal:
            raise self._connection.unavailable(key, refusal) from refusal

    def compare_with_new(self, key: Key, object_name: str, taken: Taken) -> Receipt:
        """Somebody stored an object under this key while we wrote ours."""
        there = self.head(key, object_name)
        if there is None:
            raise ServiceUnavailable(f"{self._name}: {printable(key)} was there and went while we looked.")
        return self.compare(key, there, taken)

    def compare(self, key: Key, there: Head, taken: Taken) -> Receipt:
        """A receipt if what is there is what was read. Raises `ObjectExists`, `ObjectOffline`."""
        digests: Mapping[str, str] = {}
        if there.size_bytes != taken.fixity.size_bytes:
            is_same = False
        elif WHOLE in there.digests:
            is_same = there.digests[WHOLE] == taken.fixity.sha256
        elif PARTS in there.digests and there.digests[PARTS] == taken.digests.composite():
            is_same = True
            digests = {PARTS: taken.digests.composite()}
        elif PARTS in there.digests and there.part_size == taken.digests.part_size:
            is_same = False
        else:
            # No checksum, or one of parts that were cut otherwise: the bytes must be looked at.
            is_same = self._read_back(key, there) == taken.fixity.sha256
        if not is_same:
            raise ObjectExists(
                f"{self._name}: other content lies at {self._connection.place}/{printable(key)} already; it was not "
                "overwritten. Find out whose it is; move it away by hand if it is nobody's."
            )
        return Receipt(key=key, size_bytes=taken.fixity.size_bytes, was_there=True, digests=digests)
