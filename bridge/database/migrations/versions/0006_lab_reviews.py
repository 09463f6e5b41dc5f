"""Keeps the names of lab tests that a person is to look at, and what was decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NUMBER = sa.Float(53)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "lab_reviews",
        # Made of name, unit and specimen.
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("specimen", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="open"),
        # How often it was printed while it was open.
        sa.Column("seen", sa.Integer, nullable=False),
        # JSON: what was found, best first; and the catalogue that it was looked up in.
        sa.Column("candidates", sa.Text, nullable=False),
        sa.Column("catalogue", sa.Text, nullable=False),
        sa.Column("first_seen_at", _NUMBER, nullable=False),
        sa.Column("last_seen_at", _NUMBER, nullable=False),
        # Once it is decided.
        sa.Column("code", sa.Text, nullable=False, server_default=""),
        sa.Column("decided_by", sa.Text, nullable=False, server_default=""),
        sa.Column("decided_at", _NUMBER),
    )
    op.create_index("lab_reviews_by_state", "lab_reviews", ["state", "seen"])
