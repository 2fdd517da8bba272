"""The permits of a large bundle are granted page by page, and hold for all of it or for nothing."""

import pytest

from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.tables import file
from omero_archive.errors import PermitRefused, WrongState
from omero_archive.model import Bundle, ServiceName
from omero_archive.states import Residency
from omero_archive.steps import permits as module
from omero_archive.steps import release as release_module
from omero_archive.steps.permits import permits
from omero_archive.steps.site import Site
from omero_archive.testing.faulty_service import Fault, FaultyService
from site_fixtures import Facility


@pytest.fixture(autouse=True)
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_FILES", 2)


def faulty(facility: Facility) -> FaultyService:
    tape = ServiceName("tape")
    service = FaultyService(facility.site.services[tape], clock=facility.clock, sleep=lambda _: None)
    facility.site.services = {**facility.site.services, tape: service}
    return service


@pytest.mark.parametrize("dry_run", [True, False])
def test_every_file_of_every_page_gets_its_permit(facility: Facility, dry_run: bool) -> None:
    facility.archive("plate")
    keys = {row["key"] for row in facility.copies("plate")}
    assert len(keys) > 2 * module.PAGE_FILES
    assert permits(facility.site, facility.record("plate"), dry_run=dry_run).keys() == keys


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_copy_lost_on_the_last_page_refuses_the_whole_bundle(facility: Facility, dry_run: bool) -> None:
    facility.archive("plate")
    rows = facility.copies("plate")
    faulty(facility).set(Fault.MISSING, key=rows[-1]["key"])
    with pytest.raises(PermitRefused, match=rf"MISSING, not DURABLE \(1 of {len(rows)} files\)"):
        permits(facility.site, facility.record("plate"), dry_run=dry_run)
    with pytest.raises(PermitRefused):
        facility.release("plate")
    assert facility.residency("plate") is Residency.RESIDENT
    assert facility.is_as_before("plate")


def test_a_service_that_fails_on_a_later_page_is_not_asked_again_and_its_old_words_do_not_count(
    facility: Facility,
) -> None:
    facility.archive("plate")
    facility.clock.advance(hours=2)  # so that what it said before is too old
    rows = facility.copies("plate")
    service = faulty(facility)
    service.set(Fault.UNAVAILABLE, verb="status", key=rows[2]["key"])
    with pytest.raises(PermitRefused, match=rf"longer ago than 1:00:00 \({len(rows) - 2} of {len(rows)} files\)"):
        permits(facility.site, facility.record("plate"))
    assert len([each for each in service.happened if each.fault is Fault.UNAVAILABLE]) == 1


def test_a_file_that_changes_in_the_catalogue_while_omero_is_asked_stops_the_release(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.archive("plate")
    asked = release_module._same_in_omero

    def raced(site: Site, record: BundleRecord) -> Bundle:
        found = asked(site, record)
        with site.catalogue.begin() as connection:
            connection.execute(file.update().where(file.c.bundle_id == record.id).values(ctime_ns=1))
        return found

    monkeypatch.setattr(release_module, "_same_in_omero", raced)
    with pytest.raises(WrongState, match="changed in the catalogue meanwhile"):
        facility.release("plate")
    assert facility.record("plate").intent is None
    assert facility.is_as_before("plate")
