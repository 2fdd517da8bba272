"""A lost catalogue is made anew from the archive's manifests: what is equal, what is believed, what goes on from there."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from interruptions import Stopped, stopped_before
from omero_archive.app import initialise
from omero_archive.demo.site import DemoSite
from omero_archive.errors import (
    FixityMismatch,
    ObjectMissing,
    PermitRefused,
    ServiceUnavailable,
    SourceChanged,
    SourceVanished,
    WrongState,
)
from omero_archive.model import ServiceName
from omero_archive.omero.marks import NAMESPACE
from omero_archive.states import CopyState, Decision, Residency
from omero_archive.steps.rebuild import plan, rebuild
from omero_archive.steps.rebuild_bundle import Failed, Rebuilt
from site_fixtures import Facility, MakeFacility, flip_a_byte, rows_of

TWO = {"copies_on": ("tape", "disk2")}

# What a manifest does not have, or what begins anew. Everything else must be as it was.
BEGINS_ANEW = {
    "bundle": (
        *("id", "requested_by", "requested_at", "decided_by", "decided_at", "decision_note", "reason", "keep_until"),
        *("released_at", "near_since", "pinned_until", "decision"),
    ),
    "file": ("id", "bundle_id", "read_at", "device", "inode", "ctime_ns"),
    "image": ("bundle_id",),
    "copy": ("id", "bundle_id", "file_id", "state", "sha256", "word"),
    "manifest": ("bundle_id", "written_at"),
}
COPY_TIMES = ("verified_at", "confirmed_at", "asked_at", "checked_at", "checked_how")


def kept(facility: Facility) -> dict[str, list[dict[str, Any]]]:
    """The catalogue's rows without what begins anew."""
    left_out = {**BEGINS_ANEW, "copy": (*BEGINS_ANEW["copy"], *COPY_TIMES)}
    return rows_of(facility.site.catalogue.dsn, only=list(left_out), without=left_out)


def lose_catalogue(facility: Facility) -> None:
    """The catalogue's database is dropped, and `init` makes an empty one."""
    facility.site.catalogue.close()
    dsn = facility.site.catalogue.dsn
    name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
    with psycopg.connect(facility.demo.omero_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    initialise(facility.site)


def rebuilt(facility: Facility, *, without: tuple[str, ...] = (), go_on: bool = False) -> dict[str, Rebuilt | Failed]:
    """Rebuild; what became of each, by name."""
    services = [name for name in facility.site.services if name not in without]
    wanted = plan(facility.site, services, go_on=go_on)
    return {outcome.name: outcome for outcome in rebuild(facility.site, wanted)}


def lose_and_rebuild(facility: Facility, **options: Any) -> dict[str, Rebuilt | Failed]:
    lose_catalogue(facility)
    return rebuilt(facility, **options)


def made(found: dict[str, Rebuilt | Failed], name: str) -> Rebuilt:
    outcome = found[name]
    assert isinstance(outcome, Rebuilt), outcome
    return outcome


def failed(found: dict[str, Rebuilt | Failed], name: str) -> Failed:
    outcome = found[name]
    assert isinstance(outcome, Failed), outcome
    return outcome


def manifest_of(facility: Facility, slug: str, *, service: str = "tape", name: str = "omero.json") -> Path:
    return facility.demo.directory / service / "manifests" / facility.name(slug) / name


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what an omero.json says."""
    says = json.loads(path.read_text())
    change(says)
    path.write_text(json.dumps(says))


def put_back_as_it_was(facility: Facility, *slugs: str) -> None:
    for slug in slugs:
        if facility.residency(slug) is not Residency.RESIDENT:
            facility.unarchive(slug)
        assert facility.is_as_before(slug), slug


# ---- the whole of it


def test_a_lost_catalogue_is_made_anew_and_everything_goes_on(make_facility: MakeFacility) -> None:
    facility = make_facility(**TWO)
    facility.released("ome-tiff", "ics", "omero4", "plate")
    facility.archive("dicom")
    facility.evict("ics", "omero4")
    before = kept(facility)
    states = {slug: facility.residency(slug) for slug in ("ome-tiff", "ics", "omero4", "plate", "dicom")}
    marks = {slug: facility.record(slug).is_marked for slug in states}

    found = lose_and_rebuild(facility)

    assert kept(facility) == before
    assert {slug: facility.residency(slug) for slug in states} == states
    assert {slug: facility.record(slug).is_marked for slug in states} == marks
    assert all(isinstance(one, Rebuilt) and not one.differences and one.attention is None for one in found.values())
    for slug in states:
        assert set(facility.copy_states(slug).values()) == {CopyState.WRITTEN}
        wanted = Decision.RETURNED if slug == "dicom" else Decision.APPROVED
        assert facility.record(slug).decision is wanted
        assert facility.record(slug).decided_by == "rebuild"

    facility.recall("ics")  # also before any copy was verified again: every byte is compared on its way
    assert facility.reads_as_before("ics")
    assert facility.work().failed == 0
    for slug in ("ome-tiff", "ics", "omero4", "plate"):
        assert set(facility.copy_states(slug).values()) == {CopyState.DURABLE}
    facility.evict("ome-tiff", "ics")
    facility.recall("ome-tiff")
    facility.before = {key: facts for key, facts in facility.before.items()}
    put_back_as_it_was(facility, *states)
    assert rows_of(facility.demo.omero_dsn, only=["annotation"])["annotation"] == [
        row
        for row in rows_of(facility.demo.omero_dsn, only=["annotation"])["annotation"]
        if row["ns"] != NAMESPACE
    ]


def test_nothing_is_evicted_before_the_copies_were_read_again(facility: Facility) -> None:
    facility.released("ics")
    lose_and_rebuild(facility)
    with pytest.raises(PermitRefused, match="WRITTEN, not DURABLE"):
        facility.evict("ics")
    assert facility.reads_as_before("ics")


def test_an_original_in_its_place_is_read_again_before_it_is_released(facility: Facility) -> None:
    facility.archive("ics")
    lose_and_rebuild(facility)
    facility.add("ics")
    facility.work()
    with pytest.raises(SourceChanged, match="rehash"):
        facility.release("ics")
    from omero_archive.steps.release import release

    release(facility.site, facility.name("ics"), rehash=True)
    assert facility.residency("ics") is Residency.ONLINE
    assert facility.reads_as_before("ics")
    put_back_as_it_was(facility, "ics")
