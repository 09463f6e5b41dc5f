"""The ledger, the outbox, the dead letters and the embedded queues."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Seconds since 1970. SQLite before 3.42 has no unixepoch('subsec'); PostgreSQL's now() stands still within a transaction.
_CLOCKS = {
    "sqlite": "CREATE VIEW clock AS SELECT (julianday('now') - 2440587.5) * 86400.0 AS now",
    "postgresql": "CREATE VIEW clock AS SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision) AS now",
}
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables and the clock."""
    op.execute(_CLOCKS[op.get_context().dialect.name])
    _jobs()
    _outbox()
    _dead_letters()
    _local_messages()


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("reply_queue", sa.Text, nullable=False, server_default=""),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.Text, nullable=False, server_default=""),
        sa.Column("lease_until", sa.Float),
        sa.Column("due_at", sa.Float),
        sa.Column("checkpoint", sa.Text, nullable=False, server_default="{}"),
        sa.Column("result", sa.Text),
        sa.Column("last_error", sa.Text, nullable=False, server_default=""),
        sa.Column("progress", sa.Float, nullable=False, server_default="0"),
        sa.Column("stage", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("finished_at", sa.Float),
        sa.CheckConstraint("state IN ('queued', 'running', 'waiting', 'succeeded', 'failed')", name="jobs_state"),
    )
    op.create_index("jobs_by_age", "jobs", ["created_at"])
    op.create_index("jobs_by_state", "jobs", ["state", "created_at"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("job_key", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("sent_at", sa.Float),
    )
    unsent = sa.text("sent_at IS NULL")
    op.create_index("outbox_unsent", "outbox", ["due_at", "id"], sqlite_where=unsent, postgresql_where=unsent)


def _dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("job_key", sa.Text, nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("dead_at", sa.Float, nullable=False),
        sa.Column("replayed_at", sa.Float),
        sa.UniqueConstraint("source", "queue", "message_id", name="dead_letters_once"),
    )


def _local_messages() -> None:
    op.create_table(
        "local_messages",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("sent_at", sa.Float, nullable=False),
        sa.Column("visible_at", sa.Float, nullable=False),
        sa.Column("receipt", sa.Text),
        sa.Column("receive_count", sa.Integer, nullable=False, server_default="0"),
        sa.UniqueConstraint("queue", "message_id", name="local_messages_once"),
    )
    op.create_index("local_messages_next", "local_messages", ["queue", "priority", "id"])
    op.create_index("local_messages_by_receipt", "local_messages", ["receipt"])
