"""The connection to the catalogue, its schema's version, and the locks that keep two of us apart."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneFree

from omero_archive.catalogue.events import WROTE
from omero_archive.catalogue.patience import be_brief, connect
from omero_archive.catalogue.seals import seal_new
from omero_archive.catalogue.tables import metadata
from omero_archive.errors import Busy, DatabaseUnavailable, SettingsError
from omero_archive.model import BundleName, Clock, ServiceName

SCHEMA_VERSION = "0006"
"""The newest revision in `migrations/`. `migrate` brings a database there; a test compares the two."""


ONE_INIT = "SELECT pg_advisory_xact_lock(hashtextextended('omero-archive init', 0))"
"""Waits in a transaction until no other `init` makes tables: several hosts may be set up at the same time."""

_OURS = ["alembic_version", "bundle", "copy", "manifest"]  # tables that no other program has together
_ELSEWHERE = sa.text("""
    SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relname = ANY(:names) GROUP BY n.nspname HAVING count(*) = cardinality(:names) LIMIT 1
""")

_SEALING = timedelta(seconds=20)
"""Whoever seals keeps all others that have done something waiting; who is stopped meanwhile, no longer than this."""


class Catalogue:
    """The catalogue's database. `dsn` is a libpq connection string; `actor` is written into every event.

    With `patience_s` no call waits longer than that for the database, plus as long again where a connection was lost
    and another had to be made: it is `DatabaseUnavailable` then. For programs that others wait for.
    """

    def __init__(self, dsn: str, *, clock: Clock, actor: str, patience_s: float | None = None) -> None:
        self.dsn = dsn
        self.clock = clock
        self.actor = actor
        self._patience_s = patience_s
        self._has_unsealed = False
        self._silence: timedelta | None = None
        self._engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(self.dsn, patience_s, silence=self._silence),
            pool_timeout=30 if patience_s is None else patience_s,
            pool_size=5,
            max_overflow=10,
            pool_pre_ping=True,
            execution_options={"preserve_rowcount": True},  # also of INSERT ... SELECT: we report what was done
        )

    def be_brief(self, silence: timedelta) -> None:
        """From now on PostgreSQL ends a transaction of ours in which it hears nothing for so long.

        For processes beside which others work: one that is stopped in mid transaction keeps its locks as long.
        """
        if silence != self._silence:
            self._silence = silence
            self._engine.dispose()  # connections that were made without

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A connection in a transaction, committed at the end. Raises `DatabaseUnavailable`."""
        with reached(), self._engine.begin() as connection:
            connection.info["clock"] = self.clock
            connection.info["actor"] = self.actor
            yield connection
            self._has_unsealed |= bool(connection.info.pop(WROTE, False))

    def seal(self) -> None:
        """Chain the events that were written on this catalogue since it was last sealed, if there are any."""
        if self._has_unsealed:
            self._has_unsealed = False
            with self.begin() as connection:
                be_brief(connection, self._silence or _SEALING)
                seal_new(connection)

    def session(self) -> sa.Connection:
        """A connection of its own, without transactions, for who needs one for long. Raises `DatabaseUnavailable`."""
        with reached():
            return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def lock_bundle(self, name: BundleName) -> Iterator[None]:
        """Keep others from releasing, recalling, evicting or unarchiving a bundle while we do.

        The lock is the session's: it goes when this process dies. Raises `Busy` if another has it.
        """
        with self._lock(name, f"{name} is being worked on by another process; try again when it has finished."):
            yield

    @contextmanager
    def lock_audit(self, service: ServiceName) -> Iterator[None]:
        """Keep others from auditing the same least recently compared copies of a service. Raises `Busy`."""
        # No bundle's name has a space.
        with self._lock(f"audit {service}", f"{service} is being audited by another process."):
            yield

    @contextmanager
    def _lock(self, name: str, busy: str) -> Iterator[None]:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        # A connection of its own without a transaction: the work below may take hours.
        with reached(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(number))):
                raise Busy(busy)
            try:
                yield
            finally:
                # Where the connection is gone the lock is gone too; what was done meanwhile is done all the same.
                with suppress(OperationalError, InterfaceError):
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(number)))

    def create(self) -> bool:
        """Make the database if it is not there; whether it was made. Raises `DatabaseUnavailable`."""
        wanted = self._missing()
        if wanted is None:
            return False
        try:
            with psycopg.connect(make_conninfo(self.dsn, dbname="postgres"), autocommit=True) as server:
                server.execute(
                    sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(wanted))
                )
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return False  # another host's `init` was quicker
        except psycopg.Error as error:
            raise DatabaseUnavailable(
                f"the database {wanted!r} could not be made: {_first_line(error)} "
                f"Let an administrator of PostgreSQL run `createdb --owner=USER --encoding=UTF8 --template=template0 "
                f"{wanted}`, and run this again."
            ) from error
        return True

    def migrate(self) -> None:
        """Bring the schema to this version of the software. Raises `SettingsError` for a database that is unfit."""
        with self.begin() as connection:
            connection.exec_driver_sql(ONE_INIT)
            if _version(connection) is None:
                _require_fit(connection)
            _upgrade(connection)

    def versions(self) -> tuple[str | None, str | None]:
        """The schema's version in the database (None: no schema) and the version this software wants.

        Raises `SettingsError` where there is a catalogue that our role's `search_path` does not lead to.
        """
        with self.begin() as connection:
            found = _version(connection)
            elsewhere = connection.scalar(_ELSEWHERE, {"names": _OURS}) if found is None else None
        if elsewhere is not None:
            raise SettingsError(
                f"catalogue.database: the catalogue is in the schema {elsewhere!r}, and the search_path of this role "
                "does not lead there. Correct it, or use the role that ran `omero-archive init`."
            )
        return found, SCHEMA_VERSION

    def is_made(self) -> bool:
        """Whether there is a catalogue, of whatever version. Raises `DatabaseUnavailable` if that cannot be said."""
        return self._missing() is None and self.versions()[0] is not None

    def require_schema(self) -> None:
        """Raise `SettingsError` unless the database has this software's schema."""
        try:
            found, wanted = self.versions()
        except DatabaseUnavailable as error:
            missing = self._missing()
            if missing is None:
                raise
            raise SettingsError(
                f"catalogue.database: the server has no {missing!r} yet; run `omero-archive init`."
            ) from error
        if found != wanted:
            state = "has no catalogue yet" if found is None else f"has the catalogue of another version ({found})"
            raise SettingsError(f"catalogue.database {state}; run `omero-archive init`.")

    def _missing(self) -> str | None:
        """The name of the database, if the server says that it has none such; None if it has.

        Raises `DatabaseUnavailable` where neither can be said.
        """
        try:
            connect(self.dsn, self._patience_s).close()
        except psycopg.OperationalError as error:
            # libpq knows the name whoever gave it, be it a service file or the environment.
            name = "" if error.pgconn is None else error.pgconn.db.decode()
            if f'database "{name}" does not exist' not in str(error) and not self._is_unlisted(name):
                what = f"the catalogue's database cannot be reached: {_first_line(error)}"
                raise DatabaseUnavailable(what) from error
            return name
        return None

    def _is_unlisted(self, name: str) -> bool:
        """Whether the server lists no such database: what it says of one may be in its administrator's language."""
        try:
            with connect(make_conninfo(self.dsn, dbname="postgres"), self._patience_s) as server:
                is_listed = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)"
                return server.execute(is_listed, [name]).fetchone() == (False,)
        except psycopg.Error:
            return False

    def close(self) -> None:
        """Seal what was written, and close all connections."""
        # Where the database went away, the next process seals it.
        with suppress(DatabaseUnavailable):
            self.seal()
        self._engine.dispose()


@contextmanager
def reached() -> Iterator[None]:
    """Raise `DatabaseUnavailable` where the catalogue's database says that it cannot be reached, or only be read.

    `SettingsError` is raised where it says that our role may not do what it was to do.
    """
    try:
        yield
    except (DBAPIError, NoneFree, psycopg.Error) as error:
        told = _told(error)
        if told is None:
            raise
        raise told from error


def _told(error: DBAPIError | NoneFree | psycopg.Error) -> SettingsError | DatabaseUnavailable | None:
    """What to tell an administrator of an error of PostgreSQL; None of a fault of ours."""
    match error.orig if isinstance(error, DBAPIError) else error:
        case psycopg.errors.InsufficientPrivilege() | psycopg.errors.InvalidSchemaName() as said:
            return SettingsError(
                f"catalogue.database: this role may not do what is needed: {_first_line(said)}. Use the role that ran "
                "`omero-archive init`, or let an administrator of PostgreSQL make it the owner of the database."
            )
        case psycopg.errors.ReadOnlySqlTransaction() as said:
            return DatabaseUnavailable(
                "the catalogue's database can only be read now: it is a standby, or default_transaction_read_only is "
                f"set ({_first_line(said)}). Name the server that takes writes in `[catalogue] database`."
            )
    if isinstance(error, NoneFree | psycopg.OperationalError) or (isinstance(error, DBAPIError) and _is_away(error)):
        return DatabaseUnavailable(f"the catalogue's database cannot be reached: {_first_line(error)}")
    return None


def _is_away(error: DBAPIError) -> bool:
    # PostgreSQL's end of a transaction in which we were silent is an internal error, to psycopg.
    return (
        isinstance(error, OperationalError | InterfaceError)
        or error.connection_invalidated
        or isinstance(error.orig, psycopg.errors.IdleInTransactionSessionTimeout)
    )


def _version(connection: sa.Connection) -> str | None:
    is_there = connection.scalar(sa.select(sa.func.to_regclass("alembic_version"))) is not None
    return connection.scalar(sa.text("SELECT version_num FROM alembic_version")) if is_there else None


def _require_fit(connection: sa.Connection) -> None:
    """Raise `SettingsError` for a new catalogue's database that cannot hold every name, or has another's tables."""
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise SettingsError(
            f"catalogue.database: its encoding is {encoding}, in which not every name can be written; nothing was made "
            "in it. Let an administrator of PostgreSQL drop it and run "
            "`createdb --owner=USER --encoding=UTF8 --template=template0 NAME`, and run this again."
        )
    taken = sorted(name for name in metadata.tables if connection.scalar(sa.select(sa.func.to_regclass(name))))
    if taken:
        raise SettingsError(
            f"catalogue.database: there are tables of another program in it, such as {taken[0]}; nothing was made in "
            "it. The catalogue needs a database of its own, not OMERO's."
        )


def _upgrade(connection: sa.Connection) -> None:
    # Imported here: no other command needs it, and all would wait for it.
    from alembic.command import upgrade
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    upgrade(config, "head")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
