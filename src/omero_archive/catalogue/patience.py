"""Connections to PostgreSQL, and those that do not wait for ever.

The server's own bound on a statement does not help where the server hangs or the network swallows everything, and a
socket's bound does not help where only the process behind it hangs. So the waiting itself is bounded, here.
"""

from collections.abc import Generator
from datetime import timedelta
from time import monotonic
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.types.array import ListBinaryDumper

from omero_archive.sessions import lasting, settle

_T = TypeVar("_T")
_LEAST_TIMEOUT_S = 2  # libpq takes less for as much
_SILENCE = "idle_in_transaction_session_timeout"
_ENDS_IDLE_SESSIONS = 140_000  # the first PostgreSQL that can; our locks are held by sessions that are idle for hours


class _PatientConnection(psycopg.Connection[Any]):
    """A connection that gives up, and is closed, when the server takes too long for an answer."""

    patience_s = 0.0

    def wait(self, gen: Generator[Any, Any, _T], *args: Any, **kwargs: Any) -> _T:
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, _T]) -> Generator[Any, Any, _T]:
        """As the generator, which is told several times a second that nothing came."""
        until = monotonic() + self.patience_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and monotonic() > until:
                    # The server may answer yet, to a question that nobody asks any more: never use it again.
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {self.patience_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as ended:
            result: _T = ended.value
            return result


def be_brief(connection: sa.Connection, silence: timedelta) -> None:
    """Let PostgreSQL end this transaction, with its locks, if we fall silent in it for so long: others wait for it."""
    connection.execute(sa.select(sa.func.set_config(_SILENCE, str(_milliseconds(silence)), True)))


def connect(dsn: str, patience_s: float | None, *, silence: timedelta | None = None) -> psycopg.Connection[Any]:
    """A new connection; with `patience_s` one that waits no longer than that for anything. Raises `psycopg.Error`.

    With `silence` PostgreSQL ends any transaction, with its locks, in which we say nothing for so long.
    """
    # Set afterwards, not by libpq's `options`: those would take the place of what a service file has there.
    limits = {"idle_session_timeout": 0} | ({} if silence is None else {_SILENCE: _milliseconds(silence)})
    if patience_s is None:
        return _settled(psycopg.connect(lasting(dsn), application_name="omero-archive"), limits)
    made = _PatientConnection.connect(
        lasting(dsn),
        application_name="omero-archive",
        connect_timeout=max(_LEAST_TIMEOUT_S, round(patience_s)),
        # A plan for any parameters would not know whether a directory has one file or a million.
        prepare_threshold=None,
    )
    made.patience_s = patience_s
    return _settled(made, limits | {"statement_timeout": int(patience_s * 1000)})


def _milliseconds(time: timedelta) -> int:
    return max(1, int(time.total_seconds() * 1000))


def _settled(made: psycopg.Connection[Any], limits: dict[str, int]) -> psycopg.Connection[Any]:
    """The connection, which sends arrays as they are: as text, 10^5 keys take ten times as long, here and there."""
    if made.info.server_version < _ENDS_IDLE_SESSIONS:
        del limits["idle_session_timeout"]
    try:
        settle(made, limits)
    except BaseException:
        made.close()
        raise
    made.adapters.register_dumper(list, ListBinaryDumper)
    return made
