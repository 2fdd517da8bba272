"""The private PostgreSQL: it starts anywhere, for anybody, again and again, and listens to nobody else."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from omero_archive.demo import postgres as module
from omero_archive.demo.postgres import EmbeddedPostgres, wheel_binaries
from omero_archive.errors import DatabaseUnavailable


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path, below one that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="oa-") as name:
        os.chmod(name, 0o755)
        yield Path(name) / "postgres"


def query(server: EmbeddedPostgres, statement: str) -> object:
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        cursor = conn.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return None if row is None else row[0]


def postmaster_pid(server: EmbeddedPostgres) -> int:
    return int((server.base / "data" / "postmaster.pid").read_text().splitlines()[0])


def test_it_keeps_its_databases_and_survives_a_kill(directory: Path) -> None:
    with EmbeddedPostgres(directory, durable=False) as server:
        assert query(server, "SHOW server_encoding") == "UTF8"
        query(server, "CREATE DATABASE omero")
        os.kill(postmaster_pid(server), signal.SIGKILL)
        with EmbeddedPostgres(directory, durable=False) as again:
            assert query(again, "SELECT count(*) FROM pg_database WHERE datname = 'omero'") == 1
            assert again.dsn() == server.dsn()
    with pytest.raises(psycopg.OperationalError):
        query(server, "SELECT 1")


def test_it_is_durable_unless_told_otherwise(directory: Path) -> None:
    for durable, fsync in ((True, "on"), (False, "off")):
        with EmbeddedPostgres(directory, durable=durable) as server:
            assert query(server, "SHOW fsync") == fsync


def test_it_listens_only_in_a_directory_of_its_own(directory: Path) -> None:
    with EmbeddedPostgres(directory, durable=False) as server:
        assert query(server, "SHOW listen_addresses") == ""
        assert stat.S_IMODE(server.base.stat().st_mode) == 0o700


def test_a_second_server_on_the_same_directory_is_refused_and_the_first_goes_on(directory: Path) -> None:
    with EmbeddedPostgres(directory, durable=False) as server:
        with pytest.raises(DatabaseUnavailable, match="already"):
            EmbeddedPostgres(directory).start()
        assert query(server, "SELECT 1") == 1


def test_it_is_stopped_by_whoever_knows_the_directory(directory: Path) -> None:
    server = EmbeddedPostgres(directory, durable=False)
    server.start()
    EmbeddedPostgres(directory).stop()
    with pytest.raises(psycopg.OperationalError):
        query(server, "SELECT 1")
    server.stop()
    server.remove()
    assert not directory.exists()


def test_a_pid_file_that_names_a_stranger_does_not_stop_it(directory: Path) -> None:
    with EmbeddedPostgres(directory, durable=False) as server:
        pid_file = server.base / "data" / "postmaster.pid"
        left_behind = pid_file.read_text()
    stranger = left_behind.replace(left_behind.splitlines()[0], str(os.getpid()), 1)
    pid_file.write_text(stranger)
    with EmbeddedPostgres(directory, durable=False) as server:
        assert query(server, "SELECT 1") == 1


@pytest.mark.parametrize("obstacle", ["a long path", "a private home"])
def test_a_directory_it_cannot_use_has_a_stand_in(directory: Path, obstacle: str) -> None:
    if obstacle == "a private home":
        if os.geteuid() != 0:
            pytest.skip("only root has an account that cannot enter its own home")
        directory.parent.chmod(0o700)
    else:
        directory = directory / ("x" * 100)
    server = EmbeddedPostgres(directory, durable=False)
    assert not server.was_made()
    with server:
        assert server.base != directory
        assert query(server, "SELECT 1") == 1
    assert EmbeddedPostgres(directory).was_made()
    assert EmbeddedPostgres(directory).base == server.base
    server.remove()
    assert not server.base.exists()
    assert not server.was_made()


def test_programs_that_the_account_cannot_reach_are_copied(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs it as another account")
    monkeypatch.setattr(module, "_FALLBACK", directory.parent)
    monkeypatch.setattr(module, "wheel_binaries", lambda: tmp_path / "nowhere")
    for _ in range(2):  # the second time from the copy that is there
        with EmbeddedPostgres(directory, durable=False) as server:
            assert query(server, "SELECT 1") == 1
            command = Path("/proc", str(postmaster_pid(server)), "cmdline").read_bytes()
            assert command.startswith(os.fsencode(directory.parent))


def test_wrong_programs_are_named(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=str(tmp_path)):
        EmbeddedPostgres(directory, binaries=tmp_path).start()


def test_it_runs_for_an_ordinary_user(directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests do")
    if subprocess.run(["test", "-x", sys.executable], user="nobody", extra_groups=[], cwd="/").returncode != 0:
        pytest.skip("nobody cannot run this Python")
    directory.mkdir()
    os.chown(directory, 65534, -1)
    code = (
        "import sys, psycopg; from pathlib import Path; from omero_archive.demo.postgres import EmbeddedPostgres\n"
        "with EmbeddedPostgres(Path(sys.argv[1]), binaries=Path(sys.argv[2]), durable=False) as server:\n"
        "    psycopg.connect(server.dsn()).execute('SELECT 1')\n"
    )
    command = [sys.executable, "-c", code, str(directory), str(wheel_binaries())]
    subprocess.run(command, user="nobody", group="nogroup", extra_groups=[], cwd="/", check=True)
