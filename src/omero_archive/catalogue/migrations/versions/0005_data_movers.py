"""Several hosts: who the site is, which workers there are, and which of them is at work on which copies."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "site",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("made_at", time, nullable=False),
        sa.Column("omero_uuid", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_site"),
    )
    op.execute("INSERT INTO site (id, made_at) VALUES (gen_random_uuid(), now())")
    op.create_table(
        "worker",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("host_label", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("queues", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("streams", sa.Integer(), nullable=False),
        sa.Column("started_at", time, nullable=False),
        sa.Column("beat_at", time, nullable=False),
        sa.Column("ended_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_worker"),
    )
    op.create_index("ix_worker_alive", "worker", ["beat_at"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_table(
        "attempt",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("done_files", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("done_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("begun_at", time, nullable=False),
        sa.Column("beat_at", time, nullable=False),
        sa.Column("ended_at", time, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name="fk_attempt_worker_id_worker"),
        sa.PrimaryKeyConstraint("id", name="pk_attempt"),
    )
    op.create_index("ix_attempt_open", "attempt", ["service", "step"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_index("ix_attempt_ended_at", "attempt", ["ended_at"])
    op.add_column("copy", sa.Column("attempt_id", sa.BigInteger(), nullable=True))
    op.create_index("ix_copy_attempt_id", "copy", ["attempt_id"], postgresql_where=sa.text("attempt_id IS NOT NULL"))
