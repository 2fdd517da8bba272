"""A Hypothesis machine over a real little site: commands, crashes in them, faults of services, deeds of users, time.

After every rule the independent witness looks; what was let go is compared with what the services really say. In the
end everything is mended and finished, looked at as a site at rest, brought back and compared. A new command is one
rule with one call of `self.go`; a new rule of what must hold is a function given to the witness (`MORE`, `AT_REST`).
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, LiteralString

import psycopg
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from psycopg import sql

from demo_fixtures import copy_site
from interruptions import Stopped, stopped_before
from omero_archive.catalogue import audits, bundles, copies
from omero_archive.catalogue.audits import Choice, Scope
from omero_archive.catalogue.bundles import BundleRecord, Request
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.errors import ArchiveError, BrokenInvariant, PermitRefused
from omero_archive.model import Bundle, Key, ObjectRef, ObjectType, ServiceName
from omero_archive.omero.closure import bundles as closure
from omero_archive.states import CopyEvidence, CopyState, Decision, Permit
from omero_archive.steps.add import add
from omero_archive.steps.audit import audit
from omero_archive.steps.heal import heal
from omero_archive.steps.pace import Pace
from omero_archive.steps.permits import permits
from omero_archive.steps.release import release
from omero_archive.testing.faulty_service import Fault, FaultyService
from site_fixtures import Facility, MovableClock, flip_a_byte, opened_facility
from witness import Rule, Scene, Truth, Witness, sha256_of

SLUGS = ("ics", "omero4", "dicom")
SERVICES = ("tape", "disk2")
LIFETIME = timedelta(hours=1)
MOMENT = timedelta(minutes=1)  # between what a service said and our looking, and for the slowness of this machine
A_SLOW_ANSWER = timedelta(minutes=40)

slugs = st.sampled_from(SLUGS)
services = st.sampled_from(SERVICES)
crashes = st.none() | st.none() | st.integers(1, 50)
"""Before which change a command is stopped, as if killed; mostly it is not."""


def no_fault_of_ours(scene: Scene) -> Iterator[str]:
    """No step ended with an error that nobody foresaw."""
    rows = itertools.chain(scene.bundles.values(), scene.copies.values())
    yield from (row["last_error"] for row in rows if "a fault in omero-archive" in (row["last_error"] or ""))


MORE: tuple[Rule, ...] = (no_fault_of_ours,)
AT_REST: tuple[Rule, ...] = ()


class World:
    """One site, what is really true of its services, and what happened."""

    def __init__(self, template: DemoSite, postgres: EmbeddedPostgres, *, wanted: int, is_raw: bool) -> None:
        self._open = ExitStack()
        self._directory = Path(tempfile.mkdtemp(prefix="oa-machine-"))
        self._postgres = postgres
        self.demo = copy_site(template, self._directory / "site", postgres=postgres)
        truth = Truth.of(self.demo).only(*(self.demo.fileset(slug).reference.replace(":", "-") for slug in SLUGS))
        self.witness = Witness.of_site(self.demo, wanted=wanted, of=SERVICES, more=MORE, more_at_rest=AT_REST)
        self.witness.truth = self.truth = truth
        self.wanted, self.is_raw = wanted, is_raw
        self.clock = MovableClock()
        self.faulty: dict[str, FaultyService] = {}
        self.last_good: dict[tuple[str, str], datetime] = {}  # service, key: when it could last have said "durable"
        self.aside: dict[tuple[str, str], Path] = {}  # copies that a service lost, really
        self.renamed: dict[str, Path] = {}  # originals that a user renamed
        self.facility = self._opened()

    def _opened(self) -> Facility:
        """The site as a process that has just begun sees it; faults of services outlive processes."""
        options = {
            "copies_on": SERVICES,
            "copies": f'{{ any = {self.wanted}, of = ["tape", "disk2"] }}',
            "work": 'poll = "0s"\nretry_after = "1min"\n',
        }
        facility = self._open.enter_context(opened_facility(self.demo, self.clock, **options))
        opened: dict[ServiceName, Any] = dict(facility.site.services)
        for name in SERVICES:
            if name == "disk2" and self.is_raw:
                continue  # with paths: read from its medium, past all that is faulty
            inner = opened[ServiceName(name)]
            if name in self.faulty:
                self.faulty[name].inner = inner
            else:
                self.faulty[name] = FaultyService(
                    inner,
                    clock=self.clock,
                    staging=timedelta(minutes=5),
                    sleep=lambda _: self.clock.advance(seconds=A_SLOW_ANSWER.total_seconds()),
                )
            opened[ServiceName(name)] = self.faulty[name]
        facility.site.services = opened
        return facility

    def reopen(self) -> None:
        self._open.close()
        self.facility = self._opened()

    def close(self) -> None:
        self._open.close()
        with psycopg.connect(self._postgres.dsn(), autocommit=True) as conn:
            for dsn in (self.demo.omero_dsn, self.demo.catalogue_dsn):
                name = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
                conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        shutil.rmtree(self._directory)

    # ---- what is true

    def name(self, slug: str) -> str:
        return self.demo.fileset(slug).reference.replace(":", "-")

    def keys(self, slug: str) -> tuple[str, ...]:
        return tuple(map(str, self.demo.fileset(slug).keys))

    def stored(self, service: str, key: str) -> Path:
        return self.demo.directory / service / key

    def record(self, slug: str) -> BundleRecord | None:
        with self.facility.site.catalogue.begin() as connection:
            return bundles.by_name(connection, self.facility.name(slug))

    def has(self, service: str, fault: Fault, verb: str, key: str) -> bool:
        return service in self.faulty and self.faulty[service].is_set(fault, verb=verb, key=Key(key))

    def can_be_asked(self, service: str, key: str) -> bool:
        return not self.has(service, Fault.UNAVAILABLE, "status", key)

    def says_no(self, service: str, key: str) -> bool:
        """Whether the service, asked now, would say that the copy is not there, or not safe."""
        if not self.can_be_asked(service, key) or self.clock_is_back():
            return False
        is_gone = self.has(service, Fault.MISSING, "status", key) or not self.stored(service, key).exists()
        return is_gone or self.has(service, Fault.WITHDRAWN, "status", key)

    def says_yes(self, service: str, key: str) -> bool:
        is_doubtful = self.has(service, Fault.DOUBTFUL, "status", key) and not self.says_no(service, key)
        is_asked = self.can_be_asked(service, key) and not self.clock_is_back()
        return is_asked and not self.says_no(service, key) and not is_doubtful

    def clock_is_back(self) -> bool:
        """Whether it is earlier than when the site was made: then no age of a file tells anything."""
        return self.clock.offset < timedelta()

    def notice(self) -> None:
        """Remember which services could have said "durable" of which copies until now."""
        now = self.clock()
        for service, slug in itertools.product(SERVICES, SLUGS):
            for key in self.keys(slug):
                if self.says_yes(service, key):
                    self.last_good[service, key] = now

    def may_let_go(self, slug: str) -> list[str]:
        """Why nothing of the bundle may go: too few copies that are durable, fresh, and not denied by a service."""
        record = self.record(slug)
        if record is None:
            return [f"{slug} was never added"]
        reasons = [] if record.hold_reason is None else ["on hold"]
        rows = self.facility.copies(slug)
        now = self.clock()
        for key in self.keys(slug):
            good = [
                row["service"]
                for row in rows
                if row["key"] == key
                and row["state"] == "DURABLE"
                and row["confirmed_at"] is not None
                and timedelta() <= now - row["confirmed_at"] <= LIFETIME + MOMENT
                and not self.says_no(row["service"], key)
            ]
            if len(good) < self.wanted:
                reasons.append(f"{key}: only {good} vouch for it")
        return reasons

    # ---- what must hold about permits

    def look_at_permits(self, slug: str) -> list[str]:
        record = self.record(slug)
        if record is None:
            return []
        must = self._must_be_granted(slug, record)
        try:
            granted = permits(self.facility.site, record, dry_run=True)
        except PermitRefused as refusal:
            return [f"[permits] refused though nothing stands in the way: {refusal}"] if must else []
        self.notice()  # a slow service was asked before another: it is later now
        wrong = [] if record.hold_reason is None else [f"[permits] {slug} is on hold"]
        if {str(key) for key in granted} != set(self.keys(slug)):
            wrong.append(f"[permits] {slug}: permits for {sorted(granted)}")
        for permit in granted.values():
            if len({copy.service for copy in permit.justified_by}) < self.wanted:
                wrong.append(f"[permits] {permit.key}: justified by {permit.justified_by}")
            for copy in permit.justified_by:
                wrong += self._objections(permit, copy)
        return wrong

    def _objections(self, permit: Permit, copy: CopyEvidence) -> Iterator[str]:
        """Why this copy justifies nothing, as far as the disk and our own log of the services tell."""
        now, (service, key) = self.clock(), (str(copy.service), str(permit.key))
        if copy.confirmed_at is None or not timedelta() <= now - copy.confirmed_at <= LIFETIME + MOMENT:
            yield f"[permits] {service}: {key} was confirmed {copy.confirmed_at}, it is {now}"
        elif copy.confirmed_at > self.last_good.get((service, key), datetime.min.replace(tzinfo=now.tzinfo)) + MOMENT:
            yield f"[permits] {service}: {key} is said to be confirmed at {copy.confirmed_at}, which it was not"
        if copy.state is not CopyState.DURABLE or self.says_no(service, key):
            yield f"[permits] {service}: {key} is {copy.state}, and the service would deny it"
        path = self.stored(service, key)
        is_harmed = (service, key) in self.witness.deeds.harmed
        if not is_harmed and (not path.exists() or sha256_of(path) != permit.sha256):
            yield f"[permits] {service}: {key} does not hold the bytes of its permit"

    def _must_be_granted(self, slug: str, record: BundleRecord) -> bool:
        """Whether nothing at all stands in the way: enough services have everything and say so."""
        if record.hold_reason is not None or any(
            self.has(s, Fault.SLOW, "status", self.keys(slug)[0]) for s in SERVICES
        ):
            return False
        rows = self.facility.copies(slug)
        good = [
            service
            for service in SERVICES
            if all(self.says_yes(service, key) and self._is_whole(service, key) for key in self.keys(slug))
            and {row["state"] for row in rows if row["service"] == service}
            in ({"VERIFIED"}, {"DURABLE"}, {"VERIFIED", "DURABLE"})
            and sum(row["service"] == service for row in rows) == len(self.keys(slug))
        ]
        return len(good) >= self.wanted

    def why_stuck(self, slug: str) -> list[str]:
        """Why a bundle cannot come back: files that are nowhere near and have no verified copy, or are a user's."""
        scene = self.witness.scene()
        usable = {row["key"] for row in self.facility.copies(slug) if row["state"] in ("VERIFIED", "DURABLE")}
        away = [key for key in self.keys(slug) if not scene.is_near(key) and key not in usable]
        return away + [key for key in self.keys(slug) if self.is_users(key)]

    def is_users(self, key: str) -> bool:
        """Whether a user wrote to the file, or put it away."""
        file = self.witness.truth.files[key]
        return file.sha256 != file.imported or key in self.witness.deeds.replaced

    def _is_whole(self, service: str, key: str) -> bool:
        return self.stored(service, key).exists() and (service, key) not in self.witness.deeds.harmed


class Machine(RuleBasedStateMachine):
    """The rules. `template` and `postgres` are given to a subclass by the test."""

    template: ClassVar[DemoSite]
    postgres: ClassVar[EmbeddedPostgres]

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.is_over = False
        self.turns = itertools.cycle(SLUGS)

    @initialize(
        wanted=st.sampled_from((1, 1, 2)), is_raw=st.booleans(), is_archived=st.sampled_from((True, True, True, False))
    )
    def begin(self, wanted: int, is_raw: bool, is_archived: bool) -> None:
        self.world = World(self.template, self.postgres, wanted=wanted, is_raw=is_raw)
        if is_archived:
            for slug in SLUGS:
                self.add(slug=slug, crash=None)
            self.go(lambda w: w.facility.work())

    # ---- commands

    @rule(slug=slugs, crash=crashes)
    def add(self, slug: str, crash: int | None) -> None:
        self.go(lambda w: _add(w, slug, Decision.APPROVED), crash)

    @rule(slug=slugs)
    def request(self, slug: str) -> None:
        self.go(lambda w: _add(w, slug, Decision.REQUESTED))

    @rule(slug=slugs, new=st.sampled_from((Decision.APPROVED, Decision.DECLINED)))
    def settle_request(self, slug: str, new: Decision) -> None:
        self.go(lambda w: _decide(w, slug, new))

    @rule(crash=crashes)
    def run_all(self, crash: int | None) -> None:
        self.go(lambda w: w.facility.work(), crash)

    @rule()
    def run_retry(self) -> None:
        self.go(_retry)

    @rule(slug=slugs, crash=crashes, rehash=st.booleans())
    def release(self, slug: str, crash: int | None, rehash: bool) -> None:
        self.go(lambda w: release(w.facility.site, w.facility.name(slug), rehash=rehash), crash)

    @rule(slug=slugs, crash=crashes)
    def evict(self, slug: str, crash: int | None) -> None:
        self.go(lambda w: w.facility.evict(slug), crash)

    @rule(slug=slugs, crash=crashes)
    def release_and_evict(self, slug: str, crash: int | None) -> None:
        self.go(lambda w: w.facility.release(slug))
        self.go(lambda w: w.facility.evict(slug), crash)

    @rule(slug=slugs, crash=crashes)
    def recall(self, slug: str, crash: int | None) -> None:
        self.go(lambda w: w.facility.recall(slug), crash)

    @rule(slug=slugs, crash=crashes)
    def unarchive(self, slug: str, crash: int | None) -> None:
        self.go(lambda w: w.facility.unarchive(slug), crash)

    @rule(slug=slugs, crash=crashes)
    def audit_and_heal(self, slug: str, crash: int | None) -> None:
        self.go(lambda w: _audit(w, slug), crash)
        self.go(lambda w: _heal(w, slug), crash)

    @rule(slug=slugs, reason=st.sampled_from(("inspection", None, None)))
    def hold(self, slug: str, reason: str | None) -> None:
        self.go(lambda w: _of_bundle(w, slug, lambda c, record: bundles.hold(c, record, reason)))

    @rule(slug=slugs, hours=st.sampled_from((None, 1, 100)))
    def pin(self, slug: str, hours: int | None) -> None:
        until = None if hours is None else self.here.clock() + timedelta(hours=hours)
        self.go(lambda w: _of_bundle(w, slug, lambda c, record: bundles.pin(c, record, until)))

    # ---- services

    @rule(
        service=services,
        fault=st.sampled_from((Fault.UNAVAILABLE, Fault.WITHDRAWN, Fault.DOUBTFUL, Fault.SLOW, Fault.OFFLINE)),
        verb=st.sampled_from((None, None, "put", "open", "status")),
    )
    def a_service_fails(self, service: str, fault: Fault, verb: str | None) -> None:
        if service in self.here.faulty:
            self.here.faulty[service].set(fault, verb=verb)

    @rule(
        service=services,
        slug=slugs,
        number=st.integers(0, 9),
        fault=st.sampled_from((Fault.DAMAGED, Fault.MISSING, Fault.WITHDRAWN)),
    )
    def a_copy_fails(self, service: str, slug: str, number: int, fault: Fault) -> None:
        if service in self.here.faulty:
            keys = self.here.demo.fileset(slug).keys
            self.here.faulty[service].set(fault, key=keys[number % len(keys)])

    @rule(
        service=services,
        slug=slugs,
        fault=st.sampled_from((Fault.WITHDRAWN, Fault.DOUBTFUL, Fault.MISSING, Fault.UNAVAILABLE, Fault.SLOW)),
        crash=crashes,
    )
    def a_service_fails_while_it_matters(self, service: str, slug: str, fault: Fault, crash: int | None) -> None:
        """Just when a bundle is released and evicted, or evicted; then it is well again."""
        if service in self.here.faulty:
            self.here.faulty[service].set(fault, verb="status")
            self.release_and_evict(slug=slug, crash=crash)
            for _ in SLUGS:
                self.look()
            self.here.faulty[service].clear(fault)

    @rule(service=services, fault=st.sampled_from((Fault.LOST_PUT, Fault.HALF_PUT)))
    def a_service_lies_once(self, service: str, fault: Fault) -> None:
        if service in self.here.faulty:
            self.here.faulty[service].set(fault, times=1)

    @rule()
    def services_are_well(self) -> None:
        for faulty in self.here.faulty.values():
            faulty.clear()

    @rule(service=services, slug=slugs, number=st.integers(0, 9))
    def a_copy_is_lost(self, service: str, slug: str, number: int) -> None:
        """Really: its file is gone. The other service's copies of this bundle are left alone."""
        w, keys = self.here, self.here.keys(slug)
        key = keys[number % len(keys)]
        if self._may_be_harmed(service, slug) and w.stored(service, key).exists():
            w.aside[service, key] = w.demo.directory / f"lost-{len(w.aside)}-{os.urandom(4).hex()}"
            w.stored(service, key).rename(w.aside[service, key])
            w.witness.deeds.harmed.add((service, key))

    @rule(service=services, slug=slugs, number=st.integers(0, 9))
    def a_copy_rots(self, service: str, slug: str, number: int) -> None:
        w, keys = self.here, self.here.keys(slug)
        key = keys[number % len(keys)]
        is_there = w.stored(service, key).exists() and (service, key) not in w.witness.deeds.harmed
        if is_there and self._may_be_harmed(service, slug) and w.stored(service, key).stat().st_size:
            flip_a_byte(w.stored(service, key))
            w.witness.deeds.harmed.add((service, key))

    def _may_be_harmed(self, service: str, slug: str) -> bool:
        keys = self.here.keys(slug)
        return not any(there != service for there, key in self.here.witness.deeds.harmed if key in keys)

    @precondition(lambda self: bool(self.here.aside))
    @rule()
    def lost_copies_are_found(self) -> None:
        _found(self.here)

    # ---- users

    @rule(slug=slugs, number=st.integers(0, 9), keeps_size=st.booleans())
    def a_user_overwrites(self, slug: str, number: int, keeps_size: bool) -> None:
        """Through whatever lies at the path: the original, or the link to its near bytes."""
        w, keys = self.here, self.here.keys(slug)
        key = keys[number % len(keys)]
        path = w.truth.files[key].path
        if slug in self._untouchable() or not path.exists() or key in w.witness.deeds.replaced:
            return
        content = f"edited by hand: {key}".encode()
        with path.open("r+b") as file:
            file.write(content)
            if not keeps_size:
                file.truncate()
        row = w.witness.scene().file_rows.get(key)
        is_unread = key.startswith("Pixels/") and (row is None or row["sha256"] is None)
        w.witness.truth = w.witness.truth.overwritten(key, is_imported=is_unread)
        self.look()

    @rule(slug=slugs, number=st.integers(0, 9), keeps_size=st.booleans())
    def a_user_overwrites_before_it_is_released(self, slug: str, number: int, keeps_size: bool) -> None:
        self.a_user_overwrites(slug=slug, number=number, keeps_size=keeps_size)
        self.go(lambda w: w.facility.release(slug))

    @rule(slug=slugs, number=st.integers(0, 9), keeps_size=st.booleans())
    def a_user_writes_through_the_link_before_it_is_evicted(self, slug: str, number: int, keeps_size: bool) -> None:
        self.go(lambda w: w.facility.release(slug))
        self.a_user_overwrites(slug=slug, number=number, keeps_size=keeps_size)
        self.go(lambda w: w.facility.evict(slug))

    @rule(slug=slugs, number=st.integers(0, 9))
    def a_user_renames(self, slug: str, number: int) -> None:
        w, keys = self.here, self.here.keys(slug)
        key = keys[number % len(keys)]
        path = w.truth.files[key].path
        if slug not in self._untouchable() and key not in w.renamed and os.path.lexists(path):
            w.renamed[key] = path.with_name(path.name + ".old")
            path.rename(w.renamed[key])
            w.witness.deeds.replaced.add(key)
            self.look()

    @precondition(lambda self: bool(self.here.renamed))
    @rule()
    def a_user_renames_back(self) -> None:
        _renamed_back(self.here)
        self.look()

    @rule(slug=slugs, drops_annotations=st.booleans())
    def a_user_moves_to_another_group(self, slug: str, drops_annotations: bool) -> None:
        """chgrp: OMERO drops links to annotations that stay behind in the old group."""
        w, images, fileset = (
            self.here,
            list(self.here.demo.fileset(slug).image_ids),
            self.here.demo.fileset(slug).fileset_id,
        )
        with psycopg.connect(w.demo.omero_dsn) as conn:
            conn.execute(
                "UPDATE image SET group_id = CASE group_id WHEN 1 THEN 0 ELSE 1 END WHERE id = ANY(%s)", (images,)
            )
            conn.execute(
                "UPDATE fileset SET group_id = CASE group_id WHEN 1 THEN 0 ELSE 1 END WHERE id = %s", (fileset,)
            )
            if drops_annotations:
                conn.execute("DELETE FROM imageannotationlink WHERE parent = ANY(%s)", (images,))
                conn.execute("DELETE FROM filesetannotationlink WHERE parent = %s", (fileset,))
                w.witness.deeds.unmarked.add(w.name(slug))

    @rule(slug=slugs)
    def a_user_moves_to_another_dataset(self, slug: str) -> None:
        with psycopg.connect(self.here.demo.omero_dsn) as conn:
            conn.execute(
                "UPDATE datasetimagelink SET parent = (SELECT min(id) FROM dataset WHERE id <> parent)"
                " WHERE child = ANY(%s)",
                (list(self.here.demo.fileset(slug).image_ids),),
            )

    @precondition(lambda self: not self.here.witness.deeds.deleted)
    @rule(slug=st.just("dicom"))
    def a_user_deletes_in_omero(self, slug: str) -> None:
        """The rows go, and OMERO unlinks what lies at the paths: originals, or our links."""
        w = self.here
        if w.keys(slug)[0] in w.renamed:
            return
        _delete_rows(w.demo, slug)
        for key in w.keys(slug):
            with suppress(FileNotFoundError):
                w.truth.files[key].path.unlink()
        w.witness.deeds.deleted.add(w.name(slug))
        self.look()

    def _untouchable(self) -> set[str]:
        return {slug for slug in SLUGS if self.here.name(slug) in self.here.witness.deeds.deleted}

    # ---- the clock

    @rule(minutes=st.sampled_from((1, 5, 30, 59, 61, 600, 12_000, -5)))
    def time_passes(self, minutes: int) -> None:
        self.here.notice()
        self.here.clock.advance(minutes=minutes)

    # ---- the inside

    @property
    def here(self) -> World:
        assert self.world is not None
        return self.world

    def go(self, act: Callable[[World], object], crash: int | None = None) -> None:
        """A command, stopped before one of its changes or not; then everything is looked at."""
        w = self.here
        w.notice()
        before = self._letting_go()
        try:
            with nullcontext() if crash is None else stopped_before(crash):
                act(w)
        except (Stopped, BaseExceptionGroup) as stop:
            if isinstance(stop, BaseExceptionGroup) and stop.split(Stopped)[1] is not None:
                self._require([f"[errors] {stop!r}"])
            note(f"stopped: {stop}")
            w.reopen()
        except BrokenInvariant as error:
            if not w.witness.deeds.deleted and not w.witness.deeds.replaced:
                self._require([f"[errors] {error!r}"])
        except ArchiveError as error:
            note(f"{type(error).__name__}: {error}")
        w.notice()
        for slug, (links, opening) in self._letting_go().items():
            fresh = links - before[slug][0]
            if fresh or opening < before[slug][1]:
                self._require([f"[let go] {slug}: {reason}" for reason in w.may_let_go(slug)])
            for key in fresh:
                file = w.witness.truth.files[key]
                if file.sha256 != file.imported:
                    self._require([f"[let go] {key} was released, though a user had written to it"])
        self._heed_lies()
        self._heed_healing()
        self.look()

    def look(self) -> None:
        self.here.notice()
        self._require(self.here.witness.look(at_rest=False))
        slug = next(self.turns)  # one bundle each time: asking for permits is what takes longest
        if self.here.name(slug) not in self.here.witness.deeds.deleted:
            self._require(self.here.look_at_permits(slug))

    def _letting_go(self) -> dict[str, tuple[set[str], int]]:
        """For each bundle: the files in whose places links stand, and how many of its paths can be opened."""
        found = {}
        for slug in SLUGS:
            paths = {key: self.here.truth.files[key].path for key in self.here.keys(slug)}
            links = {key for key, path in paths.items() if path.is_symlink()}
            found[slug] = (links, sum(map(Path.exists, paths.values())))
        return found

    def _heed_lies(self) -> None:
        for service, faulty in self.here.faulty.items():
            for happened in faulty.happened:
                if happened.fault in (Fault.LOST_PUT, Fault.HALF_PUT) and happened.key is not None:
                    self.here.witness.deeds.lied.add((service, str(happened.key)))

    def _heed_healing(self) -> None:
        """What was harmed and lies there with its right bytes again is nobody's excuse any more."""
        deeds = self.here.witness.deeds
        for service, key in list(deeds.harmed):
            path = self.here.stored(service, key)
            if path.exists() and sha256_of(path) == self.here.witness.truth.files[key].imported:
                deeds.harmed.discard((service, key))

    def _require(self, wrong: list[str]) -> None:
        if wrong:
            self.is_over = True
            raise AssertionError("\n".join(wrong))

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            if not self.is_over:
                self._end()
        finally:
            self.world.close()

    def _end(self) -> None:
        """Everybody mends what he broke; what was interrupted is run again; all that can come back does."""
        w = self.here
        for faulty in w.faulty.values():
            faulty.clear()
        _found(w)
        _renamed_back(w)
        w.clock.advance(hours=2)
        for slug in SLUGS:
            self.hold(slug=slug, reason=None)
            self.pin(slug=slug, hours=None)
            self.audit_and_heal(slug=slug, crash=None)
        self.go(_retry)
        stuck = []
        for slug in SLUGS:
            if w.name(slug) not in w.witness.deeds.deleted:
                stuck += self._bring_back(slug)
        self.go(_retry)
        self._require([line for line in w.witness.came_back() if not any(name in line for name in stuck)])
        if not w.witness.deeds.deleted and not stuck:
            self._require(w.witness.look(at_rest=True))

    def _bring_back(self, slug: str) -> list[str]:
        """Unarchive a bundle; the keys that may stay away, because no copy of theirs counts any more."""
        w = self.here
        record = w.record(slug)
        if record is None:
            return []
        if record.intent == "release":
            self.go(lambda w: release(w.facility.site, w.facility.name(slug), rehash=True))
        for _ in range(2):
            record = w.record(slug)
            if record is not None and (record.residency != "RESIDENT" or record.intent):
                self.go(lambda w: w.facility.unarchive(slug))
        record = w.record(slug)
        if record is None or (record.residency == "RESIDENT" and record.intent is None):
            return []
        reasons = w.why_stuck(slug)
        if not reasons:
            self._require([f"[end] {slug} is {record.residency}, {record.intent} begun, and did not come back"])
        return [*w.keys(slug), w.name(slug)]


def _add(w: World, slug: str, decision: Decision) -> None:
    kind, _, number = w.demo.fileset(slug).reference.partition(":")
    for found in closure(w.facility.site.omero, [ObjectRef(type=ObjectType(kind), id=int(number))]):
        assert isinstance(found, Bundle), found
        add(w.facility.site, found, Request(by="tester"), decision=decision)


def _decide(w: World, slug: str, new: Decision) -> None:
    def act(connection: Any, record: BundleRecord) -> None:
        bundles.decide(connection, record, new)
        if new is Decision.APPROVED:
            copies.want(connection, record.id, w.facility.site.settings.service_names)

    _of_bundle(w, slug, act)


def _of_bundle(w: World, slug: str, act: Callable[[Any, BundleRecord], object]) -> None:
    record = w.record(slug)
    if record is not None:
        with w.facility.site.catalogue.begin() as connection:
            act(connection, record)


def _retry(w: World) -> None:
    with w.facility.site.catalogue.begin() as connection:
        copies.try_again(connection)
        bundles.try_again(connection)
    w.facility.work()


def _audit(w: World, slug: str) -> None:
    site, record = w.facility.site, w.record(slug)
    if record is None:
        return
    choice = Choice(scope=Scope(services=tuple(site.services), bundle_ids=(record.id,)))
    with site.catalogue.begin() as connection:
        pieces = audits.chosen(connection, choice, size_bytes=1 << 20, files=2)
    for piece in pieces:
        audit(site, piece, pace=Pace(rate=None))


def _heal(w: World, slug: str) -> None:
    site = w.facility.site
    if w.record(slug) is not None:
        heal(site, w.facility.name(slug), services=tuple(site.services))


def _found(w: World) -> None:
    """Lost copies come back, unless others lie in their places meanwhile; then those are right."""
    for (service, key), aside in list(w.aside.items()):
        if not w.stored(service, key).exists():
            aside.rename(w.stored(service, key))
        del w.aside[service, key]  # it may have rotted before it was lost: see `_heed_healing`


def _renamed_back(w: World) -> None:
    for key, aside in list(w.renamed.items()):
        path = w.truth.files[key].path
        if not os.path.lexists(path):
            aside.rename(path)
            w.witness.deeds.replaced.discard(key)
        del w.renamed[key]


def _delete_rows(demo: DemoSite, slug: str) -> None:
    """What OMERO's own deletion of a fileset leaves: nothing of it, but the annotations it does not own."""
    images, fileset = list(demo.fileset(slug).image_ids), demo.fileset(slug).fileset_id
    of_images: tuple[LiteralString, ...] = (
        "DELETE FROM imageannotationlink WHERE parent = ANY(%s)",
        "DELETE FROM datasetimagelink WHERE child = ANY(%s)",
        "DELETE FROM wellsample WHERE image = ANY(%s)",
        "DELETE FROM thumbnail WHERE pixels IN (SELECT id FROM pixels WHERE image = ANY(%s))",
        "DELETE FROM pixels WHERE image = ANY(%s)",
        "DELETE FROM image WHERE id = ANY(%s)",
    )
    of_fileset: tuple[LiteralString, ...] = (
        "DELETE FROM filesetannotationlink WHERE parent = %s",
        "DELETE FROM originalfile WHERE id IN (SELECT originalfile FROM filesetentry WHERE fileset = %s)",
        "DELETE FROM filesetentry WHERE fileset = %s",
        "DELETE FROM fileset WHERE id = %s",
    )
    with psycopg.connect(demo.omero_dsn) as conn:
        conn.execute("SET LOCAL session_replication_role = replica")  # in whatever order: it is gone altogether
        for statement in of_images:
            conn.execute(statement, (images,))
        for statement in of_fileset:
            conn.execute(statement, (fileset,))
