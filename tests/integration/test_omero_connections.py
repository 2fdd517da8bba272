"""Connections to OMERO's database that are kept for the next question, on a real PostgreSQL."""

import psycopg
import pytest

from omero_archive.omero.database import APPLICATION, OmeroDatabase


@pytest.fixture
def database(omero_dsn: str) -> OmeroDatabase:
    return OmeroDatabase(omero_dsn)


def session(database: OmeroDatabase) -> int:
    """The session in which something is looked at."""
    with database.connect_read_only() as conn:
        return conn.info.backend_pid


def ours(dsn: str) -> set[int]:
    """The sessions that we have."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
        " AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(dsn) as conn:
        return {row[0] for row in conn.execute(query, (APPLICATION,))}


def test_connections_are_kept_only_while_that_is_wished(database: OmeroDatabase, omero_dsn: str) -> None:
    assert session(database) != session(database)
    with database.keeping_connections():
        kept = session(database)
        assert session(database) == kept
        assert ours(omero_dsn) == {kept}
    assert session(database) != kept
    assert kept not in ours(omero_dsn)


def test_a_kept_connection_for_looking_never_writes(database: OmeroDatabase) -> None:
    with database.keeping_connections():
        with database.connect_for_marks() as conn:
            conn.execute("CREATE TEMPORARY TABLE x (y int)")
        for _ in range(2):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), database.connect_read_only() as conn:
                conn.execute("CREATE TABLE x (y int)")


def test_a_connection_that_the_server_ended_is_made_anew(database: OmeroDatabase, omero_dsn: str) -> None:
    with database.keeping_connections():
        lost = session(database)
        with psycopg.connect(omero_dsn, autocommit=True) as conn:
            conn.execute("SELECT pg_terminate_backend(%s, 5000)", (lost,))
        assert session(database) not in (lost, 0)


def test_a_connection_in_the_middle_of_a_transaction_is_not_kept(database: OmeroDatabase, omero_dsn: str) -> None:
    with database.keeping_connections():
        with database.connect_for_marks() as conn:
            conn.execute("BEGIN")
            conn.execute("CREATE TABLE half_done (y int)")
            left = conn.info.backend_pid
        with database.connect_for_marks() as conn:
            assert conn.info.backend_pid != left
            assert conn.execute("SELECT to_regclass('half_done')").fetchone() == (None,)


def test_two_at_once_have_a_connection_each(database: OmeroDatabase) -> None:
    with database.keeping_connections(), database.connect_read_only() as one, database.connect_read_only() as other:
        assert one.info.backend_pid != other.info.backend_pid


def test_a_server_that_vanished_without_a_word_is_noticed(database: OmeroDatabase) -> None:
    with database.connect_read_only() as looking, database.connect_for_marks() as marking:
        for conn in (looking, marking):
            given = conn.info.get_parameters()
            assert (given["keepalives_idle"], given["tcp_user_timeout"]) == ("10", "30000")
