"""OMERO's seven checksum algorithms and our two digests.

OMERO stores a checksum as the lower-case hex text of Guava's `HashCode`; the 32-bit ones and File-Size-64 are
little-endian. Source: omero-common `ome.util.checksum`, whose test vectors `tests/unit/test_digests.py` repeats.
"""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import mmh3
import xxhash

from omero_archive.errors import WrongUse
from omero_archive.model import Fixity

Piece = bytes | bytearray | memoryview


class Digest(Protocol):
    """Takes bytes piece by piece; `hexdigest` may be called at any time."""

    def update(self, piece: Piece, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Zlib32:
    """CRC-32 or Adler-32 in Guava's byte order."""

    def __init__(self, function: Callable[[Piece, int], int], start: int) -> None:
        self._function = function
        self._value = start

    def update(self, piece: Piece, /) -> None:
        self._value = self._function(piece, self._value)

    def hexdigest(self) -> str:
        return self._value.to_bytes(4, "little").hex()


class _FileSize:
    """File-Size-64: the number of bytes, as if it were a checksum. It proves nothing else."""

    def __init__(self) -> None:
        self._size = 0

    def update(self, piece: Piece, /) -> None:
        self._size += memoryview(piece).nbytes

    def hexdigest(self) -> str:
        return self._size.to_bytes(8, "little").hex()


class _Murmur3:
    """Murmur3 with seed 0; mmh3's digests have Guava's byte order already."""

    def __init__(self, hasher: "mmh3.mmh3_32 | mmh3.mmh3_x64_128") -> None:
        self._hasher = hasher

    def update(self, piece: Piece, /) -> None:
        self._hasher.update(piece)

    def hexdigest(self) -> str:
        return self._hasher.digest().hex()


OMERO_ALGORITHMS: Mapping[str, Callable[[], Digest]] = {
    "Adler-32": lambda: _Zlib32(zlib.adler32, 1),
    "CRC-32": lambda: _Zlib32(zlib.crc32, 0),
    "MD5-128": lambda: hashlib.md5(usedforsecurity=False),
    "Murmur3-32": lambda: _Murmur3(mmh3.mmh3_32()),
    "Murmur3-128": lambda: _Murmur3(mmh3.mmh3_x64_128()),
    "SHA1-160": lambda: hashlib.sha1(usedforsecurity=False),
    "File-Size-64": _FileSize,
}
"""By the name in OMERO's table checksumalgorithm."""


def omero_digest(algorithm: str) -> Digest:
    """A fresh digest of one of OMERO's algorithms. Raises `WrongUse` for a name OMERO does not have."""
    try:
        make = OMERO_ALGORITHMS[algorithm]
    except KeyError as error:
        known = ", ".join(sorted(OMERO_ALGORITHMS))
        raise WrongUse(f"checksum algorithm {algorithm!r} is not one of OMERO's: {known}") from error
    return make()


def omero_checksum(algorithm: str, content: Piece) -> str:
    """The checksum of bytes in memory, as OMERO writes it."""
    digest = omero_digest(algorithm)
    digest.update(content)
    return digest.hexdigest()


class FixityDigests:
    """Takes the digest of record (SHA-256), the fast one (XXH3-128) and, if asked, one of OMERO's in one pass.

    `members` may be updated each in a thread of its own: they share nothing, and hashlib, zlib and xxhash let go of
    the GIL for pieces above 2 KiB.
    """

    def __init__(self, omero_algorithm: str | None = None, *, fast_only: bool = False) -> None:
        self.size_bytes = 0
        self._xxh3 = xxhash.xxh3_128()
        self._sha256 = None if fast_only else hashlib.sha256()
        self._omero = None if omero_algorithm is None else omero_digest(omero_algorithm)
        # The slowest first, so that a pool of threads starts with it.
        members: tuple[Digest | None, ...] = (self._sha256, self._omero, self._xxh3)
        self.members: tuple[Digest, ...] = tuple(digest for digest in members if digest is not None)

    def update(self, piece: Piece) -> None:
        """Feed all members one after the other, in this thread."""
        for digest in self.members:
            digest.update(piece)
        self.size_bytes += memoryview(piece).nbytes

    @property
    def fast(self) -> str:
        """XXH3-128 of what was fed so far, lower-case hex."""
        return self._xxh3.hexdigest()

    @property
    def omero(self) -> str | None:
        """OMERO's checksum of what was fed so far, None where none was asked for."""
        return None if self._omero is None else self._omero.hexdigest()

    def fixity(self) -> Fixity:
        """What was fed so far, as evidence. Only where SHA-256 was taken."""
        assert self._sha256 is not None, "fixity needs the digest of record"  # noqa: S101
        return Fixity(size_bytes=self.size_bytes, sha256=self._sha256.hexdigest(), xxh3=self.fast)
