"""What S3 keeps of an object's bytes, and the same computed here.

A single PUT is kept with the SHA-256 of all its bytes. What came in parts is kept with the SHA-256 of the parts'
SHA-256s, written `BASE64-COUNT` and called COMPOSITE; S3 has no SHA-256 of the whole of it (AWS, "Checking object
integrity"). It is reported under the name `sha256-parts`, so that nobody compares it with another thing. An ETag
is never looked at: it is an MD5 for some objects only.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

WHOLE = "sha256"
PARTS = "sha256-parts"


def in_base64(digest: bytes) -> str:
    """A digest as S3 writes it."""
    return base64.b64encode(digest).decode("ascii")


@dataclass(slots=True)
class PartDigests:
    """The SHA-256 of each part of a content that is cut every `part_size` bytes."""

    part_size: int
    size_bytes: int = 0
    finished: list[bytes] = field(default_factory=list)
    _current: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _in_current: int = 0

    def update(self, piece: memoryview) -> None:
        """Feed the next bytes. A part is finished as soon as it is full."""
        left = piece
        while len(left):
            taken = left[: self.part_size - self._in_current]
            self._current.update(taken)
            self._in_current += len(taken)
            self.size_bytes += len(taken)
            left = left[len(taken) :]
            if self._in_current == self.part_size:
                self._finish()

    def last(self) -> bytes:
        """The digest of the last part. No more may be fed after it."""
        if self._in_current or not self.finished:
            self._finish()
        return self.finished[-1]

    def composite(self) -> str:
        """`BASE64-COUNT` of the whole. No more may be fed after it."""
        self.last()
        return f"{in_base64(hashlib.sha256(b''.join(self.finished)).digest())}-{len(self.finished)}"

    def _finish(self) -> None:
        self.finished.append(self._current.digest())
        self._current = hashlib.sha256()
        self._in_current = 0


def reported(checksum: str | None, kind: str | None, *, size_bytes: int, part_size: int | None) -> dict[str, str]:
    """A checksum that S3 answered, under the name of what it is of; empty where that cannot be told.

    `kind` is `x-amz-checksum-type`, which older servers leave out. `part_size` is what we wrote beside an object that
    came in parts: with it a composite is known as such where a server leaves out its count (moto does).
    """
    if not checksum:
        return {}
    value, dash, count = checksum.partition("-")
    if not _is_sha256(value):
        return {}
    if dash:
        return {PARTS: checksum} if count.isdecimal() else {}
    if kind == "COMPOSITE" or part_size is not None:
        return {} if part_size is None else {PARTS: f"{value}-{max(1, -(-size_bytes // part_size))}"}
    return {WHOLE: base64.b64decode(value).hex()}


def _is_sha256(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == hashlib.sha256().digest_size
    except (binascii.Error, ValueError):
        return False
