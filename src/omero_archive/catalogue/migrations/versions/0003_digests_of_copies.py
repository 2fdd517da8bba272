"""By which digests a service's own answers about a copy are judged, beside the SHA-256 of its file."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("copy", sa.Column("digests", JSONB(), server_default=sa.text("'{}'"), nullable=False))
