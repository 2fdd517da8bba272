"""A service that takes its time makes nobody's word younger than it is."""

from datetime import timedelta

import pytest

import mounts
from omero_archive.errors import PermitRefused
from omero_archive.model import ServiceName
from omero_archive.states import Residency
from omero_archive.steps import check
from omero_archive.steps.permits import permits
from omero_archive.testing.faulty_service import Fault, FaultyService
from site_fixtures import MakeFacility, MovableClock


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_word_is_as_old_as_the_question(make_facility: MakeFacility, dry_run: bool) -> None:
    clock = MovableClock()
    facility = make_facility(clock, copies_on=("tape", "disk2"), copies='{ any = 1, of = ["tape", "disk2"] }')
    site = facility.site
    slow = FaultyService(site.services[ServiceName("disk2")], clock=clock, sleep=lambda _: clock.advance(hours=2))
    site.services = {**site.services, ServiceName("disk2"): slow}
    facility.released("ics")
    slow.set(Fault.SLOW, verb="status", times=1)  # asked after the tape, it answers when the tape's word is stale
    with pytest.raises(PermitRefused, match="longer ago than 1:00:00"):
        permits(site, facility.record("ics"), dry_run=dry_run)
    asked = [row["confirmed_at"] for row in facility.copies("ics")]
    assert all(clock() - at >= timedelta(hours=2) for at in asked), asked
    facility.evict("ics")
    assert facility.residency("ics") is Residency.OFFLINE


def test_a_service_whose_mount_hangs_is_a_finding_like_others(
    make_facility: MakeFacility, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` ended for no signal but SIGKILL, and told nothing of the others either."""
    monkeypatch.setattr(check, "_PATIENCE_S", 0.5)
    facility = make_facility(copies_on=("tape", "disk2"), copies='["tape", "disk2"]')
    with mounts.silent(facility.demo.directory / "tape"):
        (hung,) = check.check_service(facility.site, ServiceName("tape"))
        (other,) = check.check_service(facility.site, ServiceName("disk2"))
    assert (hung.subject, hung.is_fine, hung.text) == ("service tape", False, "no answer within 0.5 s")
    assert "hang" in hung.advice
    assert other.is_fine
