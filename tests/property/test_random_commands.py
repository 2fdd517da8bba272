"""Random commands on a real little site, with services that lose copies, doubt them, or cannot be asked.

What must hold whatever happens: nothing is released or evicted without a permit; no permit without enough durable
copies, confirmed freshly; the paths of a bundle give its bytes or, all together, nothing; and in the end everything
can be brought back as it was.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from demo_fixtures import copy_site
from omero_archive.catalogue import bundles
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.errors import ArchiveError, PermitRefused
from omero_archive.states import CopyEvidence, CopyState, Permit, Residency
from omero_archive.steps import unarchive as unarchive_step
from omero_archive.steps.permits import permits
from site_fixtures import Facility, MovableClock, opened_facility, sha256_of

SLUG = "ics"
SERVICES = ("tape", "disk2")
LIFETIME = timedelta(hours=1)
MOMENT = timedelta(seconds=30)

COMMANDS = (
    *("add", "run", "release", "evict", "recall", "unarchive") * 2,
    *("hold", "lift", "later", "doubt", "mumble", "trust", "lose", "regain", "unmount", "mount"),
)


@dataclass(slots=True)
class World:
    """One site and what the archive's services really are, beside what the catalogue believes."""

    facility: Facility
    is_mounted: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(SERVICES, True))
    word: str = "durable"  # "durable", "not yet", or one that tells nothing
    last_good: dict[str, datetime] = field(default_factory=dict)  # when each service could last have said "durable"

    # ---- what happens

    def do(self, command: str) -> None:
        before = self.residency
        try:
            getattr(self, command)()
        except ArchiveError:
            pass
        else:
            if command in ("release", "evict") and self.residency is not before:
                assert self.may_let_go(), (command, before, self.facility.copies(SLUG))
        self.look()

    def add(self) -> None:
        self.facility.add(SLUG)

    def run(self) -> None:
        self.facility.work()

    def release(self) -> None:
        self.facility.release(SLUG)

    def evict(self) -> None:
        self.facility.evict(SLUG)

    def recall(self) -> None:
        self.facility.recall(SLUG)

    def unarchive(self) -> None:
        self.facility.unarchive(SLUG)

    def hold(self) -> None:
        self._hold("inspection")

    def lift(self) -> None:
        self._hold(None)

    def later(self) -> None:
        self.facility.clock.advance(hours=2)

    def doubt(self) -> None:
        self._say("not yet")

    def mumble(self) -> None:
        self._say("amber")

    def trust(self) -> None:
        self._say("durable")

    def lose(self) -> None:
        """The tape does not have one file any more. The other service never loses anything."""
        if self._stored("tape").exists():
            self._stored("tape").rename(self._aside)

    def regain(self) -> None:
        if self._aside.exists() and not self._stored("tape").exists():
            self._aside.rename(self._stored("tape"))

    def unmount(self) -> None:
        for service in SERVICES:
            marker = self._marker(service)
            if marker.exists():
                marker.rename(marker.with_name("away"))
            self.is_mounted[service] = False

    def mount(self) -> None:
        for service in SERVICES:
            away = self._marker(service).with_name("away")
            if away.exists():
                away.rename(self._marker(service))
            self.is_mounted[service] = True

    # ---- what must hold

    def look(self) -> None:
        now = self.facility.clock()
        for service in SERVICES:
            if self.is_mounted[service] and self.word == "durable":
                self.last_good[service] = now
        record = self.record
        if record is None:
            return
        opening = {path.exists() for path in self.facility.paths(SLUG)}
        is_readable = self.residency in (Residency.RESIDENT, Residency.ONLINE)
        assert opening == {is_readable}, (self.residency, opening)
        assert not is_readable or self.facility.reads_as_before(SLUG)
        self._look_at_permits(record)

    def _look_at_permits(self, record: BundleRecord) -> None:
        try:
            granted = permits(self.facility.site, record, dry_run=True)
        except PermitRefused:
            assert not self._must_be_granted(record), self.facility.copies(SLUG)
            return
        assert record.hold_reason is None
        assert set(granted) == set(self.facility.demo.fileset(SLUG).keys)
        for permit in granted.values():
            assert permit.justified_by
            assert all(self._is_sound(permit, copy) for copy in permit.justified_by), permit

    def _is_sound(self, permit: Permit, copy: CopyEvidence) -> bool:
        """Whether this copy is what the permit says, as far as the disk and our own log tell."""
        now = self.facility.clock()
        assert copy.confirmed_at is not None
        age = now - copy.confirmed_at
        is_known_good = (
            copy.confirmed_at <= self.last_good.get(copy.service, datetime.min.replace(tzinfo=now.tzinfo)) + MOMENT
        )
        is_there = self._is_there(permit.key, copy.service)
        if is_there and self.is_mounted[copy.service]:
            assert sha256_of(self.facility.archived_path(permit.key, copy.service)) == permit.sha256
        return copy.state is CopyState.DURABLE and timedelta() <= age <= LIFETIME and is_known_good and is_there

    def may_let_go(self) -> bool:
        """Whether every file has a copy that its service confirms, or did so within the proof's lifetime."""
        record = self.record
        assert record is not None
        now = self.facility.clock()
        good: dict[str, int] = dict.fromkeys(self.facility.demo.fileset(SLUG).keys, 0)
        for row in self.facility.copies(SLUG):
            is_fresh = row["confirmed_at"] is not None and now - row["confirmed_at"] <= LIFETIME
            is_there = self._is_there(row["key"], row["service"])
            good[row["key"]] += row["state"] == CopyState.DURABLE and is_fresh and is_there
        return record.hold_reason is None and min(good.values()) >= 1

    def _is_there(self, key: str, service: str) -> bool:
        """What the service answers now; where it cannot be asked or mumbles, the word from before must do."""
        if not self.is_mounted[service]:
            return True
        return self.word != "not yet" and self.facility.archived_path(key, service).exists()

    def _must_be_granted(self, record: BundleRecord) -> bool:
        """Whether nothing at all stands in the way: disk2 has everything, says so, and the catalogue knows."""
        states = {state for (_, service), state in self.facility.copy_states(SLUG).items() if service == "disk2"}
        is_known = bool(states) and states <= {CopyState.VERIFIED, CopyState.DURABLE}
        return is_known and self.is_mounted["disk2"] and self.word == "durable" and record.hold_reason is None

    # ---- the inside

    @property
    def record(self) -> BundleRecord | None:
        with self.facility.site.catalogue.begin() as connection:
            return bundles.by_name(connection, self.facility.name(SLUG))

    @property
    def residency(self) -> Residency:
        record = self.record
        return Residency.RESIDENT if record is None else record.residency

    @property
    def _aside(self) -> Path:
        return self.facility.demo.directory / "lost"

    def _stored(self, service: str) -> Path:
        return self.facility.archived_path(self.facility.demo.fileset(SLUG).keys[0], service)

    def _marker(self, service: str) -> Path:
        return self.facility.demo.directory / service / ".omero-archive" / "service"

    def _say(self, word: str) -> None:
        self.word = word
        (self.facility.demo.directory / "word").write_text(word)

    def _hold(self, reason: str | None) -> None:
        record = self.record
        if record is not None:
            with self.facility.site.catalogue.begin() as connection:
                bundles.hold(connection, record, reason)


@contextmanager
def world(template: DemoSite, postgres: EmbeddedPostgres) -> Iterator[World]:
    """A fresh site with two services, of which one durable copy is enough."""
    with tempfile.TemporaryDirectory() as directory:
        demo = copy_site(template, Path(directory, "site"), postgres=postgres)
        asked = demo.directory / "word"
        asked.write_text("durable")
        command = f"tr '\\\\0' '\\\\n' | sed \"s/.*/$(cat {asked})/\""
        service = f"confirm_command = ['sh', '-c', '''{command}''']\n".replace("\\\\", "\\")
        options = {
            "copies_on": SERVICES,
            "copies": '{ any = 1, of = ["tape", "disk2"] }',
            "service": service,
            "work": 'poll = "0s"\nretry_after = "1min"\n',
        }
        try:
            with opened_facility(demo, MovableClock(), **options) as facility:
                yield World(facility)
        finally:
            _drop(postgres, demo)


def _drop(postgres: EmbeddedPostgres, demo: DemoSite) -> None:
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        for dsn in (demo.omero_dsn, demo.catalogue_dsn):
            name = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


@settings(
    max_examples=16,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(commands=st.lists(st.sampled_from(COMMANDS), min_size=6, max_size=24))
def test_nothing_goes_without_a_permit_and_everything_comes_back(
    demo_template: DemoSite, postgres: EmbeddedPostgres, commands: list[str]
) -> None:
    grace, unarchive_step.GRACE_S = unarchive_step.GRACE_S, 0.0
    try:
        with world(demo_template, postgres) as site:
            site.do("add")
            site.do("run")
            for command in commands:
                site.do(command)
            for command in ("mount", "trust", "regain", "lift"):
                site.do(command)
            if site.residency is not Residency.RESIDENT:
                site.facility.unarchive(SLUG)
            assert site.facility.is_as_before(SLUG)
    finally:
        unarchive_step.GRACE_S = grace
