"""Many rows in one statement: handed over as arrays and unnested by PostgreSQL, or by its COPY.

For tens of thousands of rows this is several times faster than a statement for each, and it is one guarded UPDATE.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

ItemType = type[sa.types.TypeEngine[Any]] | sa.types.TypeEngine[Any]

Columns = Mapping[str, tuple[ItemType, Sequence[Any]]]
"""The columns of the rows: name to type and values, all of one length."""


def rows_given(columns: Columns) -> sa.TableValuedAlias:
    """The rows as a table called `given`."""
    unnested = sa.func.unnest(*(array(values, item) for item, values in columns.values()))
    names = (sa.column(name, item) for name, (item, _) in columns.items())
    return unnested.table_valued(*names, name="given").render_derived()


def array(values: Sequence[Any], item: ItemType) -> sa.BindParameter[Any]:
    """A sequence as one parameter of an array type."""
    return sa.bindparam(None, list(values), type_=sa.ARRAY(item), unique=True)


def copy_in(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Iterable[tuple[object, ...]]
) -> None:
    """Insert rows by PostgreSQL's COPY, in the same transaction: several times faster than INSERT."""
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
