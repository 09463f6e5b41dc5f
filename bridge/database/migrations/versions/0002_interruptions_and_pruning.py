"""Counts interruptions, and finds quickly what is old enough to be pruned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the counter and the indexes."""
    op.add_column("jobs", sa.Column("interruptions", sa.Integer, nullable=False, server_default="0"))
    ended, sent = sa.text("finished_at IS NOT NULL"), sa.text("sent_at IS NOT NULL")
    op.create_index("jobs_ended", "jobs", ["finished_at"], sqlite_where=ended, postgresql_where=ended)
    op.create_index("outbox_sent", "outbox", ["sent_at"], sqlite_where=sent, postgresql_where=sent)
    op.create_index("dead_letters_by_age", "dead_letters", ["dead_at"])
