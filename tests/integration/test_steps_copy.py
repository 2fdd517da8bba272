"""Copy, verify, confirm: what fails is written down with its reason and its next try, and all others go on."""

import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from omero_archive.engine import Engine
from omero_archive.errors import PermitRefused
from omero_archive.states import CopyState, Residency
from omero_archive.steps.permits import permits
from omero_archive.steps.release import release_dry
from site_fixtures import Facility, MakeFacility, catalogue_rows, flip_a_byte

GOOD = ("ome-tiff", "plate", "ics", "dicom", "pyramid", "omero4")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB. Needs root."""
    where = tmp_path / "tiny"
    where.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(where)], capture_output=True, check=False
    )
    if made.returncode != 0:
        if os.geteuid() == 0 and os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
            pytest.fail(f"a file system could not be mounted: {made.stderr!r}")
        pytest.skip("no file system can be mounted here; that needs root")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


def failed_keys(facility: Facility, slug: str) -> dict[str, str]:
    """What went wrong, by the file's name."""
    return {Path(row["key"]).name: row["last_error"] for row in facility.copies(slug) if row["last_error"]}


def test_every_failing_file_has_its_reason_and_all_others_go_on(facility: Facility) -> None:
    facility.add(*GOOD, "rotted")
    vanished, replaced = facility.paths("dicom")[:2]
    vanished.unlink()
    replaced.unlink()
    replaced.symlink_to("/etc/hostname")
    flip_a_byte(facility.paths("ics")[1])
    grown = facility.paths("plate")[0]
    grown.write_bytes(grown.read_bytes() + b"more")
    wanted = {
        ("dicom", vanished.name): "not on its disk",
        ("dicom", replaced.name): "is a link to /etc/hostname",
        ("ics", facility.paths("ics")[1].name): "Murmur3-128",
        ("plate", grown.name): "bytes, OMERO imported",
        ("rotted", facility.paths("rotted")[0].name): "Adler-32",
    }
    result = facility.work()
    assert result.failed == len(wanted)
    for (slug, name), reason in wanted.items():
        assert reason in failed_keys(facility, slug)[name], (slug, name)
    for slug in (*GOOD, "rotted"):
        for row in facility.copies(slug):
            is_bad = (slug, Path(row["key"]).name) in wanted
            # A bundle of which one file could not be read has no manifest, so that its others are not verified.
            whole = CopyState.WRITTEN if any(bad == slug for bad, _ in wanted) else CopyState.DURABLE
            assert row["state"] == (CopyState.PENDING if is_bad else whole), row["key"]
            assert facility.archived_path(row["key"]).exists() is not is_bad


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_tried_again(facility: Facility) -> None:
    facility.add("ics")
    facility.paths("ics")[0].chmod(0)
    facility.work()
    (row,) = [row for row in facility.copies("ics") if row["last_error"]]
    assert "could not be read" in row["last_error"]
    assert row["retry_at"] is not None


def test_a_file_that_changes_while_it_is_read_is_tried_again_later(facility: Facility) -> None:
    facility.add("pyramid", "ics")
    (path,) = facility.paths("pyramid")
    mtime_ns = path.stat().st_mtime_ns
    is_over = threading.Event()

    def touch() -> None:
        while not is_over.is_set():
            os.utime(path, ns=(mtime_ns, mtime_ns))

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        facility.work()
    finally:
        is_over.set()
        thread.join()
    (row,) = facility.copies("pyramid")
    assert "changed while it was read" in row["last_error"]
    assert (row["state"], row["attempts"], row["needs_attention"]) == (CopyState.PENDING, 1, False)
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    facility.clock.advance(minutes=2)
    facility.work()
    assert set(facility.copy_states("pyramid").values()) == {CopyState.DURABLE}


def test_tries_come_later_and_later_until_a_person_must_look(make_facility: MakeFacility) -> None:
    facility = make_facility(work='poll = "1s"\nretry_after = "1min"\nattempts = 3\n')
    facility.add("ics")
    (facility.demo.service_path / ".omero-archive" / "service").rename(facility.demo.directory / "marker")
    waits = []
    for attempt in (1, 2, 3):
        assert facility.work().failed == 2
        assert facility.work().failed == 0, "nothing is due before its time"
        rows = facility.copies("ics")
        assert {row["attempts"] for row in rows} == {attempt}
        assert all("is missing; the archive is not mounted" in row["last_error"] for row in rows)
        if rows[0]["retry_at"] is not None:
            waits.append((rows[0]["retry_at"] - facility.clock()).total_seconds())
        facility.clock.advance(minutes=10)
    assert [row["needs_attention"] for row in facility.copies("ics")] == [True, True]
    assert [round(wait / 60) for wait in waits] == [1, 2]
    (facility.demo.directory / "marker").rename(facility.demo.service_path / ".omero-archive" / "service")
    assert facility.work().done == 0, "not before a person has looked"
    facility.add("ics")
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}


def test_a_full_archive_fails_what_does_not_fit_and_takes_the_rest(
    make_facility: MakeFacility, tiny_disk: Path
) -> None:
    facility = make_facility()
    facility.site.close()
    (facility.demo.directory / "tape").rename(facility.demo.directory / "old")
    (facility.demo.directory / "tape").symlink_to(tiny_disk)
    facility = make_facility(work='poll = "1s"\nslice_files = 1\nstreams = 1\n')
    facility.add("pyramid", "ics")
    facility.work()
    (large,) = facility.copies("pyramid")
    assert (large["state"], large["retry_at"] is not None) == (CopyState.PENDING, True)
    assert "No space left" in large["last_error"]
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert not facility.archived_path(large["key"]).exists()
    assert not [path for path in (tiny_disk / ".omero-archive" / "incoming").rglob("*") if path.is_file()]


def test_verify_finds_a_flipped_byte_and_the_copy_never_counts(facility: Facility) -> None:
    facility.add("ics", "dicom")
    Engine(facility.site).run(steps=("copy",))
    key = facility.demo.fileset("ics").keys[1]
    flip_a_byte(facility.archived_path(key))
    assert facility.work().failed == 1
    assert facility.copy_states("ics")[key, "tape"] is CopyState.DAMAGED
    (error,) = facility.errors("ics")
    assert "was read back as" in error
    assert "The copy does not count" in error
    assert set(facility.copy_states("dicom").values()) == {CopyState.DURABLE}
    with pytest.raises(PermitRefused, match=r"tape: DAMAGED, not DURABLE \(1 of 2 files\)"):
        release_dry(facility.site, facility.name("ics"))
    assert facility.work().done == 0


def test_the_archive_keeps_mtime_and_mode(facility: Facility) -> None:
    facility.archive("ics", "omero4")
    for slug in ("ics", "omero4"):
        for key, path in zip(facility.demo.fileset(slug).keys, facility.paths(slug), strict=True):
            original, copy = path.stat(), facility.archived_path(key).stat()
            assert (copy.st_mtime_ns, copy.st_mode, copy.st_size, copy.st_uid) == (
                original.st_mtime_ns,
                original.st_mode,
                original.st_size,
                original.st_uid,
            )


def test_a_copy_is_durable_only_when_the_service_says_so(make_facility: MakeFacility) -> None:
    facility = make_facility(durable_after="1h")
    facility.add("ics")
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.VERIFIED}
    assert all(row["word"].startswith("safe in") and row["confirmed_at"] is None for row in facility.copies("ics"))
    with pytest.raises(PermitRefused, match="0 of 1 durable"):
        facility.release("ics")
    facility.clock.advance(minutes=61)
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert all(row["confirmed_at"] > datetime.now(UTC) for row in facility.copies("ics"))


def test_a_service_may_take_its_word_back(make_facility: MakeFacility) -> None:
    make_facility().archive("ics")
    facility = make_facility(durable_after="1h")
    with pytest.raises(PermitRefused, match="tape: VERIFIED, not DURABLE"):
        permits(facility.site, facility.record("ics"))
    assert set(facility.copy_states("ics").values()) == {CopyState.VERIFIED}
    facility.clock.advance(minutes=61)
    facility.work()
    permits(facility.site, facility.record("ics"))


def test_a_copy_that_is_gone_is_missing_and_is_written_again_when_added_again(facility: Facility) -> None:
    facility.archive("ics")
    key = facility.demo.fileset("ics").keys[0]
    facility.archived_path(key).unlink()
    with pytest.raises(PermitRefused, match="tape: MISSING, not DURABLE"):
        facility.release("ics")
    assert facility.copy_states("ics")[key, "tape"] is CopyState.MISSING
    assert facility.residency("ics") is Residency.RESIDENT
    facility.add("ics")
    facility.clock.advance(seconds=2)  # the service was asked just now
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    facility.release("ics")


def test_a_service_that_cannot_be_asked_says_nothing_about_its_copies(make_facility: MakeFacility) -> None:
    facility = make_facility(proof_lifetime="10min")
    facility.archive("ics")
    away = facility.demo.directory / "unmounted"
    facility.demo.service_path.rename(away)
    facility.demo.service_path.mkdir()
    facility.clock.advance(minutes=11)
    before = catalogue_rows(facility.site.catalogue.dsn)
    with pytest.raises(PermitRefused) as refused:
        facility.release("ics")
    assert "longer ago than 0:10:00 (2 of 2 files)" in str(refused.value)
    assert "is missing; the archive is not mounted" in str(refused.value)
    assert catalogue_rows(facility.site.catalogue.dsn) == before
    assert facility.is_as_before("ics")
    facility.demo.service_path.rmdir()
    away.rename(facility.demo.service_path)
    facility.release("ics")


def test_other_content_under_the_key_is_never_overwritten(facility: Facility) -> None:
    facility.add("ics")
    key = facility.demo.fileset("ics").keys[0]
    there = facility.archived_path(key)
    there.parent.mkdir(parents=True)
    there.write_bytes(b"somebody else's")
    facility.work()
    assert there.read_bytes() == b"somebody else's"
    assert "was not overwritten" in failed_keys(facility, "ics")[there.name]
