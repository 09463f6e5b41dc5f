"""The tables. Times are seconds since 1970 by the database's own clock: the view `clock`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# SQLite's own row number is an Integer.
Number = BigInteger().with_variant(Integer, "sqlite")
# Sorted byte by byte, so that keys with a common start lie between two bounds whatever the database's language.
Key = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

# The ledger: one row a job.
jobs = Table(
    "jobs",
    metadata,
    Column("key", Key, primary_key=True),
    Column("system", Text, nullable=False),
    Column("request", Text, nullable=False),  # JSON
    Column("reply_queue", Text, nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("state", Text, nullable=False),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("interruptions", Integer, nullable=False, server_default="0"),  # leases that ran out, and servers lost, since it last got on
    Column("server_losses", Integer, nullable=False, server_default="0"),  # of those, the servers
    Column("worker", Text, nullable=False, server_default=""),
    Column("lease_until", Float),  # set while running
    Column("due_at", Float),  # set while waiting
    Column("checkpoint", Text, nullable=False, server_default="{}"),  # JSON
    Column("result", Text),  # JSON; set once terminal
    Column("last_error", Text, nullable=False, server_default=""),
    Column("progress", Float, nullable=False, server_default="0"),
    Column("stage", Text, nullable=False, server_default=""),
    Column("trace", Text, nullable=False, server_default=""),  # JSON: W3C's headers; empty for none
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("units_done", BigInteger, nullable=False, server_default="0"),  # tiles, pages
    Column("units_total", BigInteger, nullable=False, server_default="0"),
    Column("units_per_second", Float, nullable=False, server_default="0"),
    Column("seconds_left", Float),
    Column("revision", Integer, nullable=False, server_default="0"),  # raised by whatever can be seen
    CheckConstraint("state IN ('queued', 'running', 'waiting', 'succeeded', 'failed')", name="jobs_state"),
    Index("jobs_by_age", "created_at"),
    Index("jobs_by_state", "state", "created_at"),
    Index("jobs_ended", "finished_at", sqlite_where=text("finished_at IS NOT NULL"), postgresql_where=text("finished_at IS NOT NULL")),
)

# Messages that are committed with their job's end; `sent_at` is empty until the sink has them.
outbox = Table(
    "outbox",
    metadata,
    Column("id", Number, primary_key=True),
    Column("message_id", Text, nullable=False, unique=True),
    Column("job_key", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attributes", Text, nullable=False),  # JSON
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),  # next try, or the end of a relay's lease
    Column("sent_at", Float),
    Index("outbox_unsent", "due_at", "id", sqlite_where=text("sent_at IS NULL"), postgresql_where=text("sent_at IS NULL")),
    Index("outbox_sent", "sent_at", sqlite_where=text("sent_at IS NOT NULL"), postgresql_where=text("sent_at IS NOT NULL")),
)

# Messages that ended without a result, kept whole.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Number, primary_key=True),
    Column("source", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("job_key", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attributes", Text, nullable=False),  # JSON
    Column("dead_at", Float, nullable=False),
    Column("replayed_at", Float),
    UniqueConstraint("source", "queue", "message_id", name="dead_letters_once"),
    Index("dead_letters_by_age", "dead_at"),
)

# The embedded transport's queues. No row of it refers to the ledger.
local_messages = Table(
    "local_messages",
    metadata,
    Column("id", Number, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attributes", Text, nullable=False),  # JSON
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("sent_at", Float, nullable=False),
    Column("visible_at", Float, nullable=False),
    Column("receipt", Text),  # of its newest delivery
    Column("receive_count", Integer, nullable=False, server_default="0"),
    UniqueConstraint("queue", "message_id", name="local_messages_once"),
    Index("local_messages_next", "queue", "priority", "id"),
    Index("local_messages_by_receipt", "receipt"),
)

# Rows of a platform that could not be rolled up.
row_failures = Table(
    "row_failures",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("row_id", BigInteger, primary_key=True, autoincrement=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float(53)),  # empty for a row that is parked
    Column("error", Text, nullable=False),
)

# What a categorised lab result says, as the inference server read it; named by the key of its row.
lab_values = Table(
    "lab_values",
    metadata,
    Column("user_id", Integer, primary_key=True, autoincrement=False),
    Column("loinc_code", Text, primary_key=True),
    Column("test_value", Text, primary_key=True),
    Column("test_date", Date, primary_key=True),
    Column("number", Float(53)),
    Column("unit", Text, nullable=False),
    Column("converted_number", Float(53)),
    Column("converted_unit", Text, nullable=False),
    Column("flag", Text, nullable=False),
)

# Names of lab tests that a person is to look at, and what was decided.
lab_reviews = Table(
    "lab_reviews",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("specimen", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="open"),
    Column("seen", Integer, nullable=False),
    Column("candidates", Text, nullable=False),  # JSON
    Column("catalogue", Text, nullable=False),
    Column("first_seen_at", Float(53), nullable=False),
    Column("last_seen_at", Float(53), nullable=False),
    Column("code", Text, nullable=False, server_default=""),
    Column("decided_by", Text, nullable=False, server_default=""),
    Column("decided_at", Float(53)),
    Index("lab_reviews_by_state", "state", "seen"),
)

# What units of vitals mean: value × factor + shift is in the canonical one.
vital_units = Table(
    "vital_units",
    metadata,
    Column("metric_type", Text, primary_key=True),
    Column("unit", Text, primary_key=True),  # in lower case
    Column("factor", Float(53), nullable=False),
    Column("shift", Float(53), nullable=False),
    Column("canonical", Text, nullable=False),
)
