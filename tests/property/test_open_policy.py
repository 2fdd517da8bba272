"""The decision at `open`, for any settings, any file and any caller."""

import os
from datetime import timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from omero_archive.access.items import Caller
from omero_archive.access.policy import NAME_BYTES, AwayFile, decide, is_under
from omero_archive.model import ServiceName
from omero_archive.settings import MountRule, MountSettings, OnOpen

QUIETLY = settings(deadline=None)  # the machine may be busy
NAMES = st.sampled_from(["a", "ab", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
SERVICES = st.lists(st.sampled_from([ServiceName("tape"), ServiceName("disk2")]), unique=True)
PROGRAMS = st.sampled_from(
    ["", "java", "updatedb", "tracker-extract", "gdk-pixbuf-thum", "a program, with a long name"]
)
WAITS = st.integers(min_value=0, max_value=100).map(lambda seconds: timedelta(seconds=seconds))


@st.composite
def rules(draw: st.DrawFn) -> MountRule:
    wishes = {
        "service": draw(st.none() | st.sampled_from(["tape", "disk2"])),
        "group": draw(st.none() | st.sampled_from(["lab", "public"])),
        "under": draw(st.none() | PATHS),
    }
    if not any(wishes.values()):
        wishes["group"] = "lab"
    return MountRule.model_validate(
        {**wishes, "on_open": draw(st.sampled_from(OnOpen)), "wait": draw(st.none() | WAITS)}
    )


SETTINGS = st.builds(
    MountSettings,
    on_open=st.sampled_from(OnOpen),
    wait=WAITS,
    rules=st.lists(rules(), max_size=4).map(tuple),
    excluded_programs=st.lists(PROGRAMS.filter(bool), max_size=3).map(tuple),
    excluded_users=st.lists(st.sampled_from(["backup", "1000", "alice"]), max_size=2).map(tuple),
)
FILES = st.builds(AwayFile, path=PATHS, group=st.sampled_from(["lab", "public"]), services=SERVICES)
CALLERS = st.builds(
    Caller,
    pid=st.integers(min_value=0, max_value=9),
    uid=st.sampled_from([0, 1000]),
    # as Linux tells it: cut
    program=PROGRAMS.map(lambda name: os.fsdecode(os.fsencode(name)[:NAME_BYTES])),
    user=st.sampled_from(["alice", "backup", "1000"]),
)


def is_excluded(caller: Caller, settings: MountSettings) -> bool:
    by_program = any(caller.program == name[:NAME_BYTES] for name in settings.excluded_programs)
    return by_program or bool({caller.user, str(caller.uid)} & set(settings.excluded_users))


def fits(rule: MountRule, file: AwayFile) -> bool:
    """Written another way than in the program."""
    under = rule.under is None or f"{file.path}/".startswith(f"{rule.under}/")
    return rule.service in (None, *file.services[:1]) and rule.group in (None, file.group) and under


@QUIETLY
@given(FILES, CALLERS, SETTINGS)
def test_the_first_rule_that_fits_counts_and_who_is_excluded_is_denied(
    file: AwayFile, caller: Caller, settings: MountSettings
) -> None:
    verdict = decide(file, caller, settings)
    fitting = [rule for rule in settings.rules if fits(rule, file)]
    if is_excluded(caller, settings):
        assert verdict.on_open is OnOpen.DENY
    elif fitting:
        wait = settings.wait if fitting[0].wait is None else fitting[0].wait
        assert (verdict.on_open, verdict.wait) == (fitting[0].on_open, wait)
    else:
        assert (verdict.on_open, verdict.wait) == (settings.on_open, settings.wait)
    assert verdict.why


@QUIETLY
@given(FILES, CALLERS, SETTINGS)
def test_a_rule_after_the_one_that_counts_changes_nothing(
    file: AwayFile, caller: Caller, settings: MountSettings
) -> None:
    for number, rule in enumerate(settings.rules):
        if fits(rule, file):
            shorter = settings.model_copy(update={"rules": settings.rules[: number + 1]})
            assert decide(file, caller, shorter) == decide(file, caller, settings)


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [
        ("M/a_2/x.tif", "M/a_2", True),
        ("M/a_2/x.tif", "M/a_2/", True),
        ("M/a_2/x.tif", "M/a", False),
        ("M/a_2", "M/a_2", True),
        ("M", "M/a_2", False),
        ("M/a_2/x.tif", ".", True),
        ("M/a_2/x.tif", "", True),
    ],
)
def test_under_goes_by_whole_names(path: str, directory: str, expected: bool) -> None:
    assert is_under(path, directory) is expected


def test_a_program_that_is_not_known_is_not_an_excluded_one() -> None:
    file = AwayFile(path="a", group="lab", services=())
    unknown = Caller(pid=0, uid=12345, program="", user="12345")
    assert decide(file, unknown, MountSettings()).on_open is OnOpen.FAIL


def test_a_name_in_the_settings_is_cut_as_linux_cuts_it() -> None:
    file = AwayFile(path="a", group="lab", services=())
    settings = MountSettings(excluded_programs=("gdk-pixbuf-thumbnailer",))
    cut = Caller(pid=1, uid=1, program="gdk-pixbuf-thum", user="alice")
    assert decide(file, cut, settings).on_open is OnOpen.DENY
