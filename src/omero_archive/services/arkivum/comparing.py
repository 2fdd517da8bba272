"""Putting over what is on tape: compared by the MD5 that the appliance reports, so that no tape is moved for it."""

from contextlib import closing

from omero_archive.errors import FixityMismatch, ObjectExists, ObjectOffline
from omero_archive.model import ServiceName
from omero_archive.service import Incoming, ObjectStatus, Receipt
from omero_archive.services.arkivum.reading import Md5Reader


def compare_with_tape(
    name: ServiceName, incoming: Incoming, reader: Md5Reader, said: ObjectStatus, *, offline: ObjectOffline
) -> Receipt:
    """The receipt for an object that is there with the same content.

    Raises `ObjectExists` for other content, `FixityMismatch` if the bytes are not those expected, what the reader
    raises, and `offline` if the appliance reports no MD5.
    """
    reported = said.digests.get("md5")
    if reported is None or said.size_bytes is None:
        raise offline
    with closing(reader.pieces()) as pieces:
        for _ in pieces:
            continue
    if incoming.expected not in (None, reader.fixity):
        raise FixityMismatch(f"{name}: {incoming.key} came with other bytes than expected.")
    if (reader.fixity.size_bytes, reader.md5) != (said.size_bytes, reported):
        raise ObjectExists(
            f"{name}: other content lies at {incoming.key} already, on tape (MD5 {reported}, not {reader.md5}); it was "
            "not overwritten. Find out whose it is; move it away by hand if it is nobody's."
        )
    return Receipt(key=incoming.key, size_bytes=said.size_bytes, was_there=True)
