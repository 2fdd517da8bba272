"""The gate with a real catalogue and a real `near`: who gets bytes, who waits or is refused, what is asked for."""

import hashlib
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, LiteralString

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from structlog.testing import capture_logs

from demo_fixtures import copy_site
from omero_archive.access.gate import Gate, Timing
from omero_archive.access.items import Caller, Opened, Reason, Refusal
from omero_archive.access.judging import Files
from omero_archive.access.lately import Away
from omero_archive.access.tree import ArchiveTree
from omero_archive.access.waiters import Ticket
from omero_archive.catalogue import bundles, recalls
from omero_archive.catalogue.database import Catalogue
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.model import ServiceName
from omero_archive.settings import MountRule, MountSettings, OnOpen
from omero_archive.states import Residency
from site_fixtures import Facility, MovableClock, copy_catalogue, opened_facility, rows_of

QUICK = Timing(tick_s=0.02, books_s=0.05, flush_s=0.1, decided_within_s=30.0)
SETS = ("ome-tiff", "omero4", "ics", "plate")
ALICE = Caller(pid=4711, uid=1000, program="java", user="alice")
UPDATEDB = Caller(pid=4712, uid=0, program="updatedb", user="root")
FAIL = MountSettings()
WAIT = MountSettings(on_open=OnOpen.WAIT, wait=timedelta(seconds=20))


@dataclass(slots=True)
class Ends:
    """The answers that were given, in their order."""

    answers: list[Opened | Refusal] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, result: Opened | Refusal) -> None:
        with self.changed:
            self.answers.append(result)
            self.changed.notify_all()

    def wait(self, count: int = 1, *, within_s: float = 20.0) -> list[Opened | Refusal]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.answers) >= count, within_s), self.answers
        assert len(self.answers) == count
        return self.answers

    def refusal(self) -> Refusal:
        (result,) = self.wait()
        assert isinstance(result, Refusal)
        return result

    def contents(self) -> bytes:
        (result,) = self.wait()
        return contents_of(result)

    def reasons(self) -> list[Reason]:
        return [result.reason for result in self.answers if isinstance(result, Refusal)]


def contents_of(result: Opened | Refusal) -> bytes:
    assert isinstance(result, Opened), result
    try:
        return os.pread(result.fd, result.identity.size_bytes + 1, 0)
    finally:
        os.close(result.fd)


@pytest.fixture(scope="module")
def shared(
    demo_template: DemoSite,
    postgres: EmbeddedPostgres,
    catalogue_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Facility]:
    """A site whose near bytes lie elsewhere than its links point; `SETS` are released and away."""
    demo = copy_site(demo_template, tmp_path_factory.mktemp("gate") / "site", postgres=postgres)
    copy_catalogue(demo, postgres, catalogue_template)
    near = demo.directory / "OMERO" / "Near"
    with opened_facility(demo, MovableClock(), near=near) as facility:
        demo.archive_root.rmdir()
        demo.archive_root.symlink_to(near)  # what a mount does, for steps that look whether links lead anywhere
        facility.released(*SETS)
        facility.evict(*SETS)
        yield facility
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        for dsn in (demo.omero_dsn, demo.catalogue_dsn):
            name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    shutil.rmtree(demo.directory)


@pytest.fixture
def site(shared: Facility) -> Iterator[Facility]:
    """The site with all of `SETS` away, nothing asked for, nobody waiting."""
    yield shared
    for slug in SETS:
        if shared.residency(slug) is Residency.ONLINE:
            shared.evict(slug)
    clean: LiteralString = (
        "DELETE FROM recall; DELETE FROM waiting_open; UPDATE bundle SET last_opened_at = NULL, "
        "needs_attention = false, last_error = NULL, retry_at = NULL, attempts = 0"
    )
    with psycopg.connect(shared.site.catalogue.dsn) as conn:
        conn.execute(clean)


@contextmanager
def gate_of(
    facility: Facility,
    settings: MountSettings,
    *,
    timing: Timing = QUICK,
    around: Callable[[ArchiveTree], Files] = lambda tree: tree,
) -> Iterator[Gate]:
    """A gate at work."""
    site = facility.site
    patient = Catalogue(site.catalogue.dsn, clock=site.clock, actor="mount", patience_s=5)
    tree = ArchiveTree(
        near=site.near, catalogue=patient, services=site.services, settings=site.settings, clock=site.clock
    )
    gate = Gate(around(tree), tree.reach, settings=settings, mount="test:/archive", timing=timing)
    gate.start()
    try:
        yield gate
    finally:
        gate.close()
        patient.close()


@contextmanager
def without_postgres(facility: Facility) -> Iterator[None]:
    """The catalogue's database takes no connections, and those it has are gone."""
    known = conninfo_to_dict(facility.site.catalogue.dsn)
    name = str(known["dbname"])
    change = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(facility.site.catalogue.dsn, dbname="postgres", autocommit=True) as conn:
        conn.execute(change.format(sql.Identifier(name), sql.SQL("false")))
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            yield
        finally:
            conn.execute(change.format(sql.Identifier(name), sql.SQL("true")))


def key_of(facility: Facility, slug: str, number: int = 0) -> str:
    return str(facility.demo.fileset(slug).keys[number])


def asked(facility: Facility) -> list[dict[str, Any]]:
    return rows_of(facility.site.catalogue.dsn, only=["recall"])["recall"]


def waiting_rows(facility: Facility) -> list[dict[str, Any]]:
    return rows_of(facility.site.catalogue.dsn, only=["waiting_open"])["waiting_open"]


def until(is_so: Callable[[], object], *, within_s: float = 10.0) -> None:
    end = monotonic() + within_s
    while not is_so():
        assert monotonic() < end, "it did not come to that in time"
        sleep(0.02)


def waits_for(gate: Gate, count: int) -> bool:
    return gate.waiting == count


# ---- near


def test_a_near_file_is_answered_before_open_returns_with_or_without_postgres(site: Facility) -> None:
    site.recall("ome-tiff")
    key, ends = key_of(site, "ome-tiff"), Ends()
    with gate_of(site, FAIL) as gate:
        assert gate.open(key, ALICE, ends) is None
        assert hashlib.sha256(contents_of(ends.answers[0])).hexdigest() == site.before[key][1]
        with without_postgres(site):
            assert gate.open(key, ALICE, ends) is None
            assert len(ends.answers) == 2
            contents_of(ends.answers[1])


# ---- fail, wait, deny


def test_fail_answers_at_once_and_asks_for_the_whole_bundle_once(site: Facility) -> None:
    ends = Ends()
    with gate_of(site, FAIL) as gate, capture_logs() as logs:
        for number in (0, 1, 0):
            gate.open(key_of(site, "ome-tiff", number), ALICE, ends)
        ends.wait(3)
        assert ends.reasons() == [Reason.OFFLINE] * 3
    (row,) = asked(site)
    assert (row["bundle_id"], row["priority"]) == (site.record("ome-tiff").id, recalls.OPENED)
    assert row["requested_by"] == "alice (java)"
    assert row["reason"].startswith("opened ManagedRepository/")
    lines = [line for line in logs if line.get("event") == "open was refused"]
    assert len(lines) == 3
    assert {line["reason"] for line in lines} == {"offline"}
    assert lines[0]["bundle"] == site.name("ome-tiff")
    assert (lines[0]["program"], lines[0]["user"], lines[0]["pid"]) == ("java", "alice", 4711)


@pytest.mark.parametrize("slug", ["ome-tiff", "omero4"])
def test_who_waits_gets_the_right_bytes_when_the_recall_is_done(site: Facility, slug: str) -> None:
    key, ends = key_of(site, slug), Ends()
    with gate_of(site, WAIT) as gate:
        ticket = gate.open(key, ALICE, ends)
        assert ticket is not None
        until(lambda: waiting_rows(site))
        (row,) = waiting_rows(site)
        assert (row["mount"], row["waiters"], row["bundle_id"]) == ("test:/archive", 1, site.record(slug).id)
        assert "java" in row["who"]
        assert timedelta(seconds=15) < row["until"] - row["since"] < timedelta(seconds=25)
        assert asked(site)[0]["priority"] == recalls.WAITED_FOR
        assert not ends.answers
        site.recall(slug)
        expected = site.before[key][1]

        assert hashlib.sha256(ends.contents()).hexdigest() == expected
        until(lambda: not waiting_rows(site))


def test_a_wait_has_an_end_and_the_recall_goes_on(site: Facility) -> None:
    ends = Ends()
    short = MountSettings(on_open=OnOpen.WAIT, wait=timedelta(seconds=0.3))
    with gate_of(site, short) as gate:
        began = monotonic()
        gate.open(key_of(site, "ics"), ALICE, ends)
        assert ends.refusal().reason is Reason.TIMED_OUT
        assert 0.3 <= monotonic() - began < 10
    assert [row["finished_at"] for row in asked(site)] == [None]


def test_who_is_excluded_is_denied_and_nothing_is_recalled(site: Facility) -> None:
    ends = Ends()
    with gate_of(site, WAIT) as gate:
        gate.open(key_of(site, "ics"), UPDATEDB, ends)
        assert ends.refusal().reason is Reason.DENIED
        assert "updatedb" in ends.refusal().text
    assert asked(site) == []


def test_rules_go_by_service_group_and_path(site: Facility) -> None:
    record = site.record("ics")
    deny = OnOpen.DENY
    for rule in (
        MountRule(service=ServiceName("tape"), on_open=deny),
        MountRule(group=record.owner_group, on_open=deny),
        MountRule(under=key_of(site, "ics").rpartition("/")[0], on_open=deny),
    ):
        ends = Ends()
        with gate_of(site, MountSettings(rules=(rule,))) as gate:
            gate.open(key_of(site, "ics"), ALICE, ends)
            assert ends.refusal().reason is Reason.DENIED, rule
    assert asked(site) == []


def test_who_is_interrupted_is_answered_and_the_recall_goes_on(site: Facility) -> None:
    ends = Ends()
    with gate_of(site, WAIT) as gate:
        ticket = gate.open(key_of(site, "ics"), ALICE, ends)
        assert isinstance(ticket, Ticket)
        until(lambda: gate.waiting)
        gate.give_up(ticket)
        assert ends.refusal().reason is Reason.INTERRUPTED
        gate.give_up(ticket)  # twice is once
        assert gate.waiting == 0
        until(lambda: not waiting_rows(site))
    ends.wait(1)
    assert len(asked(site)) == 1


# ---- recalls that do not come to their end


def test_waiting_ends_when_the_recall_failed_and_a_person_must_look(site: Facility) -> None:
    ends = Ends()
    with gate_of(site, WAIT) as gate:
        gate.open(key_of(site, "ics"), ALICE, ends)
        until(lambda: gate.waiting)
        number = site.record("ics").id
        with site.site.catalogue.begin() as connection:
            bundles.failed(connection, number, "the tape is torn", None, needs_attention=True)
        assert ends.refusal().reason is Reason.FAILED
        assert "the tape is torn" in ends.refusal().text
        again = Ends()
        gate.open(key_of(site, "ics", 1), ALICE, again)
        assert again.refusal().reason is Reason.FAILED


def test_waiting_ends_when_the_recall_is_taken_back(site: Facility) -> None:
    ends = Ends()
    with gate_of(site, WAIT) as gate:
        gate.open(key_of(site, "ics"), ALICE, ends)
        until(lambda: gate.waiting)
        with site.site.catalogue.begin() as connection:
            recalls.finish(connection, site.record("ics").id, "cancelled")
        assert ends.refusal().reason is Reason.FAILED
        assert "cancelled" in ends.refusal().text


def test_a_bundle_that_came_and_went_unseen_is_asked_for_again(site: Facility) -> None:
    ends = Ends()
    with gate_of(site, WAIT) as gate:
        gate.open(key_of(site, "ics"), ALICE, ends)
        until(lambda: gate.waiting)
        with site.site.catalogue.begin() as connection:
            recalls.finish(connection, site.record("ics").id, "done")
        until(lambda: [row for row in asked(site) if row["finished_at"] is None])
        site.recall("ics")
        ends.contents()


def test_a_file_whose_original_is_back_is_moved(site: Facility) -> None:
    with psycopg.connect(site.site.catalogue.dsn) as conn:
        conn.execute("UPDATE bundle SET residency = 'RESIDENT' WHERE name = %s", (site.name("ics"),))
    try:
        for settings in (FAIL, WAIT):
            ends = Ends()
            with gate_of(site, settings) as gate:
                gate.open(key_of(site, "ics"), ALICE, ends)
                assert ends.refusal().reason is Reason.MOVED
        assert asked(site) == []
    finally:
        with psycopg.connect(site.site.catalogue.dsn) as conn:
            conn.execute("UPDATE bundle SET residency = 'OFFLINE' WHERE name = %s", (site.name("ics"),))


# ---- without PostgreSQL


def test_without_postgres_away_files_fail_quickly_and_it_recovers_alone(site: Facility) -> None:
    site.recall("ome-tiff")
    with gate_of(site, FAIL) as gate:
        with without_postgres(site), capture_logs() as logs:
            ends = Ends()
            began = monotonic()
            for _ in range(200):
                gate.open(key_of(site, "ics"), ALICE, ends)
            near = Ends()
            gate.open(key_of(site, "ome-tiff"), ALICE, near)
            near.contents()
            ends.wait(200)
            assert monotonic() - began < 10
            assert set(ends.reasons()) == {Reason.UNKNOWN}
            assert len([line for line in logs if "cannot be asked" in line["event"]]) == 1

        def is_asked_for() -> bool:
            ends = Ends()
            gate.open(key_of(site, "ics"), ALICE, ends)
            return ends.refusal().reason is Reason.OFFLINE

        until(is_asked_for, within_s=5)
    assert len([row for row in asked(site) if row["finished_at"] is None]) == 1


def test_who_waits_goes_on_waiting_without_postgres_and_gets_what_comes(site: Facility) -> None:
    ends = Ends()
    with gate_of(site, WAIT) as gate:
        gate.open(key_of(site, "ics"), ALICE, ends)
        until(lambda: gate.waiting)
        with site.site.catalogue.begin() as connection:
            keys = tuple(file.key for file in bundles.files(connection, site.record("ics").id))
        with without_postgres(site):
            sleep(0.3)
            assert not ends.answers
            # What a recall does at its end, in one rename.
            near, tape = site.site.settings.archive.near_directory, site.demo.directory / "tape"
            home = Path(keys[0]).parent
            (near / home).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(tape / home, near / ".omero-archive" / "prepared")
            os.rename(near / ".omero-archive" / "prepared", near / home)
            ends.contents()
        shutil.rmtree(near / home)


# ---- what the catalogue is told


def test_opens_are_told_to_the_catalogue_also_those_during_an_outage(site: Facility) -> None:
    site.recall("ome-tiff", "omero4")
    with gate_of(site, FAIL) as gate:
        ends = Ends()
        gate.open(key_of(site, "ome-tiff"), ALICE, ends)
        until(lambda: site.record("ome-tiff").last_opened_at)
        first = site.record("ome-tiff").last_opened_at
        assert first is not None
        assert abs(first - site.clock()) < timedelta(seconds=10)
        assert site.record("omero4").last_opened_at is None
        with without_postgres(site):
            gate.open(key_of(site, "ome-tiff", 1), ALICE, ends)
            gate.open(key_of(site, "omero4"), ALICE, ends)
            sleep(0.3)
        until(lambda: site.record("omero4").last_opened_at)
        later = site.record("ome-tiff").last_opened_at
        assert later is not None
        assert later > first
        gate.open(key_of(site, "omero4"), ALICE, ends)
    second = site.record("omero4").last_opened_at
    assert second is not None
    assert second > later, "what was opened last is told when the mount ends"
    for result in ends.answers:
        contents_of(result)


def test_what_an_earlier_life_left_is_removed_and_others_stay(site: Facility) -> None:
    insert: LiteralString = (
        "INSERT INTO waiting_open SELECT m, id, 1, 'x', now(), now() + interval '1 h' FROM bundle, "
        "unnest(array['test:/archive', 'other:/archive']) m WHERE name = %s"
    )
    with psycopg.connect(site.site.catalogue.dsn) as conn:
        conn.execute(insert, (site.name("ics"),))
    with gate_of(site, FAIL):
        until(lambda: len(waiting_rows(site)) == 1)
    assert [row["mount"] for row in waiting_rows(site)] == ["other:/archive"]


def test_a_stop_answers_everybody(site: Facility) -> None:
    ends = Ends()
    with gate_of(site, WAIT) as gate:
        for slug in SETS:
            gate.open(key_of(site, slug), ALICE, ends)
        until(lambda: gate.waiting == len(SETS))
    ends.wait(len(SETS))
    assert set(ends.reasons()) == {Reason.TIMED_OUT}
    assert waiting_rows(site) == []
    late = Ends()
    assert gate.open(key_of(site, "ics"), ALICE, late) is None
    assert late.refusal().reason is Reason.UNKNOWN


# ---- storms


@contextmanager
def statements() -> Iterator[list[str]]:
    """What SQLAlchemy sends to PostgreSQL meanwhile, on all connections."""
    sent: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", note)


def test_a_thousand_opens_of_one_bundle_are_a_few_queries_and_no_further_thread(site: Facility) -> None:
    ends, refused = Ends(), Ends()
    keys = site.demo.fileset("plate").keys
    # The books are left alone: what is counted is what the opens cost.
    with gate_of(site, WAIT, timing=Timing(tick_s=0.02, books_s=60)) as gate, statements() as sent:
        threads = threading.active_count()
        for number in range(1000):
            gate.open(keys[number % len(keys)], ALICE, ends)
        until(lambda: gate.waiting == 1000)
        assert threading.active_count() <= threads
        assert len(sent) < 40, sent
        site.recall("plate")
        for result in ends.wait(1000):
            assert isinstance(result, Opened)
            os.close(result.fd)
    assert len(asked(site)) == 1
    with gate_of(site, FAIL) as gate:
        site.evict("plate")
        for number in range(1000):
            gate.open(keys[number % len(keys)], ALICE, refused)
        refused.wait(1000)
        assert set(refused.reasons()) == {Reason.OFFLINE}
    assert len([row for row in asked(site) if row["finished_at"] is None]) == 1


def test_a_thousand_opens_of_a_thousand_bundles_ask_once_for_each(site: Facility) -> None:
    copies: LiteralString = """
        INSERT INTO bundle (name, home, fileset_ids, owner, owner_group, containers, file_count, size_bytes, decision,
                            requested_by, requested_at, residency)
        SELECT 'Fileset-' || 100000 + n, ('ManagedRepository/storm/' || n)::bytea, '{}', owner, owner_group, '{}', 1, 1,
               decision, requested_by, requested_at, residency
        FROM bundle, generate_series(1, 1000) n WHERE name = %s;
    """
    files: LiteralString = """
        INSERT INTO file (bundle_id, kind, omero_id, key, recorded_size, read_at, size_bytes, sha256, xxh3, device,
                          inode, mtime_ns, ctime_ns, mode, uid, gid)
        SELECT b.id, f.kind, 1000000 + b.id, b.home || '/x.tif'::bytea, 1, f.read_at, 1, f.sha256, f.xxh3, f.device,
               f.inode, f.mtime_ns, f.ctime_ns, f.mode, f.uid, f.gid
        FROM bundle b, (SELECT * FROM file LIMIT 1) f WHERE b.id > (SELECT max(bundle_id) FROM file)
    """
    with psycopg.connect(site.site.catalogue.dsn) as conn:
        conn.execute(copies, (site.name("ics"),))
        conn.execute(files)
    before = threading.active_count()
    try:
        # The second time they are there already, and only become more urgent.
        for settings, count, expected in ((FAIL, 1000, Reason.OFFLINE), (WAIT, 200, Reason.TIMED_OUT)):
            ends = Ends()
            with capture_logs() as logs, statements() as sent, gate_of(site, settings) as gate:
                began = monotonic()
                for number in range(1, count + 1):
                    gate.open(f"ManagedRepository/storm/{number}/x.tif", ALICE, ends)
                if settings is FAIL:
                    ends.wait(count, within_s=60)
                else:
                    until(partial(waits_for, gate, count), within_s=60)
                took_s = monotonic() - began
                assert threading.active_count() <= before + 6
                if settings is WAIT:
                    until(lambda: len(waiting_rows(site)) == 200)
            print(f"{settings.on_open}: {took_s:.2f} s, {len(sent)} statements")
            assert set(ends.reasons()) == {expected}
            assert len(sent) < 7 * count + 100
            assert len([line for line in logs if line["event"] == "open was refused"]) <= 100
            summed = [line for line in logs if line["event"] == "more opens like those before"]
            assert [(line["program"], line["count"]) for line in summed] == [("java", count - 100)]
        urgent = sorted(row["priority"] for row in asked(site))
        assert urgent == [recalls.OPENED] * 800 + [recalls.WAITED_FOR] * 200
    finally:
        with psycopg.connect(site.site.catalogue.dsn) as conn:
            conn.execute("DELETE FROM recall; DELETE FROM waiting_open")
            conn.execute("DELETE FROM file WHERE convert_from(key, 'UTF8') LIKE 'ManagedRepository/storm/%'")
            conn.execute("DELETE FROM bundle WHERE convert_from(home, 'UTF8') LIKE 'ManagedRepository/storm/%'")


@dataclass(slots=True)
class HangingTree:
    """A tree whose catalogue gives no answer for a while, as behind a network that swallows everything."""

    tree: ArchiveTree
    goes_on: threading.Event

    def open_near(self, path: str) -> Opened | None:
        return self.tree.open_near(path)

    def open_direct(self, path: str) -> Opened | None:
        return self.tree.open_direct(path)

    def away(self, path: str) -> Away | None:
        self.goes_on.wait(30)
        return self.tree.away(path)


def test_what_cannot_be_decided_in_time_or_is_too_much_is_unknown(site: Facility) -> None:
    goes_on, ends = threading.Event(), Ends()
    timing = Timing(tick_s=0.02, decided_within_s=0.5, threads=2, undecided=10)
    with gate_of(site, FAIL, timing=timing, around=lambda tree: HangingTree(tree, goes_on)) as gate:
        began = monotonic()
        for _ in range(30):
            gate.open(key_of(site, "ics"), ALICE, ends)
        assert ends.answers, "what does not fit into the line is answered at once"
        ends.wait(30)
        assert 0.5 <= monotonic() - began < 10
        assert set(ends.reasons()) == {Reason.UNKNOWN}
        goes_on.set()
        late = Ends()
        gate.open(key_of(site, "ics"), ALICE, late)
        assert late.refusal().reason is Reason.OFFLINE
    ends.wait(30)


# ---- whatever happens


def test_every_open_is_answered_exactly_once_whatever_happens_at_once(site: Facility) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    near = site.site.settings.archive.near_directory
    site.recall("ome-tiff")
    home = near / Path(key_of(site, "ome-tiff")).parent
    aside = near / ".omero-archive" / "aside"
    before = len(os.listdir("/proc/self/fd"))
    counts: list[list[Opened | Refusal]] = []
    short = MountSettings(on_open=OnOpen.WAIT, wait=timedelta(seconds=0.3))
    with gate_of(site, short) as gate:
        over = threading.Event()

        def flip() -> None:
            while not over.wait(0.03):
                os.rename(home, aside)
                over.wait(0.03)
                os.rename(aside, home)

        def open_some(mine: random.Random) -> None:
            for _ in range(150):
                answers: list[Opened | Refusal] = []
                counts.append(answers)
                ticket = gate.open(key_of(site, "ome-tiff", mine.randrange(2)), ALICE, answers.append)
                if ticket is not None and mine.random() < 0.3:
                    sleep(mine.random() * 0.02)
                    gate.give_up(ticket)
                sleep(mine.random() * 0.005)

        flipping = threading.Thread(target=flip)
        opening = [threading.Thread(target=open_some, args=[random.Random(chance.random())]) for _ in range(4)]
        for thread in (flipping, *opening):
            thread.start()
        for thread in opening:
            thread.join(60)
        # The gate is stopped while some still wait.
        over.set()
        flipping.join(10)
    sleep(0.1)
    assert [len(answers) for answers in counts] == [1] * 600
    results = [answers[0] for answers in counts]
    reasons = {result.reason for result in results if isinstance(result, Refusal)}
    assert reasons <= {Reason.TIMED_OUT, Reason.INTERRUPTED}, reasons
    digests = {hashlib.sha256(contents_of(result)).hexdigest() for result in results if isinstance(result, Opened)}
    assert digests <= {site.before[key_of(site, "ome-tiff", number)][1] for number in range(2)}
    assert digests
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "a descriptor was left open"
