"""Counts of copies that are kept as copies change, and indexes for what is asked of a million files."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

# What is counted of a copy never changes while it is there: its service, and the size that OMERO recorded. So two
# transactions at once cannot make a count wrong. Each adds rows of its own and waits for nobody.
#
# No joins in here but look-ups by key: PL/pgSQL keeps the plan of the first call, which may have been for one copy, and
# the next may be for 100 000.
_CHANGED = """
    CREATE FUNCTION copy_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO copy_count (service, state, copies, size_bytes)
            SELECT service, state, count(*),
                   coalesce(sum((SELECT recorded_size FROM file WHERE file.id = file_id)), 0)
            FROM new_rows GROUP BY service, state;
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO copy_count (service, state, copies, size_bytes)
            SELECT service, state, -count(*),
                   -coalesce(sum((SELECT recorded_size FROM file WHERE file.id = file_id)), 0)
            FROM old_rows GROUP BY service, state;
        ELSE
            INSERT INTO copy_count (service, state, copies, size_bytes)
            SELECT service, state, sum(number),
                   coalesce(sum(number * (SELECT recorded_size FROM file WHERE file.id = file_id)), 0)
            FROM (
                SELECT file_id, service, state, sum(number) AS number
                FROM (SELECT file_id, service, state, 1 AS number FROM new_rows
                      UNION ALL SELECT file_id, service, state, -1 FROM old_rows) AS both_rows
                GROUP BY file_id, service, state HAVING sum(number) <> 0
            ) AS moved
            GROUP BY service, state;
        END IF;
        -- One statement in fifty sums up what was added, if nobody else is at it, so that few rows are to be read.
        IF random() < 0.02 AND pg_try_advisory_xact_lock(30785462, 1) THEN
            WITH gone AS (DELETE FROM copy_count RETURNING service, state, copies, size_bytes)
            INSERT INTO copy_count (service, state, copies, size_bytes)
            SELECT service, state, sum(copies), sum(size_bytes) FROM gone GROUP BY service, state
            HAVING sum(copies) <> 0 OR sum(size_bytes) <> 0;
        END IF;
        RETURN NULL;
    END $$
"""

_EMPTIED = """
    CREATE FUNCTION copy_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM copy_count;
        RETURN NULL;
    END $$
"""

_COUNT = """
    INSERT INTO copy_count (service, state, copies, size_bytes)
    SELECT copy.service, copy.state, count(*), coalesce(sum(file.recorded_size), 0)
    FROM copy JOIN file ON file.id = copy.file_id GROUP BY copy.service, copy.state
"""


def upgrade() -> None:
    op.create_table(
        "copy_count",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("copies", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_copy_count"),
    )
    op.execute("LOCK TABLE copy IN SHARE ROW EXCLUSIVE MODE")  # a worker of the version before may be at work
    for statement in (_CHANGED, _EMPTIED):
        op.execute(statement)
    for event, tables in {
        "INSERT": "REFERENCING NEW TABLE AS new_rows",
        "DELETE": "REFERENCING OLD TABLE AS old_rows",
        "UPDATE": "REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows",
    }.items():
        name = f"copy_count_{event.lower()}"
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON copy {tables} FOR EACH STATEMENT EXECUTE FUNCTION copy_changed()"
        )
    op.execute(
        "CREATE TRIGGER copy_count_truncate AFTER TRUNCATE ON copy FOR EACH STATEMENT EXECUTE FUNCTION copy_emptied()"
    )
    op.execute(_COUNT)
    op.create_index("ix_copy_needs_attention", "copy", ["bundle_id"], postgresql_where=sa.text("needs_attention"))
    op.create_index("ix_copy_retry_at", "copy", ["bundle_id"], postgresql_where=sa.text("retry_at IS NOT NULL"))
    op.create_index("ix_file_no_recorded_size", "file", ["id"], postgresql_where=sa.text("recorded_size IS NULL"))
    # As audits ask for it. What is yet to be copied was never compared, and would stand before all the rest.
    op.drop_index("ix_copy_service_checked_at", "copy")
    op.create_index(
        "ix_copy_service_checked_at",
        "copy",
        ["service", sa.text("checked_at NULLS FIRST")],
        postgresql_where=sa.text("state IN ('VERIFIED', 'DURABLE')"),
    )
    op.create_index("ix_bundle_not_approved", "bundle", ["id"], postgresql_where=sa.text("decision <> 'APPROVED'"))
