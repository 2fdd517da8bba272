"""Checks of keys: any valid file path is one."""

import os

from omero_archive.service import Answer
from omero_archive.testing.conformance.bench import Bench
from omero_archive.testing.conformance.seeing import expect, expect_equal, expect_kept, listed, status
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
    for number, name in enumerate(NAMES):
        here = bench.below(str(number))
        keys = [here.key(name), here.key(f"deep/{name}"), here.key(f"d/{name}/x")]
        for key in keys:
            here.service.put(key, reader(os.fsencode(key)), None)
            expect_equal(status(here, key).present, Answer.YES, f"status of {key!r} after put")
        found = listed(here)
        expect_equal(found, sorted(keys), f"the listing with the name {name!r}")
        expect_equal(listed(here, f"d/{name}/"), keys[2:], f"the listing of the directory {name!r}")
        for key in keys:
            expect_kept(here, key, os.fsencode(key))


def check_names_that_differ_little_are_different_keys(bench: Bench) -> None:
    """Names that differ in case, a space, a dot or the way an accent is written are different keys."""
    names = ("a/x", "a/X", "a/x ", "a/x.", "a/ä", "a/a\N{COMBINING DIAERESIS}")
    keys = [bench.key(name) for name in names]
    for key in keys:
        bench.service.put(key, reader(os.fsencode(key)), None)
    expect_equal(listed(bench, "a/"), sorted(keys), "the listing of names that differ little")
    for key in keys:
        expect_kept(bench, key, os.fsencode(key))


def check_a_deep_path_is_a_key(bench: Bench) -> None:
    """A path of sixty directories is a key."""
    key = bench.key("/".join(["directory"] * 60) + "/file")
    bench.service.put(key, reader(b"deep"), None)
    expect_kept(bench, key, b"deep")
    expect(listed(bench, "directory/directory/") == [key], "the deep path is not in the listing of its directory.")
