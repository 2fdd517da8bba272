"""Workers, queues, rates and when it will be done, from the rows that workers leave in the catalogue."""

from collections.abc import Sequence
from datetime import timedelta

import psycopg
import pytest

from omero_archive.catalogue.depths import Depth
from omero_archive.catalogue.throughput import Rate, Throughput, remaining_s, throughput
from omero_archive.engine import Engine
from omero_archive.states import CopyState, Decision
from site_fixtures import Facility, MakeFacility

STALLED = timedelta(seconds=30)


def seen(facility: Facility) -> Throughput:
    site = facility.site
    with site.catalogue.begin() as connection:
        return throughput(connection, site.settings.service_names, stalled_after=STALLED)


def depth(facility: Facility, step: str, service: str = "tape") -> Depth:
    (found,) = [each.depth for each in seen(facility).queues if (each.step, each.service) == (step, service)]
    return found


def rate(facility: Facility, step: str) -> Rate:
    (found,) = [each.rate for each in seen(facility).queues if each.step == step]
    return found


def a_worker(facility: Facility, label: str = "mover1", *, beat_s: float = 0, queues: Sequence[str] = ("copy",)) -> int:
    """A worker whose last beat is so many seconds old."""
    with psycopg.connect(facility.site.catalogue.dsn) as connection:
        row = connection.execute(
            "INSERT INTO worker (host_label, host, pid, queues, streams, started_at, beat_at) VALUES"
            " (%s, 'host', 7, %s, 2, now() - interval '1 hour', now() - make_interval(secs => %s)) RETURNING id",
            (label, list(queues), beat_s),
        ).fetchone()
    assert row is not None
    return int(row[0])


def an_attempt(
    facility: Facility,
    worker: int,
    *,
    begun_s: float,
    ended_s: float | None = 0,
    files: int = 100,
    size_bytes: int = 1000,
    step: str = "copy",
    outcome: str | None = "done",
) -> None:
    """An attempt that did so much; times are seconds ago."""
    with psycopg.connect(facility.site.catalogue.dsn) as connection:
        connection.execute(
            "INSERT INTO attempt (worker_id, step, service, files, size_bytes, done_files, done_bytes, begun_at,"
            " beat_at, ended_at, outcome) VALUES (%(worker)s, %(step)s, 'tape', %(files)s * 2, %(size)s * 2, %(files)s,"
            " %(size)s, now() - make_interval(secs => %(begun)s),"
            " now() - make_interval(secs => coalesce(%(ended)s, 0)), now() - make_interval(secs => %(ended)s),"
            " %(outcome)s)",
            {
                "worker": worker,
                "step": step,
                "files": files,
                "size": size_bytes,
                "begun": begun_s,
                "ended": ended_s,
                "outcome": outcome if ended_s is not None else None,
            },
        )


# ---- queues


def test_a_queue_holds_the_files_and_the_bytes_that_wait_for_its_step(facility: Facility) -> None:
    facility.add("plate", "ics")
    both = [facility.record(slug) for slug in ("plate", "ics")]
    files, size = sum(each.file_count for each in both), sum(each.size_bytes for each in both)
    assert depth(facility, "copy") == Depth(files=files, size_bytes=size)
    assert depth(facility, "verify") == Depth()
    Engine(facility.site).run(steps=("copy",))
    assert depth(facility, "copy") == Depth()
    assert depth(facility, "verify") == Depth(files=files, size_bytes=size)
    facility.work()
    assert [each.depth for each in seen(facility).queues] == [Depth()] * 3


def test_of_a_bundle_half_of_which_is_done_the_sizes_of_its_files_are_added_up(facility: Facility) -> None:
    facility.add("plate")
    rows = facility.copies("plate")
    with psycopg.connect(facility.site.catalogue.dsn) as connection:
        connection.execute("UPDATE copy SET state = 'WRITTEN' WHERE id = %s", (rows[0]["id"],))
        query = "SELECT f.recorded_size FROM file f JOIN copy c ON c.file_id = f.id WHERE c.id = %s"
        found = connection.execute(query, (rows[0]["id"],)).fetchone()
    assert found is not None
    record = facility.record("plate")
    assert depth(facility, "verify") == Depth(files=1, size_bytes=found[0])
    assert depth(facility, "copy") == Depth(files=record.file_count - 1, size_bytes=record.size_bytes - found[0])


def test_what_nobody_approved_what_is_on_hold_and_what_a_person_must_see_does_not_wait_for_a_worker(
    facility: Facility,
) -> None:
    facility.add("plate", decision=Decision.REQUESTED)
    facility.add("ics", "dicom")
    with psycopg.connect(facility.site.catalogue.dsn) as connection:
        connection.execute("UPDATE bundle SET hold_reason = 'x' WHERE id = %s", (facility.record("ics").id,))
        connection.execute(
            "UPDATE copy SET needs_attention = true, last_error = 'x' WHERE id = %s",
            (facility.copies("dicom")[0]["id"],),
        )
        connection.execute(
            "UPDATE copy SET retry_at = now() + interval '1 hour' WHERE id = %s", (facility.copies("dicom")[1]["id"],)
        )
    found = depth(facility, "copy")
    assert (found.files, found.later_files, found.attention_files) == (len(facility.copies("dicom")) - 1, 1, 1)


def test_copies_whose_originals_were_released_do_not_wait_to_be_written(make_facility: MakeFacility) -> None:
    facility = make_facility(copies_on=("tape", "disk2"), copies='[{ any = 1, of = ["tape", "disk2"] }]')
    facility.archive("ics")
    facility.release("ics")
    facility.add("dicom")
    with psycopg.connect(facility.site.catalogue.dsn) as connection:
        connection.execute(
            "UPDATE copy SET state = 'PENDING' WHERE service = 'disk2' AND bundle_id = %s", (facility.record("ics").id,)
        )
    record = facility.record("dicom")
    assert depth(facility, "copy", "disk2") == Depth(files=record.file_count, size_bytes=record.size_bytes)


def test_each_service_has_queues_of_its_own(make_facility: MakeFacility) -> None:
    facility = make_facility(copies_on=("tape", "disk2"))
    facility.add("ics")
    assert [(each.step, each.service) for each in seen(facility).queues] == [
        (step, service) for service in ("tape", "disk2") for step in ("copy", "verify", "confirm")
    ]
    assert depth(facility, "copy", "tape") == depth(facility, "copy", "disk2") != Depth()


def test_copies_that_are_damaged_or_missing_are_counted(facility: Facility) -> None:
    facility.archive("plate")
    with psycopg.connect(facility.site.catalogue.dsn) as connection:
        for row, state in zip(facility.copies("plate"), ("DAMAGED", "MISSING", "MISSING"), strict=False):
            connection.execute("UPDATE copy SET state = %s WHERE id = %s", (state, row["id"]))
    assert seen(facility).at_fault == {("tape", CopyState.DAMAGED): 1, ("tape", CopyState.MISSING): 2}


# ---- workers


def test_a_worker_is_silent_when_its_beat_is_old_and_gone_when_it_ended(facility: Facility) -> None:
    a_worker(facility, "fresh")
    a_worker(facility, "old", beat_s=60)
    a_worker(facility, "forgotten", beat_s=2 * 86400)
    ended = a_worker(facility, "ended")
    with psycopg.connect(facility.site.catalogue.dsn) as connection:
        connection.execute("UPDATE worker SET ended_at = now(), beat_at = now() WHERE id = %s", (ended,))
    assert [(each.host_label, each.is_silent) for each in seen(facility).movers] == [("fresh", False), ("old", True)]


def test_a_worker_that_others_found_dead_is_shown_until_another_takes_its_place(facility: Facility) -> None:
    dead = a_worker(facility, "mover1", beat_s=60)
    a_worker(facility, "mover2")
    with psycopg.connect(facility.site.catalogue.dsn) as connection:
        connection.execute("UPDATE worker SET ended_at = now() WHERE id = %s", (dead,))
    a_worker(facility, "mover1", queues=("verify",))
    assert [(each.id, each.is_silent) for each in seen(facility).movers if each.is_silent] == [(dead, True)]
    a_worker(facility, "mover1")
    assert not [each for each in seen(facility).movers if each.is_silent]


def test_only_workers_that_beat_count_for_a_queue(facility: Facility) -> None:
    a_worker(facility, queues=("copy", "verify"))
    a_worker(facility, queues=("verify",))
    a_worker(facility, queues=("copy", "verify", "confirm"), beat_s=60)
    assert [(each.step, each.workers) for each in seen(facility).queues] == [("copy", 1), ("verify", 2), ("confirm", 0)]


def test_a_worker_shows_what_it_is_at(facility: Facility) -> None:
    worker = a_worker(facility)
    an_attempt(facility, worker, begun_s=10, ended_s=None, files=5, size_bytes=50)
    an_attempt(facility, worker, begun_s=10, ended_s=1)
    ((going_on,),) = [each.at_work for each in seen(facility).movers]
    told = (going_on.step, going_on.service, going_on.done_files, going_on.files, going_on.done_bytes)
    assert told == ("copy", "tape", 5, 10, 50)


# ---- rates


def test_a_rate_is_what_all_workers_did_in_the_time_since_the_first_of_them_began(facility: Facility) -> None:
    one, other = a_worker(facility), a_worker(facility)
    an_attempt(facility, one, begun_s=100, ended_s=50, files=300, size_bytes=3000)
    an_attempt(facility, other, begun_s=80, ended_s=None, files=200, size_bytes=7000)
    found = rate(facility, "copy")
    assert found.files_per_s == pytest.approx(5, rel=0.2)  # as much time passes as this test takes
    assert found.bytes_per_s == pytest.approx(100, rel=0.2)
    assert rate(facility, "verify") == Rate()


def test_of_an_attempt_that_began_before_the_window_only_its_part_counts(facility: Facility) -> None:
    worker = a_worker(facility)
    an_attempt(facility, worker, begun_s=900, ended_s=0, files=9000)
    an_attempt(facility, worker, begun_s=5000, ended_s=400, files=10**6)
    assert rate(facility, "copy").files_per_s == pytest.approx(10, rel=0.2)


def test_what_was_taken_over_does_not_count(facility: Facility) -> None:
    an_attempt(facility, a_worker(facility), begun_s=100, outcome="taken over")
    assert rate(facility, "copy") == Rate()


# ---- when it will be done


@pytest.mark.parametrize(
    ("depth", "rate", "after_s", "expected"),
    [
        (Depth(), Rate(), 7.0, 0.0),
        (Depth(files=100, size_bytes=1000), Rate(files_per_s=10, bytes_per_s=10), 0.0, 100.0),  # bytes take longer
        (Depth(files=100, size_bytes=10), Rate(files_per_s=10, bytes_per_s=10), 0.0, 10.0),  # files take longer
        (Depth(files=100), Rate(files_per_s=10), 0.0, 10.0),  # files without bytes
        (Depth(files=1, size_bytes=1), Rate(files_per_s=10, bytes_per_s=10), 60.0, 60.0),  # not before the step before
        (Depth(files=1, size_bytes=1), Rate(), 0.0, None),
        (Depth(files=1, size_bytes=1), Rate(files_per_s=1), 0.0, None),
        (Depth(files=1), Rate(files_per_s=10), None, None),
    ],
)
def test_the_time_that_remains(depth: Depth, rate: Rate, after_s: float | None, expected: float | None) -> None:
    assert remaining_s(depth, rate, after_s=after_s) == expected


def test_what_is_still_to_be_copied_is_to_be_verified_too(facility: Facility) -> None:
    facility.add("plate")
    files = facility.record("plate").file_count
    worker = a_worker(facility)
    an_attempt(facility, worker, begun_s=100, files=1000, size_bytes=10**12)
    an_attempt(facility, worker, begun_s=100, files=100, size_bytes=10**12, step="verify")
    copy, verify, confirm = seen(facility).queues
    assert copy.remaining_s == pytest.approx(files / 10, rel=0.2)
    assert verify.remaining_s == pytest.approx(files / 1, rel=0.2)
    assert confirm.remaining_s is None
