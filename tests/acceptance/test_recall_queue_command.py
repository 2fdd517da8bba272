"""The queue of recalls by the command line, and a worker as a process that hears of them."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from omero_archive.catalogue.recalls import CHANNEL
from omero_archive.demo.postgres import EmbeddedPostgres
from site_fixtures import CommandSite, rows_of

NAME, REFERENCE = "Fileset-3", "Fileset:3"
LONG_POLL = 'poll = "1h"\nretry_after = "1min"\n'


@pytest.fixture
def away(command_site: CommandSite) -> CommandSite:
    """A site with two bundles that are away."""
    for command in ("add", "run", "release", "evict"):
        command_site.run(command, *([] if command == "run" else [REFERENCE, "Fileset:1"]))
    return command_site


def bundle_row(site: CommandSite, name: str = NAME) -> dict[str, object]:
    (row,) = [row for row in rows_of(site.demo.catalogue_dsn, only=["bundle"])["bundle"] if row["name"] == name]
    return row


def is_near(site: CommandSite, name: str = NAME) -> bool:
    return bundle_row(site, name)["residency"] == "ONLINE"


def seconds_until(is_so: Callable[[], object], *, most: float = 60.0) -> float:
    begun = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun < most, "it never came"
        time.sleep(0.02)
    return time.monotonic() - begun


def open_file(site: CommandSite, name: str = NAME) -> None:
    """What the mount does when a program waits for a file."""
    site_row = bundle_row(site, name)
    with psycopg.connect(site.demo.catalogue_dsn) as connection:
        connection.execute(
            "INSERT INTO recall (bundle_id, requested_by, requested_at, priority) VALUES (%s, 'mount', now(), 20)",
            (site_row["id"],),
        )
        connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


@contextmanager
def worker(site: CommandSite, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A worker that has looked once what is due, and listens."""
    process = site.start("worker", *arguments)
    try:
        seconds_until(lambda: _listeners(site))
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


def _listeners(site: CommandSite) -> int:
    with psycopg.connect(site.demo.catalogue_dsn) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'omero-archive listens' AND query LIKE 'LISTEN%'"
        ).fetchone()
    assert found is not None
    return int(found[0])


# ---- status and cancelling


def test_status_shows_the_queue_who_waits_pins_with_their_end_and_learns_from_the_past(away: CommandSite) -> None:
    away.run("recall", REFERENCE, "--later", "--reason", "a figure")
    away.run("pin", "Fileset:1", "--until", "2100-01-01")
    with psycopg.connect(away.demo.catalogue_dsn) as connection:
        connection.execute(
            "INSERT INTO waiting_open (mount, bundle_id, waiters, who, since, until)"
            " VALUES ('here:/x', %s, 2, 'java (12) of alice', now(), now() + interval '1 min'),"
            " ('gone:/x', %s, 1, 'java of bob', now() - interval '2 h', now() - interval '1 h')",
            (bundle_row(away)["id"], bundle_row(away, "Fileset-1")["id"]),
        )
    text = away.run("status").stdout
    assert "Recalls: 0 under way of at most 100; 1 waits for a turn, Fileset-3 longest, since " in text
    assert "2 programs wait at an open for 1 bundle, such as java (12) of alice for Fileset-3" in text
    assert "1 bundle is pinned near: Fileset-1 until 2100-01-02" in text
    told = away.run("status", "--json").json
    assert (told["recalls"]["waiting"], told["recalls"]["under_way"], told["recalls"]["held_back"]) == (1, 0, 0)
    assert (told["waiting_opens"]["programs"], told["waiting_opens"]["bundle"]) == (2, NAME)
    assert [pin["bundle"] for pin in told["pins"]] == ["Fileset-1"]
    (one,) = away.run("status", REFERENCE, "--json").json["objects"]
    assert (one["recall"]["reason"], one["recall"]["expected_at"]) == ("a figure", None)
    assert one["waiting_opens"]["programs"] == 2
    text = away.run("status", REFERENCE).stdout
    assert "(a figure)" in text
    assert "waits for its turn; when it will be done is not known yet." in text

    number = bundle_row(away)["id"]
    with psycopg.connect(away.demo.catalogue_dsn) as connection:
        for minutes in (1, 2, 3, 4, 50):
            connection.execute(
                "INSERT INTO recall (bundle_id, requested_by, requested_at, started_at, service, finished_at, outcome)"
                " VALUES (%s, 'tester', now() - interval '3 h', now() - interval '2 h', 'tape',"
                " now() - interval '2 h' + %s * interval '1 min', 'done')",
                (number, minutes),
            )
    (item,) = away.run("recall", "Fileset:1", "--later", "--json").json["items"]
    assert "(1 before it in the queue; half of the last 5 recalls from tape took less than 3 min)" in item["text"]
    assert item["expected_at"] is not None
    text = away.run("status").stdout
    assert "Of the last 5 recalls from tape half took less than 3 min, nine of ten less than 32 min." in text


def test_what_opens_asked_for_beyond_the_rate_is_held_back_and_status_says_so(away: CommandSite) -> None:
    away.set_up(work='poll = "1s"\n[recall]\nopens_per_hour = 1\n')
    open_file(away)
    open_file(away, "Fileset-1")
    assert away.run("run", "--json").json["summary"]["done"] == 1
    assert [is_near(away), is_near(away, "Fileset-1")] == [True, False]
    text = away.run("status").stdout
    assert "1 of them were asked for by opening files and are held back" in text
    assert "at most 1 recalls an hour (recall.opens_per_hour); the next begins at" in text
    assert "held back with other opens" in away.run("status", "Fileset:1").stdout
    away.run("recall", "Fileset:1")
    assert is_near(away, "Fileset-1"), "a command that brings it now waits for nobody"


def test_a_recall_is_cancelled_by_command(away: CommandSite) -> None:
    away.run("recall", REFERENCE, "Fileset:1", "--later")
    before = away.everything()
    (item,) = away.run("recall", "--cancel", "Image:9", "--dry-run", "--json").json["items"]
    assert (item["text"], away.everything()) == ("its recall would be cancelled", before)
    (item,) = away.run("recall", "--cancel", "Image:9", "--json").json["items"]
    assert (item["cancelled"], item["residency"]) == (True, "OFFLINE")
    assert item["text"] == "its recall was cancelled; nothing of it had come"
    (item,) = away.run("recall", "--cancel", "Image:9", "--json").json["items"]
    assert (item["cancelled"], item["text"]) == (False, "no recall was open")
    assert [item["name"] for item in away.run("recall", "--cancel", "--all", "--json").json["items"]] == ["Fileset-1"]
    away.run("run")
    assert not is_near(away)
    assert "the recall ended: cancelled" in away.run("history", REFERENCE).stdout
    away.run("recall", "--cancel", "Image:9", "--later", exits=2)


# ---- a worker


def without_database(site: CommandSite, postgres: EmbeddedPostgres, *, seconds: float) -> None:
    """Cut all connections to the catalogue, and let nobody connect for a while."""
    name = sql.Identifier(str(conninfo_to_dict(site.demo.catalogue_dsn)["dbname"]))
    with psycopg.connect(postgres.dsn(), autocommit=True) as server:
        server.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(name))
        try:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            assert len(server.execute(cut, (name.as_string().strip('"'),)).fetchall()) > 2
            time.sleep(seconds)
        finally:
            server.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(name))


def test_a_worker_hears_of_a_recall_at_once_also_after_postgresql_was_away(
    away: CommandSite, postgres: EmbeddedPostgres
) -> None:
    away.set_up(work=LONG_POLL)
    with worker(away) as process:
        open_file(away)
        first = seconds_until(lambda: is_near(away))
        without_database(away, postgres, seconds=4)
        seconds_until(lambda: _listeners(away))
        open_file(away, "Fileset-1")
        second = seconds_until(lambda: is_near(away, "Fileset-1"))
        assert process.poll() is None
    assert process.returncode == 0
    print(f"near after {first:.2f} s, and after PostgreSQL was away {second:.2f} s")


def test_a_waiting_open_does_not_wait_for_a_copy_job_also_after_postgresql_was_away(
    away: CommandSite, postgres: EmbeddedPostgres
) -> None:
    # A disk as slow as a tape: a copy of the plate takes longer than this test waits for it.
    away.set_up(work='poll = "1s"\nretry_after = "1min"\n', service='rate = "2 kB"\n')
    away.run("add", *[fileset.reference for fileset in away.good])
    with worker(away) as process:
        seconds_until(
            lambda: [
                row
                for row in rows_of(away.demo.catalogue_dsn, only=["procrastinate_jobs"])["procrastinate_jobs"]
                if (row["task_name"], row["status"]) == ("copy", "doing")
            ]
        )
        without_database(away, postgres, seconds=3)
        open_file(away)
        seconds_until(lambda: bundle_row(away)["residency"] == "RECALLING", most=60)
        assert process.poll() is None
        process.kill()
