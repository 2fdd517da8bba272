"""The catalogue's schema is what its migrations make; its moves are guarded, and none is without its event."""

from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from omero_archive.catalogue import bundles, copies, recalls
from omero_archive.catalogue.copies import Failure
from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.tables import bundle, copy, event, metadata
from omero_archive.errors import Busy, DatabaseUnavailable, SettingsError, WrongState
from omero_archive.model import BundleName
from omero_archive.states import CopyState, Decision, Residency
from site_fixtures import Facility, MovableClock, catalogue_rows


@pytest.fixture
def catalogue(empty_dsn: str) -> Catalogue:
    """A freshly migrated catalogue."""
    found = Catalogue(empty_dsn, clock=MovableClock(), actor="tester")
    found.migrate()
    return found


def test_the_schema_is_what_the_migrations_make(catalogue: Catalogue) -> None:
    with catalogue.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []
    catalogue.close()


def test_the_checks_of_the_schema_are_what_the_migrations_make(catalogue: Catalogue) -> None:
    """Alembic does not compare check constraints: a state that the code knows and the table refuses would be one."""
    wanted = {
        str(constraint.name): str(constraint.sqltext)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }
    with catalogue.begin() as connection:
        inspector = sa.inspect(connection)
        found = {
            check["name"]: check["sqltext"]
            for table in metadata.tables
            for check in inspector.get_check_constraints(table)
        }
    assert set(found) == set(wanted)
    for name, text in wanted.items():
        assert _words(found[name]) == _words(text), name
    catalogue.close()


def _words(constraint: str) -> set[str]:
    return set(constraint.split("'")[1::2])


def test_migrating_twice_is_migrating_once(catalogue: Catalogue) -> None:
    catalogue.migrate()
    found, wanted = catalogue.versions()
    assert found == wanted
    catalogue.require_schema()
    catalogue.close()


def test_a_database_without_the_schema_is_told_from_one_that_cannot_be_reached(empty_dsn: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no catalogue yet; run `omero-archive init`"):
        Catalogue(empty_dsn, clock=MovableClock(), actor="tester").require_schema()
    with pytest.raises(SettingsError, match="has no 'nowhere' yet; run `omero-archive init`"):
        Catalogue(f"{empty_dsn} dbname=nowhere", clock=MovableClock(), actor="tester").require_schema()
    with pytest.raises(DatabaseUnavailable):
        Catalogue(f"host={tmp_path} dbname=x", clock=MovableClock(), actor="tester").require_schema()


# ---- guards


def test_a_bundle_that_somebody_else_moved_is_not_moved(facility: Facility) -> None:
    facility.add("ics")
    stale = facility.record("ics")
    with facility.site.catalogue.begin() as connection:
        bundles.move(connection, stale, Residency.ONLINE)
    before = catalogue_rows(facility.site.catalogue.dsn)
    with pytest.raises(WrongState, match="was changed by somebody else"), facility.site.catalogue.begin() as connection:
        bundles.move(connection, stale, Residency.ONLINE)
    assert catalogue_rows(facility.site.catalogue.dsn) == before, "no event either"


def test_a_decision_that_somebody_else_made_is_not_made_again(facility: Facility) -> None:
    facility.add("ics", decision=Decision.REQUESTED)
    stale = facility.record("ics")
    with facility.site.catalogue.begin() as connection:
        bundles.decide(connection, stale, Decision.DECLINED)
    with pytest.raises(WrongState, match="somebody else"), facility.site.catalogue.begin() as connection:
        bundles.decide(connection, stale, Decision.APPROVED)
    assert facility.record("ics").decision is Decision.DECLINED


def test_a_hold_that_somebody_else_set_is_not_overwritten(facility: Facility) -> None:
    facility.add("ics")
    stale = facility.record("ics")
    with facility.site.catalogue.begin() as connection:
        bundles.hold(connection, stale, "first")
    with pytest.raises(WrongState, match="somebody else"), facility.site.catalogue.begin() as connection:
        bundles.hold(connection, stale, "second")
    assert facility.record("ics").hold_reason == "first"


def test_arrows_that_the_tables_do_not_have_are_refused(facility: Facility) -> None:
    facility.add("ics")
    record = facility.record("ics")
    with facility.site.catalogue.begin() as connection:
        for state in (Residency.OFFLINE, Residency.RECALLING):
            with pytest.raises(WrongState):
                bundles.move(connection, record, state)
        with pytest.raises(WrongState):
            bundles.decide(connection, record, Decision.REQUESTED)
        with pytest.raises(WrongState):
            copies.move(connection, [1], old=CopyState.PENDING, new=CopyState.DURABLE)


def test_copies_that_somebody_else_moved_are_left_alone(facility: Facility) -> None:
    facility.archive("ics")
    ids = [row["id"] for row in facility.copies("ics")]
    before = catalogue_rows(facility.site.catalogue.dsn)
    with facility.site.catalogue.begin() as connection:
        assert copies.move(connection, ids, old=CopyState.PENDING, new=CopyState.WRITTEN) == 0
        failures = dict.fromkeys(ids, Failure(message="too late", retry_at=None))
        assert copies.failed(connection, failures, state=CopyState.PENDING) == 0
    assert catalogue_rows(facility.site.catalogue.dsn) == before


@pytest.mark.parametrize(("table", "column"), [("bundle", "residency"), ("bundle", "decision"), ("copy", "state")])
def test_the_database_itself_refuses_states_it_does_not_know(facility: Facility, table: str, column: str) -> None:
    facility.add("ics")
    with pytest.raises(sa.exc.IntegrityError), facility.site.catalogue.begin() as connection:
        connection.execute(sa.text(f"UPDATE {table} SET {column} = 'GONE'"))


# ---- events


def test_every_copys_move_has_its_event_and_loses_it_with_the_transaction(facility: Facility) -> None:
    facility.archive("ics")
    rows = [row for row in catalogue_rows(facility.site.catalogue.dsn)["event"] if row["what"] == "copy"]
    for row in facility.copies("ics"):
        moves = [(one["old"], one["new"]) for one in rows if one["file_id"] == row["file_id"]]
        assert sorted(moves) == [("PENDING", "WRITTEN"), ("VERIFIED", "DURABLE"), ("WRITTEN", "VERIFIED")]
    assert {row["actor"] for row in rows} == {facility.site.catalogue.actor}
    before = catalogue_rows(facility.site.catalogue.dsn)
    record = facility.record("ics")
    ids = [row["id"] for row in facility.copies("ics")]
    with pytest.raises(ZeroDivisionError), facility.site.catalogue.begin() as connection:  # noqa: PT012
        bundles.move(connection, record, Residency.ONLINE)
        bundles.hold(connection, record, "x")
        bundles.intend(connection, record, "release")
        recalls.ask(connection, record.id, "tester", None)
        copies.move(connection, ids, old=CopyState.DURABLE, new=CopyState.MISSING)
        moved = connection.scalar(sa.select(sa.func.count()).select_from(event).where(event.c.new == "MISSING"))
        assert moved == len(ids)
        raise ZeroDivisionError
    assert catalogue_rows(facility.site.catalogue.dsn) == before


def test_one_recall_is_open_however_many_ask(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    number = facility.record("ics").id
    with facility.site.catalogue.begin() as connection:
        assert recalls.ask(connection, number, "alice", "for a figure")
        assert not recalls.ask(connection, number, "bob", None)
    assert len(catalogue_rows(facility.site.catalogue.dsn)["recall"]) == 1
    facility.work()
    (row,) = catalogue_rows(facility.site.catalogue.dsn)["recall"]
    assert (row["requested_by"], row["outcome"]) == ("alice", "done")
    assert facility.residency("ics") is Residency.ONLINE


def test_asking_again_can_only_make_a_recall_more_urgent_and_is_told_to_who_listens(facility: Facility) -> None:
    facility.released("ics")
    number = facility.record("ics").id
    site = facility.site
    with psycopg.connect(site.catalogue.dsn, autocommit=True) as listener:
        listener.execute(f"LISTEN {recalls.CHANNEL}")
        for priority, is_new, is_told, stands in (
            (recalls.OPENED, True, True, recalls.OPENED),
            (recalls.BATCH, False, False, recalls.OPENED),
            (recalls.WAITED_FOR, False, True, recalls.WAITED_FOR),
            (recalls.WAITED_FOR, False, False, recalls.WAITED_FOR),
        ):
            with site.catalogue.begin() as connection:
                assert recalls.ask(connection, number, "mount", None, priority=priority) is is_new
                told_early = list(listener.notifies(timeout=0.05))
            assert told_early == [], "nobody may look before it is committed"
            assert len(list(listener.notifies(timeout=0.5, stop_after=1))) == is_told
            (row,) = catalogue_rows(site.catalogue.dsn)["recall"]
            assert row["priority"] == stands
        with site.catalogue.begin() as connection:
            recalls.finish(connection, number, "done")
            assert recalls.ask(connection, number, "mount", None)
    assert [row["priority"] for row in catalogue_rows(site.catalogue.dsn)["recall"]] == [recalls.WAITED_FOR, 0]


def test_two_processes_never_work_on_one_bundle(facility: Facility) -> None:
    name = BundleName("Fileset-1")
    with facility.site.catalogue.lock_bundle(name):
        with pytest.raises(Busy, match="Fileset-1 is being worked on"), facility.site.catalogue.lock_bundle(name):
            pass
        with facility.site.catalogue.lock_bundle(BundleName("Fileset-2")):
            pass
    with facility.site.catalogue.lock_bundle(name):
        pass


def test_a_catalogue_holds_each_file_once(facility: Facility) -> None:
    facility.add("ics")
    with pytest.raises(sa.exc.IntegrityError), facility.site.catalogue.begin() as connection:
        connection.execute(
            copy.insert().from_select(
                ["bundle_id", "file_id", "service", "state"],
                sa.select(copy.c.bundle_id, copy.c.file_id, copy.c.service, copy.c.state),
            )
        )
    with pytest.raises(sa.exc.IntegrityError), facility.site.catalogue.begin() as connection:
        bundles.insert(connection, facility.found("ics"), bundles.Request(by="x"), Decision.APPROVED)
    with facility.site.catalogue.begin() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(bundle)) == 1


def test_a_name_that_is_no_text_can_be_written_about(facility: Facility) -> None:
    """An error names the file, and PostgreSQL takes no lone surrogates: writing the error down must not be one."""
    odd = "\udcff.tif could not be read"
    facility.add("ics")
    (first, *_) = facility.copies("ics")
    record = facility.record("ics")
    with facility.site.catalogue.begin() as connection:
        failure = Failure(message=odd, retry_at=None)
        assert copies.failed(connection, {first["id"]: failure}, state=CopyState.PENDING) == 1
        bundles.failed(connection, record.id, odd, None, needs_attention=True)
        bundles.note(connection, record, "note", {"keys": [odd], "more": {odd: odd}})
        ids = [first["id"]]
        copies.move(connection, ids, old=CopyState.PENDING, new=CopyState.WRITTEN, detail={"word": odd})
        copies.asked(connection, {first["id"]: odd}, at=facility.clock())
    assert facility.record("ics").last_error == "\\xff.tif could not be read"
    assert facility.copies("ics")[0]["word"] == "\\xff.tif could not be read"
