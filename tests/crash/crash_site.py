"""A small site whose commands run as processes with a fault in them, and what can be seen of it afterwards.

Each command is a child of this process, forked for it: it opens the site anew, as a command that an administrator
starts does. What is seen afterwards is read from the disk and by SQL, not asked of omero-archive.
"""

import errno
import gc
import json
import os
import shutil
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import procrastinate  # noqa: F401 - imported once here, not in every child
import psycopg
import typer.main
from postgres_proxy import Cut, PostgresProxy
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from demo_fixtures import copy_site
from omero_archive.app import initialise, open_site
from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import Request
from omero_archive.cli import main as command_line
from omero_archive.cli.lazily import LazyGroup
from omero_archive.demo.site import DemoSite, PostgresServer
from omero_archive.errors import ArchiveError
from omero_archive.model import Bundle, BundleName, Key, ObjectRef, ObjectType
from omero_archive.omero.closure import bundles as closure
from omero_archive.settings import load_settings
from omero_archive.states import Decision, Residency
from omero_archive.steps import unarchive
from omero_archive.steps.add import add
from omero_archive.steps.evict import evict
from omero_archive.steps.recall import recall, request_recall
from omero_archive.steps.release import release
from omero_archive.steps.site import Site
from omero_archive.testing.faulty_disk import STOPPED, Call, Fault, FaultyDisk
from preloading import import_all
from site_fixtures import sha256_of, write_settings
from witness import Witness

STEPS = ("add", "run", "release", "evict", "recall", "unarchive")
"""The cycle, by its commands. `run` is copy, manifest, verify and confirm."""

DATABASES = ("catalogue", "omero")

_OWN = (
    *(f"OMERO/Archive/.omero-archive{below}" for below in ("", "/incoming", "/outgoing", "/bundles")),
    *(f"tape/.omero-archive{below}" for below in ("", "/incoming", "/service")),
)
"""Made when they are first needed, and kept."""

WORK = 'poll = "1h"\nretry_after = "1h"\nmax_failures = 1000\nmax_failure_rate = 1\n'
"""What fails is tried again when `time_passes`, not before."""

MOST_SECONDS = 60
"""No command takes so long: one that does hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it did until then."""

    code: int
    text: str  # standard error and output
    calls: tuple[Call, ...] = ()  # only of a command that came to its end
    commits: dict[str, int] = field(default_factory=dict)

    @property
    def was_stopped(self) -> bool:
        return self.code == STOPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that counts, at one moment. Paths are relative to the site's directory."""

    disk: dict[str, tuple[object, ...]]  # kind, mode, size, mtime, names, target or SHA-256
    catalogue: dict[str, list[dict[str, Any]]]
    marks: dict[str, Any]


class CrashSite:
    """One fileset of a demo site, through the cycle and back as often as one likes."""

    def __init__(self, template: DemoSite, slug: str, directory: Path, *, postgres: PostgresServer) -> None:
        self._template, self._directory, self._postgres = template, directory, postgres
        self.slug = slug
        self.fileset = template.fileset(slug)
        self.reference = self.fileset.reference
        self.name = BundleName(self.reference.replace(":", "-"))
        import_all()
        self._app = typer.main.get_command(command_line.app)
        assert isinstance(self._app, LazyGroup)
        _ = list(self._app.commands.values())  # built once, not in every child
        self._build()

    def _build(self) -> None:
        self._ends = ExitStack()
        self.demo = copy_site(self._template, self._directory / "site", postgres=self._postgres)
        self._ends.callback(self._drop)
        self.witness = Witness.of_site(replace(self.demo, filesets=(self.fileset,)))
        self._sockets = Path(tempfile.mkdtemp(prefix="oa-crash-"))  # a socket's name is short
        self._ends.callback(shutil.rmtree, self._sockets)
        self._settings = write_settings(self.demo, work=WORK)
        self._proxied = self._sockets / "proxied.toml"
        self._proxied.write_text(self._through_proxies(self._settings.read_text()))
        with open_site(load_settings(self._settings)) as site:
            initialise(site)
        self._warm = self._ends.enter_context(open_site(load_settings(self._settings)))
        self.catalogue = self._ends.enter_context(_connected(self.demo.catalogue_dsn))
        self.omero = self._ends.enter_context(_connected(self.demo.omero_dsn))
        tables = self.catalogue.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " AND relname NOT IN ('alembic_version', 'site')"  # who we are stays
        ).fetchall()
        self._clear = f"TRUNCATE {', '.join(row['relname'] for row in tables)} RESTART IDENTITY CASCADE"

    def _through_proxies(self, text: str) -> str:
        for database, dsn in zip(DATABASES, (self.demo.catalogue_dsn, self.demo.omero_dsn), strict=True):
            proxy = PostgresProxy(dsn, self._sockets / database, stop=_stop)
            text = text.replace(json.dumps(dsn), json.dumps(proxy.dsn))
        return text

    def _drop(self) -> None:
        with psycopg.connect(self._postgres.dsn(), autocommit=True) as conn:
            for dsn in (self.demo.omero_dsn, self.demo.catalogue_dsn):
                name = str(conninfo_to_dict(dsn)["dbname"])
                conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        shutil.rmtree(self.demo.directory)

    def close(self) -> None:
        """Drop its databases and its directory."""
        self._ends.close()

    def renew(self) -> None:
        """After something that must not be: the site anew, so that what comes next is not measured by it."""
        self._ends.close()
        self._build()

    def __enter__(self) -> "CrashSite":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- doing

    def arguments(self, step: str) -> list[str]:
        """The command line of a step."""
        return [step] if step == "run" else [step, self.reference]

    def command(
        self, step: str, fault: Fault | None = None, *, cuts: dict[str, Cut] | None = None, watched: bool = False
    ) -> Ended:
        """A command as a process; `watched` tells its calls and commits."""
        report = self._sockets / "report"
        output = self._sockets / "output"
        report.unlink(missing_ok=True)
        before = self._sessions()
        child = os.fork()
        if child == 0:
            self._become(step, fault, cuts=cuts, report=report, output=output, watched=watched)
        code = _waited(child)
        self._until_alone(before)
        known = json.loads(report.read_text()) if report.exists() else {"calls": [], "commits": {}}
        return Ended(
            code=code,
            text=output.read_text(errors="replace"),
            calls=tuple(Call(name=name, path=path) for name, path in known["calls"]),
            commits=known["commits"],
        )

    def _become(
        self,
        step: str,
        fault: Fault | None,
        *,
        cuts: dict[str, Cut] | None,
        report: Path,
        output: Path,
        watched: bool,
    ) -> None:
        code: object = 70
        command_line.app = self._app  # type: ignore[assignment] # in this child only
        unarchive.GRACE_S = 0.0  # nobody reads the old links here
        try:
            target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            gc.disable()  # it would touch, and so copy, every page of the parent
            # Another file than pytest's, which it keeps in memory and this process will not live to write out.
            sys.stdout = sys.stderr = open(target, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115
            with ExitStack() as around:
                proxies = {}
                settings = self._settings
                if cuts is not None or watched:
                    settings = self._proxied
                    for database, dsn in zip(DATABASES, (self.demo.catalogue_dsn, self.demo.omero_dsn), strict=True):
                        cut = (cuts or {}).get(database)
                        proxies[database] = around.enter_context(
                            PostgresProxy(dsn, self._sockets / database, cut, stop=_stop)
                        )
                disk = FaultyDisk(fault)
                if fault is not None or watched:
                    around.enter_context(disk)
                code = _main(["--settings", str(settings), *self.arguments(step)])
            sys.stdout.flush()
            calls = [(call.name, call.path) for call in disk.calls] if watched else []
            commits = {name: proxy.commits for name, proxy in proxies.items()}
            report.write_text(json.dumps({"calls": calls, "commits": commits}))
        except BaseException:  # noqa: BLE001 - a child never comes back to its parent's code
            traceback.print_exc()
        finally:
            os._exit(code if isinstance(code, int) else 70)

    def _sessions(self) -> set[int]:
        names = [conninfo_to_dict(dsn)["dbname"] for dsn in (self.demo.catalogue_dsn, self.demo.omero_dsn)]
        query = "SELECT pid FROM pg_stat_activity WHERE datname = ANY(%s)"
        return {row["pid"] for row in self.catalogue.execute(query, (names,)).fetchall()}

    def _until_alone(self, before: set[int]) -> None:
        """Until the server has noticed that the process ended: its locks go with its sessions."""
        deadline = time.monotonic() + MOST_SECONDS
        while self._sessions() - before:
            assert time.monotonic() < deadline, "sessions of a process that ended are still there"
            time.sleep(0.001)

    def prepare(self, step: str) -> None:
        """Bring the site to where a step begins, from wherever it is; without processes, since that is no test."""
        with self._warm.catalogue.begin() as connection:
            bundle = bundles.by_name(connection, self.name)
        if step in ("add", "run") or bundle is None or not self._is_archived():
            self._unarchived()
            self.reset()
            if step != "add":
                self._added()
            if step not in ("add", "run"):
                assert self.command("run").code == 0
                self.prepare(step)
            return
        match step, bundle.residency:
            case "release", _:
                self._unarchived()
                self._added()
            case "evict" | "unarchive", Residency.RESIDENT:
                self._added()
                release(self._warm, self.name)
            case "evict" | "unarchive", _:
                request_recall(self._warm, self.name, by="test")
                recall(self._warm, self.name)
            case "recall", Residency.RESIDENT:
                self._added()
                release(self._warm, self.name)
                evict(self._warm, self.name)
            case "recall", _:
                evict(self._warm, self.name)

    def _is_archived(self) -> bool:
        copies = self.states()["copy"]
        return all(copy["unconfirmed"] is False for copy in copies)

    def _added(self) -> None:
        kind, _, number = self.reference.partition(":")
        (found,) = closure(self._warm.omero, [ObjectRef(type=ObjectType(kind), id=int(number))])
        assert isinstance(found, Bundle)
        add(self._warm, found, Request(by="test"), decision=Decision.APPROVED)

    def _unarchived(self) -> None:
        with self._warm.catalogue.begin() as connection:
            bundle = bundles.by_name(connection, self.name)
        if bundle is None or (bundle.residency is Residency.RESIDENT and bundle.intent is None):
            return
        if bundle.residency is Residency.RESIDENT:
            release(self._warm, self.name)
        for _, error in _without_grace(self._warm, self.name):
            if error is not None:
                raise error

    def time_passes(self) -> None:
        """What waits for its time is due now."""
        for table in ("bundle", "copy"):
            self.catalogue.execute(f"UPDATE {table} SET retry_at = now() WHERE retry_at IS NOT NULL".encode())
        self.catalogue.execute("UPDATE copy SET asked_at = asked_at - interval '1 day' WHERE state = 'VERIFIED'")

    def reset(self) -> None:
        """As if nothing had ever been archived. The originals must be in their places, and OMERO unmarked."""
        self.catalogue.execute(self._clear.encode())
        for path in (*self.demo.service_path.iterdir(), *self.demo.archive_root.iterdir()):
            if path.name == ".omero-archive":
                for each in path.iterdir():  # but for the markers, by which the disks are known
                    if each.is_dir():
                        shutil.rmtree(each)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    # ---- looking

    def cannot_read(self, key: str) -> str | None:
        """What is wrong with what a reader of a path gets, or that he gets nothing."""
        if not os.path.exists(self.demo.path(Key(key))):
            return f"{key}: a reader gets nothing"
        return self.witness.read(key)

    def seen(self) -> Seen:
        return Seen(disk=self.disk(), catalogue=self.states(), marks=self.marks())

    def disk(self) -> dict[str, tuple[object, ...]]:
        """Everything on the site's disks."""
        found: dict[str, tuple[object, ...]] = {}
        top = str(self.demo.directory)
        for root in (self.demo.data_dir, self.demo.service_path):
            for directory, names, files in os.walk(root):
                for name in (*names, *files):
                    path = os.path.join(directory, name)
                    found[os.path.relpath(path, top)] = self._entry(path)
        for name in _OWN:
            found.pop(name, None)
        return found

    def _entry(self, path: str) -> tuple[object, ...]:
        seen = os.lstat(path)
        kind = stat.S_IFMT(seen.st_mode)
        if kind == stat.S_IFDIR:
            return ("directory", stat.S_IMODE(seen.st_mode))
        if kind == stat.S_IFLNK:
            return ("link", os.readlink(path))
        # Only what can be ours is read: the others are as large as one likes.
        content = sha256_of(Path(path)) if self._is_ours(path) else ""
        return ("file", stat.S_IMODE(seen.st_mode), seen.st_size, seen.st_mtime_ns, seen.st_nlink, content)

    def _is_ours(self, path: str) -> bool:
        below = (str(self.demo.archive_root) + "/", str(self.demo.service_path) + "/")
        return path.startswith(below) or path.endswith(tuple(self.fileset.keys))

    def states(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of the catalogue without times and numbers."""
        queries = {
            "bundle": "SELECT name, decision, residency, is_marked, intent, hold_reason, size_bytes, file_count,"
            " attempts, last_error, needs_attention, released_at IS NULL AS unreleased, near_since IS NULL AS away"
            " FROM bundle ORDER BY name",
            "copy": "SELECT encode(f.key, 'escape') AS key, service, state, c.sha256,"
            " verified_at IS NULL AS unverified, confirmed_at IS NULL AS unconfirmed, c.attempts, c.last_error,"
            " c.needs_attention"
            " FROM copy c JOIN file f ON f.id = c.file_id ORDER BY key, service",
            "file": "SELECT encode(key, 'escape') AS key, size_bytes, sha256, xxh3, mtime_ns, mode, uid, gid FROM file"
            " ORDER BY key",
            "image": "SELECT id, is_fileset_image FROM image ORDER BY id",
            "manifest": "SELECT service, directory FROM manifest ORDER BY service",
            "recall": "SELECT outcome, finished_at IS NULL AS is_open FROM recall WHERE finished_at IS NULL",
        }
        return {name: self.catalogue.execute(query.encode()).fetchall() for name, query in queries.items()}

    def events(self) -> list[dict[str, Any]]:
        return self.catalogue.execute("SELECT what, old, new, detail FROM event ORDER BY id").fetchall()

    def marks(self) -> dict[str, Any]:
        """OMERO's flags of the fileset's images, and our annotations with what they are linked to."""
        images = list(self.fileset.image_ids)
        flags = self.omero.execute(
            "SELECT id, archived FROM image WHERE id = ANY(%s) ORDER BY id", (images,)
        ).fetchall()
        annotations = self.omero.execute(
            "SELECT id FROM annotation WHERE ns = 'omero-archive/archived' ORDER BY id"
        ).fetchall()
        linked = self.omero.execute(
            "SELECT 'image' AS of, parent FROM imageannotationlink l JOIN annotation a ON a.id = l.child"
            " WHERE a.ns = 'omero-archive/archived' UNION ALL SELECT 'fileset', parent FROM filesetannotationlink l"
            " JOIN annotation a ON a.id = l.child WHERE a.ns = 'omero-archive/archived' ORDER BY 1, 2"
        ).fetchall()
        return {
            "flags": {row["id"]: row["archived"] for row in flags},
            "annotations": len(annotations),
            "linked": [(row["of"], row["parent"]) for row in linked],
        }


def _without_grace(site: Site, name: BundleName) -> list[tuple[BundleName, ArchiveError | None]]:
    """Unarchive where nobody reads the old links."""
    grace, unarchive.GRACE_S = unarchive.GRACE_S, 0.0
    try:
        return list(unarchive.unarchive(site, [name]))
    finally:
        unarchive.GRACE_S = grace


def _main(arguments: Sequence[str]) -> object:
    try:
        command_line.main(list(arguments))
    except SystemExit as end:
        return 0 if end.code is None else end.code
    return 0


def _stop() -> None:
    os._exit(STOPPED)


def _waited(child: int) -> int:
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return errno.ETIMEDOUT
        time.sleep(0.002)


@contextmanager
def _connected(dsn: str) -> Iterator["psycopg.Connection[dict[str, Any]]"]:
    # Of an application that OMERO's proof of silence does not count as OMERO.
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row, application_name="omero-archive") as conn:
        yield conn
