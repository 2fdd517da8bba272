"""Which filesets have a directory of the managed repository to themselves."""

from collections.abc import Sequence

from omero_archive.omero.database import Connection

# Prefixes are compared component by component; `a//b/` and `a/b` are the same directory.
_SHARED = """
WITH p AS MATERIALIZED (
    SELECT id, string_to_array(trim(BOTH '/' FROM regexp_replace(templateprefix, '/+', '/', 'g')), '/') AS parts
    FROM fileset
), s AS MATERIALIZED (
    SELECT id, parts, cardinality(parts) AS depth FROM p WHERE id = ANY(%(ids)s)
), cut AS MATERIALIZED (
    SELECT p.id, p.parts[1:d.depth] AS parts FROM (SELECT DISTINCT depth FROM s WHERE depth > 0) AS d
    JOIN p ON cardinality(p.parts) >= d.depth
)
SELECT id FROM s WHERE depth = 0
UNION  -- another one at the same place or below
SELECT s.id FROM s JOIN cut ON cut.parts = s.parts WHERE cut.id <> s.id
UNION  -- another one above
SELECT s.id FROM s CROSS JOIN generate_series(1, s.depth - 1) AS n JOIN p ON p.parts = s.parts[1:n]
"""


def shared_homes(conn: Connection, filesets: Sequence[int]) -> frozenset[int]:
    """Those of the filesets whose template prefix is empty, or equal to, above or below another fileset's."""
    if not filesets:
        return frozenset()
    return frozenset(row[0] for row in conn.execute(_SHARED, {"ids": list(filesets)}).fetchall())
