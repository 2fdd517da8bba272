"""The queue of recalls: whose turn it is, services asked once for many bundles, storms, and giving up."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
import sqlalchemy as sa

from interruptions import Stopped, stopped_before
from many_bundles import away, stored
from omero_archive.catalogue import bundles, recalls, turns
from omero_archive.catalogue import queue as status
from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.recalls import BATCH, OPENED, WAITED_FOR
from omero_archive.catalogue.tables import bundle, recall
from omero_archive.engine import Engine
from omero_archive.errors import DatabaseUnavailable, ObjectMissing, ObjectOffline, RecallCancelled, ServiceUnavailable
from omero_archive.model import BundleName, Key, ServiceName
from omero_archive.service import ObjectStatus
from omero_archive.settings import RecallSettings
from omero_archive.states import Residency
from omero_archive.steps import recall as recall_step
from omero_archive.steps.cancel import Cancelled, cancel
from omero_archive.steps.stage_ahead import stage_ahead
from omero_archive.testing.memory_service import MemoryService
from site_fixtures import Facility, MakeFacility, MovableClock, catalogue_rows

TAPE = ServiceName("tape")
STAGING = timedelta(hours=3)
CONTENT = b"a small image"


# ---- turns, in a catalogue alone


@dataclass(slots=True, kw_only=True)
class Queue:
    """A catalogue with bundles that are away, and a clock."""

    catalogue: Catalogue
    clock: MovableClock
    numbers: list[int] = field(default_factory=list)

    def ask(self, *numbers: int, priority: int = BATCH) -> None:
        with self.catalogue.begin() as connection:
            for number in numbers:
                recalls.ask(connection, self.numbers[number], "tester", None, priority=priority)

    def begin(self, at_once: int = 100, opens_per_hour: int = 1000) -> int:
        with self.catalogue.begin() as connection:
            return turns.begin(connection, RecallSettings(at_once=at_once, opens_per_hour=opens_per_hour))

    def finish(self, *numbers: int) -> None:
        with self.catalogue.begin() as connection:
            for number in numbers:
                mine = bundle.c.id == self.numbers[number]
                connection.execute(bundle.update().where(mine).values(residency=Residency.ONLINE))
                assert recalls.finish(connection, self.numbers[number], "done")

    @property
    def due(self) -> list[int]:
        """Whose turn it is, in the order in which they are gone on with."""
        with self.catalogue.begin() as connection:
            return [self.numbers.index(each.bundle_id) for each in turns.due(connection)]


@pytest.fixture
def queue(empty_dsn: str) -> Iterator[Queue]:
    clock = MovableClock()
    catalogue = Catalogue(empty_dsn, clock=clock, actor="tester")
    catalogue.migrate()
    yield Queue(catalogue=catalogue, clock=clock, numbers=away(catalogue, 1000))
    catalogue.close()


def test_at_most_so_many_are_under_way_and_the_next_begins_when_one_ends(queue: Queue) -> None:
    queue.ask(0, 1, 2, 3)
    assert queue.begin(at_once=2) == 2
    assert queue.due == [0, 1]
    assert queue.begin(at_once=2) == 0
    queue.finish(0)
    assert queue.begin(at_once=2) == 1
    assert queue.due == [1, 2]


def test_who_is_waited_for_goes_first_also_when_it_was_asked_for_long_before(queue: Queue) -> None:
    queue.ask(0, 1, 2)
    queue.ask(3, priority=OPENED)
    queue.ask(2, priority=WAITED_FOR)
    queue.begin(at_once=3)
    assert queue.due == [2, 3, 0]
    queue.ask(0, priority=WAITED_FOR)
    assert queue.due == [0, 2, 3], "who asked first"


def test_opens_begin_so_many_recalls_an_hour_and_commands_are_not_held_back(queue: Queue) -> None:
    queue.ask(*range(5), priority=OPENED)
    assert queue.begin(opens_per_hour=2) == 2
    queue.finish(0, 1)
    queue.ask(7, 8)
    assert queue.begin(opens_per_hour=2) == 2
    assert queue.due == [7, 8]
    queue.clock.advance(minutes=59)
    assert queue.begin(opens_per_hour=2) == 0
    queue.clock.advance(minutes=2)
    assert queue.begin(opens_per_hour=2) == 2
    assert queue.due == [2, 3, 7, 8]


def test_a_recall_that_a_person_must_look_at_holds_no_turn(queue: Queue) -> None:
    queue.ask(0, 1)
    assert queue.begin(at_once=1) == 1
    with queue.catalogue.begin() as connection:
        bundles.failed(connection, queue.numbers[0], "x", None, needs_attention=True)
        turns.give_back(connection, queue.numbers[0])
    assert queue.begin(at_once=1) == 1
    assert queue.due == [1]
    with queue.catalogue.begin() as connection:
        bundles.try_again(connection)
    assert queue.begin(at_once=1) == 0, "its turn is another's now"
    queue.finish(1)
    assert queue.begin(at_once=1) == 1
    assert queue.due == [0]


def test_two_processes_never_give_more_turns_than_there_are(queue: Queue) -> None:
    queue.ask(*range(10))
    other = Catalogue(f"{queue.catalogue.dsn} options='-c lock_timeout=200ms'", clock=queue.clock, actor="other")
    limits = RecallSettings(at_once=4)
    with queue.catalogue.begin() as first:
        assert turns.begin(first, limits) == 4
        with pytest.raises(DatabaseUnavailable, match="lock timeout"), other.begin() as second:
            turns.begin(second, limits)
    with other.begin() as second:
        assert turns.begin(second, limits) == 0
    other.close()


def test_a_storm_of_opens_stays_within_the_rate_and_is_seen(queue: Queue) -> None:
    with queue.catalogue.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO recall (bundle_id, requested_by, requested_at, priority)"
                " SELECT id, 'mount', :now, :priority FROM bundle"
            ),
            {"now": queue.clock(), "priority": WAITED_FOR},
        )
    longest, begun_in = 0.0, Counter[int]()
    done: set[int] = set()
    for minute in range(0, 12 * 60, 6):
        begun = time.monotonic()
        begun_in[minute // 60] += queue.begin(at_once=10, opens_per_hour=100)
        due = queue.due
        longest = max(longest, time.monotonic() - begun)
        assert len(due) <= 10
        with queue.catalogue.begin() as connection:
            seen = status.queue(connection, RecallSettings(at_once=10, opens_per_hour=100))
            assert (seen.under_way, seen.under_way + seen.waiting) == (len(due), 1000 - len(done))
            ended = recall.c.bundle_id.in_([queue.numbers[number] for number in due])
            connection.execute(recall.update().where(ended).values(finished_at=queue.clock(), outcome="done"))
        done.update(due)
        queue.clock.advance(minutes=6)
    assert len(done) == 1000
    assert max(begun_in.values()) <= 100
    assert longest < 2, "a plan takes milliseconds, also on a machine that does other things"


# ---- many bundles on one service


class Tape(MemoryService):
    """A tape library that counts what it is asked."""

    def __init__(self, clock: MovableClock) -> None:
        super().__init__(clock=clock, staging=STAGING)
        self.asked: list[int] = []
        self.staged: list[list[Key]] = []
        self.is_broken = False

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = list(keys)
        self.asked.append(len(wanted))
        return super().status(wanted)

    def stage(self, keys: Iterable[Key]) -> None:
        wanted = list(keys)
        self.staged.append(wanted)
        if self.is_broken:
            raise ServiceUnavailable("the library is closed; nothing was asked for.")
        super().stage(wanted)


class Library:
    """A facility with many small bundles on a tape, all away."""

    def __init__(self, facility: Facility, count: int) -> None:
        self.facility, self.site = facility, facility.site
        self.tape = Tape(facility.clock)
        self.site.services = {TAPE: self.tape}
        self.numbers = away(self.site.catalogue, count, content=CONTENT, services=[TAPE])
        self.keys = stored(self.site, self.tape, self.numbers, CONTENT)

    def ask(self, *, priority: int = BATCH, only: int | None = None) -> None:
        with self.site.catalogue.begin() as connection:
            for number in self.numbers[:only]:
                recalls.ask(connection, number, "tester", None, priority=priority)

    def residencies(self) -> Counter[str]:
        with self.site.catalogue.begin() as connection:
            return Counter(bundles.by_id(connection, number).residency for number in self.numbers)

    def name(self, position: int) -> BundleName:
        with self.site.catalogue.begin() as connection:
            return bundles.by_id(connection, self.numbers[position]).name

    def near(self, position: int) -> bytes | None:
        path = self.facility.demo.archive_root / self.keys[position]
        return path.read_bytes() if path.exists() else None

    def rows(self) -> list[dict[str, object]]:
        return catalogue_rows(self.site.catalogue.dsn)["recall"]


@pytest.fixture
def library(facility: Facility) -> Library:
    return Library(facility, 12)


def test_a_service_is_asked_once_for_many_bundles_in_the_order_of_their_keys(facility: Facility) -> None:
    library = Library(facility, 50)
    library.ask()
    result = Engine(library.site).run()
    assert (result.done, result.failed, result.waiting) == (0, 0, 50)
    assert library.residencies() == {Residency.RECALLING: 50}
    assert library.tape.asked == [50]
    assert library.tape.staged == [sorted(library.keys)]
    assert {row["service"] for row in library.rows()} == {TAPE}
    library.facility.clock.advance(hours=1)
    result = Engine(library.site).run()
    assert (result.done, result.failed, result.waiting) == (0, 0, 50)
    assert library.tape.asked == [50, 50], "they are looked at together again"
    assert len(library.tape.staged) == 1
    library.facility.clock.advance(hours=3)
    result = Engine(library.site).run()
    assert (result.done, result.failed, result.waiting) == (50, 0, 0)
    assert library.residencies() == {Residency.ONLINE: 50}
    assert all(library.near(position) == CONTENT for position in range(50))
    assert len(library.tape.staged) == 1


def test_only_those_whose_turn_it_is_are_staged(make_facility: MakeFacility) -> None:
    facility = make_facility(work='poll = "1s"\nretry_after = "1min"\n[recall]\nat_once = 4\n')
    library = Library(facility, 10)
    library.ask()
    Engine(library.site).run()
    assert [len(keys) for keys in library.tape.staged] == [4]
    assert library.residencies() == {Residency.RECALLING: 4, Residency.OFFLINE: 6}
    facility.clock.advance(hours=4)
    assert Engine(library.site).run().done == 4
    assert [len(keys) for keys in library.tape.staged] == [4, 4]


def test_what_can_be_read_is_brought_while_the_others_are_staged(library: Library) -> None:
    library.tape.stage(library.keys[:3])
    library.facility.clock.advance(hours=3)
    library.tape.staged.clear()
    library.ask()
    result = Engine(library.site).run()
    assert (result.done, result.waiting) == (3, 9)
    assert library.tape.staged == [sorted(library.keys[3:])]


def test_a_few_that_are_waited_for_do_not_wait_for_the_others(library: Library) -> None:
    library.ask()
    library.ask(priority=WAITED_FOR, only=2)
    plan = Engine(library.site).plan()
    assert [(job.step, job.queue) for job in plan] == [("stage", "recall"), ("recall", "recall"), ("recall", "recall")]
    stage, *few = plan
    assert all(job.priority > stage.priority for job in few)


def test_a_service_that_cannot_stage_now_is_a_failure_of_each_and_tried_again(library: Library) -> None:
    library.tape.is_broken = True
    library.ask(only=3)
    result = Engine(library.site).run()
    assert (result.done, result.failed, result.waiting) == (0, 3, 0)
    library.tape.is_broken = False
    library.facility.clock.advance(minutes=10)
    assert Engine(library.site).run().waiting == 3
    library.facility.clock.advance(hours=4)
    assert Engine(library.site).run().done == 3


def test_staging_ahead_may_be_stopped_before_any_of_its_changes(facility: Facility) -> None:
    library = Library(facility, 3)
    library.ask()
    number = 0
    while True:
        number += 1
        with facility.site.catalogue.begin() as connection:
            turns.begin(connection, RecallSettings())
            due = [each.bundle_id for each in turns.due(connection)]
        try:
            with stopped_before(number):
                stage_ahead(library.site, due)
        except Stopped:
            facility.clock.advance(hours=1)
            continue
        break
    assert number > 6, "it makes changes"
    assert not any(row["finished_at"] for row in library.rows())
    facility.clock.advance(hours=4)
    assert Engine(library.site).run().failed == 0
    assert library.residencies() == {Residency.ONLINE: 3}


# ---- giving up


def test_a_cancelled_recall_leaves_the_queue_and_can_be_asked_for_anew(library: Library) -> None:
    library.ask(only=4)
    Engine(library.site).run()
    for position in range(3):
        assert cancel(library.site, library.name(position)).was_open
    assert not cancel(library.site, library.name(0)).was_open
    assert library.residencies() == {Residency.OFFLINE: 11, Residency.RECALLING: 1}
    assert [row["outcome"] for row in library.rows()] == ["cancelled"] * 3 + [None]
    library.facility.clock.advance(hours=4)
    assert Engine(library.site).run().done == 1
    assert [library.near(position) for position in range(4)] == [None, None, None, CONTENT]
    library.ask(only=1)
    assert Engine(library.site).run().done == 1
    assert library.near(0) == CONTENT


def test_a_recall_that_is_cancelled_while_its_files_come_stops(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.released("plate")
    facility.evict("plate")
    name, site = facility.name("plate"), facility.site
    monkeypatch.setattr(recall_step, "GROUP_FILES", 1)
    said: list[Cancelled] = []

    def told(step: str, files: int, size_bytes: int) -> None:
        if step == "recall" and not said:
            said.append(cancel(site, name))

    site.progress = told
    with pytest.raises(RecallCancelled, match="the recall was cancelled; what had come was dropped"):
        facility.recall("plate")
    assert "stops after those at work" in said[0].text
    assert facility.residency("plate") is Residency.OFFLINE
    assert not any(path.exists() for path in facility.paths("plate"))
    assert not list((facility.demo.archive_root / ".omero-archive/incoming").iterdir())
    site.progress = lambda *_: None
    facility.recall("plate")
    assert facility.reads_as_before("plate")


def test_what_came_stays_if_the_service_does_not_vouch_for_it_now(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    tape = facility.demo.service_path
    lost = facility.archived_path(facility.demo.fileset("ics").keys[-1])
    lost.rename(lost.with_name("hidden"))
    with pytest.raises(ObjectMissing):
        facility.recall("ics")
    tape.rename(tape.with_name("unplugged"))
    text = cancel(facility.site, facility.name("ics")).text
    tape.with_name("unplugged").rename(tape)
    assert "kept for the next recall" in text
    assert facility.residency("ics") is Residency.OFFLINE
    assert list((facility.demo.archive_root / ".omero-archive/incoming").iterdir())


def test_a_cancelled_recall_may_be_stopped_before_any_of_its_changes(facility: Facility) -> None:
    library = Library(facility, 1)
    for number in range(1, 10):
        library.ask()
        with pytest.raises(ObjectOffline):
            recall_step.recall(library.site, library.name(0))
        try:
            with stopped_before(number):
                cancel(library.site, library.name(0))
        except Stopped:
            pass
        else:
            break
        cancel(library.site, library.name(0))
        assert library.residencies() == {Residency.OFFLINE: 1}
    else:
        pytest.fail("it never came to its end")
    with library.site.catalogue.begin() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(recall.c.finished_at.is_(None))) == 0
