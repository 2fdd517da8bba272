"""Connections to PostgreSQL, and those that do not wait for ever.

The server's own bound on a statement does not help where the server hangs or the network swallows everything, and a
socket's bound does not help where only the process behind it hangs. So the waiting itself is bounded, here.
"""

from collections.abc import Generator
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

_T = TypeVar("_T")
_LEAST_TIMEOUT_S = 2  # libpq takes less for as much


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


def connect(dsn: str, patience_s: float | None) -> psycopg.Connection[Any]:
    """A new connection; with `patience_s` one that waits no longer than that for anything. Raises `psycopg.Error`."""
    if patience_s is None:
        return psycopg.connect(dsn, application_name="omero-archive")
    options = conninfo_to_dict(dsn).get("options") or ""
    made = _PatientConnection.connect(
        dsn,
        application_name="omero-archive",
        connect_timeout=max(_LEAST_TIMEOUT_S, round(patience_s)),
        options=f"{options} -c statement_timeout={int(patience_s * 1000)}",
        # A plan for any parameters would not know whether a directory has one file or a million.
        prepare_threshold=None,
    )
    made.patience_s = patience_s
    return made
