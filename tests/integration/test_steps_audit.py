"""Audit: what was compared, what is damaged, and what nobody knows are three things; and heal, which loses nothing."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from interruptions import Stopped, stopped_before
from offline_service import OfflineService
from omero_archive.catalogue import audits, bundles
from omero_archive.catalogue.audits import AuditSlice, Choice, Scope
from omero_archive.catalogue.copies import FIXITY_OF_SERVICE, READ_BACK
from omero_archive.engine import Engine
from omero_archive.errors import NoProvenSource, ObjectOffline, ServiceUnavailable, WrongState
from omero_archive.model import Key, ServiceName
from omero_archive.services.directory import DirectorySettings
from omero_archive.states import CopyState, Residency
from omero_archive.steps.audit import Finding, Verdict, audit
from omero_archive.steps.audit_manifests import ManifestVerdict, audit_manifests
from omero_archive.steps.heal import Healed, heal
from omero_archive.steps.pace import Pace
from omero_archive.steps.verify import verify
from site_fixtures import Facility, MakeFacility, catalogue_rows, disk_below, flip_a_byte, rows_of, sha256_of

TAPE, DISK2 = ServiceName("tape"), ServiceName("disk2")
BOTH: dict[str, Any] = {"copies_on": ("tape", "disk2"), "copies": '{ any = 1, of = ["tape", "disk2"] }'}
UNHURRIED = Pace(rate=None)
MOST_CHANGES = 60


def slices(facility: Facility, *slugs: str, size_bytes: int = 1 << 30, **choice: Any) -> list[AuditSlice]:
    """What an audit of these bundles would read; of everything, if none is named."""
    ids = tuple(facility.record(slug).id for slug in slugs) or None
    scope = Scope(services=tuple(facility.site.services), bundle_ids=ids)
    with facility.site.catalogue.begin() as connection:
        return audits.chosen(connection, Choice(scope=scope, **choice), size_bytes=size_bytes, files=1000)


def audited(facility: Facility, *slugs: str, **choice: Any) -> list[Finding]:
    """An audit of these bundles, or of everything."""
    pieces = slices(facility, *slugs, **choice)
    return [finding for piece in pieces for finding in audit(facility.site, piece, pace=UNHURRIED)]


def verdicts(found: list[Finding]) -> Counter[Verdict]:
    return Counter(finding.verdict for finding in found)


def healed(facility: Facility, slug: str, *services: ServiceName) -> list[Healed]:
    return heal(facility.site, facility.name(slug), services=services or tuple(facility.site.services))


def heal_or_raise(facility: Facility, slug: str) -> None:
    for one in healed(facility, slug):
        if one.error is not None:
            raise one.error


def events(facility: Facility, what: str) -> list[dict[str, Any]]:
    rows = rows_of(facility.site.catalogue.dsn, only=["event"])["event"]
    return sorted((row for row in rows if row["what"] == what), key=lambda row: int(row["id"]))


def healings(facility: Facility) -> list[dict[str, Any]]:
    """The events of copies that were healed, with their proof."""
    broken = (CopyState.DAMAGED, CopyState.MISSING)
    return [event for event in events(facility, "copy") if event["old"] in broken and event["new"] == CopyState.WRITTEN]


def damaged_copy(facility: Facility, slug: str, service: str = "tape", number: int = 0) -> Path:
    """One byte of a copy flipped in the archive, and found by an audit."""
    path = facility.archived_path(facility.demo.fileset(slug).keys[number], service)
    flip_a_byte(path)
    audited(facility, slug)
    assert CopyState.DAMAGED in facility.copy_states(slug).values()
    return path


def kept_aside(facility: Facility, service: str = "tape") -> list[Path]:
    return [path for path in (facility.demo.directory / service / "damaged").rglob("*") if path.is_file()]


def offline_tape(facility: Facility, *, reports: bool) -> OfflineService:
    """The service `tape` with all its bytes offline from now on."""
    settings = DirectorySettings(path=facility.demo.directory / "tape")
    tape = OfflineService(TAPE, settings, facility.clock, reports=reports)
    facility.site.services = {**facility.site.services, TAPE: tape}
    return tape


# ---- what an audit says


def test_a_good_copy_was_compared_now_and_a_bundle_gets_one_event(facility: Facility) -> None:
    facility.archive("ics", "plate")
    before = {row["id"]: row["checked_at"] for row in facility.copies("plate")}
    facility.clock.advance(days=1)
    found = audited(facility)
    assert set(verdicts(found)) == {Verdict.GOOD}
    for row in facility.copies("plate"):
        assert row["checked_at"] - before[row["id"]] >= timedelta(days=1)
        assert (row["state"], row["checked_how"]) == (CopyState.DURABLE, READ_BACK)
    told = events(facility, "audit")
    assert len(told) == 2, "one for each bundle, however many files it has"
    number = len(facility.copies("plate"))
    size_bytes = facility.record("plate").size_bytes
    assert {"service": "tape", "good": number, "size_bytes": size_bytes} in [event["detail"] for event in told]


def test_other_bytes_make_a_copy_damaged_with_the_evidence_in_an_event(facility: Facility) -> None:
    facility.archive("ics")
    key = facility.demo.fileset("ics").keys[0]
    original = sha256_of(facility.archived_path(key))
    flip_a_byte(facility.archived_path(key))
    found = audited(facility, "ics")
    assert verdicts(found) == {Verdict.DAMAGED: 1, Verdict.GOOD: len(found) - 1}
    states = facility.copy_states("ics")
    assert states.pop((key, "tape")) is CopyState.DAMAGED
    assert set(states.values()) == {CopyState.DURABLE}
    (event,) = [event for event in events(facility, "copy") if event["new"] == CopyState.DAMAGED]
    assert (event["service"], event["old"]) == ("tape", CopyState.DURABLE)
    assert event["detail"]["how"] == READ_BACK
    assert event["detail"]["expected"]["sha256"] == original
    assert event["detail"]["found"]["xxh3"] != event["detail"]["expected"]["xxh3"]
    (error,) = facility.errors("ics")
    assert "was read back as" in error


def test_a_copy_of_another_length_is_damaged(facility: Facility) -> None:
    facility.archive("ics")
    path = facility.archived_path(facility.demo.fileset("ics").keys[0])
    path.write_bytes(path.read_bytes()[:-1])
    assert verdicts(audited(facility, "ics"))[Verdict.DAMAGED] == 1


def test_a_copy_that_is_not_there_is_missing(facility: Facility) -> None:
    facility.archive("ics")
    key = facility.demo.fileset("ics").keys[0]
    facility.archived_path(key).unlink()
    assert verdicts(audited(facility, "ics"))[Verdict.MISSING] == 1
    assert facility.copy_states("ics")[key, "tape"] is CopyState.MISSING


def test_an_archive_that_is_not_mounted_has_no_missing_copies(facility: Facility) -> None:
    facility.archive("ics")
    assert set(verdicts(audited(facility, "ics"))) == {Verdict.GOOD}  # its directory was open once
    before = {row["id"]: row["checked_at"] for row in facility.copies("ics")}
    tape = facility.demo.directory / "tape"
    tape.rename(facility.demo.directory / "elsewhere")
    tape.mkdir()
    found = audited(facility, "ics")
    assert set(verdicts(found)) == {Verdict.UNREAD}
    assert all(isinstance(finding.error, ServiceUnavailable) for finding in found)
    for row in facility.copies("ics"):
        assert (row["state"], row["checked_at"]) == (CopyState.DURABLE, before[row["id"]])
        assert "the archive is not mounted" in row["last_error"]
        assert row["retry_at"] is not None
    tape.rmdir()
    (facility.demo.directory / "elsewhere").rename(tape)
    assert set(verdicts(audited(facility, "ics"))) == {Verdict.GOOD}
    assert facility.errors("ics") == []


def test_a_read_that_breaks_off_says_nothing_of_the_copy(facility: Facility) -> None:
    facility.archive("ics")
    tape = offline_tape(facility, reports=False)
    keys = [Key(key) for key in facility.demo.fileset("ics").keys]
    tape.online = set(keys)
    tape.broken = {keys[0]}
    assert verdicts(audited(facility, "ics")) == {Verdict.UNREAD: 1, Verdict.GOOD: len(keys) - 1}
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    (error,) = facility.errors("ics")
    assert "Input/output error" in error


@pytest.mark.parametrize("reports", [True, False])
def test_offline_bytes_are_never_opened_the_service_is_asked_for_its_digest(facility: Facility, reports: bool) -> None:
    facility.archive("ics")
    tape = offline_tape(facility, reports=reports)
    facility.clock.advance(days=1)
    before = {row["id"]: row["checked_at"] for row in facility.copies("ics")}
    found = audited(facility, "ics")
    assert tape.opened == []
    assert tape.staged == [], "a whole archive must not be recalled"
    assert set(verdicts(found)) == {Verdict.VOUCHED if reports else Verdict.CANNOT_TELL}
    for row in facility.copies("ics"):
        assert row["state"] == CopyState.DURABLE
        assert (row["checked_at"] > before[row["id"]]) is reports
        assert row["checked_how"] == (FIXITY_OF_SERVICE if reports else READ_BACK)


def test_offline_bytes_with_another_digest_are_damaged_without_a_recall(facility: Facility) -> None:
    facility.archive("ics")
    tape = offline_tape(facility, reports=True)
    key = Key(facility.demo.fileset("ics").keys[0])
    tape.rotten = {key}
    assert verdicts(audited(facility, "ics"))[Verdict.DAMAGED] == 1
    assert facility.copy_states("ics")[key, "tape"] is CopyState.DAMAGED
    assert tape.opened == []


def test_a_wish_to_stage_asks_for_what_is_offline_and_reads_it_the_next_time(facility: Facility) -> None:
    facility.archive("ics")
    tape = offline_tape(facility, reports=False)
    for piece in slices(facility, "ics"):
        audit(facility.site, piece, pace=UNHURRIED, stage=True)
    assert set(tape.staged) == set(facility.demo.fileset("ics").keys)
    tape.online = set(tape.staged)
    assert set(verdicts(audited(facility, "ics"))) == {Verdict.GOOD}


# ---- which copies, in which order


def test_the_least_recently_compared_come_first_and_a_second_run_goes_on(facility: Facility) -> None:
    facility.archive("plate", "ics")
    (whole,) = slices(facility)
    number = len(whole.ids)
    facility.clock.advance(days=1)
    first = {finding.copy.id for finding in audited(facility, limit=number // 2)}
    facility.clock.advance(days=1)
    second = {finding.copy.id for finding in audited(facility, limit=number - number // 2)}
    assert first | second == set(whole.ids)
    assert first & second == set()


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another(facility: Facility) -> None:
    facility.archive("plate", "ics", "dicom")
    (whole,) = slices(facility)

    def drawn(seed: int) -> set[int]:
        (piece,) = slices(facility, part=0.3, seed=seed)
        return set(piece.ids)

    assert drawn(1) == drawn(1)
    assert any(drawn(seed) != drawn(1) for seed in range(2, 12))
    assert len(drawn(1)) == -(-len(whole.ids) * 3 // 10)
    assert len(slices(facility, part=0.0001, seed=1)[0].ids) == 1, "a sample is never empty"


def test_slices_are_bounded_and_hold_copies_of_one_service(make_facility: MakeFacility) -> None:
    facility = make_facility(**BOTH)
    facility.archive("plate", "ics")
    largest = 20_000
    pieces = slices(facility, size_bytes=largest)
    assert {piece.service for piece in pieces} == {"tape", "disk2"}
    assert all(piece.size_bytes <= largest or len(piece.ids) == 1 for piece in pieces)
    by_id = {row["id"]: row["service"] for slug in ("plate", "ics") for row in facility.copies(slug)}
    assert {number: piece.service for piece in pieces for number in piece.ids} == by_id


# ---- on schedule


def test_run_audits_what_is_due_after_everything_else(make_facility: MakeFacility) -> None:
    facility = make_facility(work='poll = "1s"\nslice_files = 2\n[audit]\ninterval = "30d"\n')
    facility.archive("plate")
    assert [job.step for job in Engine(facility.site).plan()] == []
    facility.clock.advance(days=31)
    facility.add("ics")
    plan = [job.step for job in Engine(facility.site).plan()]
    assert plan[-1] == "audit"
    assert plan.count("audit") == 1, "one slice of a service in a plan, so that nothing waits for it long"
    flip_a_byte(facility.archived_path(facility.demo.fileset("plate").keys[1]))
    result = facility.work()
    number = len(facility.copies("plate"))
    assert (result.damaged, result.failed) == (1, 1)
    assert Counter(facility.copy_states("plate").values()) == {CopyState.DURABLE: number - 1, CopyState.DAMAGED: 1}
    assert Engine(facility.site).plan() == []


def test_an_interval_of_zero_means_only_when_asked(make_facility: MakeFacility) -> None:
    facility = make_facility(work='poll = "1s"\n[audit]\ninterval = "0d"\n')
    facility.archive("ics")
    facility.clock.advance(days=10_000)
    assert Engine(facility.site).plan() == []


@pytest.mark.parametrize("fault", ["unmounted", "cannot tell"])
def test_a_scheduled_audit_that_can_know_nothing_ends_and_comes_again_later(
    make_facility: MakeFacility, fault: str
) -> None:
    facility = make_facility(work='poll = "1s"\n[audit]\ninterval = "30d"\n')
    facility.archive("ics")
    facility.clock.advance(days=31)
    if fault == "unmounted":
        facility.demo.service_path.rename(facility.demo.directory / "elsewhere")
        facility.demo.service_path.mkdir()
    else:
        offline_tape(facility, reports=False)
    assert facility.work().damaged == 0
    assert Engine(facility.site).plan() == [], "not again at once"
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    facility.clock.advance(days=2)
    assert [job.step for job in Engine(facility.site).plan()] == ["audit"]


def test_two_scheduled_audits_do_not_read_the_same_copies(make_facility: MakeFacility) -> None:
    facility = make_facility(work='poll = "1s"\n[audit]\ninterval = "30d"\n')
    facility.archive("ics")
    facility.clock.advance(days=31)
    with facility.site.catalogue.lock_audit(TAPE):
        assert (facility.work().done, facility.work().failed) == (0, 0)
    assert facility.work().done == len(facility.copies("ics"))


def test_a_rate_is_kept_for_each_service_and_unused_time_is_not_saved_up() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(rate=1000, clock=lambda: now[0], sleep=sleep)
    pace.spent(TAPE, 2000, since=100.0)
    assert slept == [2.0]
    now[0] += 3600
    pace.spent(DISK2, 500, since=now[0])
    pace.spent(TAPE, 500, since=now[0] - 0.25)
    assert [round(seconds, 3) for seconds in slept] == [2.0, 0.5, 0.25], "each service has a rate of its own"
    Pace(rate=None, clock=lambda: now[0], sleep=sleep).spent(TAPE, 10**12, since=0.0)
    assert len(slept) == 3


# ---- manifests


def manifest_verdicts(facility: Facility, slug: str, *, heal: bool = False) -> dict[str, ManifestVerdict]:
    found = audit_manifests(facility.site, TAPE, [facility.record(slug).id], heal=heal)
    return {Path(one.key).name: one.verdict for one in found}


def test_a_missing_manifest_is_written_anew_and_a_damaged_one_is_not_touched_unasked(facility: Facility) -> None:
    facility.archive("ics")
    directory = facility.demo.service_path / "manifests" / facility.name("ics")
    manifest, description = directory / "manifest-sha256.txt", directory / "omero.json"
    before = manifest.read_bytes()
    assert set(manifest_verdicts(facility, "ics").values()) == {ManifestVerdict.GOOD}
    manifest.unlink()
    assert manifest_verdicts(facility, "ics")[manifest.name] is ManifestVerdict.WRITTEN_ANEW
    assert manifest.read_bytes() == before
    flip_a_byte(manifest, at=3)
    damaged = manifest.read_bytes()
    assert manifest_verdicts(facility, "ics")[manifest.name] is ManifestVerdict.DAMAGED
    assert manifest.read_bytes() == damaged
    assert manifest_verdicts(facility, "ics", heal=True)[manifest.name] is ManifestVerdict.HEALED
    assert manifest.read_bytes() == before
    (aside,) = kept_aside(facility)
    assert aside.read_bytes() == damaged
    assert manifest_verdicts(facility, "ics", heal=True)[description.name] is ManifestVerdict.GOOD


def test_a_description_that_is_older_but_says_the_same_digests_is_good(facility: Facility) -> None:
    facility.archive("ics")
    description = facility.demo.service_path / "manifests" / facility.name("ics") / "omero.json"
    text = description.read_text()
    description.write_text(text.replace('"owner": "', '"owner": "former-'))
    assert manifest_verdicts(facility, "ics")[description.name] is ManifestVerdict.GOOD
    sha256 = next(iter(facility.evidence("ics"))).sha256
    assert sha256 is not None
    description.write_text(text.replace(sha256, sha256[::-1]))
    assert manifest_verdicts(facility, "ics")[description.name] is ManifestVerdict.DAMAGED
    description.write_text("not JSON")
    assert manifest_verdicts(facility, "ics")[description.name] is ManifestVerdict.DAMAGED


# ---- heal: each source


def to_resident(facility: Facility) -> None:
    facility.archive("ics")


def to_online(facility: Facility) -> None:
    facility.released("ics")


def to_offline(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")


@pytest.mark.parametrize(
    ("bring", "source"), [(to_resident, "original"), (to_online, "near bytes"), (to_offline, "disk2")]
)
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_copy_is_healed_from_the_nearest_proven_source(
    make_facility: MakeFacility, bring: Callable[[Facility], None], source: str, is_gone: bool
) -> None:
    facility = make_facility(**BOTH)
    bring(facility)
    key = facility.demo.fileset("ics").keys[0]
    path = facility.archived_path(key)
    good = path.read_bytes()
    flip_a_byte(path)
    damaged = path.read_bytes()
    if is_gone:
        path.unlink()
    audited(facility, "ics")
    (one,) = healed(facility, "ics")
    assert one.error is None, one.text
    assert f"written anew from {source}" in one.text
    assert path.read_bytes() == good
    (event,) = healings(facility)
    assert event["detail"]["source"] == source
    assert event["detail"]["sha256"] == sha256_of(path)
    assert (event["old"], event["new"]) == (CopyState.MISSING if is_gone else CopyState.DAMAGED, CopyState.WRITTEN)
    if is_gone:
        assert kept_aside(facility) == []
    else:
        (aside,) = kept_aside(facility)
        assert aside.read_bytes() == damaged
        assert str(aside.relative_to(facility.demo.service_path)) == event["detail"]["damaged_bytes"]
    assert facility.copy_states("ics")[key, "tape"] is CopyState.WRITTEN
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert facility.errors("ics") == []
    ran = subprocess.run(
        ["sha256sum", "--check", "--quiet", f"manifests/{facility.name('ics')}/manifest-sha256.txt"],
        cwd=facility.demo.service_path,
        check=False,
    )
    assert ran.returncode == 0


def test_healed_evidence_begins_anew(facility: Facility) -> None:
    facility.archive("ics")
    damaged_copy(facility, "ics")
    healed(facility, "ics")
    (row,) = [row for row in facility.copies("ics") if row["state"] == CopyState.WRITTEN]
    columns = ("sha256", "verified_at", "confirmed_at", "asked_at", "word", "checked_at", "checked_how", "last_error")
    assert {row[name] for name in columns} == {None}


def test_a_copy_that_is_whole_when_it_is_read_again_is_only_verified_anew(facility: Facility) -> None:
    facility.archive("ics")
    path = damaged_copy(facility, "ics")
    flip_a_byte(path)  # back
    inode = path.stat().st_ino
    (one,) = healed(facility, "ics")
    assert "has the bytes of the original" in one.text
    assert path.stat().st_ino == inode
    assert kept_aside(facility) == []
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}


def test_a_second_damage_of_the_same_file_is_kept_beside_the_first(facility: Facility) -> None:
    facility.archive("ics")
    kept = []
    for at in (0, 1):
        path = facility.archived_path(facility.demo.fileset("ics").keys[0])
        flip_a_byte(path, at=at)
        kept.append(path.read_bytes())
        audited(facility, "ics")
        heal_or_raise(facility, "ics")
        facility.work()
    assert sorted(path.read_bytes() for path in kept_aside(facility)) == sorted(kept)


# ---- heal: what it refuses


def require_refused(facility: Facility, error: type[Exception], *texts: str) -> None:
    """Healing `ics` fails so, and nothing in the archive or on OMERO's disk is other than before."""
    roots = (facility.demo.data_dir, facility.demo.directory / "tape")
    before, states = disk_below(*roots), facility.copy_states("ics")
    (one,) = healed(facility, "ics")
    assert isinstance(one.error, error), one.text
    for text in texts:
        assert text in one.text
    assert disk_below(*roots) == before
    assert facility.copy_states("ics") == states
    assert one.text in facility.errors("ics")


def test_without_a_proven_source_nothing_is_touched_and_all_that_was_tried_is_named(
    make_facility: MakeFacility,
) -> None:
    facility = make_facility(**BOTH)
    to_offline(facility)
    key = facility.demo.fileset("ics").keys[0]
    flip_a_byte(facility.archived_path(key))
    audited(facility, "ics")
    flip_a_byte(facility.archived_path(key, "disk2"), at=1)  # not known yet
    require_refused(
        facility,
        NoProvenSource,
        "no source with SHA-256",
        "original: ",
        "near bytes: the bundle is OFFLINE",
        "; disk2: ",
        "backup",
    )
    assert NoProvenSource.exit_code == 5


def test_the_only_copy_of_an_offline_bundle_is_kept_as_it_is(facility: Facility) -> None:
    to_offline(facility)
    path = damaged_copy(facility, "ics")
    require_refused(facility, NoProvenSource, "there is no other copy", "is kept")
    assert path.exists()


def test_an_original_with_other_bytes_is_no_source(facility: Facility) -> None:
    facility.archive("ics")
    damaged_copy(facility, "ics")
    flip_a_byte(facility.paths("ics")[0])
    require_refused(facility, NoProvenSource, "original: original: ", "the original had")


def test_damaged_bytes_that_cannot_be_read_are_not_deleted(facility: Facility) -> None:
    facility.archive("ics")
    damaged_copy(facility, "ics")
    tape = offline_tape(facility, reports=False)
    key = Key(facility.demo.fileset("ics").keys[0])
    require_refused(facility, ObjectOffline, "being staged")
    assert tape.staged == [key]
    tape.online, tape.broken = {key}, {key}
    require_refused(facility, ServiceUnavailable, "nothing was deleted", "Move it away by hand")


def test_an_archive_that_is_not_mounted_is_not_healed(facility: Facility) -> None:
    facility.archive("ics")
    damaged_copy(facility, "ics")
    (facility.demo.service_path / ".omero-archive" / "service").rename(facility.demo.directory / "marker")
    require_refused(facility, ServiceUnavailable, "not mounted")


def test_a_bundle_on_hold_is_not_healed(facility: Facility) -> None:
    facility.archive("ics")
    damaged_copy(facility, "ics")
    with facility.site.catalogue.begin() as connection:
        bundles.hold(connection, facility.record("ics"), "inspection")
    before = catalogue_rows(facility.site.catalogue.dsn)
    with pytest.raises(WrongState, match="on hold"):
        healed(facility, "ics")
    assert catalogue_rows(facility.site.catalogue.dsn) == before


# ---- heal: killed anywhere


def test_heal_may_be_stopped_before_any_of_its_changes(make_facility: MakeFacility) -> None:
    facility = make_facility(**BOTH)
    to_offline(facility)
    assert facility.residency("ics") is Residency.OFFLINE
    key = facility.demo.fileset("ics").keys[0]
    (number_of_copy,) = [row["id"] for row in facility.copies("ics") if (row["key"], row["service"]) == (key, TAPE)]
    path = facility.archived_path(key)
    good = path.read_bytes()
    stops = 0
    for number in range(1, MOST_CHANGES):
        flip_a_byte(path, at=number)
        damaged = path.read_bytes()
        audited(facility, "ics")
        try:
            with stopped_before(number):
                heal_or_raise(facility, "ics")
        except Stopped:
            stops += 1
            evidence = [path, *kept_aside(facility)]
            assert any(one.exists() and one.read_bytes() == damaged for one in evidence), "the last evidence is kept"
            heal_or_raise(facility, "ics")
        assert path.read_bytes() == good
        told = healings(facility)[-1]
        assert (facility.demo.service_path / told["detail"]["damaged_bytes"]).read_bytes() == damaged
        assert facility.copy_states("ics")[key, TAPE] is CopyState.WRITTEN
        with facility.claimed("verify") as claim:
            assert [copy.id for copy in claim.copies] == [number_of_copy]
            verify(facility.site, claim)
        if stops < number:
            break
        shutil.rmtree(facility.demo.service_path / "damaged")  # else each round has one more to compare with
    else:
        pytest.fail("heal never came to its end")
    assert stops > 8
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert facility.archived_path(key, "disk2").read_bytes() == good
