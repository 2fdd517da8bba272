"""What every session of ours with PostgreSQL is like, whatever is set for the role, the database or the server.

An administrator sets such things for other programs. Here some would end every command with a fault, and one would
write other names into the catalogue than were meant.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""A server that vanished without a word is noticed within half a minute, not after hours. Seconds; the last in ms."""

_PLAIN = b"""
    SET client_encoding = 'UTF8';
    SET DateStyle = 'ISO';
    SET standard_conforming_strings = on;
    SET array_nulls = on;
    SET default_transaction_isolation = 'read committed';
"""
"""Values as psycopg reads and writes them, and transactions that see what others have committed meanwhile."""


def lasting(dsn: str) -> str:
    """The connection string with `KEEPALIVE`, where it says nothing of its own."""
    return make_conninfo(dsn, **{key: value for key, value in KEEPALIVE.items() if key not in conninfo_to_dict(dsn)})


def settle(connection: psycopg.Connection[Any], limits: Mapping[str, int] | None = None) -> None:
    """Make a new session a plain one, with these limits of time in ms besides. Raises `psycopg.Error`."""
    limited = "".join(f"SET {name} = {milliseconds};" for name, milliseconds in (limits or {}).items())
    was = connection.autocommit
    connection.autocommit = True  # what is set in a transaction goes with it when it is rolled back
    connection.execute(_PLAIN + limited.encode())
    connection.autocommit = was


async def settle_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """The same for a connection of the job queue."""
    was = connection.autocommit
    await connection.set_autocommit(True)
    await connection.execute(_PLAIN)
    await connection.set_autocommit(was)
