"""`omero-archive mount` as a process, readers as processes: what programs see, and what is recalled because of them."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from mount_fixtures import MountSite, mount_site, require_fuse, soon, without_postgres
from omero_archive.access.lately import REMEMBERED_S
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from site_fixtures import CommandRunner, CommandSite, write_settings

SETS = ("ome-tiff", "plate", "ics", "dicom")  # fail, wait long, wait a moment, deny
NEAR = "pyramid"  # stays near


MANY_THREADS = """
import collections, json, sys, threading
ends, paths = collections.Counter(), json.loads(sys.argv[1])
def read(number):
    try:
        open(paths[number % len(paths)], "rb").close()
        ends["opened"] += 1
    except OSError as error:
        ends[error.strerror] += 1
threads = [threading.Thread(target=read, args=[number]) for number in range(300)]
for one in threads: one.start()
for one in threads: one.join()
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def shared(
    demo_template: DemoSite,
    postgres: EmbeddedPostgres,
    catalogue_template: str,
    command_runner: CommandRunner,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MountSite]:
    require_fuse()
    rules = [
        (Path(demo_template.fileset(slug).keys[0]).parts[:4], on_open, wait)
        for slug, on_open, wait in (("plate", "wait", "40s"), ("ics", "wait", "1s"), ("dicom", "deny", "0s"))
    ]
    mount = "".join(
        f'[[mount.rules]]\nunder = {json.dumps("/".join(parts))}\non_open = "{on_open}"\nwait = "{wait}"\n'
        for parts, on_open, wait in rules
    )
    with mount_site(
        demo_template,
        postgres,
        catalogue=catalogue_template,
        runner=command_runner,
        directory=tmp_path_factory.mktemp("mount"),
        mount=mount,
        slugs=(*SETS, NEAR),
    ) as site:
        site.commands.run("recall", site.demo.fileset(NEAR).reference)
        yield site


@pytest.fixture
def site(shared: MountSite) -> MountSite:
    """All of `SETS` away, nothing asked for, the mount at work."""
    if shared.server is None:
        shared.start()
    shared.forget_recalls()
    soon(lambda: not shared.rows("SELECT * FROM waiting_open"))  # of the test before
    near = {row["name"] for row in shared.rows("SELECT name FROM bundle WHERE residency = 'ONLINE'")}
    if too_near := near - {shared.name(NEAR)}:
        shared.commands.run("evict", *too_near)
    return shared


def is_right(site: MountSite, slug: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == site.digests[site.key(slug)]


def is_near(site: MountSite) -> bool:
    """Whether near bytes are read through the mount."""
    content, _ = site.read(site.path(NEAR))
    return is_right(site, NEAR, content)


def log_lines(site: MountSite, since: int) -> list[str]:
    return [line for line in site.log.read_text()[since:].splitlines() if "action=open" in line]


# ---- the policies


def test_a_failed_open_asks_for_the_bundle_and_a_worker_brings_it(site: MountSite) -> None:
    before = len(site.log.read_text())
    content, error = site.read(site.path("ome-tiff"))
    assert content == b""
    assert "No data available" in error
    assert site.asked_for() == {site.name("ome-tiff")}
    (line,) = log_lines(site, before)
    assert "reason=offline" in line
    assert "program=cat" in line
    assert "user=root" in line
    assert f"bundle={site.name('ome-tiff')}" in line
    with site.worker():
        soon(lambda: not site.asked_for())
    content, error = site.read(site.path("ome-tiff"))
    assert error == ""
    assert is_right(site, "ome-tiff", content)


def test_who_waits_gets_the_bytes_when_they_come(site: MountSite) -> None:
    reading = site.reader(site.path("plate"))
    soon(site.asked_for)
    soon(lambda: site.rows("SELECT * FROM waiting_open WHERE waiters = 1"))
    assert reading.poll() is None
    with site.worker():
        content, error = reading.communicate(timeout=30)
    assert error == b""
    assert is_right(site, "plate", content)


def test_a_wait_ends_in_time(site: MountSite) -> None:
    began = monotonic()
    _, error = site.read(site.path("ics"))
    assert "Connection timed out" in error
    assert 0.9 < monotonic() - began < 10
    assert site.asked_for() == {site.name("ics")}


def test_denied_files_and_excluded_programs_recall_nothing(site: MountSite, tmp_path: Path) -> None:
    _, error = site.read(site.path("dicom"))
    assert "No medium found" in error
    updatedb = tmp_path / "updatedb"
    shutil.copy("/bin/cat", updatedb)
    _, error = site.read(site.path("ome-tiff"), program=str(updatedb))
    assert "No medium found" in error
    assert site.asked_for() == set()


def test_looking_recalls_nothing(site: MountSite) -> None:
    root = str(site.root)
    listed = subprocess.run(["ls", "-lR", root], capture_output=True, text=True, check=True, timeout=30).stdout
    found = subprocess.run(
        ["find", root, "-type", "f", "-size", "+0", "-newermt", "1970-01-02"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    subprocess.run(["du", "-s", root], capture_output=True, check=True, timeout=30)
    for key in site.digests:
        assert Path(key).name in listed
        assert os.path.getsize(site.root / key) > 0
    assert len(found.splitlines()) == len(site.digests)
    assert site.asked_for() == set()


def test_nothing_can_be_written(site: MountSite) -> None:
    for command in (["touch", str(site.root / site.key("ome-tiff"))], ["rm", "-f", str(site.root / site.key("ics"))]):
        ended = subprocess.run(
            command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=False, timeout=30
        )
        assert "Read-only file system" in ended.stderr
    assert site.asked_for() == set()


def status_of(pid: int, what: str) -> int:
    """A number of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{what}:")).split()[1])


def test_hundreds_that_wait_cost_the_mount_no_thread_and_nobody_else_waits(site: MountSite) -> None:
    assert site.server is not None
    assert is_near(site)
    threads, memory_kb = status_of(site.server.pid, "Threads"), status_of(site.server.pid, "VmRSS")
    paths = [str(site.root / key) for key in site.demo.fileset("plate").keys]
    command = [sys.executable, "-c", MANY_THREADS, json.dumps(paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as storm:
        try:
            soon(lambda: site.rows("SELECT * FROM waiting_open WHERE waiters = 300"))
            assert status_of(site.server.pid, "Threads") == threads
            assert status_of(site.server.pid, "VmRSS") - memory_kb < 20_000
            assert is_near(site)
            assert site.asked_for() == {site.name("plate")}
            site.commands.run("recall", site.demo.fileset("plate").reference)
            out, _ = storm.communicate(timeout=30)
        finally:
            storm.kill()
    digests = {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}
    assert digests == {site.digests[str(key)] for key in site.demo.fileset("plate").keys}
    assert json.loads(out) == {"opened": 300}


# ---- what goes wrong


def test_a_reader_that_is_killed_leaves_nothing_and_the_recall_goes_on(site: MountSite) -> None:
    reading = site.reader(site.path("plate"))
    soon(lambda: site.rows("SELECT * FROM waiting_open"))
    reading.send_signal(signal.SIGTERM)
    assert reading.wait(5) == -signal.SIGTERM
    reading.communicate()
    soon(lambda: not site.rows("SELECT * FROM waiting_open"))
    assert site.asked_for() == {site.name("plate")}


def test_without_postgres_near_files_open_and_away_files_fail_and_it_recovers(site: MountSite) -> None:
    sleep(REMEMBERED_S + 0.1)  # what was asked a moment ago needs no catalogue
    with without_postgres(site.demo.catalogue_dsn):
        began = monotonic()
        assert is_near(site)
        assert "Remote I/O error" in site.read(site.path("plate"))[1]
        assert monotonic() - began < 20
    soon(lambda: "Connection timed out" in site.read(site.path("ics"))[1])
    assert site.asked_for() == {site.name("ics")}


def test_a_stop_answers_who_waits_and_unmounts(site: MountSite) -> None:
    reading = site.reader(site.path("plate"))
    soon(lambda: site.rows("SELECT * FROM waiting_open"))
    assert site.stop() == 0
    assert "Connection timed out" in reading.communicate(timeout=10)[1].decode()
    assert site.rows("SELECT * FROM waiting_open") == []
    assert os.listdir(site.root) == []


def test_a_mount_that_was_killed_is_taken_over(site: MountSite) -> None:
    with (site.root / site.key(NEAR)).open("rb") as still_open:
        site.stop(signal.SIGKILL)
        assert "not connected" in site.read(site.path(NEAR))[1]
        assert still_open.read() != b""
        site.start()
    assert is_near(site)
    site.stop(signal.SIGKILL)
    site.commands.run("mount", "--unmount")
    assert os.listdir(site.root) == []
    site.commands.run("mount", "--unmount", exits=2)  # there is none


# ---- starting


def test_what_is_served_is_said_and_a_second_mount_is_refused(site: MountSite) -> None:
    ended = site.commands.run("mount", exits=4)
    assert "mounted" in ended.stderr
    site.stop()
    before = os.listdir(site.root)
    dry = site.commands.run("mount", "--dry-run", "--json").json
    assert dry["dry_run"] is True
    assert dry["bundles"] == {"near": 1, "away": len(SETS)}
    assert dry["mounted"] is False
    assert os.listdir(site.root) == before == []
    told = site.start("--no-passthrough")
    assert str(site.root) in told
    assert "without passthrough" in told
    assert f"{len(SETS)} bundles are away" in told
    assert "deny" in told
    assert is_near(site)
    site.stop()
    with without_postgres(site.demo.catalogue_dsn):
        told = site.start()
        assert "cannot be asked" in told
        assert is_near(site)


def test_near_that_was_never_begun_is_not_served(site: MountSite) -> None:
    site.stop()
    near = site.demo.directory / "OMERO" / "Near"
    near.rename(near.with_name("Elsewhere"))
    site.commands.run("mount", exits=4)
    near.mkdir()
    try:
        ended = site.commands.run("mount", exits=4)
        assert "not mounted on this host" in ended.stderr
    finally:
        near.rmdir()
        near.with_name("Elsewhere").rename(near)


def test_a_site_whose_links_lead_to_near_bytes_needs_no_mount(command_site: CommandSite) -> None:
    ended = command_site.run("mount", exits=2)
    assert "needs no mount" in ended.stderr
    write_settings(command_site.demo, near=command_site.demo.directory / "OMERO" / "Near")
    command_site.run("init")
    (command_site.demo.archive_root / "forgotten").write_text("")
    ended = command_site.run("mount", exits=2)
    assert "is not empty" in ended.stderr
