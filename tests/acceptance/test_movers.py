"""Several data movers on one site, as processes: one dies, sleeps or is cut off in the middle, others go on.

Each time every copy is made once, by its own moves, the witness finds nothing, and whoever wakes up later changes
nothing. How many files were copied in a second before, during and after it is printed.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.rows import dict_row

from cut_wire import CutWire
from omero_archive.demo.postgres import EmbeddedPostgres
from site_fixtures import CommandSite
from witness import Witness

SLUGS = ("plate", "ics", "dicom", "omero4")
WORK = 'poll = "500ms"\nretry_after = "1s"\nslice_files = 3\nstreams = 1\nstalled_after = "2s"\n'
PATIENCE_S = 120.0


@dataclass(slots=True)
class Fleet:
    """The workers of a site, by their labels."""

    site: CommandSite
    workers: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    marks: list[tuple[str, datetime]] = field(default_factory=list)

    def start(self, label: str, *, dsn: str | None = None) -> None:
        """A worker; with `dsn` it reaches the catalogue by another way."""
        environment = dict(self.site.environment)
        if dsn is not None:
            text = self.site.settings.read_text()
            path = self.site.settings.with_name(f"{label}.toml")
            path.write_text(text.replace(self.site.demo.catalogue_dsn, dsn))
            environment["OMERO_ARCHIVE_SETTINGS"] = str(path)
        log = self.site.settings.with_name(f"{label}.log").open("w")
        command = [str(Path(sys.executable).with_name("omero-archive")), "worker", "--host-label", label]
        self.workers[label] = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        log.close()

    def rows(self, query: LiteralString) -> list[dict[str, Any]]:
        with psycopg.connect(self.site.demo.catalogue_dsn, row_factory=dict_row) as connection:
            return connection.execute(query).fetchall()

    def open_attempts(self) -> dict[str, int]:
        """How many attempts each worker has open."""
        query = (
            "SELECT host_label, count(*) AS many FROM attempt JOIN worker ON worker.id = worker_id"
            " WHERE attempt.ended_at IS NULL AND step = 'copy' GROUP BY 1"
        )
        return {row["host_label"]: row["many"] for row in self.rows(query)}

    def outcomes(self, label: str) -> Counter[str]:
        """How its attempts ended."""
        query = "SELECT host_label, outcome FROM attempt JOIN worker ON worker.id = worker_id"
        return Counter(row["outcome"] for row in self.rows(query) if row["host_label"] == label)

    def open_workers(self) -> set[str]:
        """Who is alive."""
        return {row["host_label"] for row in self.rows("SELECT host_label FROM worker WHERE ended_at IS NULL")}

    def states(self) -> Counter[str]:
        return Counter(row["state"] for row in self.rows("SELECT state FROM copy"))

    def mark(self, word: str) -> None:
        """What begins now, for the rates that are printed."""
        self.marks.append((word, self.rows("SELECT clock_timestamp() AS at")[0]["at"]))

    def victim(self) -> str:
        """A worker in the middle of its work, when something was copied already."""
        wait_until(lambda: self.states()["WRITTEN"] + self.states()["VERIFIED"] > 0, "nothing is copied", self)
        self.mark("before")
        wait_until(lambda: self.states()["PENDING"] > 0 and bool(self.open_attempts()), "nobody is at work", self)
        return next(iter(self.open_attempts()))

    def wait_for_the_end(self) -> None:
        wait_until(lambda: set(self.states()) == {"DURABLE"}, "not everything is durable", self)

    def logs(self) -> str:
        return "\n".join(
            f"== {label}\n" + self.site.settings.with_name(f"{label}.log").read_text()[-3000:] for label in self.workers
        )

    def stop(self) -> None:
        """SIGTERM to all; each ends well."""
        for worker in self.workers.values():
            worker.send_signal(signal.SIGTERM)
        for label, worker in self.workers.items():
            assert worker.wait(timeout=PATIENCE_S) == 0, (label, self.logs())

    def print_rates(self, case: str) -> None:
        """Copies written and verified in a second between the marks."""
        moves = [row["at"] for row in self.rows("SELECT at FROM event WHERE what = 'copy' AND new <> 'DURABLE'")]
        ends = [at for _, at in self.marks[1:]]
        for (word, begun), ended in zip(self.marks, ends, strict=False):
            many = sum(begun <= at < ended for at in moves)
            seconds = max(0.001, (ended - begun).total_seconds())
            print(f"{case}: {word}: {many} moves in {seconds:.1f} s, {many / seconds:.1f} a second")


def wait_until(is_so: Callable[[], bool], problem: str, fleet: Fleet) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        with suppress(psycopg.OperationalError):
            if is_so():
                return
        assert time.monotonic() < end, (problem, fleet.states(), fleet.open_attempts(), fleet.logs())
        time.sleep(0.05)


@pytest.fixture
def fleet(command_site: CommandSite) -> Iterator[Fleet]:
    fleet = Fleet(command_site)
    yield fleet
    for worker in fleet.workers.values():
        if worker.poll() is None:
            worker.kill()
            worker.wait()


@contextmanager
def looked_at(fleet: Fleet, case: str, *, service: str = "") -> Iterator[None]:
    """A site with work for several seconds; in the end all is done, once, and nothing is left behind."""
    site = fleet.site
    site.set_up(service=f'rate = "300 kB"\n{service}', work=WORK)
    witness = Witness.of_site(site.demo)
    site.run("init")
    site.run("add", *(site.demo.fileset(slug).reference for slug in SLUGS))
    yield
    fleet.mark("end")
    fleet.stop()
    assert witness.look(at_rest=True) == [], fleet.logs()
    moves = Counter(
        (row["file_id"], row["service"], row["old"], row["new"])
        for row in fleet.rows("SELECT file_id, service, old, new FROM event WHERE what = 'copy'")
    )
    assert set(moves.values()) == {1}, "a copy was moved twice"
    assert len(moves) == 3 * len(fleet.rows("SELECT id FROM copy"))
    assert fleet.rows("SELECT id FROM copy WHERE attempt_id IS NOT NULL") == []
    assert fleet.rows("SELECT id FROM attempt WHERE ended_at IS NULL") == []
    assert fleet.rows("SELECT id FROM worker WHERE ended_at IS NULL") == []
    incoming = site.demo.service_path / ".omero-archive" / "incoming"
    assert not [path for path in incoming.rglob("*") if path.is_file() and path.name != "lock"]
    fleet.print_rates(case)


def test_one_of_four_is_killed_and_the_others_go_on_at_once(fleet: Fleet) -> None:
    with looked_at(fleet, "kill -9, one of four"):
        for number in range(4):
            fleet.start(f"mover{number}")
        victim = fleet.victim()
        fleet.workers[victim].kill()
        fleet.workers.pop(victim).wait()
        fleet.mark("after")
        fleet.wait_for_the_end()
    assert fleet.outcomes(victim)["taken over"] == 1


def test_one_sleeps_for_long_and_changes_nothing_when_it_wakes(fleet: Fleet) -> None:
    with looked_at(fleet, "SIGSTOP"):
        for number in range(2):
            fleet.start(f"mover{number}")
        victim = fleet.victim()
        fleet.workers[victim].send_signal(signal.SIGSTOP)
        fleet.mark("stopped")
        wait_until(lambda: fleet.outcomes(victim)["taken over"] > 0, "nobody takes over", fleet)
        fleet.mark("taken over")
        fleet.wait_for_the_end()
        fleet.workers[victim].send_signal(signal.SIGCONT)
        wait_until(lambda: victim in fleet.open_workers(), "it never woke up", fleet)
    assert fleet.outcomes(victim)["taken over"] == 1


def test_postgresql_is_restarted_and_nothing_is_taken_from_anybody(fleet: Fleet, postgres: EmbeddedPostgres) -> None:
    with looked_at(fleet, "PostgreSQL restarted"):
        for number in range(2):
            fleet.start(f"mover{number}")
        fleet.victim()
        postgres.stop()
        postgres.start()
        fleet.mark("after")
        fleet.wait_for_the_end()


def test_one_is_cut_off_and_comes_back(fleet: Fleet) -> None:
    with ExitStack() as stack:
        wire = stack.enter_context(CutWire(fleet.site.demo.catalogue_dsn))
        with looked_at(fleet, "network cut"):
            fleet.start("far", dsn=wire.dsn)
            assert fleet.victim() == "far"
            fleet.start("near")
            wire.cut()
            fleet.mark("cut")
            wait_until(lambda: fleet.outcomes("far")["taken over"] > 0, "nobody takes over", fleet)
            fleet.mark("taken over")
            wire.mend()
            fleet.wait_for_the_end()
            wait_until(lambda: fleet.open_workers() == {"near", "far"}, "it is away", fleet)


def test_one_is_told_to_stop_and_hands_back_and_a_service_has_one_stream_over_all(fleet: Fleet) -> None:
    with looked_at(fleet, "SIGTERM, one stream", service="streams = 1\n"):
        for number in range(2):
            fleet.start(f"mover{number}")
        victim = fleet.victim()
        worker = fleet.workers.pop(victim)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=PATIENCE_S) == 0
        assert "taken over" not in fleet.outcomes(victim)
        assert victim not in fleet.open_workers()
        fleet.mark("after")
        fleet.wait_for_the_end()
    spans = fleet.rows("SELECT begun_at, ended_at FROM attempt WHERE step IN ('copy', 'verify') ORDER BY begun_at")
    assert len(spans) >= 10
    assert all(one["ended_at"] <= other["begun_at"] for one, other in itertools.pairwise(spans))
