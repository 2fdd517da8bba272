"""OMERO's checksum algorithms against the test vectors of omero-common (`ome.util.checksum`)."""

import hashlib

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from omero_archive.digests import OMERO_ALGORITHMS, FixityDigests, omero_checksum, omero_digest
from omero_archive.errors import WrongUse
from omero_archive.model import Checksum


def fake(count: int) -> bytes:
    return "".join(f"fake{number}" for number in range(count)).encode()


CONTENTS = {"abc": b"abc", "empty": b"", "10": fake(10), "100": fake(100), "1000": fake(1000)}

VECTORS = {
    "Adler-32": ("27014d02", "01000000", "f4110fcc", "21c664bf", "ed88e87d"),
    "CRC-32": ("c2412435", "00000000", "ef618578", "b063fbf0", "1d3e3cb6"),
    "Murmur3-32": ("fa93ddb3", "00000000", "f87d658b", "1c9036cf", "f9c16f3b"),
    "Murmur3-128": (
        "6778ad3f3f3f96b4522dca264174a23b",
        "0" * 32,
        "2a9db2bec362cb22bf016c06722b24d7",
        "2858bd6075ed06228c0ba4ba75ae8ef9",
        "7535f4b378b3aec8dc3f4cffdc44ba6e",
    ),
    "File-Size-64": ("0300000000000000", "0" * 16, "3200000000000000", "4e02000000000000", "ea1a000000000000"),
    "MD5-128": (
        "900150983cd24fb0d6963f7d28e17f72",
        "d41d8cd98f00b204e9800998ecf8427e",
        "afedcd324960f93c20b726c81b8d216a",
        "5e44e9bc9e91274731b8541e3e1fd687",
        "e96cd8050b7e09202c395530435f208d",
    ),
    "SHA1-160": (
        "a9993e364706816aba3e25717850c26c9cd0d89d",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "af35647108cada855e1ca08472c2a831cce91a29",
        "a61d742dba0a4cd423de603e6c3890e0f856bb9c",
        "b3987d3ffac6ad41fee258e8cc99fc89e29ae98f",
    ),
}

CASES = [
    pytest.param(algorithm, content, expected, id=f"{algorithm}-{name}")
    for algorithm, values in VECTORS.items()
    for (name, content), expected in zip(CONTENTS.items(), values, strict=True)
]


def test_the_contents_of_the_vectors_have_the_lengths_of_omeros_files() -> None:
    assert [len(content) for content in CONTENTS.values()] == [3, 0, 50, 590, 6890]


def test_every_algorithm_of_omero_has_vectors() -> None:
    assert set(OMERO_ALGORITHMS) == set(VECTORS)


@pytest.mark.parametrize(("algorithm", "content", "expected"), CASES)
def test_a_checksum_is_what_omero_writes(algorithm: str, content: bytes, expected: str) -> None:
    assert omero_checksum(algorithm, content) == expected


@pytest.mark.parametrize("algorithm", VECTORS)
@given(pieces=st.lists(st.binary(max_size=300), max_size=6))
def test_several_pieces_give_the_checksum_of_one(algorithm: str, pieces: list[bytes]) -> None:
    digest = omero_digest(algorithm)
    for piece in pieces:
        digest.update(memoryview(bytearray(piece)))
        digest.hexdigest()  # asking in between changes nothing
    assert digest.hexdigest() == omero_checksum(algorithm, b"".join(pieces))


def test_an_algorithm_that_omero_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(WrongUse, match="SHA-512") as refusal:
        omero_digest("SHA-512")
    assert "SHA1-160" in str(refusal.value)


def test_only_file_size_64_proves_only_the_size() -> None:
    assert [a for a in VECTORS if Checksum(algorithm=a, value="").proves_only_size] == ["File-Size-64"]


@given(pieces=st.lists(st.binary(max_size=300), max_size=6), algorithm=st.sampled_from(sorted(VECTORS)))
def test_one_pass_takes_every_digest(pieces: list[bytes], algorithm: str) -> None:
    content = b"".join(pieces)
    digests = FixityDigests(algorithm)
    for piece in pieces:
        digests.update(piece)
    fixity = digests.fixity()
    assert fixity.size_bytes == len(content)
    assert fixity.sha256 == hashlib.sha256(content).hexdigest()
    assert fixity.xxh3 == digests.fast == xxhash.xxh3_128_hexdigest(content)
    assert digests.omero == omero_checksum(algorithm, content)


def test_without_an_algorithm_there_is_no_omero_checksum() -> None:
    assert FixityDigests().omero is None


def test_fast_only_gives_no_evidence_of_record() -> None:
    digests = FixityDigests(fast_only=True)
    digests.update(b"abc")
    assert digests.fast == xxhash.xxh3_128_hexdigest(b"abc")
    with pytest.raises(AssertionError):
        digests.fixity()
