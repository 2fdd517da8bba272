"""The checksums that S3 keeps, computed here, and read from its answers."""

import base64
import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omero_archive.services.s3.checksums import PARTS, WHOLE, PartDigests, in_base64, reported

BYTES = base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
HEX = hashlib.sha256(b"bytes").hexdigest()


@given(st.binary(max_size=60), st.integers(1, 20), st.lists(st.integers(0, 60)))
def test_parts_are_cut_alike_however_the_bytes_come(content: bytes, part_size: int, cuts: list[int]) -> None:
    digests = PartDigests(part_size)
    places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    for start, end in itertools.pairwise(places):
        digests.update(memoryview(content)[start:end])
    parts = [content[start : start + part_size] for start in range(0, len(content), part_size)] or [b""]
    wanted = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
    assert digests.last() == hashlib.sha256(parts[-1]).digest()
    assert digests.composite() == f"{in_base64(wanted)}-{len(parts)}"
    assert digests.size_bytes == len(content)


@pytest.mark.parametrize(
    ("checksum", "kind", "part_size", "wanted"),
    [
        (None, None, None, {}),
        ("", "FULL_OBJECT", None, {}),
        (BYTES, "FULL_OBJECT", None, {WHOLE: HEX}),
        (BYTES, None, None, {WHOLE: HEX}),  # older servers do not say of what it is
        (f"{BYTES}-3", "COMPOSITE", None, {PARTS: f"{BYTES}-3"}),
        (f"{BYTES}-3", None, None, {PARTS: f"{BYTES}-3"}),
        (BYTES, "COMPOSITE", 4, {PARTS: f"{BYTES}-3"}),  # moto leaves out the count
        (BYTES, None, 5, {PARTS: f"{BYTES}-2"}),
        (BYTES, "COMPOSITE", None, {}),  # of parts, and nobody knows of how many
        (f"{BYTES}-x", "COMPOSITE", None, {}),
        ("rubbish", "FULL_OBJECT", None, {}),
        ("AAAA", "FULL_OBJECT", None, {}),  # not as long as a SHA-256
    ],
)
def test_a_checksum_is_reported_under_the_name_of_what_it_is_of(
    checksum: str | None, kind: str | None, part_size: int | None, wanted: dict[str, str]
) -> None:
    assert reported(checksum, kind, size_bytes=9, part_size=part_size) == wanted
