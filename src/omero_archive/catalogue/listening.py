"""Hearing at once that a recall was asked for, instead of looking every so often. Nothing rests on being heard."""

import asyncio
from collections.abc import Callable

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from omero_archive.catalogue.recalls import CHANNEL

_log = structlog.get_logger()

AGAIN_S = (0.5, 1.0, 2.0, 5.0)
"""How long to wait before PostgreSQL is called again; the last for ever."""

# A server that vanished without a word is noticed within a minute.
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


async def listen_for_ever(dsn: str, heard: Callable[[], None]) -> None:
    """Call `heard` for everything told on `CHANNEL`, and after each connection: what was told before was missed."""
    failures = 0
    while True:
        try:
            connection = await psycopg.AsyncConnection.connect(
                make_conninfo(dsn, application_name="omero-archive listens", **_KEEPALIVE), autocommit=True
            )
            async with connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                failures = 0
                heard()
                async for _ in connection.notifies():
                    heard()
        except (psycopg.Error, OSError) as error:
            if failures == 0:
                _log.warning("cannot hear of recalls", action="listen", error=str(error).strip())
        await asyncio.sleep(AGAIN_S[min(failures, len(AGAIN_S) - 1)])
        failures += 1
