"""A demo site whose links lead through a real mount, served by a process of its own. Needs root and /dev/fuse.

Without them the tests are skipped, unless OMERO_ARCHIVE_REQUIRE_TOOLS=1: then they fail. Whatever happens, the mount is
taken away at the end: a dead one left behind confuses everybody after.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from demo_fixtures import copy_site
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from site_fixtures import CommandRunner, CommandSite, copy_catalogue, sha256_of, write_settings

_MNT_DETACH = 2  # linux/fs.h
_UNMOUNT = ctypes.CDLL(None, use_errno=True).umount2


def require_fuse() -> None:
    """Skip the test where no file system can be served."""
    if os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK):
        return
    if os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
        pytest.fail("OMERO_ARCHIVE_REQUIRE_TOOLS=1, but there is no root with /dev/fuse")
    pytest.skip("a real mount needs root and /dev/fuse")


@dataclass(slots=True, kw_only=True)
class MountSite:
    """A demo site with `archive.near` beside `archive.root`, and the processes that serve it."""

    commands: CommandSite
    options: dict[str, Any]
    digests: dict[str, str]  # of the originals, by key
    log: Path
    server: "subprocess.Popen[str] | None" = None

    @property
    def demo(self) -> DemoSite:
        return self.commands.demo

    @property
    def root(self) -> Path:
        return self.demo.archive_root

    # ---- the mount

    def start(self, *arguments: str) -> str:
        """Start the mount, wait until it says by systemd's protocol that it serves; what it says to people."""
        address = str(self.log.with_name("notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(address)
            listening.settimeout(30)
            try:
                program = str(Path(sys.executable).with_name("omero-archive"))
                with self.log.open("a") as log:
                    self.server = subprocess.Popen(
                        [program, "mount", *arguments],
                        env=os.environ | self.commands.environment | {"NOTIFY_SOCKET": address},
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                    )
                assert listening.recv(100) == b"READY=1", self.log.read_text()
            except TimeoutError:
                raise AssertionError(f"the mount does not get ready: {self.log.read_text()}") from None
            finally:
                os.unlink(address)
        assert self.server.stdout is not None
        os.set_blocking(self.server.stdout.fileno(), False)
        return os.read(self.server.stdout.fileno(), 1 << 16).decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the mount; its exit code."""
        assert self.server is not None
        self.server.send_signal(number)
        try:
            code = self.server.wait(20)
        finally:
            self.server.kill()
            assert self.server.stdout is not None
            self.server.stdout.close()
            self.server = None
        return code

    def detach(self) -> None:
        """Take away whatever is mounted, and the server."""
        if self.server is not None:
            self.stop(signal.SIGKILL)
        while _UNMOUNT(os.fsencode(self.root), _MNT_DETACH) == 0:
            pass

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker beside the mount."""
        running = self.commands.start("worker", "--queues", "recall")
        try:
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.communicate()

    # ---- looking

    def key(self, slug: str, number: int = 0) -> str:
        return str(self.demo.fileset(slug).keys[number])

    def path(self, slug: str, number: int = 0) -> Path:
        """The original's path, which is a link into the mount."""
        return self.demo.path(self.demo.fileset(slug).keys[number])

    def reader(self, *paths: Path, program: str = "cat") -> "subprocess.Popen[bytes]":
        """A process that opens files and prints them."""
        command = [program, "--", *map(str, paths)]
        return subprocess.Popen(
            command, env={**os.environ, "LC_ALL": "C"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def read(self, *paths: Path, program: str = "cat", within_s: float = 30) -> tuple[bytes, str]:
        """What a process read, and what it said was wrong."""
        reading = self.reader(*paths, program=program)
        try:
            out, err = reading.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            reading.kill()
            reading.communicate()
            raise
        return out, err.decode()

    def rows(self, query: LiteralString, *parameters: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.demo.catalogue_dsn, row_factory=dict_row) as conn:
            return conn.execute(query, parameters).fetchall()

    def asked_for(self) -> set[str]:
        """The bundles for which a recall is open."""
        query: LiteralString = (
            "SELECT b.name FROM recall r JOIN bundle b ON b.id = r.bundle_id WHERE r.finished_at IS NULL"
        )
        return {row["name"] for row in self.rows(query)}

    def name(self, slug: str) -> str:
        return self.demo.fileset(slug).reference.replace(":", "-")

    def forget_recalls(self) -> None:
        """As if nothing had been asked for."""
        with psycopg.connect(self.demo.catalogue_dsn) as conn:
            conn.execute("DELETE FROM recall; UPDATE bundle SET retry_at = NULL, last_error = NULL, attempts = 0")


def soon(is_so: Any, *, within_s: float = 15.0) -> None:
    """Wait until it is so."""
    end = monotonic() + within_s
    while not is_so():
        assert monotonic() < end, "it did not come to that in time"
        sleep(0.05)


@contextmanager
def mount_site(
    template: DemoSite,
    postgres: EmbeddedPostgres,
    *,
    catalogue: str,
    runner: CommandRunner,
    directory: Path,
    mount: str = "",
    slugs: Sequence[str],
) -> Iterator[MountSite]:
    """A site under a mount, with these filesets released. `mount` is the table of the settings."""
    demo = copy_site(template, directory / "site", postgres=postgres)
    copy_catalogue(demo, postgres, catalogue)
    options: dict[str, Any] = {
        "near": demo.directory / "OMERO" / "Near",
        "keep_originals": "0s",
        "work": f'poll = "1s"\nretry_after = "1min"\n{mount}',
    }
    commands = CommandSite(demo=demo, settings=write_settings(demo, **options), runner=runner)
    digests = {str(key): sha256_of(demo.path(key)) for slug in slugs for key in demo.fileset(slug).keys}
    site = MountSite(commands=commands, options=options, digests=digests, log=directory / "mount.log")
    commands.run("init")
    try:
        references = [demo.fileset(slug).reference for slug in slugs]
        commands.run("add", *references)
        commands.run("run")
        site.start()
        commands.run("release", *references)
        yield site
    finally:
        site.detach()
        with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
            for dsn in (demo.omero_dsn, demo.catalogue_dsn):
                name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
                conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        shutil.rmtree(demo.directory)


@contextmanager
def without_postgres(dsn: str) -> Iterator[None]:
    """A database takes no connections, and those it has are gone."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    change = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as conn:
        conn.execute(change.format(sql.Identifier(name), sql.SQL("false")))
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            yield
        finally:
            conn.execute(change.format(sql.Identifier(name), sql.SQL("true")))
