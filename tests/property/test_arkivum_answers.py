"""Whatever the appliance answers: it is understood, doubted, or refused, and never taken for more than it says."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from omero_archive.service import Answer
from omero_archive.services.arkivum.answers import (
    COLOURS,
    FINAL,
    NOT_FINAL,
    FileAnswer,
    Unintelligible,
    durability,
    file_answer,
    free_bytes,
    recall_answer,
)

SIZE = 2342754
MD5 = "e917f867114dedf9bdb430e838da647d"
TYPED: dict[str, Any] = {
    "autoClear": True,
    "directory": False,
    "id": "2e75c8ad-cded-4f7e-8ac7-85627a116e39",
    "ingestState": "FINAL",
    "local": False,
    "md5": MD5,
    "name": "a.tif",
    "path": "/omero/a.tif",
    "replicationState": "green",
    "size": SIZE,
}
TEXTS: dict[str, Any] = {
    "MD5checksum": MD5,
    "autoclear": "true",
    "directory": "false",
    "id": "2e75c8ad-cded-4f7e-8ac7-85627a116e39",
    "ingestState": "FINAL",
    "local": "false",
    "name": "a.tif",
    "path": "/omero/a.tif",
    "replicationState": "green",
    "size": f"{SIZE} bytes",
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
tempting = st.sampled_from(
    [
        *(FINAL, *NOT_FINAL, *COLOURS, "Green", " green", "gr\u200been", "green\n", "yellow", "", "final"),
        *("true", "True", True, False, None, ["green"]),
        *(SIZE, str(SIZE), f"{SIZE} bytes", float(SIZE), -1, "1.5 MB"),
        *(MD5, MD5.upper(), MD5[1:], MD5 + "0"),
    ]
)
documents = st.builds(
    lambda base, changes, gone: {key: value for key, value in (base | changes).items() if key not in gone},
    st.sampled_from([TYPED, TEXTS]),
    st.dictionaries(st.sampled_from([*TYPED, *TEXTS]), tempting | anything, max_size=4),
    st.sets(st.sampled_from([*TYPED, *TEXTS]), max_size=3),
)


def body(document: object) -> bytes:
    return json.dumps(document).encode()


def is_yes(document: dict[str, Any]) -> bool:
    """What has to be so for a yes, said once more and otherwise."""
    digests = {str(document[key]) for key in ("md5", "MD5checksum") if isinstance(document.get(key), str)} - {""}
    digest = next(iter(digests), "")
    return (
        document.get("ingestState") in (FINAL,)
        and document.get("replicationState") in ("green",)
        and (document.get("size") is not True)
        and document.get("size") in (SIZE, str(SIZE), f"{SIZE} bytes", f"{SIZE} byte")
        and not isinstance(document.get("size"), float)
        and len(digests) == 1
        and 30 <= len(digest) <= 32
        and set(digest.lower()) <= set("0123456789abcdef")
    )


@pytest.mark.parametrize("document", [TYPED, TEXTS])
@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: {"results": [d]}, lambda d: {"files": [d]}, lambda d: {"fileInformation": d}]
)
def test_one_answer_in_every_wrapping(document: dict[str, Any], wrap: Any) -> None:
    found = file_answer(body(wrap(document)))
    assert found == FileAnswer(
        id=TYPED["id"],
        name="a.tif",
        ingest_state="FINAL",
        colour="green",
        size_bytes=SIZE,
        md5=MD5,
        is_local=False,
        is_directory=False,
    )
    assert durability(found, SIZE, ("green",)).durable is Answer.YES


@given(documents)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_yes_takes_all_of_it(document: dict[str, Any]) -> None:
    try:
        found = file_answer(body(document))
    except Unintelligible:
        return
    assert found is not None
    said = durability(found, SIZE, ("green",))
    if said.durable is Answer.YES:
        assert is_yes(document), document
    elif is_yes(document):
        pytest.fail(f"{document} says it all, and it was {said}")


@given(st.binary(max_size=200) | anything.map(body))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(b"")
@example(b"[" * 100_000)
@example(b'{"ingestState":' * 50_000)
@example(b'{"size": ' + b"9" * 5000 + b', "local": true}')
@example(b'{"ingestState": "FINAL", "replicationState": "red", "replicationState": "green"}')
@example(b"\xff\xfe{}")
@example(b'{"ingestState": NaN, "local": Infinity}')
def test_nonsense_is_no_yes_and_no_other_error(content: bytes) -> None:
    for read in (file_answer, recall_answer, free_bytes):
        try:
            found = read(content)
        except Unintelligible:
            continue
        if isinstance(found, FileAnswer):
            assert durability(found, SIZE, ("green",)).durable is not Answer.YES


@given(documents, st.text(max_size=200), st.text(max_size=200))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_words_for_people_are_short_and_printable(document: dict[str, Any], state: str, colour: str) -> None:
    found = file_answer(body(document | {"ingestState": state, "replicationState": colour}))
    assert found is not None
    word = durability(found, SIZE, ("green",)).word
    assert word.isprintable()
    assert len(word) < 160


@given(st.sampled_from([True, False, "true", "false"]) | tempting | anything)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_where_the_bytes_are_is_said_or_not(local: object) -> None:
    found = file_answer(body(TYPED | {"local": local}))
    assert found is not None
    if local is True or local == "true":
        assert found.is_local is True
    elif local is False or local == "false":
        assert found.is_local is False
    else:
        assert found.is_local is None


@pytest.mark.parametrize(
    ("given_size", "size_bytes"),
    [(0, 0), ("0", 0), ("10 bytes", 10), ("1 byte", 1), (10**18, 10**18)]
    + [
        (text, None)
        for text in ("", "bytes", "1.5 MB", "10 KB", "-1", "1,000 bytes", " 10", "\uff11\uff10", "10 bytes or so")
    ]
    + [(number, None) for number in (-1, True, 1.0, None)],
)
def test_a_size_is_whole_or_not_known(given_size: object, size_bytes: int | None) -> None:
    found = file_answer(body(TYPED | {"size": given_size}))
    assert found is not None
    assert found.size_bytes == size_bytes


@pytest.mark.parametrize(
    ("digest", "md5"),
    [
        (MD5.upper(), MD5),
        ("ca378eca44bbd5e7ac963212d95c35e", "0ca378eca44bbd5e7ac963212d95c35e"),  # a leading zero lost, as recorded
        (MD5[:30], "00" + MD5[:30]),
        (MD5[:29], None),
        (MD5 + "0", None),
        ("g" * 32, None),
        ("", None),
        (None, None),
        (12, None),
    ],
)
def test_an_md5_is_whole_or_not_known(digest: object, md5: str | None) -> None:
    for known in (TYPED | {"md5": digest}, TEXTS | {"MD5checksum": digest}):
        found = file_answer(body(known))
        assert found is not None
        assert found.md5 == md5


def test_two_md5s_that_differ_are_none() -> None:
    found = file_answer(body(TYPED | {"MD5checksum": "0" * 32}))
    assert found is not None
    assert found.md5 is None


def test_an_id_that_is_no_part_of_an_address_is_none() -> None:
    for identifier in ("../../files/x", "a b", "", None, 7, "x" * 65, "a/b", "a?b"):
        found = file_answer(body(TYPED | {"id": identifier}))
        assert found is not None
        assert found.id is None


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
def test_a_body_is_read_whatever_its_header_claims(encoding: str) -> None:
    found = file_answer(json.dumps(TYPED | {"name": "zwölf µm"}, ensure_ascii=False).encode(encoding))
    assert found is not None
    assert found.name == "zwölf µm"


def test_no_results_are_no_entry() -> None:
    assert file_answer(b'{"results": []}') is None
    assert file_answer(b'{"files": [], "folderPath": "/x"}') is None


def test_a_recall_tells_its_reason() -> None:
    failed = {"id": "059b7285-dfd7-45f9-be31-f6609435b6ed", "status": "Failed"}
    with_list = recall_answer(body(failed | {"failures": [{"filepath": "x", "reason": "Initial verification failed"}]}))
    assert (with_list.status, with_list.reason) == ("Failed", "Initial verification failed")
    assert recall_answer(body(failed | {"reason": "No tape"})).reason == "No tape"
    assert recall_answer(body(failed)).reason == ""


def test_free_space_is_told_or_not_known() -> None:
    assert free_bytes(b'{"storage": {"bytesFree": 10}}') == 10
    assert free_bytes(b'{"storage": {"bytesFree": "10 bytes"}}') == 10
    assert free_bytes(b'{"storage": null}') is None
    assert free_bytes(b"{}") is None
