"""`check` tells which of three archive roots a site has, whether it works, and what programs see there."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

import mounts
from omero_archive.service import Finding
from omero_archive.settings import MountRule, MountSettings, OnOpen
from omero_archive.steps import check_root as looked
from omero_archive.steps.check import check
from omero_archive.steps.check_root import Mounted, check_root, mounted_at
from site_fixtures import Facility, MakeFacility


@pytest.fixture
def facility(make_facility: MakeFacility, tmp_path: Path) -> Facility:
    """A facility whose near bytes lie in another directory than the root, on the repository's file system."""
    (tmp_path / "near").mkdir()
    return make_facility(near=tmp_path / "near")


def told(findings: list[Finding]) -> str:
    return "\n".join(f"{'ok' if one.is_fine else 'FAIL'} {one.subject}: {one.text} {one.advice}" for one in findings)


def near_of(facility: Facility) -> Path:
    return facility.site.settings.archive.near_directory


# ---- the three ways


def test_a_plain_directory_is_told_as_such_and_what_can_be_wrong_with_it(make_facility: MakeFacility) -> None:
    facility = make_facility()
    root = facility.demo.archive_root
    found = told(check_root(facility.site))
    assert "ok archive root: " in found
    assert "a plain directory: near bytes lie in it; nothing to mount" in found
    assert 'ok images that are away: opening one fails with "No such file or directory", and recalls nothing' in found
    assert "archive mount" not in found
    assert "FAIL" not in found
    with mounts.dead(root):  # ours, over the near bytes themselves
        found = told(check_root(facility.site))
    assert "by the settings near bytes lie in it too" in found
    assert "Set `archive.near`" in found
    root.rename(root.with_name("away"))
    assert "is not there Run `omero-archive init`" in told(check_root(facility.site))


def test_near_elsewhere_wants_something_at_the_root_that_shows_it(facility: Facility) -> None:
    root = facility.demo.archive_root
    found = told(check_root(facility.site))
    assert "FAIL archive root: " in found
    assert "it is another directory, and nothing is mounted there" in found
    assert "Start `omero-archive mount`, or leave out `archive.near`" in found
    with mounts.bound(near_of(facility), root):
        found, mounted = told(check_root(facility.site)), mounted_at(root)
    assert mounted is not None
    assert f"shows {near_of(facility)}, through a mount of type {mounted.kind}" in found
    assert '"No such file or directory", and recalls nothing' in found
    assert "FAIL" not in found
    with mounts.dead(root):
        found = told(check(facility.site))
    assert "FAIL archive mount: " in found
    assert "is a dead mount: its server ended" in found
    assert "systemctl restart omero-archive-mount" in found
    assert "ok service tape" in found, "the other looks were not hindered"
    root.rmdir()
    root.symlink_to(near_of(facility))
    assert "FAIL" not in told(check_root(facility.site)), "a link to near needs no mount"


# ---- near bytes


def test_what_is_wrong_with_the_directory_of_near_bytes_is_told(
    make_facility: MakeFacility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility = make_facility()
    assert "ok near bytes: 0 bundles are near" in told(check_root(facility.site))
    facility.released("ics")
    found = told(check_root(facility.site))
    assert "ok near bytes: 1 bundles are near" in found
    assert "cannot be told" not in found
    with monkeypatch.context() as network:
        network.setattr("omero_archive.linux._LOCAL", frozenset())
        found = told(check_root(facility.site))
    assert "ok near bytes: whether somebody has a file open cannot be told" in found
    facility.demo.archive_root.rename(facility.demo.archive_root.with_name("away"))
    facility.demo.archive_root.mkdir()  # an empty mount point
    facility = make_facility()
    found = told(check_root(facility.site))
    assert "FAIL near bytes: " in found
    assert "has no .omero-archive/site: it is not mounted on this host" in found


# ---- the mount's own


@pytest.mark.parametrize(
    ("limit", "mount", "is_fine"),
    [
        ("0", MountSettings(on_open=OnOpen.WAIT), True),
        ("20", MountSettings(on_open=OnOpen.WAIT, wait=timedelta(seconds=20)), False),
        ("21", MountSettings(on_open=OnOpen.WAIT, wait=timedelta(seconds=20)), True),
        ("20", MountSettings(on_open=OnOpen.FAIL, wait=timedelta(hours=1)), True),
        ("20", MountSettings(rules=(MountRule(group="x", on_open=OnOpen.WAIT),)), False),
        ("20", MountSettings(rules=(MountRule(group="x", on_open=OnOpen.WAIT, wait=timedelta(seconds=9)),)), True),
        (None, MountSettings(on_open=OnOpen.WAIT), True),
    ],
)
@pytest.mark.parametrize("name", ["default_request_timeout", "max_request_timeout"])
def test_a_limit_of_the_kernel_below_the_wait_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: str | None, mount: MountSettings, is_fine: bool
) -> None:
    monkeypatch.setattr(looked, "_TIMEOUTS", tmp_path)
    if limit is not None:
        (tmp_path / name).write_text(f"{limit}\n")
    found = list(looked._timeouts(mount))
    assert (not found) is is_fine
    assert all(f"sysctl fs.fuse.{name} is 20 s" in one.text and not one.is_fine for one in found)


@pytest.mark.parametrize(
    ("release", "options", "text"),
    [
        ("6.9.0-1-amd64", ("ro", "user_id=0"), "at the speed of their disk"),
        ("7.0", ("ro", "user_id=0"), "at the speed of their disk"),
        ("6.1.0-18-amd64", ("ro", "user_id=0"), "this is Linux 6.1.0-18-amd64; it needs 6.9"),
        ("6.18.1", ("ro", "user_id=1000"), "it was not root who mounted"),
        ("strange", ("user_id=7",), "it needs 6.9; it was not root"),
    ],
)
def test_whether_the_kernel_reads_itself_is_told_and_no_fault(
    monkeypatch: pytest.MonkeyPatch, release: str, options: tuple[str, ...], text: str
) -> None:
    monkeypatch.setattr("platform.release", lambda: release)
    found = looked._passthrough(Mounted(kind=looked.KIND, options=options))
    assert text in found.text
    assert found.is_fine


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (MountSettings(), 'fails with "No data available" at once, and asks for its recall'),
        (MountSettings(on_open=OnOpen.WAIT), 'at most 30 s, then fails with "Connection timed out"'),
        (MountSettings(on_open=OnOpen.DENY), 'fails with "No medium found", and recalls nothing'),
        (MountSettings(rules=(MountRule(group="x", on_open=OnOpen.DENY),)), "1 rules say otherwise for some of them"),
        (None, '"No such file or directory"'),
    ],
)
def test_what_programs_see_of_what_is_away_is_told_by_policy(mount: MountSettings | None, text: str) -> None:
    assert text in looked._away(mount).text


def test_the_table_of_mounts_is_read_whatever_a_path_has_in_it(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"a b\\c\nd\xe9")
    strange.mkdir()
    escaped = os.fsencode(strange).replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\n", b"\\012")
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        b"41 27 0:38 / " + escaped + b" rw - tmpfs none rw\n"
        b"42 41 0:39 / " + escaped + b" ro,nosuid shared:2 master:1 - fuse.omero-archive omero-archive ro,user_id=0\n"
    )
    assert mounted_at(strange, table=table) == Mounted(kind="fuse.omero-archive", options=("ro", "user_id=0"))
    (tmp_path / "link").symlink_to(strange)
    assert mounted_at(tmp_path / "link", table=table) == mounted_at(strange, table=table)
    assert mounted_at(tmp_path, table=table) is None
