"""The parsers of the HSM presets: documented output is understood, everything else is no answer.

The outputs are those of published documents and sources, as docs/howto/posix-hsm.md names them.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from omero_archive.service import Answer
from omero_archive.services.hsm import parsers
from omero_archive.services.hsm.parsers import Parser, by_pattern
from omero_archive.services.hsm.presets import PRESETS
from omero_archive.services.hsm.residency import Residency, Words, doubt
from omero_archive.services.programs import Command, Feed, batches

SITE_WORDS = Words(
    resident=frozenset({"REG", "DUL"}),
    offline=frozenset({"OFL"}),
    recalling=frozenset({"STG", "QUE"}),
    durable=frozenset({"DUL", "OFL"}),
)
SITE = by_pattern(re.compile(rb".* \((?P<state>[A-Z]{3})\) (?P<path>/.*)", re.DOTALL), SITE_WORDS)
IN_ORDER = by_pattern(re.compile(rb"(?P<state>.*)", re.DOTALL), SITE_WORDS)
PARSERS: dict[str, Parser] = {
    "lustre": parsers.lustre,
    "lustre_recalling": parsers.lustre_recalling,
    "spectrum_archive": parsers.spectrum_archive,
    "protect": parsers.protect,
    "dmf": parsers.dmf,
    "scoutfs": parsers.scoutfs,
    "site": SITE,
    "in_order": IN_ORDER,
}
Said = tuple[Residency, Answer]
RESIDENT_ONLY: Said = (Residency.RESIDENT, Answer.NO)
BOTH: Said = (Residency.RESIDENT, Answer.YES)
TAPE: Said = (Residency.OFFLINE, Answer.YES)
NOTHING: Said = (Residency.CANNOT_TELL, Answer.CANNOT_TELL)


def said(parse: Parser, output: str | bytes, *paths: str | bytes) -> list[Said | None]:
    """What a parser makes of an output, for each path; None where it says nothing."""
    raw = [path.encode() if isinstance(path, str) else path for path in paths]
    found = parse(output.encode() if isinstance(output, str) else output, raw)
    assert set(found) <= set(raw)
    return [(found[path].residency, found[path].durable) if path in found else None for path in raw]


# ---- Lustre


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("(0x00000000)", RESIDENT_ONLY),
        ("(0x00000001) exists, archive_id:1", RESIDENT_ONLY),
        ("(0x00000009) exists archived, archive_id:2", BOTH),
        ("(0x0000000d) released exists archived, archive_id:1", TAPE),
        ("(0x0000000b) exists dirty archived, archive_id:1", RESIDENT_ONLY),
        ("(0x00000019) exists archived never_release, archive_id:1", BOTH),
        ("(0x00000020) never_archive", RESIDENT_ONLY),
        ("(0x00000049) exists archived lost_from_hsm, archive_id:1", RESIDENT_ONLY),
        ("(0x0000004d) released exists archived lost_from_hsm, archive_id:1", (Residency.OFFLINE, Answer.NO)),
        ("(0x00000089) exists archived, archive_id:1", NOTHING),  # a bit that has no name here
        ("(0x00000009) exists archived pcc, archive_id:1", NOTHING),
        ("(0x00000009) exists", NOTHING),
        ("(0x00000000) released exists archived", NOTHING),
        ("(0x9) exists archived", None),
        ("(0x00000009) exists archived, archive_id:x", None),
        ("", None),
    ],
)
def test_lustre_states(flags: str, expected: Said | None) -> None:
    assert said(parsers.lustre, f"/lustre/a b.tif: {flags}\n", "/lustre/a b.tif") == [expected]


def test_lustre_actions_tell_only_of_restores() -> None:
    output = "/l/a: RESTORE running (4096 bytes moved)\n/l/b: NOOP\n/l/c: ARCHIVE waiting \n/l/d: RESTORE waiting \n"
    moving = (Residency.RECALLING, Answer.NO)
    assert said(parsers.lustre_recalling, output, "/l/a", "/l/b", "/l/c", "/l/d") == [moving, None, None, moving]


def test_a_lustre_file_with_the_look_of_an_answer_is_no_answer_about_another() -> None:
    trap = "/l/a: (0x00000009) exists archived, archive_id:1"
    output = f"{trap}: (0x0000000d) released exists archived, archive_id:1\n/l/a: (0x00000000)\n"
    assert said(parsers.lustre, output, trap, "/l/a") == [TAPE, RESIDENT_ONLY]
    assert said(parsers.lustre, output.splitlines()[0], "/l/a") == [None]


# ---- Spectrum Archive


def test_spectrum_archive_states_by_the_published_sample() -> None:
    output = (
        "P  2  JD0099JD@POOL_JD@ts4500  MB0355JE@POOL_JE@ts4500  -   -- /gpfs/gpfs0/sample_file\n"
        "M  1  MB0355JE@POOL_JE@ts4500  -                        -   -- /gpfs/gpfs0/sample_file2\n"
        "R  0  -                        -                        -   -- /gpfs/gpfs0/sample_file3\n"
    )
    paths = ["/gpfs/gpfs0/sample_file", "/gpfs/gpfs0/sample_file2", "/gpfs/gpfs0/sample_file3", "/gpfs/gpfs0/sample"]
    assert said(parsers.spectrum_archive, output, *paths) == [BOTH, TAPE, RESIDENT_ONLY, None]
    word = parsers.spectrum_archive(output.encode(), [paths[0].encode()])[paths[0].encode()].word
    assert word == "premigrated, 2 tapes"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("M  0  -  -  -   -- /g/a", NOTHING),
        ("P  0  -  -  -   -- /g/a", NOTHING),
        ("R  1  A@P@L  -  -   -- /g/a", RESIDENT_ONLY),
        ("X  1  A@P@L  -  -   -- /g/a", None),
        ("M  1  A@P@L  -  -   -- g/a", None),
        ("M  1  A@P@L  -  -   /g/a", None),
        ("GLESL000E: M  1  A@P@L  -  -   -- /g/a", None),
    ],
)
def test_spectrum_archive_lines_that_are_odd(line: str, expected: Said | None) -> None:
    assert said(parsers.spectrum_archive, f"{line}\n", "/g/a") == [expected]


# ---- Protect for Space Management

BANNER = """\
IBM Storage Protect
Command Line Space Management Client Interface
  Client Version 8, Release 1, Level 23.0
(c) Copyright IBM Corp. 1990, 2024. All Rights Reserved.

     Actual     Resident     Resident  File   File
       Size         Size     Blk (KB)  State  Name
"""


def test_protect_states_by_names_in_one_directory() -> None:
    output = BANNER + (
        "       5000         5000            8  r      a.tif\n"
        "       5000         5000            8  p      b.tif\n"
        "       5000            0            0  m      c.tif\n"
        "       5000          511            1  m (p)  d.tif\n"
        "       5000            0            0  m (s)  /g/e.tif\n"
        "      <dir>         8192            8  -      f/\n"
        "       5000         4999            8  r      h.tif\n"
    )
    paths = [f"/g/{name}" for name in ("a.tif", "b.tif", "c.tif", "d.tif", "e.tif", "f/", "h.tif", "z.tif")]
    assert said(parsers.protect, output, *paths) == [RESIDENT_ONLY, BOTH, TAPE, TAPE, TAPE, None, NOTHING, None]


def test_a_line_of_protect_that_may_mean_two_files_means_none() -> None:
    output = BANNER + "  5  5  8  r      a\n  5  0  0  m       a\n"
    assert said(parsers.protect, output, "/g/a", "/g/ a") == [NOTHING, NOTHING]
    assert said(parsers.protect, BANNER + "  5  5  8  r       a\n", "/g/a", "/g/ a") == [NOTHING, NOTHING]
    assert said(parsers.protect, BANNER + "  5  0  0  m       a\n", "/g/ a") == [TAPE]


def test_a_line_about_a_path_that_was_not_asked_about_is_passed_over() -> None:
    assert said(parsers.protect, BANNER + "  5  5  8  r  /elsewhere/a\n", "/g/a") == [None]


# ---- DMF


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("REG", RESIDENT_ONLY),
        ("MIG", RESIDENT_ONLY),
        ("NMG", RESIDENT_ONLY),
        ("DUL", BOTH),
        ("OFL", TAPE),
        ("UNM", (Residency.RECALLING, Answer.CANNOT_TELL)),
        ("PAR", (Residency.OFFLINE, Answer.CANNOT_TELL)),
        ("INV", NOTHING),
        ("ARC", NOTHING),
        ("NEW", NOTHING),
        ("ofl", None),
    ],
)
def test_dmf_states(word: str, expected: Said | None) -> None:
    output = f"-rw-r--r--    1 kfr      sys     16373855 Jul 22 15:01 ({word}) /dmi4/kfr/dmf_tst.00005\n"
    assert said(parsers.dmf, output, "/dmi4/kfr/dmf_tst.00005") == [expected]


def test_dmf_lines_with_names_that_look_like_states() -> None:
    trap = "/d/x (OFL) /d/y"
    output = f"-rw-r--r--. 1 a b 5 Jul 22 2024 (REG) {trap}\ndrwxr-xr-x 2 a b 5 Jul 22 2024 (REG) /d/z\n"
    assert said(parsers.dmf, output, trap, "/d/y", "/d/z") == [RESIDENT_ONLY, None, None]


# ---- ScoutFS


@pytest.mark.parametrize(
    ("online", "offline", "expected"),
    [
        (3, 0, Residency.RESIDENT),
        (0, 0, Residency.RESIDENT),
        (0, 3, Residency.OFFLINE),
        (1, 2, Residency.OFFLINE),
    ],
)
def test_scoutfs_blocks_tell_where_the_file_is_and_not_whether_it_is_safe(
    online: int, offline: int, expected: Residency
) -> None:
    output = f"meta_seq  9\ndata_version    1\nonline_blocks   {online}\noffline_blocks  {offline}\nflags  0\n"
    assert said(parsers.scoutfs, output, "/s/a") == [(expected, Answer.CANNOT_TELL)]
    assert said(parsers.scoutfs, output, "/s/a", "/s/b") == [None, None]


def test_a_scoutfs_name_that_looks_like_a_count_makes_the_answer_none() -> None:
    output = (
        "path            /s/x\noffline_blocks  0\nonline_blocks   0\noffline_blocks  3\n"  # as older versions print
    )
    assert said(parsers.scoutfs, output, b"/s/x\noffline_blocks  0") == [None]
    assert said(parsers.scoutfs, "online_blocks 3\n", "/s/a") == [None]


# ---- a site's own


def test_a_pattern_of_the_site() -> None:
    output = "-rw------- 1 u g 5 Jul 22 15:01 (DUL) /a/x\n... (STG) /a/y z\n... (NEW) /a/w\n(OFL)/a/v\n"
    moving = (Residency.RECALLING, Answer.NO)
    assert said(SITE, output, "/a/x", "/a/y z", "/a/w", "/a/v") == [BOTH, moving, NOTHING, None]


@pytest.mark.parametrize("output", ["DUL\n", "DUL\nOFL\nREG\n", "", "DUL OFL\n"])
def test_answers_in_order_must_be_as_many_as_the_files(output: str) -> None:
    assert said(IN_ORDER, output, "/a/x", "/a/y") == [None, None]
    assert said(IN_ORDER, "DUL\nOFL\n", "/a/x", "/a/y") == [BOTH, TAPE]


# ---- all of them


@pytest.mark.parametrize("name", ["lustre", "spectrum_archive", "protect", "dmf", "site"])
def test_a_file_that_is_named_twice_is_one_of_which_nothing_is_known(name: str) -> None:
    output = b"".join(PRINTERS[name](b"/m/a", is_offline) + b"\n" for is_offline in (True, False))
    assert said(PARSERS[name], output, "/m/a") == [NOTHING]


MEMBERS = st.sampled_from(sorted(PARSERS))
PATHS = st.lists(
    st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name and b"/" not in name),
    min_size=1,
    max_size=4,
).map(lambda names: sorted({b"/m/" + name for name in names}))
RUBBISH = st.one_of(
    st.binary(max_size=200),
    st.text(alphabet="rpmRPMOFLDUREG()0x9 -/:\n\tabc", max_size=200).map(str.encode),
)


def is_no_answer(parse: Parser, output: bytes, paths: Sequence[bytes]) -> bool:
    """Whether nothing reassuring was understood: neither that a file can be read nor that it is safe."""
    return not any(
        state.residency is Residency.RESIDENT or state.durable is Answer.YES for state in parse(output, paths).values()
    )


@given(MEMBERS, RUBBISH)
def test_rubbish_never_reassures(name: str, output: bytes) -> None:
    assume(name != "in_order" and b"blocks" not in output)
    paths = [b"/mount/one", b"/mount/two"]
    assume(not any(path.rpartition(b"/")[2] in output for path in paths))
    assert is_no_answer(PARSERS[name], output, paths)
    assert is_no_answer(PARSERS[name], output, paths[:1])


@given(MEMBERS, PATHS, RUBBISH)
def test_no_parser_fails_or_tells_of_what_was_not_asked(name: str, paths: list[bytes], output: bytes) -> None:
    for group in batches(paths, Feed.ARGUMENTS, at_most=3, one_directory=True):
        assert set(PARSERS[name](output, group)) <= set(group)


def print_lustre(path: bytes, is_offline: bool) -> bytes:
    return path + (b": (0x0000000d) released exists archived, archive_id:1" if is_offline else b": (0x00000000)")


def print_spectrum_archive(path: bytes, is_offline: bool) -> bytes:
    return (b"M  1  A@P@L" if is_offline else b"R  0  -") + b"  -  -   -- " + path


def print_protect(path: bytes, is_offline: bool) -> bytes:
    return (b"   5   0  0  m      " if is_offline else b"   5   5  8  r      ") + path.rpartition(b"/")[2]


def print_dmf(path: bytes, is_offline: bool) -> bytes:
    return b"-rw-r--r-- 1 a b 5 Jul 22 15:01 (" + (b"OFL" if is_offline else b"REG") + b") " + path


def print_site(path: bytes, is_offline: bool) -> bytes:
    return b"- (" + (b"OFL" if is_offline else b"REG") + b") " + path


def print_in_order(path: bytes, is_offline: bool) -> bytes:
    del path
    return b"OFL" if is_offline else b"REG"


PRINTERS: dict[str, Callable[[bytes, bool], bytes]] = {
    "lustre": print_lustre,
    "spectrum_archive": print_spectrum_archive,
    "protect": print_protect,
    "dmf": print_dmf,
    "site": print_site,
    "in_order": print_in_order,
}


@given(st.sampled_from(sorted(PRINTERS)), PATHS, st.lists(st.booleans(), min_size=4, max_size=4))
def test_whatever_the_names_an_offline_file_is_never_called_resident(
    name: str, paths: list[bytes], offline: list[bool]
) -> None:
    """Names with newlines, blanks, and anything else: each file gets its own answer, or none."""
    truth = dict(zip(paths, offline, strict=False))
    for group in batches(paths, Feed.ARGUMENTS, at_most=3, one_directory=True):
        output = b"".join(PRINTERS[name](path, truth[path]) + b"\n" for path in group)
        for path, state in PARSERS[name](output, group).items():
            expected = Residency.OFFLINE if truth[path] else Residency.RESIDENT
            assert state.residency in (expected, Residency.CANNOT_TELL)


@given(st.sampled_from(sorted(PRINTERS)), st.from_regex(rb"/m/[a-z]{1,8}\.tif", fullmatch=True), st.booleans())
def test_plain_names_are_understood(name: str, path: bytes, is_offline: bool) -> None:
    said_of = PARSERS[name](PRINTERS[name](path, is_offline) + b"\n", [path])[path]
    assert said_of.residency is (Residency.OFFLINE if is_offline else Residency.RESIDENT)


@given(st.sampled_from(sorted(PRINTERS)), PATHS, st.data())
def test_an_output_that_was_cut_off_reassures_nobody_wrongly(
    name: str, paths: list[bytes], data: st.DataObject
) -> None:
    """A program that was killed in mid-line: what it began to say of an offline file is not read as "resident"."""
    for group in batches(paths, Feed.ARGUMENTS, at_most=3, one_directory=True):
        output = b"".join(PRINTERS[name](path, True) + b"\n" for path in group)
        cut = output[: data.draw(st.integers(0, len(output)))]
        assert not any(state.residency is Residency.RESIDENT for state in PARSERS[name](cut, group).values())


# ---- commands


@given(PATHS, st.integers(1, 3), st.sampled_from([Feed.ARGUMENTS, Feed.NUL]))
def test_batches_hold_every_path_once_and_odd_names_alone(paths: list[bytes], at_most: int, feed: Feed) -> None:
    groups = list(batches(paths, feed, at_most=at_most))
    assert sorted(path for group in groups for path in group) == paths
    assert all(len(group) <= at_most for group in groups)
    assert all(len(group) == 1 for group in groups if any(b"\n" in path for path in group))


def test_batches_of_arguments_are_bounded_in_bytes() -> None:
    paths = [b"/m/" + b"x" * 250 + str(number).encode() for number in range(2000)]
    assert max(sum(map(len, group)) for group in batches(paths, Feed.ARGUMENTS, at_most=10_000)) <= 100_000
    assert len(list(batches(paths, Feed.LIST, at_most=10_000))) == 1


def test_batches_keep_directories_apart_where_only_names_are_printed() -> None:
    paths = [b"/m/a/1", b"/m/a/2", b"/m/b/1"]
    assert list(batches(paths, Feed.ARGUMENTS, at_most=9, one_directory=True)) == [paths[:2], paths[2:]]


def test_a_list_takes_its_place_among_the_arguments() -> None:
    named = Command(argv=("dsmrecall", "-filelist={list}"), feed=Feed.LIST)
    assert named.line([b"/x"], list_file=Path("/l")) == ["dsmrecall", "-filelist=/l"]
    assert Command(argv=("eeadm", "recall"), feed=Feed.LIST).line([b"/x"], list_file=Path("/l"))[-1] == "/l"


def test_a_doubt_is_told_for_large_files_without_blocks_alone() -> None:
    assert doubt(10 << 20, 0)
    assert not doubt(10 << 20, 4096)
    assert not doubt(100, 0)
    assert not doubt(0, 0)


def test_every_preset_has_a_recall_or_says_that_the_site_must_give_one() -> None:
    assert [name for name, preset in PRESETS.items() if preset.recall is None] == ["scoutfs"]
    assert [name for name, preset in PRESETS.items() if not preset.tells_durability] == ["scoutfs"]
