"""Tells how many tiles or pages of a job are done, how fast, and for how long yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the figures, and the number that changes with them."""
    for name in ("units_done", "units_total"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("units_per_second", sa.Float, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("seconds_left", sa.Float))
    op.add_column("jobs", sa.Column("revision", sa.Integer, nullable=False, server_default="0"))
