"""Sites under archiving, for the tests of steps (in this process) and of the command line (as processes).

`facility` gives a site whose steps are called directly, with a clock that can be moved; `command_site` one that is
driven by the command line. Both are a `demo_site` with settings, a service directory and a fresh catalogue.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from demo_fixtures import copy_database
from omero_archive.app import initialise, open_site
from omero_archive.catalogue import bundles
from omero_archive.catalogue import copies as copy_queries
from omero_archive.catalogue.bundles import BundleRecord, Request
from omero_archive.catalogue.claims import STATES, Claim
from omero_archive.catalogue.tables import metadata
from omero_archive.demo.filesets import Expected
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoFileset, DemoSite
from omero_archive.engine import Engine
from omero_archive.jobs import Result
from omero_archive.model import Bundle, BundleName, ObjectRef, ObjectType, ServiceName
from omero_archive.mover import Mover, bounds
from omero_archive.omero.closure import bundles as closure
from omero_archive.settings import load_settings
from omero_archive.states import CopyEvidence, CopyState, Decision, Residency
from omero_archive.steps import unarchive as unarchive_step
from omero_archive.steps.add import Added, add
from omero_archive.steps.evict import evict
from omero_archive.steps.recall import recall, request_recall
from omero_archive.steps.release import release
from omero_archive.steps.site import Site

SILENT_PORTS = "[4, 6]"  # privileged and given to nobody: what a stopped OMERO looks like

Rows = dict[str, list[dict[str, Any]]]
"""Every row of every table."""


# ---- looking


def rows_of(dsn: str, *, only: Iterable[str] = (), without: Mapping[str, Sequence[str]] | None = None) -> Rows:
    """All rows of a database's tables (or of `only` these), `without` some columns, in an order of their own."""
    found: Rows = {}
    with psycopg.connect(dsn, row_factory=dict_row, application_name="omero-archive test") as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        wanted = set(only) or {row["relname"] for row in tables}
        for table in sorted(wanted):
            left_out = (without or {}).get(table, ())
            rows = conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
            found[table] = sorted(({k: v for k, v in row.items() if k not in left_out} for row in rows), key=repr)
    return found


def catalogue_rows(dsn: str) -> Rows:
    """All that the catalogue knows. Left out: the queue, who works or worked last, and counts of the rows themselves,
    which are summed up now and then."""
    return rows_of(dsn, only=[*(metadata.tables.keys() - {"worker", "copy_count"}), "alembic_version"])


def set_on(dsn: str, name: str, value: str) -> None:
    """A setting with which all later sessions of a database begin."""
    with psycopg.connect(dsn) as connection:
        query = sql.SQL("ALTER DATABASE {} SET {} = {}")
        database = sql.Identifier(connection.info.dbname)
        # One that can only be read can be set right again.
        connection.read_only = False
        connection.execute(query.format(database, sql.Identifier(name), sql.Literal(value)))


def disk_below(*roots: Path) -> dict[str, tuple[object, ...]]:
    """Everything below directories: kind, target, size, mtime, inode, mode, owner, number of names. Opens nothing."""
    found: dict[str, tuple[object, ...]] = {}
    for root in roots:
        for directory, names, files in os.walk(os.fsencode(root)):
            for name in (*names, *files):
                path = os.path.join(directory, name)
                seen = os.lstat(path)
                target = os.readlink(path) if stat.S_ISLNK(seen.st_mode) else None
                size = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_size
                owner = (seen.st_uid, seen.st_gid)
                facts = (seen.st_mode, target, size, seen.st_mtime_ns, seen.st_ino, owner, seen.st_nlink)
                found[os.fsdecode(path)] = facts
    return found


def left_below(root: Path) -> list[Path]:
    """What lies below a directory of near bytes; without the site's marker and locks, which stay."""
    ours = {root / ".omero-archive/site", root / ".omero-archive/locks"}
    return [path for path in root.rglob("*") if not path.is_dir() and path not in ours]


def file_facts(path: Path) -> tuple[object, ...]:
    """What must be as it was at an original's path: kind, bytes, mtime, mode, owner."""
    seen = path.lstat()
    owner = (seen.st_uid, seen.st_gid)
    return stat.S_IFMT(seen.st_mode), sha256_of(path), seen.st_mtime_ns, stat.S_IMODE(seen.st_mode), owner


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flip_a_byte(path: Path, *, at: int = -1) -> None:
    """Change one byte; size and mtime stay as they were."""
    seen = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 0x20
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


# ---- settings


def settings_text(
    site: DemoSite,
    *,
    durable_after: str = "0s",
    proof_lifetime: str = "1h",
    keep_originals: str = "7d",
    copies_on: Sequence[str] = ("tape",),
    copies: str | None = None,
    service: str = "",
    distances: Mapping[str, int] | None = None,
    near: Path | None = None,
    archive: str = "",
    omero: str = "",
    release: str = "",
    work: str = 'poll = "1s"\nretry_after = "1min"\n',
) -> str:
    """An `omero-archive.toml`. Each service of `copies_on` is a directory of that name in the site's."""
    quoted = json.dumps
    services = "".join(
        f'[services.{name}]\ntype = "directory"\npath = {quoted(str(site.directory / name))}\n'
        # A service that a test takes away is not to be waited for.
        f"durable_after = {quoted(durable_after)}\nretries = 0\n"
        f"distance = {(distances or {}).get(name, 0)}\n{service}\n"
        for name in copies_on
    )
    return (
        f"[omero]\ndatabase = {quoted(site.omero_dsn)}\ndata_dir = {quoted(str(site.data_dir))}\n"
        f'host = "127.0.0.1"\nports = {SILENT_PORTS}\n{omero}\n'
        f"[catalogue]\ndatabase = {quoted(site.catalogue_dsn)}\n\n"
        f"[archive]\nroot = {quoted(str(site.archive_root))}\n"
        f"near = {quoted(str(near or site.archive_root))}\n{archive}\n{services}"
        f"[release]\ncopies = {copies or quoted(list(copies_on))}\nproof_lifetime = {quoted(proof_lifetime)}\n"
        f"keep_originals = {quoted(keep_originals)}\n{release}\n[work]\n{work}"
    )


# ---- steps, in this process


@dataclass(slots=True)
class MovableClock:
    """The real time and as much more as a test wants."""

    offset: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, **amount: float) -> None:
        self.offset += timedelta(**amount)


@dataclass(slots=True, kw_only=True)
class Facility:
    """A demo site under archiving, its steps called in this process. Filesets are named by the demo's slugs."""

    demo: DemoSite
    site: Site
    clock: MovableClock
    before: dict[str, tuple[object, ...]] = field(default_factory=dict)

    # ---- doing

    def found(self, slug: str) -> Bundle:
        """The bundle as OMERO's database has it now."""
        kind, _, number = self.demo.fileset(slug).reference.partition(":")
        (bundle,) = closure(self.site.omero, [ObjectRef(type=ObjectType(kind), id=int(number))])
        assert isinstance(bundle, Bundle), bundle
        return bundle

    def add(self, *slugs: str, decision: Decision = Decision.APPROVED) -> list[Added]:
        for slug in slugs:
            for key in self.demo.fileset(slug).keys:
                if key not in self.before:
                    self.before[key] = file_facts(self.demo.path(key))
        request = Request(by="tester")
        return [add(self.site, self.found(slug), request, decision=decision) for slug in slugs]

    def work(self) -> Result:
        """All that is due now."""
        return Engine(self.site).run()

    @contextmanager
    def claimed(self, step: str, service: str = "tape") -> Iterator[Claim]:
        """The copies that are due for a step, as a worker claims them."""
        with Mover(self.site).at_work([step], 1) as mover, mover.claimed(step, ServiceName(service)) as claim:
            assert claim is not None, f"nothing is due for {step}"
            yield claim

    def is_due(self, step: str, service: str = "tape") -> bool:
        """Whether anything is due for a step."""
        name = ServiceName(service)
        with self.site.catalogue.begin() as connection:
            return copy_queries.due_slices(connection, name, STATES[step], bounds=bounds(self.site), most=1) > 0

    def archive(self, *slugs: str) -> None:
        """Add, copy, verify, confirm: all copies durable."""
        self.add(*slugs)
        self.work()
        for slug in slugs:
            assert set(self.copy_states(slug).values()) == {CopyState.DURABLE}, self.errors(slug)

    def release(self, *slugs: str) -> None:
        for slug in slugs:
            release(self.site, self.name(slug))

    def released(self, *slugs: str) -> None:
        """Archive and release."""
        self.archive(*slugs)
        self.release(*slugs)

    def evict(self, *slugs: str) -> int:
        return sum(evict(self.site, self.name(slug)) for slug in slugs)

    def recall(self, *slugs: str) -> None:
        for slug in slugs:
            request_recall(self.site, self.name(slug), by="tester")
            recall(self.site, self.name(slug))

    def unarchive(self, *slugs: str) -> None:
        for _, error in unarchive_step.unarchive(self.site, [self.name(slug) for slug in slugs]):
            if error is not None:
                raise error

    # ---- looking

    def name(self, slug: str) -> BundleName:
        return BundleName(self.demo.fileset(slug).reference.replace(":", "-"))

    def record(self, slug: str) -> BundleRecord:
        with self.site.catalogue.begin() as connection:
            found = bundles.by_name(connection, self.name(slug))
        assert found is not None
        return found

    def residency(self, slug: str) -> Residency:
        return self.record(slug).residency

    def copies(self, slug: str) -> list[dict[str, Any]]:
        """The rows of its copies, each with its file's key."""
        number = self.record(slug).id
        with self.site.catalogue.begin() as connection:
            keys = {file.id: file.key for file in bundles.files(connection, number)}
        rows = rows_of(self.site.catalogue.dsn, only=["copy"])["copy"]
        return sorted(
            ({**row, "key": keys[row["file_id"]]} for row in rows if row["bundle_id"] == number),
            key=lambda row: int(row["id"]),
        )

    def copy_states(self, slug: str) -> dict[tuple[str, str], CopyState]:
        """The state of each copy, by key and service."""
        return {(row["key"], row["service"]): CopyState(row["state"]) for row in self.copies(slug)}

    def errors(self, slug: str) -> list[str]:
        return [row["last_error"] for row in self.copies(slug) if row["last_error"]]

    def paths(self, slug: str) -> tuple[Path, ...]:
        return self.demo.paths(self.demo.fileset(slug))

    def archived_path(self, key: str, service: str = "tape") -> Path:
        return self.demo.directory / service / key

    def is_as_before(self, slug: str) -> bool:
        """Whether every original is a file in its place again, with the bytes, mtime, mode and owner it had."""
        keys = self.demo.fileset(slug).keys
        return all(file_facts(self.demo.path(key)) == self.before[key] for key in keys)

    def reads_as_before(self, slug: str) -> bool:
        """Whether every path gives the bytes it gave, through a link or not."""
        return all(sha256_of(self.demo.path(key)) == self.before[key][1] for key in self.demo.fileset(slug).keys)

    def evidence(self, slug: str) -> list[CopyEvidence]:
        with self.site.catalogue.begin() as connection:
            files = bundles.files(connection, self.record(slug).id)
            found = copy_queries.evidence(connection, [file.id for file in files])
        return [one for known in found.values() for one in known]


MakeFacility = Callable[..., Facility]


@pytest.fixture
def make_facility(
    demo_site: DemoSite, postgres: EmbeddedPostgres, catalogue_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeFacility]:
    """Makes the facility, or opens it again with other settings: the options of `settings_text`."""
    copy_catalogue(demo_site, postgres, catalogue_template)
    # Nobody reads the old links here: the grace of a second would only be waited for.
    monkeypatch.setattr(unarchive_step, "GRACE_S", 0.0)
    with ExitStack() as open_ones:

        def make(clock: MovableClock | None = None, **options: Any) -> Facility:
            return open_ones.enter_context(opened_facility(demo_site, clock or MovableClock(), **options))

        yield make


class opened_facility(ExitStack):  # noqa: N801 - used as a context manager
    """The facility of a demo site, initialised."""

    def __init__(self, demo: DemoSite, clock: MovableClock, **options: Any) -> None:
        super().__init__()
        self._demo, self._clock, self._options = demo, clock, options

    def __enter__(self) -> Facility:  # type: ignore[override]
        super().__enter__()
        path = write_settings(self._demo, **self._options)
        site = self.enter_context(open_site(load_settings(path), clock=self._clock))
        initialise(site)
        return Facility(demo=self._demo, site=site, clock=self._clock)


def copy_catalogue(demo: DemoSite, postgres: EmbeddedPostgres, template: str) -> None:
    """Make the site's catalogue as `init` would, in a tenth of the time."""
    name = str(psycopg.conninfo.conninfo_to_dict(demo.catalogue_dsn)["dbname"])
    copy_database(postgres, name, template=template)


@pytest.fixture
def facility(make_facility: MakeFacility) -> Facility:
    """A facility with one service, `tape`, that vouches at once."""
    return make_facility()


def write_settings(demo: DemoSite, **options: Any) -> Path:
    """The settings file, and the directories of its services."""
    for name in options.get("copies_on", ("tape",)):
        (demo.directory / name).mkdir(exist_ok=True)
    path = demo.directory / "omero-archive.toml"
    path.write_text(settings_text(demo, **options))
    return path


# ---- the command line, as processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class CommandRunner:
    """A process that has imported the program and forks for each command."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="oa-run-"))
        self._out, self._err = self._directory / "out", self._directory / "err"
        program = Path(__file__).with_name("forked_command.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, kill_after_s: float | None = None
    ) -> Ended:
        """A command to its end, or until it is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "stdout": str(self._out),
            "stderr": str(self._err),
            "kill_after_s": kill_after_s,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return Ended(code=code, stdout=self._out.read_text(), stderr=self._err.read_text())

    def close(self) -> None:
        self._process.communicate(timeout=30)
        shutil.rmtree(self._directory)


@dataclass(slots=True, kw_only=True)
class CommandSite:
    """A demo site that is driven by the command line."""

    demo: DemoSite
    settings: Path
    runner: CommandRunner

    @property
    def environment(self) -> dict[str, str]:
        return {"OMERO_ARCHIVE_SETTINGS": str(self.settings)}

    def run(self, *arguments: str, exits: int | None = 0) -> Ended:
        """A command to its end; fails unless it `exits` with that code (None: whatever it is)."""
        ended = self.runner.run(arguments, self.environment)
        assert exits is None or ended.code == exits, (arguments, ended.code, ended.stdout, ended.stderr)
        return ended

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """A command as its own process, by the program that is installed."""
        command = [str(Path(sys.executable).with_name("omero-archive")), *arguments]
        return subprocess.Popen(
            command, env=os.environ | self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def set_up(self, **options: Any) -> None:
        """Other settings."""
        write_settings(self.demo, **options)

    # ---- looking

    @property
    def good(self) -> list[DemoFileset]:
        """The filesets that can be archived."""
        return [fileset for fileset in self.demo.filesets if fileset.expected is Expected.ARCHIVED]

    @property
    def references(self) -> list[str]:
        return [fileset.reference for fileset in self.good]

    def disk(self) -> dict[str, tuple[object, ...]]:
        """OMERO's disk with the near bytes, the archive, and what is outside the repository."""
        return disk_below(self.demo.data_dir, self.demo.service_path, self.demo.directory / "instrument")

    def omero(self) -> Rows:
        return rows_of(self.demo.omero_dsn)

    def catalogue(self) -> Rows:
        return catalogue_rows(self.demo.catalogue_dsn)

    def everything(self) -> tuple[Rows, Rows, dict[str, tuple[object, ...]]]:
        """The catalogue, OMERO's database and the disk."""
        return self.catalogue(), self.omero(), self.disk()

    def originals(self) -> dict[str, tuple[object, ...]]:
        """What lies at every original's path."""
        return {key: file_facts(self.demo.path(key)) for fileset in self.demo.filesets for key in fileset.keys}


def use(site: CommandSite, section: str, dsn: str) -> None:
    """Another database in the settings, `omero` or `catalogue`."""
    line = rf'(\[{section}\]\ndatabase = )"[^\n]*"'
    site.settings.write_text(re.sub(line, lambda found: found[1] + json.dumps(dsn), site.settings.read_text()))


@pytest.fixture(scope="session")
def command_runner() -> Iterator[CommandRunner]:
    runner = CommandRunner()
    yield runner
    runner.close()


@pytest.fixture
def command_site(
    demo_site: DemoSite, postgres: EmbeddedPostgres, catalogue_template: str, command_runner: CommandRunner
) -> CommandSite:
    """A demo site with settings, a service directory and `init` done."""
    copy_catalogue(demo_site, postgres, catalogue_template)
    site = CommandSite(demo=demo_site, settings=write_settings(demo_site), runner=command_runner)
    site.run("init")
    return site
