"""What a service reports of its objects: it stands in for reading what is offline; without it no word is believed."""

import hashlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from offline_service import OfflineService
from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.copies import FIXITY_OF_SERVICE, READ_BACK
from omero_archive.model import Clock, Key, ServiceName
from omero_archive.service import Answer, Capabilities, Incoming, ObjectStatus, Outcome
from omero_archive.services.directory import DirectoryService, DirectorySettings
from omero_archive.states import CopyState
from omero_archive.steps import confirm, copy, manifest, verify
from omero_archive.steps.copy import Tally
from site_fixtures import Facility

TAPE = ServiceName("tape")


class Md5Service(DirectoryService):
    """An archive that knows the MD5 of its objects once they are on tape, as Arkivum does."""

    capabilities = Capabilities(has_paths=True, needs_staging=False, digests=("md5",))

    def __init__(self, settings: DirectorySettings, clock: Clock) -> None:
        super().__init__(TAPE, settings, clock)
        self.reports: str | None = "right"
        self.attention = ""

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        for outcome in super().put_group(group):
            receipt = outcome.receipt
            if receipt is not None:
                receipt = replace(receipt, digests={"md5": self._md5(outcome.key)})
            yield replace(outcome, receipt=receipt)

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        return {key: self._with_digest(key, status) for key, status in super().status(keys).items()}

    def _with_digest(self, key: Key, status: ObjectStatus) -> ObjectStatus:
        if status.present is not Answer.YES or self.reports is None:
            return replace(status, attention=self.attention)
        found = {"right": self._md5(key), "wrong": "0" * 32}[self.reports]
        return replace(status, digests={"md5": found}, attention=self.attention)

    def _md5(self, key: Key) -> str:
        with self.open(key) as stored:
            return hashlib.file_digest(stored, "md5").hexdigest()  # type: ignore[arg-type]


def with_service(facility: Facility, service: DirectoryService) -> None:
    facility.site.services[TAPE].close()
    facility.site.services = {**facility.site.services, TAPE: service}


@pytest.fixture
def md5(facility: Facility) -> Md5Service:
    service = Md5Service(DirectorySettings(path=facility.demo.directory / "tape"), facility.clock)
    with_service(facility, service)
    return service


def offline(facility: Facility, *, reports: bool) -> OfflineService:
    settings = DirectorySettings(path=facility.demo.directory / "tape")
    service = OfflineService(TAPE, settings, facility.clock, reports=reports)
    with_service(facility, service)
    return service


def write(facility: Facility, slug: str = "ics") -> None:
    """Copy a fileset and write its manifest: then its copies are due to be verified."""
    facility.add(slug)
    with facility.claimed("copy") as claim:
        copy.copy(facility.site, claim)
    service = facility.site.services[TAPE]
    if isinstance(service, OfflineService):  # small files stay on a library's disk
        directory = f"manifests/{facility.name(slug)}"
        service.online |= {Key(f"{directory}/{name}") for name in (manifest.MANIFEST, manifest.DESCRIPTION)}
    manifest.manifest(facility.site, facility.record(slug).id, TAPE)


def verified(facility: Facility) -> Tally:
    with facility.claimed("verify") as claim:
        return verify.verify(facility.site, claim)


def confirmed(facility: Facility) -> Tally:
    facility.clock.advance(hours=1)
    with facility.claimed("confirm") as claim:
        return confirm.confirm(facility.site, claim)


def column(facility: Facility, name: str) -> set[Any]:
    return {row[name] for row in facility.copies("ics")}


# ---- offline at once


def test_what_went_offline_at_once_is_verified_by_the_digest_that_the_service_reports(facility: Facility) -> None:
    service = offline(facility, reports=True)
    write(facility)
    service.opened.clear()
    assert verified(facility) == Tally(done=len(facility.copies("ics")))
    assert (column(facility, "state"), column(facility, "checked_how")) == ({CopyState.VERIFIED}, {FIXITY_OF_SERVICE})
    assert (service.opened, service.staged) == ([], [])


def test_what_is_offline_and_without_a_digest_is_staged_all_at_once_and_read_when_it_is_there(
    facility: Facility,
) -> None:
    service = offline(facility, reports=False)
    write(facility)
    keys = {Key(key) for key in facility.demo.fileset("ics").keys}
    service.opened.clear()
    assert verified(facility) == Tally(waiting=len(keys))
    assert (set(service.staged), len(service.staged), service.opened) == (keys, len(keys), [])
    assert column(facility, "state") == {CopyState.WRITTEN}
    assert all("is offline" in error for error in facility.errors("ics"))
    service.online |= keys
    facility.clock.advance(hours=2)
    assert verified(facility) == Tally(done=len(keys))
    assert (column(facility, "state"), column(facility, "checked_how")) == ({CopyState.VERIFIED}, {READ_BACK})


def test_waiting_for_a_tape_is_never_given_up(facility: Facility) -> None:
    service = offline(facility, reports=False)
    write(facility)
    for _ in range(facility.site.settings.work.attempts + 3):
        verified(facility)
        facility.clock.advance(hours=1)
    (facility.demo.directory / "tape").rename(facility.demo.directory / "elsewhere")  # one answer is lost
    verified(facility)
    assert column(facility, "needs_attention") == {False}
    (facility.demo.directory / "elsewhere").rename(facility.demo.directory / "tape")
    service.online |= {Key(key) for key in facility.demo.fileset("ics").keys}
    facility.clock.advance(days=1)
    verified(facility)
    assert column(facility, "state") == {CopyState.VERIFIED}


def test_another_digest_than_was_written_is_damage(facility: Facility) -> None:
    service = offline(facility, reports=True)
    write(facility)
    key = Key(facility.demo.fileset("ics").keys[0])
    service.rotten = {key}
    number = len(facility.copies("ics"))
    assert verified(facility) == Tally(done=number - 1, failed=1, damaged=1)
    assert facility.copy_states("ics")[key, "tape"] is CopyState.DAMAGED


def test_an_archive_that_cannot_be_asked_leaves_copies_as_they_are(facility: Facility) -> None:
    offline(facility, reports=True)
    write(facility)
    (facility.demo.directory / "tape").rename(facility.demo.directory / "elsewhere")
    assert verified(facility).done == 0
    assert column(facility, "state") == {CopyState.WRITTEN}


# ---- by which digest a word is believed


def test_digests_of_what_was_written_are_kept_and_what_is_durable_has_one_of_them(
    facility: Facility, md5: Md5Service
) -> None:
    write(facility)
    assert all(set(row["digests"]) == {"md5"} for row in facility.copies("ics"))
    verified(facility)
    confirmed(facility)
    assert column(facility, "state") == {CopyState.DURABLE}


def test_a_word_without_a_digest_is_not_believed(facility: Facility, md5: Md5Service) -> None:
    write(facility)
    verified(facility)
    md5.reports = None
    confirmed(facility)
    assert (column(facility, "state"), column(facility, "confirmed_at")) == ({CopyState.VERIFIED}, {None})
    assert column(facility, "word") == {"safe, but it reports no digest that is known here"}
    md5.reports = "right"
    confirmed(facility)
    assert column(facility, "state") == {CopyState.DURABLE}


def test_a_durable_copy_whose_digest_is_reported_no_more_is_not_freshly_confirmed(
    facility: Facility, md5: Md5Service
) -> None:
    write(facility)
    verified(facility)
    confirmed(facility)
    (before,) = column(facility, "confirmed_at")
    md5.reports = None
    facility.clock.advance(hours=1)
    with facility.site.catalogue.begin() as connection:
        number = facility.record("ics").id
        known = copies.of_bundle(connection, number, bundles.files(connection, number))
    confirm.record(facility.site, confirm.ask(facility.site, TAPE, known))
    assert (column(facility, "state"), column(facility, "confirmed_at")) == ({CopyState.DURABLE}, {before})


def test_a_word_with_another_digest_is_damage(facility: Facility, md5: Md5Service) -> None:
    write(facility)
    verified(facility)
    md5.reports = "wrong"
    tally = confirmed(facility)
    assert tally.damaged == len(facility.copies("ics"))
    assert column(facility, "state") == {CopyState.DAMAGED}


def test_digests_that_were_lost_are_taken_again_from_bytes_that_were_proved(
    facility: Facility, md5: Md5Service
) -> None:
    write(facility)
    before = {row["id"]: row["digests"] for row in facility.copies("ics")}
    with psycopg.connect(facility.demo.catalogue_dsn) as connection:
        connection.execute("UPDATE copy SET digests = '{}'")  # as after a rebuild
    md5.reports = "wrong"  # what it says now must not become what is expected of it
    verified(facility)
    assert {row["id"]: row["digests"] for row in facility.copies("ics")} == before


def test_what_is_overdue_is_told_and_asked_about_again(facility: Facility, md5: Md5Service) -> None:
    write(facility)
    verified(facility)
    md5.reports, md5.attention = None, "nothing was heard of it for 2 days; look at the appliance"
    for _ in range(facility.site.settings.work.attempts + 3):
        assert confirmed(facility).failed == len(facility.copies("ics"))
    assert all("look at the appliance" in error for error in facility.errors("ics"))
    md5.reports, md5.attention = "right", ""
    confirmed(facility)
    assert (column(facility, "state"), facility.errors("ics")) == ({CopyState.DURABLE}, [])


def test_the_longer_a_service_takes_the_rarer_it_is_asked_but_every_hour(facility: Facility, md5: Md5Service) -> None:
    write(facility)
    verified(facility)
    md5.reports = None
    rests = []
    for hours in (0, 1, 4, 20):
        facility.clock.advance(hours=hours)
        with facility.claimed("confirm") as claim:
            confirm.confirm(facility.site, claim)
        rests.append(0)
        while not facility.is_due("confirm"):
            facility.clock.advance(minutes=1)
            rests[-1] += 1
    assert rests[0] == 1, "the poll, at first"
    assert 5 <= rests[1] <= 8
    assert 25 <= rests[2] <= 40
    assert rests[3] == 60
