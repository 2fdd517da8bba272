"""Purge deletes the copies of one named bundle that OMERO has deleted; anything less certain is a refusal."""

from datetime import date

import pytest
from omero_changes import deleted_in_omero

from interruptions import Stopped, stopped_before
from omero_archive.catalogue import bundles
from omero_archive.catalogue.tables import bundle, waiting_open
from omero_archive.errors import ArchiveError, PermitRefused, ServiceUnavailable, UnknownObject, WrongState
from omero_archive.steps.recall import request_recall
from omero_archive.steps.reconcile.look import Scope, look
from omero_archive.steps.reconcile.purge import purge, purge_dry
from site_fixtures import Facility, MakeFacility, catalogue_rows, disk_below, left_below, rows_of

SLUGS = ("ics", "omero4")


def everything(facility: Facility) -> tuple[object, ...]:
    demo = facility.demo
    return catalogue_rows(demo.catalogue_dsn), disk_below(demo.data_dir, demo.service_path)


def keep_omero4_directories(facility: Facility) -> None:
    """Empty, `Files` and `Pixels` would look as if they were not mounted."""
    for directory in ("Files", "Pixels"):
        (facility.demo.data_dir / directory / "1").touch()


def refused(facility: Facility, slug: str, why: str) -> None:
    """The purge is refused for this reason, dry or not, and nothing is changed."""
    before = everything(facility)
    for attempt in (purge_dry, purge):
        with pytest.raises(ArchiveError, match=why):
            attempt(facility.site, facility.name(slug))
    assert everything(facility) == before


def objects_of(facility: Facility, slug: str) -> list[str]:
    """What the archive still has of a bundle: copies and manifests."""
    keys = set(facility.demo.fileset(slug).keys)
    name = facility.name(slug)
    listed = facility.site.services["tape"].list("")  # type: ignore[index]
    return [one.key for one in listed if one.key in keys or name in one.key]


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("residency", ["RESIDENT", "ONLINE", "OFFLINE"])
def test_a_deleted_bundle_is_purged_and_every_digest_stays_in_the_events(
    facility: Facility, slug: str, residency: str
) -> None:
    keep_omero4_directories(facility)
    facility.archive(slug, "plate")
    if residency != "RESIDENT":
        facility.release(slug, "plate")
    if residency == "OFFLINE":
        facility.evict(slug)
    number, wanted = facility.record(slug).id, set(objects_of(facility, slug))
    others = set(objects_of(facility, "plate"))
    left_by_a_dead_mount = {"mount": "here:/x", "bundle_id": number, "waiters": 1, "who": "java of alice"}
    times = dict.fromkeys(("since", "until"), facility.clock())
    with facility.site.catalogue.begin() as connection:
        connection.execute(waiting_open.insert().values(**left_by_a_dead_mount, **times))
    deleted_in_omero(facility, slug)
    before = everything(facility)
    planned = purge_dry(facility.site, facility.name(slug))
    assert {key for _, key, _ in planned.objects} == wanted
    assert everything(facility)[1] == before[1]

    purge(facility.site, facility.name(slug))
    assert objects_of(facility, slug) == []
    assert set(objects_of(facility, "plate")) == others
    assert not [one for one in look(facility.site, Scope()) if getattr(one, "bundle", None) == facility.name(slug)]
    rows = catalogue_rows(facility.demo.catalogue_dsn)
    assert not [row for table in ("file", "image", "copy", "manifest", "recall") for row in rows[table]
                if row["bundle_id"] == number]  # fmt: skip
    events = [row for row in rows["event"] if row["bundle_id"] == number and row["what"] == "purged"]
    told = {row["detail"]["key"]: row["detail"]["sha256"] for row in events if row["new"] == "deleted"}
    assert set(told) == wanted
    assert all(told[key] == facility.before[key][1] for key in facility.demo.fileset(slug).keys)
    assert len([row for row in events if row["old"] == residency.replace("ONLINE", "OFFLINE")]) == 1
    assert not list((facility.demo.archive_root / ".omero-archive").rglob(facility.name(slug)))
    with pytest.raises(UnknownObject):
        purge(facility.site, facility.name(slug))


def test_what_omero_still_has_is_never_purged(facility: Facility) -> None:
    facility.released("ics")
    refused(facility, "ics", "OMERO still has 1 of its filesets; OMERO still has 1 of its images; .*original files")


def test_what_still_lies_at_a_path_stops_a_purge(facility: Facility) -> None:
    facility.released("ics")
    deleted_in_omero(facility, "ics", with_paths=False)
    refused(facility, "ics", "something still lies at 2 of its paths")


def test_an_unmounted_repository_stops_a_purge(facility: Facility) -> None:
    facility.released("ics")
    deleted_in_omero(facility, "ics")
    (facility.demo.data_dir / "ManagedRepository/.omero").rename(facility.demo.directory / "away")
    refused(facility, "ics", "OMERO's disk could not be looked at: .*mounted")


def test_holds_pins_recalls_and_promises_stop_a_purge(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    deleted_in_omero(facility, "ics")
    request_recall(facility.site, facility.name("ics"), by="tester")
    with facility.site.catalogue.begin() as connection:
        bundles.hold(connection, facility.record("ics"), "a lawyer asks")
        bundles.pin(connection, facility.record("ics"), facility.clock().replace(year=2100))
        connection.execute(bundle.update().values(keep_until=date(2100, 1, 1)))
    for why in ("a recall of it is open", "on hold: a lawyer asks", "keep it until 2100-01-01", "pinned until 2100"):
        refused(facility, "ics", why)


def test_an_interrupted_step_stops_a_purge(facility: Facility) -> None:
    facility.archive("ics")
    with facility.site.catalogue.begin() as connection:
        bundles.intend(connection, facility.record("ics"), "release")
    deleted_in_omero(facility, "ics")
    refused(facility, "ics", "its release was begun and not finished")


def test_near_bytes_go_only_with_their_permits(make_facility: MakeFacility) -> None:
    facility = make_facility()
    facility.released("ics")
    deleted_in_omero(facility, "ics")
    strict = make_facility(facility.clock, durable_after="1h")
    with pytest.raises(PermitRefused):
        purge(strict.site, strict.name("ics"))
    assert (strict.demo.archive_root / strict.demo.fileset("ics").keys[0]).exists()
    assert len(objects_of(strict, "ics")) == 4


def test_a_foreign_object_under_a_key_stops_a_purge(facility: Facility) -> None:
    facility.archive("ics")
    facility.archived_path(facility.demo.fileset("ics").keys[0]).write_bytes(b"whose?")
    deleted_in_omero(facility, "ics")
    refused(facility, "ics", "with 6 bytes, .* were written: whose is it")


def test_a_service_that_cannot_be_asked_stops_a_purge(make_facility: MakeFacility) -> None:
    facility = make_facility(copies_on=("tape", "disk2"))
    facility.archive("ics")
    deleted_in_omero(facility, "ics")
    marker = facility.demo.directory / "disk2/.omero-archive/service"
    away = marker.rename(marker.with_name("away"))
    before = everything(facility)
    with pytest.raises(ServiceUnavailable):
        purge(facility.site, facility.name("ics"))
    assert everything(facility) == before
    away.rename(marker)
    with pytest.raises(WrongState, match="disk2, which is not in the settings"):
        purge(make_facility(copies_on=("tape",)).site, facility.name("ics"))


@pytest.mark.parametrize("slug", SLUGS)
def test_a_purge_may_be_stopped_anywhere_and_is_finished_by_the_next(facility: Facility, slug: str) -> None:
    keep_omero4_directories(facility)
    facility.released(slug)
    number = facility.record(slug).id
    deleted_in_omero(facility, slug)
    stops = 0
    for change in range(1, 60):
        try:
            with stopped_before(change):
                purge(facility.site, facility.name(slug))
        except Stopped:
            stops += 1
            assert catalogue_rows(facility.demo.catalogue_dsn)["bundle"], "rows go last"
        else:
            break
    assert stops > 5
    assert objects_of(facility, slug) == []
    assert not left_below(facility.demo.archive_root)
    rows = rows_of(facility.demo.catalogue_dsn, only=["event", "bundle"])
    assert rows["bundle"] == []
    deleted = [row["detail"]["key"] for row in rows["event"] if row["bundle_id"] == number and row["new"] == "deleted"]
    assert set(facility.demo.fileset(slug).keys) <= set(deleted)
