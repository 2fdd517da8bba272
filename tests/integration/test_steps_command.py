"""A command as the archive of a site: the whole way of a fileset, whose copies are offline until they are staged."""

import sys
from pathlib import Path

import pytest

from omero_archive.catalogue.copies import FIXITY_OF_SERVICE
from omero_archive.errors import ObjectOffline
from omero_archive.model import Key, ServiceName
from omero_archive.service import Staged
from omero_archive.services.command import CommandService
from omero_archive.states import CopyState, Residency
from site_fixtures import Facility

TAPE = ServiceName("tape")
COMMAND = Path(__file__).resolve().parents[1] / "conformance" / "tape_command.py"


@pytest.fixture
def taped(facility: Facility) -> Facility:
    """A facility whose archive is a tape library behind a command."""
    here = facility.demo.directory
    (here / "spool").mkdir()
    table = {
        "command": [sys.executable, str(COMMAND)],
        "spool": str(here / "spool"),
        "options": {"directory": str(here / "library")},
        "needs_staging": True,
        "digests": ["sha256"],
    }
    service = CommandService.from_settings(TAPE, table, clock=facility.clock)
    service.initialise()
    facility.site.services[TAPE].close()
    facility.site.services = {**facility.site.services, TAPE: service}
    return facility


def test_a_fileset_goes_to_a_command_and_back(taped: Facility) -> None:
    facility, service = taped, taped.site.services[TAPE]
    facility.archive("ics")
    assert {row["checked_how"] for row in facility.copies("ics")} == {FIXITY_OF_SERVICE}
    facility.release("ics")
    facility.clock.advance(days=8)
    assert facility.evict("ics") > 0
    assert facility.residency("ics") is Residency.OFFLINE
    with pytest.raises(ObjectOffline):
        facility.recall("ics")
    keys = [Key(key) for key in facility.demo.fileset("ics").keys]
    assert {said.staged for said in service.status(keys).values()} == {Staged.ONLINE}
    facility.clock.advance(hours=1)
    facility.recall("ics")
    assert facility.residency("ics") is Residency.ONLINE
    assert facility.reads_as_before("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_while_an_archive_behind_a_command_is_away_copies_wait_for_it(taped: Facility) -> None:
    library = taped.demo.directory / "library"
    library.rename(taped.demo.directory / "elsewhere")
    taped.add("ics")
    assert taped.work().damaged == 0
    assert set(taped.copy_states("ics").values()) == {CopyState.PENDING}
    assert all("not mounted" in error for error in taped.errors("ics"))
    (taped.demo.directory / "elsewhere").rename(library)
    taped.clock.advance(hours=1)
    taped.work()
    assert set(taped.copy_states("ics").values()) == {CopyState.DURABLE}
