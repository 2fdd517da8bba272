"""Listing objects, sorted by key.

S3 sorts a bucket by the bytes of the names, as their code points sort. Some servers do not: SeaweedFS sorts each
directory by itself, so that `a/b` comes before `a-b`; AWS's directory buckets do not sort at all. Two objects that
`initialise` wrote tell which kind it is; where a listing is not sorted, it is made directory by directory.
"""

import heapq
from collections.abc import Iterator

from omero_archive.model import ServiceName
from omero_archive.service import Listed
from omero_archive.services.s3.connection import Connection, Refusal
from omero_archive.services.s3.names import ESCAPED, OURS, Names, escaped, needs_escape

PROBE = f"{OURS}order/"
PROBES = (f"{PROBE}a-b", f"{PROBE}a/b")
"""Sorted as S3 sorts."""


class Lister:
    """Lists what lies below one prefix."""

    def __init__(self, name: ServiceName, connection: Connection, names: Names) -> None:
        self._name = name
        self._connection = connection
        self._names = names
        self._sorts: bool | None = None

    def list(self, prefix: str) -> Iterator[Listed]:
        """The objects whose key begins with `prefix`, sorted by key. Raises `ServiceUnavailable`."""
        try:
            yield from heapq.merge(self._plain(prefix), self._escaped(prefix), key=lambda listed: listed.key)
        except Refusal as refusal:
            raise self._connection.unavailable("listing", refusal) from refusal

    def _plain(self, prefix: str) -> Iterator[Listed]:
        """The objects whose names are their keys."""
        if needs_escape(prefix):
            return
        start = self._names.top + prefix
        found = self._connection.listing(start) if self._is_sorted() else self._by_directory(start)
        yield from self._ours(found, is_escaped=False)

    def _escaped(self, prefix: str) -> Iterator[Listed]:
        """The few others: they are sorted by their names, and held until they are sorted by their keys."""
        found = self._connection.listing(self._names.top + ESCAPED + escaped(prefix))
        yield from sorted(self._ours(found, is_escaped=True), key=lambda listed: listed.key)

    def _ours(self, found: Iterator[tuple[str, int]], *, is_escaped: bool) -> Iterator[Listed]:
        for object_name, size_bytes in found:
            key = self._names.key(object_name)
            if key is not None and needs_escape(key) is is_escaped:
                yield Listed(key=key, size_bytes=size_bytes)

    def _is_sorted(self) -> bool:
        """Whether this server sorts as S3 does. Where that is not known yet, it is taken for one that does not."""
        if self._sorts is None:
            probed = [object_name for object_name, _ in self._connection.listing(self._names.top + PROBE)]
            if len(probed) == len(PROBES):
                self._sorts = probed == [self._names.top + probe for probe in PROBES]
        return bool(self._sorts)

    def _by_directory(self, start: str) -> Iterator[tuple[str, int]]:
        """What lies in a directory, sorted here, and then what lies in those below it."""
        # A directory counts with its slash: `a-b` comes before `a/c`, as in the sorted list of all names.
        for object_name, size_bytes in sorted(self._connection.directory(start)):
            if size_bytes is not None:
                yield object_name, size_bytes
            elif object_name != self._names.top + OURS:
                yield from self._by_directory(object_name)
