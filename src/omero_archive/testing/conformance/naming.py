"""Checks of keys: any valid file path is one."""

import os
from collections.abc import Sequence

from omero_archive.model import Key
from omero_archive.service import Answer, Incoming
from omero_archive.testing.conformance.bench import Bench, ConformanceFailure
from omero_archive.testing.conformance.seeing import (
    brief,
    expect,
    expect_equal,
    expect_kept,
    listed,
    put_all,
    status,
    told,
)
from omero_archive.testing.contents import reader

NAMES = (
    "with space",
    " space before",
    "zwölf µm",
    "日本語.tif",
    os.fsdecode(b"caf\xe9.tif"),
    "two\nlines",
    "tab\tand\rreturn",
    "n" * 255,
    os.fsdecode(b"\xe9" * 255),
    "-rf *",
    "quote'\"$(x)",
    "back\\slash",
    "...",
    "%2e%2e",
    "a+b&c=d?e#f",
    "{}[]<>|;:!~`",
)
"""File names that Linux allows and that something on the way might not."""


def check_any_file_name_is_a_key(bench: Bench) -> None:
    """Any file name that Linux allows is a key, and a directory of a key: spaces, line ends, bytes that are no text."""
    keys = {name: _keys(bench.below(str(number)), name) for number, name in enumerate(NAMES)}
    _store(bench, [key for each in keys.values() for key in each])
    for number, name in enumerate(NAMES):
        here = bench.below(str(number))
        expect_equal(listed(here), sorted(keys[name]), f"the listing with the name {name!r}")
        expect_equal(listed(here, f"d/{name}/"), keys[name][2:], f"the listing of the directory {name!r}")
        for key in keys[name]:
            expect_equal(status(here, key).present, Answer.YES, f"status of {key!r} after put")
            expect_kept(here, key, os.fsencode(key))


def check_names_that_differ_little_are_different_keys(bench: Bench) -> None:
    """Names that differ in case, a space, a dot or the way an accent is written are different keys."""
    names = ("a/x", "a/X", "a/x ", "a/x.", "a/ä", "a/a\N{COMBINING DIAERESIS}")
    keys = [bench.key(name) for name in names]
    _store(bench, keys)
    expect_equal(listed(bench, "a/"), sorted(keys), "the listing of names that differ little")
    for key in keys:
        expect_kept(bench, key, os.fsencode(key))


def _keys(bench: Bench, name: str) -> list[Key]:
    return [bench.key(name), bench.key(f"deep/{name}"), bench.key(f"d/{name}/x")]


def _store(bench: Bench, keys: Sequence[Key]) -> None:
    """Store each key's own bytes under it, as one group: a service that syncs syncs once."""
    outcomes = put_all(bench, [Incoming(key=key, reader=reader(os.fsencode(key))) for key in keys])
    for key, outcome in outcomes.items():
        if outcome.error is not None:
            raise ConformanceFailure(f"put of {brief(key)} raised {told(outcome.error)}.") from outcome.error


def check_a_deep_path_is_a_key(bench: Bench) -> None:
    """A path of sixty directories is a key."""
    key = bench.key("/".join(["directory"] * 60) + "/file")
    bench.service.put(key, reader(b"deep"), None)
    expect_kept(bench, key, b"deep")
    expect(listed(bench, "directory/directory/") == [key], "the deep path is not in the listing of its directory.")
