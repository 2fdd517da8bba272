"""The way to OMERO's database: its connections, its version, its own names.

Someone else's schema: nothing is written but the marks (`marks.py`), every other statement runs on a connection
that PostgreSQL itself keeps read-only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.pq import TransactionStatus

from omero_archive.errors import BrokenInvariant, DatabaseUnavailable, SettingsError, UnsupportedOmero
from omero_archive.sessions import lasting, settle

APPLICATION = "omero-archive"
"""Our sessions' application_name: what the offline proof does not count as OMERO."""

SUPPORTED_VERSION = "OMERO5.4"
"""`dbpatch.currentversion` of OMERO 5.4 to 5.6: the tables did not change in between."""

Connection = psycopg.Connection[Any]

_LOOKING, _MARKING = "looking", "marking"  # what a connection is for; only the second may write


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRow:
    """The managed repository as OMERO's database describes it: its uuid and its directory as text."""

    uuid: str
    root: str


class OmeroDatabase:
    """OMERO's PostgreSQL database, reached by the libpq connection string `dsn`.

    `filename_encoding` is what the server's Java wrote file names with: names are text in the database and bytes
    on disk. `managed_dir` is where the managed repository is, as the settings have it. Every method
    raises `DatabaseUnavailable` where the database cannot be reached.
    """

    def __init__(self, dsn: str, *, filename_encoding: str = "utf-8", managed_dir: Path | None = None) -> None:
        self._dsn = dsn
        self._managed_dir = managed_dir
        self._repository: RepositoryRow | None = None
        self._is_keeping = False
        self._kept: dict[str, list[Connection]] = {_LOOKING: [], _MARKING: []}  # open, and used by nobody now
        self.filename_encoding = filename_encoding

    @contextmanager
    def keeping_connections(self) -> Iterator[None]:
        """Let connections stay open for the next question meanwhile.

        For commands that ask about one bundle after another: in each new session PostgreSQL reads its own catalogs
        anew, which takes longer than our queries. Others leave none open: nobody can restore a database that is in use.
        """
        self._is_keeping = True
        try:
            yield
        finally:
            self._is_keeping = False
            for conn in (conn for kept in self._kept.values() for conn in kept):
                conn.close()
            self._kept = {_LOOKING: [], _MARKING: []}

    @contextmanager
    def connect_read_only(self) -> Iterator[Connection]:
        """A connection for looking: each statement its own transaction, and writing is refused by PostgreSQL."""
        with self._connected(_LOOKING) as conn:
            yield conn

    @contextmanager
    def connect_for_marks(self) -> Iterator[Connection]:
        """A connection for `marks.py`; it begins no transaction by itself."""
        with self._connected(_MARKING) as conn:
            yield conn

    def check_version(self) -> None:
        """Raise `UnsupportedOmero` unless this is a database of OMERO 5.4-5.6."""
        query = "SELECT currentversion, currentpatch FROM dbpatch ORDER BY id DESC LIMIT 1"
        with self.connect_read_only() as conn:
            row = conn.execute(query).fetchone()
        version = "an empty dbpatch table" if row is None else f"{row[0]} patch {row[1]}"
        if row is None or row[0] != SUPPORTED_VERSION:
            raise UnsupportedOmero(
                f"OMERO's database says {version}; only {SUPPORTED_VERSION} (OMERO 5.4 to 5.6) is known here."
            )

    def uuid(self) -> str:
        """The database's own uuid, after which OMERO names the directory of its lock file."""
        return self._text("SELECT value FROM configuration WHERE name = 'omero.db.uuid'", "omero.db.uuid")

    def repository(self) -> RepositoryRow:
        """The managed repository; `BrokenInvariant` where there is none or more than one.

        OMERO finds it the same way: the row of mimetype `Repository` whose hash is the repository's uuid.
        Other repositories (a script repository) have no files of filesets in them. It is asked once: there is no
        index by which PostgreSQL finds it among 10^6 files, and the row stays what it is.
        """
        if self._repository is None:
            self._repository = self._find_repository()
        return self._repository

    def _find_repository(self) -> RepositoryRow:
        query = """
            SELECT o.hash, o.path || o.name,
                   EXISTS (SELECT FROM filesetentry AS e JOIN originalfile AS f ON f.id = e.originalfile
                           WHERE f.repo = o.hash) AS used
            FROM originalfile AS o WHERE o.mimetype = 'Repository' AND o.hash IS NOT NULL
        """
        with self.connect_read_only() as conn:
            rows = conn.execute(query).fetchall()
        # Before the first import no file tells which of them it is; a server has three from its first start.
        used = [row for row in rows if row[2]] or [row for row in rows if self._is_managed(row[1])] or rows
        if len(used) != 1:
            roots = ", ".join(sorted(row[1] for row in used)) or "none"
            raise BrokenInvariant(f"OMERO's database must know one managed repository; it knows: {roots}.")
        return RepositoryRow(uuid=used[0][0], root=used[0][1])

    def _is_managed(self, root: str) -> bool:
        return self._managed_dir is not None and os.path.realpath(root) == os.path.realpath(self._managed_dir)

    @contextmanager
    def _connected(self, purpose: str) -> Iterator[Connection]:
        try:
            conn = self._kept_one(purpose) or self._new(purpose)
            try:
                yield conn
            finally:
                is_at_rest = not conn.closed and conn.info.transaction_status is TransactionStatus.IDLE
                if self._is_keeping and is_at_rest:
                    self._kept[purpose].append(conn)
                else:
                    conn.close()
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"OMERO's database could not be asked: {str(error).strip()}") from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise SettingsError(f"OMERO's database: the role may not do this: {str(error).strip()}") from error
        except psycopg.errors.UndefinedTable as error:
            what = str(error).strip().splitlines()[0]
            raise UnsupportedOmero(
                f"This is not a database of OMERO, or the search_path of our role does not lead to its tables: {what}."
            ) from error
        except psycopg.errors.ReadOnlySqlTransaction as error:
            if purpose == _LOOKING:
                raise
            raise DatabaseUnavailable(
                "OMERO's database can only be read now: it is a standby, or default_transaction_read_only is set "
                f"({str(error).strip()}). Name the server that takes writes in `[omero] database`."
            ) from error

    def _kept_one(self, purpose: str) -> Connection | None:
        """A connection that was kept and still works; the server may have been restarted meanwhile."""
        with suppress(IndexError):
            while True:
                conn = self._kept[purpose].pop()
                with suppress(psycopg.OperationalError):
                    conn.execute("SELECT 1")
                    return conn
                conn.close()
        return None

    def _new(self, purpose: str) -> Connection:
        conn = psycopg.connect(lasting(self._dsn), application_name=APPLICATION, autocommit=True)
        try:
            settle(conn)
            if purpose == _LOOKING:
                conn.execute("SET default_transaction_read_only = on")
        except BaseException:
            conn.close()
            raise
        return conn

    def _text(self, query: LiteralString, what: str) -> str:
        with self.connect_read_only() as conn:
            row = conn.execute(query).fetchone()
        if row is None or row[0] is None:
            raise BrokenInvariant(f"OMERO's database does not say {what}.")
        return str(row[0])
