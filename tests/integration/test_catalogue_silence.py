"""A process that is stopped in mid transaction keeps others waiting no longer than it was told to, and finds out."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from omero_archive.catalogue.database import Catalogue
from omero_archive.errors import DatabaseUnavailable
from site_fixtures import Facility

_LOCK = sa.select(sa.func.pg_advisory_xact_lock(7))
_SLEEP = sa.text("SELECT pg_sleep(0.4)")


@pytest.fixture
def other(facility: Facility) -> Catalogue:
    catalogue = facility.site.catalogue
    return Catalogue(catalogue.dsn, clock=catalogue.clock, actor="other", patience_s=30.0)


def test_a_transaction_in_which_nothing_is_said_ends_and_its_locks_with_it(
    facility: Facility, other: Catalogue
) -> None:
    facility.site.catalogue.be_brief(timedelta(milliseconds=100))
    with pytest.raises(DatabaseUnavailable, match="idle-in-transaction"):
        _hold_until_granted_to(other, facility.site.catalogue)
    with facility.site.catalogue.begin() as connection:  # it goes on with another connection
        assert connection.scalar(sa.select(1)) == 1


def _hold_until_granted_to(other: Catalogue, catalogue: Catalogue) -> None:
    with catalogue.begin() as connection:
        connection.execute(_LOCK)
        with other.begin() as waiting:
            waiting.execute(_LOCK)  # granted, though we said nothing more
        connection.execute(sa.select(1))


def test_a_long_statement_is_no_silence(facility: Facility) -> None:
    facility.site.catalogue.be_brief(timedelta(milliseconds=100))
    with facility.site.catalogue.begin() as connection:
        connection.execute(_SLEEP)
        assert connection.scalar(sa.select(1)) == 1


def test_an_error_of_a_statement_is_not_taken_for_a_database_that_is_away(facility: Facility) -> None:
    with pytest.raises(sa.exc.ProgrammingError), facility.site.catalogue.begin() as connection:
        connection.execute(sa.text("SELECT no_such_column"))
