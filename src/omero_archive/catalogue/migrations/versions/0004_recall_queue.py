"""What the mount and the queue of recalls remember: last opens, turns, priorities, programs that wait."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("bundle", sa.Column("last_opened_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("recall", sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("recall", sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("recall", sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("recall", sa.Column("service", sa.Text(), nullable=True))
    op.create_index("ix_recall_started_at", "recall", ["started_at"])
    op.create_index("ix_recall_service_finished_at", "recall", ["service", "finished_at"])
    op.create_table(
        "waiting_open",
        sa.Column("mount", sa.Text(), nullable=False),
        sa.Column("bundle_id", sa.BigInteger(), nullable=False),
        sa.Column("waiters", sa.Integer(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["bundle_id"], ["bundle.id"], name="fk_waiting_open_bundle_id_bundle"),
        sa.PrimaryKeyConstraint("mount", "bundle_id", name="pk_waiting_open"),
    )
    op.create_index("ix_waiting_open_bundle_id", "waiting_open", ["bundle_id"])
