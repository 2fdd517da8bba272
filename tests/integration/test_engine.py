"""The engine: what is due, in slices, by one process or by two at once, also after one was killed."""

import signal

import pytest

from omero_archive.catalogue.recalls import ask
from omero_archive.engine import Engine
from omero_archive.planning import SLICES_AHEAD
from omero_archive.states import CopyState, Residency
from site_fixtures import CommandSite, Facility, MakeFacility, catalogue_rows, rows_of

SETS = ("ome-tiff", "plate", "ics", "dicom", "omero4")


def test_nothing_is_due_where_nothing_was_added(facility: Facility) -> None:
    assert Engine(facility.site).plan() == []
    assert (Engine(facility.site).run().done, Engine(facility.site).run().failed) == (0, 0)


def test_work_is_cut_into_slices_by_files_and_by_bytes(make_facility: MakeFacility) -> None:
    facility = make_facility(work='poll = "1s"\nslice_files = 2\n')
    facility.add("plate", "ics")
    files = len(facility.copies("plate") + facility.copies("ics"))
    plan = Engine(facility.site).plan()
    assert [(job.step, job.number) for job in plan] == [("copy", n) for n in range(1, -(-files // 2) + 1)]
    Engine(facility.site).run(steps=("copy",))
    attempts = rows_of(facility.site.catalogue.dsn, only=["attempt"])["attempt"]
    assert sorted(row["files"] for row in attempts) == sorted([2] * (files // 2) + [1] * (files % 2))
    assert {row["outcome"] for row in attempts} == {"done"}
    facility = make_facility(facility.clock, work='poll = "1s"\nslice_size = "1 B"\n')
    facility.work()
    assert set(facility.copy_states("plate").values()) == {CopyState.DURABLE}
    sizes = {row["files"] for row in rows_of(facility.site.catalogue.dsn, only=["attempt"])["attempt"]}
    assert 1 in sizes


def test_no_more_slices_are_planned_than_so_many_ahead(make_facility: MakeFacility) -> None:
    facility = make_facility(work='poll = "1s"\nslice_files = 1\n')
    facility.add("plate", "ics", "pyramid", "dicom", "ome-tiff")
    copies = sum(len(facility.copies(slug)) for slug in ("plate", "ics", "pyramid", "dicom", "ome-tiff"))
    assert copies > SLICES_AHEAD
    assert len(Engine(facility.site).plan()) == SLICES_AHEAD
    facility.work()
    assert set(facility.copy_states("plate").values()) == {CopyState.DURABLE}


def test_a_plan_changes_nothing(facility: Facility) -> None:
    facility.add(*SETS)
    before = rows_of(facility.site.catalogue.dsn)
    assert Engine(facility.site).plan()
    assert rows_of(facility.site.catalogue.dsn) == before


def test_the_queue_is_empty_when_all_is_done(facility: Facility) -> None:
    facility.archive(*SETS)
    queue = rows_of(facility.site.catalogue.dsn, only=["procrastinate_jobs"])
    assert queue["procrastinate_jobs"] == []


def test_a_worker_may_be_given_some_of_the_steps(facility: Facility) -> None:
    facility.add("ics")
    engine = Engine(facility.site)
    for steps, state in (
        (("verify", "confirm"), CopyState.PENDING),
        (("copy",), CopyState.WRITTEN),
        (("verify",), CopyState.WRITTEN),  # not before the manifest
        (("manifest", "verify"), CopyState.VERIFIED),
        (("confirm",), CopyState.DURABLE),
    ):
        engine.run(steps=steps)
        assert set(facility.copy_states("ics").values()) == {state}, steps


def test_a_recall_that_fails_is_tried_again_later_and_others_go_on(facility: Facility) -> None:
    facility.released("ics", "dicom")
    facility.evict("ics", "dicom")
    with facility.site.catalogue.begin() as connection:
        for slug in ("ics", "dicom"):
            ask(connection, facility.record(slug).id, "tester", None)
    away = facility.demo.directory / "away"
    lost = facility.archived_path(facility.demo.fileset("ics").keys[0])
    lost.parent.rename(away)
    result = facility.work()
    assert (result.done, result.failed) == (1, 1)
    assert facility.residency("dicom") is Residency.ONLINE
    record = facility.record("ics")
    assert record.last_error
    assert record.attempts == 1
    assert not any(path.exists() for path in facility.paths("ics"))


def test_a_fault_of_ours_is_written_down_and_does_not_stop_the_others(facility: Facility) -> None:
    facility.add("ics", "dicom")
    key = facility.demo.fileset("ics").keys[0]

    def fault(step: str, files: int, size_bytes: int) -> None:
        if step == "verify":
            raise ZeroDivisionError("a fault")

    facility.site.progress = fault
    assert facility.work().failed > 0
    (row,) = [row for row in facility.copies("ics") if row["key"] == key]
    assert "a fault in omero-archive" in row["last_error"]
    assert "a person must look" in row["last_error"]
    assert row["needs_attention"]


@pytest.mark.parametrize("are_killed", [False, True])
def test_two_runs_at_once_do_everything_once(command_site: CommandSite, are_killed: bool) -> None:
    command_site.set_up(work='poll = "1s"\nslice_files = 3\n')
    command_site.run("add", *command_site.references, exits=None)
    runs = [command_site.start("run") for _ in range(2)]
    if are_killed:
        for run in runs:
            run.send_signal(signal.SIGKILL)
            run.communicate()
        runs = [command_site.start("run") for _ in range(2)]
    ended = [(*run.communicate(timeout=120), run.returncode) for run in runs]
    healthy = {fileset.slug for fileset in command_site.good}
    rows = catalogue_rows(command_site.demo.catalogue_dsn)
    states = {row["state"] for row in rows["copy"]}
    assert states == {"DURABLE"}, ended
    assert len(rows["copy"]) == sum(len(command_site.demo.fileset(slug).keys) for slug in healthy)
    moves = [(row["file_id"], row["old"], row["new"]) for row in rows["event"] if row["what"] == "copy"]
    assert len(moves) == len(set(moves)) == 3 * len(rows["copy"])
    assert [code for *_, code in ended] == [0, 0], ended
    incoming = command_site.demo.service_path / ".omero-archive" / "incoming"
    assert not [path for path in incoming.rglob("*") if path.is_file()]
