"""Keys and names of objects: one for each, in the order of keys, plain wherever that can be."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omero_archive.errors import ItemFailed
from omero_archive.model import Key
from omero_archive.services.s3.names import ESCAPED, MARKER, MOST_BYTES, Names, escaped, needs_escape, unescaped

NAMES = Names(prefix="")
BELOW = Names(prefix="a/facility")

components = st.one_of(
    st.binary(min_size=1, max_size=255).map(os.fsdecode),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.text("ab%/ \\\n\x7f.é%25", min_size=1, max_size=12),
)
keys = (
    st.lists(components, min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda key: not any(part in {"", ".", ".."} for part in key.split("/")) and "\0" not in key)
    .map(Key)
)


@pytest.mark.parametrize(
    "key",
    ["ManagedRepository/alice_2/2026-11/x.tif", "50% ethanol.tif", "zwölf µm", "日本", "a b", "...", "%2e", "-rf *"],
)
def test_an_ordinary_name_is_the_key_itself(key: str) -> None:
    assert NAMES.name(Key(key)) == key
    assert BELOW.name(Key(key)) == f"a/facility/{key}"


@pytest.mark.parametrize(
    ("key", "escape"),
    [
        ("d/caf\udce9.tif", "d/caf%E9.tif"),
        ("two\nlines", "two%0Alines"),
        ("back\\slash 5%", "back%5Cslash%205%25"),
        ("\ufffe", "%EF%BF%BE"),
        ("\x85", "%C2%85"),
        ("x" * 90 + "\n", "x" * 80 + "%/" + "x" * 10 + "%0A"),
    ],
)
def test_what_s3_takes_badly_lies_escaped_in_a_place_of_its_own(key: str, escape: str) -> None:
    assert BELOW.name(Key(key)) == f"a/facility/{ESCAPED}{escape}"
    assert BELOW.key(f"a/facility/{ESCAPED}{escape}") == key


@given(keys)
def test_the_name_of_a_key_leads_back_to_it(key: Key) -> None:
    try:
        name = BELOW.name(key)
    except ItemFailed:
        return
    assert BELOW.key(name) == key
    assert len(name.encode()) <= MOST_BYTES
    # NUL, surrogates and control characters are in no name.
    assert name.isprintable() or not any(character < " " or "\ud800" <= character <= "\udfff" for character in name)


@given(st.lists(components, min_size=1, max_size=3).map("/".join), st.integers(min_value=0))
def test_what_the_beginning_of_a_key_becomes_its_name_begins_with(key: str, cut: int) -> None:
    beginning = key[: cut % (len(key) + 1)]
    assert escaped(key).startswith(escaped(beginning))
    assert unescaped(escaped(key)) == key
    assert max(map(len, escaped(key).split("/"))) <= 255


@given(st.lists(keys.filter(lambda key: not needs_escape(key)), unique=True))
def test_plain_names_sort_by_their_bytes_as_keys_do(many: list[Key]) -> None:
    assert [key.encode() for key in sorted(many)] == sorted(key.encode() for key in many)


@pytest.mark.parametrize(
    "name",
    [
        f"a/facility/{MARKER}",
        f"a/facility/{ESCAPED}plain",  # another object has this key
        f"a/facility/{ESCAPED}two%0alines",  # not as we escape
        f"a/facility/{ESCAPED}two\nlines",
        "a/facility/folder/",  # what the console makes
        "a/facility/",
        "a/facility",
        "a/facilityX/x",
        "elsewhere",
        "a/facility/back\\slash",
    ],
)
def test_what_is_no_object_of_ours_has_no_key(name: str) -> None:
    assert BELOW.key(name) is None


def test_a_name_that_s3_does_not_take_is_told_with_what_can_be_done() -> None:
    assert len(NAMES.name(Key("d/" * 511 + "xy"))) == MOST_BYTES
    with pytest.raises(ItemFailed, match=r"1025 bytes, S3 takes 1024"):
        NAMES.name(Key("d/" * 511 + "xyz"))
    with pytest.raises(ItemFailed, match="1035 bytes"):
        BELOW.name(Key("d/" * 511 + "xy"))
