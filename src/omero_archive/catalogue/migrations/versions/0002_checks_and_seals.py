"""When copies were last compared, and the chain of hashes over the events."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("copy", sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("copy", sa.Column("checked_how", sa.Text(), nullable=True))
    # Verifying was the first comparison.
    op.execute("UPDATE copy SET checked_at = verified_at, checked_how = 'read back' WHERE verified_at IS NOT NULL")
    op.create_index("ix_copy_service_checked_at", "copy", ["service", "checked_at"], unique=False)
    op.create_table(
        "seal",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_seal")),
        sa.UniqueConstraint("event_id", name=op.f("uq_seal_event_id")),
    )
