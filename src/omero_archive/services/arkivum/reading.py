"""A reader that takes the MD5 as well, which is what the appliance reports."""

import hashlib
from collections.abc import Generator
from concurrent.futures import Executor, Future
from contextlib import closing

from omero_archive.model import FileAttributes, Fixity
from omero_archive.transfer import INLINE_BYTES, Reader


class Md5Reader:
    """Gives the pieces of another reader; `md5` is known once they are read."""

    def __init__(self, reader: Reader, pool: Executor) -> None:
        self._reader = reader
        self._pool = pool
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def fixity(self) -> Fixity:
        return self._reader.fixity

    @property
    def attributes(self) -> FileAttributes:
        return self._reader.attributes

    @property
    def md5(self) -> str:
        """Of all pieces so far, lower-case hex."""
        return self._md5.hexdigest()

    def pieces(self) -> Generator[memoryview, None, None]:
        self._md5 = hashlib.md5(usedforsecurity=False)
        with closing(self._reader.pieces()) as pieces:
            for piece in pieces:
                if len(piece) <= INLINE_BYTES:
                    self._md5.update(piece)
                    yield piece
                    continue
                hashing: Future[None] = self._pool.submit(self._md5.update, piece)
                try:
                    yield piece
                finally:
                    hashing.result()  # the piece is another's once we go on
