"""Counts the inference servers that were lost over a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the counter."""
    op.add_column("jobs", sa.Column("server_losses", sa.Integer, nullable=False, server_default="0"))
