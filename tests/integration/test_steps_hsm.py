"""The whole way of a fileset on a tape system: nothing is released before it is on tape, recalls wait for the tape."""

from collections.abc import Iterator

import pytest

from hsm_system import TAPE, Hsm
from omero_archive.errors import ObjectOffline, PermitRefused
from omero_archive.model import Key
from omero_archive.states import CopyState, Residency
from omero_archive.steps.recall import request_recall
from site_fixtures import Facility


@pytest.fixture
def hsm(facility: Facility, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hsm]:
    state = facility.demo.directory / "hsm-state"
    state.mkdir()
    monkeypatch.setenv("HSM_STATE", str(state))
    hsm = Hsm(facility.demo.directory / "tape", state, facility.clock)
    facility.site.services[TAPE].close()
    facility.site.services = {**facility.site.services, TAPE: hsm.service("lustre")}
    yield hsm
    for service in hsm.made:
        service.close()


def test_a_fileset_goes_to_tape_and_comes_back(facility: Facility, hsm: Hsm) -> None:
    keys = [Key(key) for key in facility.demo.fileset("ics").keys]
    facility.add("ics")
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.VERIFIED}
    with pytest.raises(PermitRefused, match="durable"):
        facility.release("ics")

    everything = [listed.key for listed in facility.site.services[TAPE].list("")]
    hsm.put_all(everything, "safe")
    facility.clock.advance(hours=2)
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}
    facility.release("ics")
    assert facility.evict("ics") > 0

    hsm.put_all(everything, "offline")
    for _ in range(2):
        with pytest.raises(ObjectOffline, match="staged by tape"):
            facility.recall("ics")
    assert len(keys) > 1
    assert len(hsm.recalls()) == 1
    assert {hsm.word(key) for key in keys} == {"recalling"}
    hsm.put_all(keys, "safe")
    facility.clock.advance(hours=1)
    facility.recall("ics")
    assert facility.residency("ics") is Residency.ONLINE
    assert facility.reads_as_before("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_a_copy_that_changed_on_the_mount_loses_its_word(facility: Facility, hsm: Hsm) -> None:
    facility.add("ics")
    facility.work()
    everything = [listed.key for listed in facility.site.services[TAPE].list("")]
    hsm.put_all(everything, "safe")
    facility.clock.advance(hours=2)
    facility.work()
    hsm.put_all(everything, "dirty")
    facility.clock.advance(hours=2)
    with pytest.raises(PermitRefused):
        facility.release("ics")


def test_recalls_of_many_bundles_become_one_command(facility: Facility, hsm: Hsm) -> None:
    """So that the tape system reads its tapes in order."""
    slugs = ("ics", "dicom", "ome-tiff")
    facility.add(*slugs)
    facility.work()
    everything = [listed.key for listed in facility.site.services[TAPE].list("")]
    hsm.put_all(everything, "safe")
    facility.clock.advance(hours=2)
    facility.work()
    facility.release(*slugs)
    facility.evict(*slugs)
    hsm.put_all(everything, "offline")
    for slug in slugs:
        request_recall(facility.site, facility.name(slug), by="tester")
    assert facility.work().waiting == len(slugs)
    assert len(hsm.recalls()) == 1
    hsm.put_all(everything, "safe")
    facility.clock.advance(hours=1)
    assert facility.work().done == len(slugs)
    assert all(facility.reads_as_before(slug) for slug in slugs)
    assert len(hsm.recalls()) == 1
