"""Many rows in one statement: values handed over as arrays, one for each column, and unnested by PostgreSQL.

For tens of thousands of rows this is several times faster than a statement for each, and it is one guarded UPDATE.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

Columns = Mapping[str, tuple[type[sa.types.TypeEngine[Any]], Sequence[Any]]]
"""The columns of the rows: name to type and values, all of one length."""


def rows_given(columns: Columns) -> sa.TableValuedAlias:
    """The rows as a table called `given`."""
    unnested = sa.func.unnest(*(array(values, item) for item, values in columns.values()))
    names = (sa.column(name, item) for name, (item, _) in columns.items())
    return unnested.table_valued(*names, name="given").render_derived()


def array(values: Sequence[Any], item: type[sa.types.TypeEngine[Any]]) -> sa.BindParameter[Any]:
    """A sequence as one parameter of an array type."""
    return sa.bindparam(None, list(values), type_=sa.ARRAY(item), unique=True)
