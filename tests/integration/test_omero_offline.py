"""The probes against a real session, a real listening socket and a real lock of another process."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from omero_archive.demo import omero_tables as t
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.errors import DatabaseUnavailable, OmeroIsOn
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.offline import (
    Answer,
    ServerPorts,
    probe_lock,
    probe_nodes,
    probe_ports,
    probe_sessions,
    prove_offline,
)

LOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def database(omero_dsn: str) -> OmeroDatabase:
    return OmeroDatabase(omero_dsn)


@pytest.fixture
def lock(database: OmeroDatabase, tmp_path: Path) -> Path:
    """The path of the lock file; its directory is there, the file is not. `tmp_path` is the repository."""
    path = tmp_path / ".omero" / "repository" / database.uuid() / ".lock"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def standby() -> Iterator[OmeroDatabase]:
    """An OMERO's database on a server of its own, which is in recovery."""
    directory = Path(tempfile.mkdtemp(prefix="oa-sb-"))
    directory.chmod(0o755)
    binaries = os.environ.get("OMERO_ARCHIVE_TEST_POSTGRES_BIN")
    server = EmbeddedPostgres(directory / "pg", binaries=Path(binaries) if binaries else None, durable=False)
    try:
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("CREATE DATABASE omero")
        t.create_omero_tables(server.dsn("omero"))
        server.stop()
        (server.base / "data" / "standby.signal").touch()
        server.start()
        yield OmeroDatabase(server.dsn("omero"))
    finally:
        server.remove()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def session(dsn: str, **more: str) -> Iterator[None]:
    with psycopg.connect(make_conninfo(dsn, **more)):
        yield


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[int]:
    path.touch()
    command = [sys.executable, "-c", LOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process.pid
        process.communicate()


def test_a_session_that_calls_itself_omero_is_on(database: OmeroDatabase, omero_dsn: str) -> None:
    assert probe_sessions(database).answer is Answer.OFF
    with session(omero_dsn, application_name="OMERO.Server"):
        result = probe_sessions(database)
    assert result.answer is Answer.ON
    assert "OMERO.Server" in result.saw


def test_any_session_of_the_role_that_owns_the_tables_is_on(database: OmeroDatabase, omero_dsn: str) -> None:
    with session(omero_dsn, application_name="PostgreSQL JDBC Driver"):
        assert probe_sessions(database).answer is Answer.ON


def test_our_own_sessions_and_those_of_other_databases_are_not_omero(
    database: OmeroDatabase, omero_dsn: str, empty_dsn: str
) -> None:
    with session(omero_dsn, application_name="omero-archive worker"), session(empty_dsn):
        result = probe_sessions(database)
    assert (result.answer, result.saw) == (Answer.OFF, "no others")


def test_other_roles_are_told_but_do_not_count(
    database: OmeroDatabase, omero_dsn: str, postgres: EmbeddedPostgres
) -> None:
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        conn.execute("CREATE ROLE backup LOGIN")
        try:
            with session(omero_dsn, user="backup", application_name="pg_dump"):
                result = probe_sessions(database)
            with session(omero_dsn, user="backup", application_name="OMERO.second"):
                assert probe_sessions(database).answer is Answer.ON
        finally:
            conn.execute("DROP ROLE backup")
    assert result.answer is Answer.OFF
    assert "backup" in result.saw


def test_a_role_that_may_see_little_still_sees_omero(omero_dsn: str, postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        conn.execute("CREATE ROLE archivist LOGIN")
        try:
            limited = OmeroDatabase(make_conninfo(omero_dsn, user="archivist"))
            with session(omero_dsn, application_name="java"):
                assert probe_sessions(limited).answer is Answer.ON
            assert probe_sessions(limited).answer is Answer.OFF
            assert probe_nodes(limited).answer is Answer.CANNOT_TELL  # it may not read the table
        finally:
            conn.execute("DROP ROLE archivist")


def test_a_database_that_cannot_be_asked_tells_nothing(tmp_path: Path) -> None:
    gone = OmeroDatabase(f"host={tmp_path} dbname=omero")
    assert probe_sessions(gone).answer is Answer.CANNOT_TELL
    assert probe_nodes(gone).answer is Answer.CANNOT_TELL
    assert probe_lock(gone, tmp_path).answer is Answer.CANNOT_TELL


def test_a_port_that_accepts_is_on_and_ports_that_refuse_are_off(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = int(server.getsockname()[1])
        result = probe_ports(ServerPorts(host="localhost", ports=(free_port, listening)))
    assert result.answer is Answer.ON
    assert str(listening) in result.saw
    assert probe_ports(ServerPorts(host="localhost", ports=(free_port, listening))).answer is Answer.OFF


def test_silence_and_unknown_hosts_are_neither_on_nor_off(free_port: int) -> None:
    unknown = ServerPorts(host="no-such-host.invalid", ports=(free_port,))
    assert probe_ports(unknown).answer is Answer.CANNOT_TELL
    assert probe_ports(ServerPorts(ports=())).answer is Answer.CANNOT_TELL
    # A full backlog drops further connections without an answer, as a packet filter does.
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.socket() as first,
        socket.socket() as more,
    ):
        address = server.getsockname()
        first.connect(address)
        more.setblocking(False)
        more.connect_ex(address)
        silent = ServerPorts(host="127.0.0.1", ports=(free_port, int(address[1])), timeout_s=0.2)
        assert probe_ports(silent).answer is Answer.CANNOT_TELL


def test_a_lock_held_by_another_process_is_on(database: OmeroDatabase, lock: Path, tmp_path: Path) -> None:
    with locked_by_another_process(lock) as pid:
        result = probe_lock(database, tmp_path)
        assert result.answer is Answer.ON
        assert str(pid) in result.saw
    before = lock.stat()
    assert probe_lock(database, tmp_path).answer is Answer.OFF
    after = lock.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns, before.st_size) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
    )


def test_a_missing_lock_file_is_off_only_where_its_directory_can_be_read(
    database: OmeroDatabase, lock: Path, tmp_path: Path
) -> None:
    assert probe_lock(database, tmp_path).answer is Answer.OFF
    assert not lock.exists()
    lock.parent.rmdir()
    assert probe_lock(database, tmp_path).answer is Answer.CANNOT_TELL


def test_a_node_that_never_went_down_runs_or_crashed(database: OmeroDatabase, omero_dsn: str) -> None:
    assert probe_nodes(database).answer is Answer.OFF
    with psycopg.connect(omero_dsn, autocommit=True) as conn:
        t.add_node(conn, down=True)
        assert probe_nodes(database).answer is Answer.OFF
        node = t.add_node(conn)
    result = probe_nodes(database)
    assert result.answer is Answer.CANNOT_TELL
    assert node in result.saw


@pytest.mark.parametrize("up", ["infinity", "-infinity", "0044-03-15 12:00 BC", "12000-01-01"])
def test_a_node_with_a_time_that_python_does_not_know_tells_as_any_other(
    database: OmeroDatabase, omero_dsn: str, up: str
) -> None:
    with psycopg.connect(omero_dsn, autocommit=True) as conn:
        node = t.add_node(conn)
        conn.execute("UPDATE node SET up = %s WHERE uuid = %s", (up, node))
    result = probe_nodes(database)
    assert result.answer is Answer.CANNOT_TELL
    assert node in result.saw


def test_a_standby_does_not_tell_whether_omero_has_sessions(standby: OmeroDatabase) -> None:
    result = probe_sessions(standby)
    assert result.answer is Answer.CANNOT_TELL
    assert "standby" in result.saw
    assert probe_nodes(standby).answer is Answer.OFF
    with pytest.raises(DatabaseUnavailable, match="can only be read now"), standby.connect_for_marks() as conn:
        conn.execute("UPDATE image SET archived = true")


def test_omero_is_proved_off_and_a_session_refuses_it(
    database: OmeroDatabase, omero_dsn: str, lock: Path, tmp_path: Path, free_port: int
) -> None:
    where = ServerPorts(ports=(free_port,))
    assert [result.answer for result in prove_offline(database, tmp_path, where).results] == [Answer.OFF] * 4
    with session(omero_dsn, application_name="OMERO.Server"), pytest.raises(OmeroIsOn, match=r"OMERO\.Server"):
        prove_offline(database, tmp_path, where)
