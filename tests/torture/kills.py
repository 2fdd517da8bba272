"""kill -9: random commands as real processes, two at once, killed at random moments; the witness looks after each.

A life is one copy of the demo site. Its steps: one or two commands, killed with all their children or left to their
end; then what must hold at every moment is looked at. From time to time everything that was interrupted is run again,
as an administrator would, and looked at as a site at rest. A life ends with everything unarchived and compared.
A reader opens the files all the while, and must never get other bytes.
"""

import random
import shlex
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from demo_fixtures import copy_site
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from site_fixtures import CommandRunner, CommandSite, Ended, write_settings
from witness import Places, Truth, Witness

LIFE_S = 60.0
SLUGS = ("ome-tiff", "plate", "ics", "dicom", "pyramid", "omero4")
SERVICES = ("tape", "disk2")
VOUCH = "confirm_command = ['sh', '-c', '''tr -d '\\n' | tr '\\000' '\\n' | sed 's/.*/durable/' ''']\n"
"""A program of the site's: a child of ours, which must not go on when we are killed."""

FINE = frozenset({0, 1, 3, 4, -signal.SIGKILL})
"""Exit codes that a command may end with here: nothing is damaged, so 5 is a lie, and 70 a fault of ours."""

COMMANDS: dict[str, int] = {
    # how often each is drawn
    "add {some}": 3,
    "run": 4,
    "run --retry": 1,
    "worker": 2,
    "release {some}": 4,
    "release --all": 2,
    "evict {some}": 4,
    "evict --all": 1,
    "recall {some}": 4,
    "recall --later {some}": 1,
    "recall --all": 1,
    "unarchive {some}": 4,
    "unarchive --all": 1,
    "audit --all": 1,
    "audit --heal {some}": 2,
}

FROM = {
    "add": ("RESIDENT",),
    "release": ("RESIDENT",),
    "evict": ("ONLINE",),
    "recall": ("OFFLINE", "RECALLING"),
    "unarchive": ("ONLINE", "OFFLINE", "RECALLING"),
}


class Violation(AssertionError):
    """The witness found something. The message has the seed, the history and what was found."""


@dataclass(slots=True)
class Tally:
    """What was done, over all lives."""

    lives: int = 0
    commands: int = 0
    kills: int = 0
    pairs: int = 0
    rests: int = 0
    reads: int = 0
    killed: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        by_name = ", ".join(f"{name} {count}" for name, count in sorted(self.killed.items()))
        return (
            f"{self.lives} lives, {self.commands} commands ({self.pairs} pairs at once), {self.kills} killed "
            f"({by_name}), {self.rests} times at rest, {self.reads} files read meanwhile"
        )


@dataclass(slots=True, kw_only=True)
class Life:
    """One site, its witness, and what happened to it."""

    site: CommandSite
    witness: Witness
    runners: Sequence[CommandRunner]
    chance: random.Random
    tally: Tally
    seed: int
    near: Path
    history: list[str] = field(default_factory=list)
    wrong_reads: list[str] = field(default_factory=list)

    # ---- a life

    def live(self, seconds: float, least_kills: int) -> None:
        end = time.monotonic() + seconds
        self.order("init")
        self.order(f"add {' '.join(self.references)}")
        with self._reader():
            while time.monotonic() < end or self.tally.kills < least_kills:
                for _ in range(self.chance.randint(3, 8)):
                    self.step()
                    self.look(at_rest=False)
                self.finish()
                if self.chance.random() < 0.3:
                    self._change_settings()
            self.end()
        self.tally.lives += 1

    def step(self) -> None:
        """One command or two at once; both are killed, or one of them, or none."""
        count = 2 if self.chance.random() < 0.4 else 1
        self.tally.pairs += count == 2
        orders = [self._draw() for _ in range(count)]
        with ThreadPoolExecutor(count) as threads:
            running = [
                threads.submit(self._run, self.runners[number], command, kill_after_s)
                for number, (command, kill_after_s) in enumerate(orders)
            ]
            for (command, kill_after_s), ended in zip(orders, running, strict=True):
                self._judge(command, kill_after_s, ended.result())
        self._wait_for_backends()

    def finish(self) -> None:
        """Run again whatever was interrupted, as an administrator would, and let nothing be due any more."""
        scene = self.witness.scene()
        for name, row in scene.bundles.items():
            if row["intent"] is not None:
                self.order(f"{row['intent']} {name}")
            elif row["residency"] == "RECALLING":
                self.order(f"recall {name}")
        if any("/outgoing/" in path for path in scene.left_near):
            self.order("evict --all")
        self.order("run --retry --wait 5s")
        self.order("history --verify")
        self.look(at_rest=True)
        self.tally.rests += 1

    def end(self) -> None:
        """Everything back, and compared."""
        self._set(archive="")
        self.order("unarchive --all")
        self.finish()
        wrong = [*self.witness.came_back(), *self.wrong_reads]
        if wrong:
            self.fail(wrong)

    def look(self, *, at_rest: bool) -> None:
        wrong = [*self.witness.look(at_rest=at_rest), *self.wrong_reads]
        if wrong:
            self.fail(wrong)

    def fail(self, wrong: Sequence[str]) -> None:
        raise Violation(
            f"seed {self.seed}, in {self.site.demo.directory} (near: {self.near}), after\n  "
            + "\n  ".join(self.history)
            + "\nthe witness says:\n  "
            + "\n  ".join(wrong)
        )

    # ---- commands

    @property
    def references(self) -> list[str]:
        return [self.site.demo.fileset(slug).reference for slug in SLUGS]

    def order(self, command: str) -> None:
        """A command that is left to its end."""
        self._judge(command, None, self._run(self.runners[0], command, None))

    def _draw(self) -> tuple[str, float | None]:
        (template,) = self.chance.choices(list(COMMANDS), weights=list(COMMANDS.values()))
        objects = self._sensible(template)
        some = self.chance.sample(objects, min(len(objects), self.chance.choice((1, 1, 2, 3))))
        command = template.format(some=" ".join(some))
        # Most of a command's changes lie in its first half second; a worker would go on for ever.
        kill_after_s = self.chance.choice((0.05, 0.1, 0.2, 0.6)) * self.chance.uniform(0.3, 1.7)
        if command != "worker" and self.chance.random() < 0.25:
            return command, None
        return command, kill_after_s + (1.0 if command == "worker" else 0.0)

    def _run(self, runner: CommandRunner, command: str, kill_after_s: float | None) -> Ended:
        return runner.run(shlex.split(command), self.site.environment, kill_after_s=kill_after_s)

    def _judge(self, command: str, kill_after_s: float | None, ended: Ended) -> None:
        self.tally.commands += 1
        is_killed = ended.code == -signal.SIGKILL
        self.tally.kills += is_killed
        if is_killed:
            self.tally.killed[command.partition(" ")[0]] += 1
        how = f"killed after {kill_after_s:.3f} s" if is_killed else f"exit {ended.code}"
        said = " ".join((ended.stdout + ended.stderr).split())
        self.history.append(
            f"{command}: {how}" + (f": {said[-600:]}" if ended.code not in (0, -signal.SIGKILL) else "")
        )
        if ended.code not in FINE:
            self.fail([f"`{command}` ended with {ended.code}: {ended.stdout}\n{ended.stderr}"])

    def _change_settings(self) -> None:
        self._set(
            keep_originals=self.chance.choice(("7d", "0d")), archive=self.chance.choice(("", 'max_size = "8 MB"\n'))
        )

    def _set(self, **options: str) -> None:
        self.history.append(f"settings: {options}")
        write_settings(self.site.demo, near=self.near, **SETTINGS, **options)

    def _sensible(self, command: str) -> list[str]:
        """The objects for which the command has something to do; all, now and then, or where there are none."""
        wanted = FROM.get(command.partition(" ")[0])
        found: list[str] = []
        if wanted is not None and self.chance.random() < 0.8:
            with psycopg.connect(self.witness.catalogue_dsn) as conn:
                rows = conn.execute("SELECT name FROM bundle WHERE residency = ANY(%s)", (list(wanted),)).fetchall()
            found = sorted(row[0] for row in rows)
        return found or self.references

    # ---- the others

    def _wait_for_backends(self) -> None:
        """PostgreSQL ends a dead client's statement first: what it commits belongs to the command that was killed."""
        deadline = time.monotonic() + 20
        names = [
            psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
            for dsn in (self.witness.omero_dsn, self.witness.catalogue_dsn)
        ]
        with psycopg.connect(self.witness.omero_dsn, dbname="postgres", autocommit=True) as conn:
            while time.monotonic() < deadline:
                row = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = ANY(%s)", (names,)).fetchone()
                if row == (0,):
                    return
                time.sleep(0.02)
        self.fail(["sessions of killed commands are still there after 20 s"])

    @contextmanager
    def _reader(self) -> Iterator[None]:
        """Somebody who opens the files all the while."""
        stop = threading.Event()

        def read() -> None:
            keys = [key for slug in SLUGS for key in self.site.demo.fileset(slug).keys]
            chance = random.Random(self.seed)
            while not stop.wait(0.01):
                wrong = self.witness.read(chance.choice(keys))
                self.tally.reads += 1
                if wrong is not None:
                    self.wrong_reads.append(f"[while commands ran] {wrong}")

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


SETTINGS = {"copies_on": SERVICES, "service": VOUCH, "work": 'poll = "1s"\nretry_after = "1s"\nslice_files = 3\n'}


def torture(
    template: DemoSite, postgres: EmbeddedPostgres, directory: Path, *, seconds: float, seed: int, least_kills: int = 0
) -> Tally:
    """Lives, one after the other, for so many seconds. Raises `Violation`, and keeps the directory then."""
    print(f"kills: seed {seed}, {seconds:.0f} s", flush=True)
    chance, tally = random.Random(seed), Tally()
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        runners = [CommandRunner() for _ in range(2)]
        for runner in runners:
            stack.callback(runner.close)
        while (left := end - time.monotonic()) > 0:
            life = _born(template, postgres, directory / f"life-{tally.lives}", chance, runners, tally, seed)
            life.live(min(left, LIFE_S), least_kills)
            _forget(postgres, life)
            print(f"kills: {tally}", flush=True)
    return tally


def _born(
    template: DemoSite,
    postgres: EmbeddedPostgres,
    directory: Path,
    chance: random.Random,
    runners: Sequence[CommandRunner],
    tally: Tally,
    seed: int,
) -> Life:
    directory.mkdir(parents=True)
    demo = copy_site(template, directory / "site", postgres=postgres)
    truth = Truth.of(demo)
    # Every second life has its near bytes on another file system, where there is one: they are copied then.
    shared = Path("/dev/shm")
    is_elsewhere = chance.random() < 0.5 and shared.is_dir() and shared.stat().st_dev != demo.data_dir.stat().st_dev
    near = shared / f"omero-archive-torture-{demo.omero_dsn.rpartition('_')[2]}" if is_elsewhere else demo.archive_root
    if is_elsewhere:
        near.mkdir()
        demo.archive_root.symlink_to(near)
    settings = write_settings(demo, near=near, **SETTINGS)
    places = Places(
        data_dir=demo.data_dir,
        archive_root=demo.archive_root,
        near=near,
        services={name: demo.directory / name for name in SERVICES},
    )
    witness = Witness(
        truth=truth, places=places, omero_dsn=demo.omero_dsn, catalogue_dsn=demo.catalogue_dsn, wanted=2, of=SERVICES
    )
    site = CommandSite(demo=demo, settings=settings, runner=runners[0])
    return Life(site=site, witness=witness, runners=runners, chance=chance, tally=tally, seed=seed, near=near)


def _forget(postgres: EmbeddedPostgres, life: Life) -> None:
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        for dsn in (life.site.demo.omero_dsn, life.site.demo.catalogue_dsn):
            name = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
    if life.near != life.site.demo.archive_root:
        shutil.rmtree(life.near)
    shutil.rmtree(life.site.demo.directory.parent)
