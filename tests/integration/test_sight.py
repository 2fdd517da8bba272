"""What a host does not see it draws no conclusions from: disks that are away, were never there, or go meanwhile."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import mounts
from omero_archive.app import initialise, open_site
from omero_archive.catalogue import claims
from omero_archive.catalogue.claims import Host
from omero_archive.engine import Engine
from omero_archive.errors import ArchiveError, Busy, NotMounted, SettingsError
from omero_archive.jobs import Result
from omero_archive.model import ServiceName
from omero_archive.mount import Mount
from omero_archive.service import Answer
from omero_archive.states import CopyState, Residency
from omero_archive.steps.check import check
from omero_archive.steps.marking import mark_site
from omero_archive.steps.sight import MARKER
from omero_archive.wrapped.throttled import throttle_of
from site_fixtures import CommandSite, Facility, MakeFacility, rows_of

SETS = ("ics", "ome-tiff", "plate", "omero4")
TAPE = ServiceName("tape")


@contextmanager
def away(*roots: Path) -> Iterator[None]:
    """Directories whose disks are not there: empty, also through descriptors that were opened before."""
    gone = [(root / name, root.with_name(f"{root.name}-is-away-{name}")) for root in roots for name in os.listdir(root)]
    gone.sort(key=lambda pair: pair[0].name != ".omero-archive")  # the marker goes first, and comes last
    for path, elsewhere in gone:
        path.rename(elsewhere)
    try:
        yield
    finally:
        for path, elsewhere in reversed(gone):
            for made in (path / "locks", path) if path.name == ".omero-archive" else ():
                if made.is_file():
                    made.unlink()
                elif made.exists():
                    made.rmdir()
            elsewhere.rename(path)


def managed(facility: Facility) -> Path:
    return facility.demo.data_dir / "ManagedRepository"


def troubles(facility: Facility) -> list[dict[str, Any]]:
    """Copies and bundles beside which anything stands that went wrong."""
    rows = rows_of(facility.site.catalogue.dsn, only=["copy", "bundle"])
    return [row for table in rows.values() for row in table if row["attempts"] or row["last_error"]]


# ---- init


def test_init_marks_what_all_hosts_must_see_alike_and_does_it_once(facility: Facility) -> None:
    roots = [facility.demo.data_dir / top for top in ("ManagedRepository", "Files", "Pixels")]
    markers = [root / MARKER for root in (*roots, facility.demo.archive_root)]
    (identifier,) = rows_of(facility.site.catalogue.dsn, only=["site"])["site"]
    assert all(f"site = {identifier['id']}" in marker.read_text() for marker in markers)
    before = [marker.stat().st_mtime_ns for marker in markers]
    assert mark_site(facility.site) == []
    assert [marker.stat().st_mtime_ns for marker in markers] == before


def test_a_directory_that_is_empty_is_not_marked(facility: Facility) -> None:
    for top, told in (("ManagedRepository", "none of"), ("Files", "it is empty")):
        with away(facility.demo.data_dir / top):
            assert [line for line in mark_site(facility.site) if f"{top} was not marked" in line and told in line]
            assert not (facility.demo.data_dir / top / MARKER).exists()
    assert mark_site(facility.site) == []
    facility.released("ics")
    with away(facility.demo.archive_root):
        (line,) = mark_site(facility.site)
        assert "1 bundles are near by the catalogue" in line


def test_a_new_catalogue_takes_the_id_that_the_directories_carry(facility: Facility) -> None:
    (old,) = rows_of(facility.site.catalogue.dsn, only=["site"])["site"]
    with psycopg.connect(facility.site.catalogue.dsn) as conn:
        conn.execute("UPDATE site SET id = gen_random_uuid(), omero_uuid = NULL")  # as a new one begins
    with open_site(facility.site.settings, clock=facility.clock) as site:
        initialise(site)
    (new,) = rows_of(facility.site.catalogue.dsn, only=["site"])["site"]
    assert new["id"] == old["id"]


def test_another_sites_directory_is_refused(facility: Facility) -> None:
    marker = managed(facility) / MARKER
    marker.write_text("site = 00000000-0000-4000-8000-000000000000\n")
    with pytest.raises(SettingsError, match="is the marker of another site"):
        mark_site(facility.site)
    with (
        pytest.raises(NotMounted, match="carries the marker of another site"),
        open_site(facility.site.settings) as site,
    ):
        site.tree(managed(facility))


def test_a_catalogue_is_of_one_omero(command_site: CommandSite) -> None:
    command_site.run("status")
    with psycopg.connect(command_site.demo.omero_dsn) as conn:
        conn.execute("UPDATE configuration SET value = 'another' WHERE name = 'omero.db.uuid'")
    before = command_site.everything()
    for arguments in (["run"], ["add", command_site.references[0]], ["init"]):
        ended = command_site.run(*arguments, exits=2)
        assert "has the uuid another, and this catalogue belongs to the OMERO with the uuid" in ended.stderr
    assert command_site.everything() == before


def test_a_site_without_an_id_is_told_to_run_init(command_site: CommandSite) -> None:
    with psycopg.connect(command_site.demo.catalogue_dsn) as conn:
        conn.execute("DELETE FROM site")
    assert "omero-archive init" in command_site.run("run", exits=2).stderr
    assert "FAIL  site: " in command_site.run("check", exits=1).stdout
    command_site.run("init")
    command_site.run("run")


# ---- disks that are not there


@pytest.mark.parametrize("top", ["ManagedRepository", "Pixels"])
def test_a_host_without_omeros_disk_copies_nothing_and_misses_nothing(facility: Facility, top: str) -> None:
    facility.add(*SETS)
    with away(facility.demo.data_dir / top):
        result = facility.work()
        assert (result.done, result.failed) == (0, 0)
        assert any(f"{top} has no {MARKER}" in reason for reason in result.unseen)
        assert troubles(facility) == []
        found = {finding.subject: finding for finding in check(facility.site)}
        assert not next(finding for subject, finding in found.items() if subject.startswith("OMERO's files on")).is_fine
    facility.site.sight.forget()  # it looks once a second
    assert facility.work().failed == 0, "the same process sees it again"
    assert {state for slug in SETS for state in facility.copy_states(slug).values()} == {CopyState.DURABLE}


def test_a_disk_that_is_mounted_after_the_start_is_seen(make_facility: MakeFacility) -> None:
    facility = make_facility()
    facility.add("ics")
    real = managed(facility).rename(managed(facility).with_name("disk"))
    managed(facility).mkdir()
    with open_site(facility.site.settings, clock=facility.clock) as site:
        assert Engine(site).run().done == 0
        with mounts.bound(real, managed(facility)):
            done = _again(site)
            assert (done.failed, done.unseen) == (0, ())
        with mounts.small(managed(facility)), pytest.raises(NotMounted):
            site.tree(managed(facility)).look("gone")
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    assert troubles(facility) == []


def _again(site: Any) -> Result:
    site.sight.forget()
    return Engine(site).run()


def test_a_disk_that_goes_while_files_are_copied_makes_none_vanish(facility: Facility) -> None:
    facility.add(*SETS)
    gone: list[Any] = []

    def go(step: str, files: int, size_bytes: int) -> None:
        if not gone:
            gone.append(away(managed(facility)))
            gone[0].__enter__()

    facility.site.progress = go
    facility.work()
    assert gone
    assert troubles(facility) == []
    gone[0].__exit__(None, None, None)
    facility.site.sight.forget()
    assert facility.work().failed == 0
    assert {state for slug in SETS for state in facility.copy_states(slug).values()} == {CopyState.DURABLE}


@pytest.mark.parametrize("step", ["release", "evict", "recall", "unarchive"])
def test_a_disk_that_is_away_leaves_every_step_as_it_was(facility: Facility, step: str) -> None:
    facility.archive("ics")
    if step != "release":
        facility.release("ics")
    if step == "recall":
        facility.evict("ics")
    residency, record = facility.residency("ics"), facility.record("ics")
    with away(managed(facility), facility.demo.archive_root), pytest.raises(NotMounted):
        getattr(facility, step)("ics")
    assert facility.residency("ics") is residency
    assert (facility.record("ics").needs_attention, facility.record("ics").intent) == (False, record.intent)
    getattr(facility, step)("ics")
    assert facility.residency("ics") is not residency


def test_an_archive_that_goes_meanwhile_has_lost_nothing(facility: Facility) -> None:
    facility.archive(*SETS)
    service = facility.site.services[TAPE]
    keys = [row["key"] for slug in SETS for row in facility.copies(slug)]
    assert service.unseen() is None
    mount = Mount(TAPE, facility.demo.service_path, clock=facility.clock)
    with mount.mounted() as tree, away(facility.demo.service_path):
        assert mount.look(tree, keys[0]).present is Answer.CANNOT_TELL, "its disk went after it was opened"
    with away(facility.demo.service_path):
        facility.site.sight.forget()
        assert service.unseen() is not None
        with pytest.raises(ArchiveError, match="not mounted"):
            service.status(keys)
        assert not facility.site.sight.sees(TAPE)
        assert not facility.site.sight.may_serve("verify", TAPE)
    assert {status.present for status in service.status(keys).values()} == {Answer.YES}
    mount.close()


@pytest.mark.parametrize("seed", [3037608166, None], ids=["a release is open at the end", "new"])
def test_disks_that_come_and_go_at_random_lose_nothing(facility: Facility, seed: int | None) -> None:
    seed = random.randrange(1 << 32) if seed is None else seed
    print("seed", seed)
    chance = random.Random(seed)
    facility.add("ics", "ome-tiff")
    disks = [managed(facility), facility.demo.archive_root, facility.demo.service_path]
    for _ in range(12):
        gone: list[Any] = []

        def go(*_: object, gone: list[Any] = gone) -> None:
            if not gone and chance.random() < 0.5:
                gone.append(away(*chance.sample(disks, chance.randint(1, 3))))
                gone[0].__enter__()

        facility.site.progress = go
        if chance.random() < 0.3:
            go()
        steps = (facility.work, *(lambda s=s: getattr(facility, s)("ics") for s in ("release", "evict", "recall")))
        for act in chance.sample(steps, 2):
            try:
                act()
            except ArchiveError as error:
                if error.exit_code not in (3, 4):
                    raise
        if gone:
            gone[0].__exit__(None, None, None)
        facility.site.sight.forget()
    facility.site.progress = lambda *_: None
    facility.clock.advance(days=1)
    facility.site.sight.forget()
    facility.work()
    rows = rows_of(facility.site.catalogue.dsn, only=["copy"])["copy"]
    assert {row["state"] for row in rows} == {CopyState.DURABLE}
    assert not any(row["needs_attention"] for row in rows)
    # A release that a disk stopped between two links is open, and RESIDENT: it is given up, or taken up again.
    if facility.residency("ics") is not Residency.RESIDENT or facility.record("ics").intent is not None:
        facility.unarchive("ics")
    assert facility.is_as_before("ics")


# ---- once only

_HOLDER = """
import sys
from pathlib import Path
from omero_archive.app import open_site
from omero_archive.settings import load_settings
with open_site(load_settings(Path(sys.argv[1]))) as site, site.lock_bundle(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""


@contextmanager
def holder(facility: Facility, name: str) -> Iterator["subprocess.Popen[str]"]:
    settings = facility.demo.directory / "omero-archive.toml"
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(settings), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def end_sessions(dsn: str) -> None:
    """What a restart of PostgreSQL does to everybody's sessions."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_bundle_stays_locked_though_postgresql_forgot_it(facility: Facility) -> None:
    facility.add("ics", "plate")
    name = facility.name("ics")
    with holder(facility, name) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGSTOP)
        end_sessions(facility.site.catalogue.dsn)
        with facility.site.catalogue.lock_bundle(name):
            pass  # PostgreSQL would let us
        with pytest.raises(Busy, match="is being worked on by another process"), facility.site.lock_bundle(name):
            pass
        with facility.site.lock_bundle(facility.name("plate")):
            pass  # another's is free
        process.send_signal(signal.SIGCONT)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n", "whose session was ended comes to its end"
        assert process.wait() == 0
    with facility.site.lock_bundle(name):
        pass


def test_a_killed_holder_leaves_no_lock(facility: Facility) -> None:
    facility.add("ics")
    with holder(facility, facility.name("ics")) as process:
        process.kill()
        process.wait()
        with facility.site.lock_bundle(facility.name("ics")):
            pass


# ---- limits over all hosts, and giving way


def test_a_rate_is_shared_with_the_streams_of_other_workers(make_facility: MakeFacility) -> None:
    facility = make_facility(service='rate = "1 GB"\n')
    facility.add("ics")
    throttle = throttle_of(facility.site.services[TAPE])
    assert throttle is not None
    rates: list[float] = []
    facility.site.progress = lambda *_: rates.append(throttle.rate)
    with facility.site.catalogue.session() as alive:  # as long as it has its session
        other = claims.register(alive, Host(label="other", name="other", pid=1), ("copy",), 3)
        with psycopg.connect(facility.site.catalogue.dsn) as conn:
            for _ in range(3):
                conn.execute(
                    "INSERT INTO attempt (worker_id, step, service, files, size_bytes, begun_at, beat_at)"
                    " VALUES (%s, 'copy', 'tape', 1, 1, clock_timestamp(), clock_timestamp() + interval '1 hour')",
                    (other,),
                )
            conn.execute("UPDATE worker SET beat_at = clock_timestamp() + interval '1 hour' WHERE id = %s", (other,))
        facility.work()
    assert rates[0] == pytest.approx(1e9 / 4)


def test_a_worker_is_as_nice_as_it_is_told(command_site: CommandSite) -> None:
    command_site.set_up(work='poll = "1s"\nnice = 7\nidle_io = true\n')
    process = command_site.start("worker")
    try:
        assert process.stdout is not None
        assert "Working on" in process.stdout.readline()
        tasks = list(Path(f"/proc/{process.pid}/task").iterdir())
        assert {os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks} == {7}
        told = subprocess.run(["ionice", "-p", str(process.pid)], capture_output=True, text=True, check=False)
        assert told.stdout.strip() in ("idle", "idle: prio 0", "")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
