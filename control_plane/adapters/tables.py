"""The tables of the state file, as SQLAlchemy Core sees them. `migrations` is what makes them; keep the two alike."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, false

metadata = MetaData()

# Times are ISO 8601 in UTC, as text: SQLite has no time zones.
deployments = Table(
    "deployments",
    metadata,
    Column("name", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer),
    Column("revision", Integer, nullable=False),
    Column("created_at", String, nullable=False),
    Column("updated_at", String, nullable=False),
    # Words with a space between them, the most wished first.
    Column("precisions", String, nullable=False, server_default=""),
    Column("allow_unproven", Boolean, nullable=False, server_default=false()),
    # JSON of `wanted.Needs`, and of further tracks.
    Column("needs", String, nullable=False, server_default="{}"),
    Column("others", String, nullable=False, server_default="[]"),
)

# Every revision of a deployment that there is, as JSON: what a rollback returns to.
deployment_revisions = Table(
    "deployment_revisions",
    metadata,
    Column("deployment", String, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("body", String, nullable=False),
)

server_marks = Table(
    "server_marks",
    metadata,
    Column("server", String, primary_key=True),
    Column("reason", String, nullable=False),
    Column("at", String, nullable=False),
    Column("by_operator", Boolean, nullable=False),
)

# JSON of `state.Server`: servers that were registered through the API.
registered_servers = Table(
    "registered_servers",
    metadata,
    Column("server", String, primary_key=True),
    Column("body", String, nullable=False),
)

deployment_pins = Table(
    "deployment_pins",
    metadata,
    Column("deployment", String, ForeignKey("deployments.name", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
)

action_records = Table(
    "action_records",
    metadata,
    Column("server", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("result", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("at", String, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("retry_at", String),
)

# `created_at` has a fixed width, so that its order as text is that of time.
operations = Table(
    "operations",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("deployment", String, nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("server", String, nullable=False, index=True),
    Column("state", String, nullable=False, index=True),
    Column("created_at", String, nullable=False),
    Column("updated_at", String, nullable=False),
    Column("cause", String, nullable=False),
    Column("cancel_asked", Boolean, nullable=False),
)
Index("ix_operations_newest", operations.c.created_at, operations.c.id)

# A row for each step. `error_kind` is empty where nothing failed.
operation_steps = Table(
    "operation_steps",
    metadata,
    Column("operation", String, ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("server", String, nullable=False, index=True),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("action", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("cause", String, nullable=False),
    Column("error_kind", String, nullable=False),
    Column("started_at", String),
    Column("ended_at", String),
    Column("retry_at", String),
)

# Slices of GPUs that were given out. `start` counts memory slices, `profile` is a key of `mig`.
slices = Table(
    "slices",
    metadata,
    Column("server", String, primary_key=True),
    Column("node", String, nullable=False),
    Column("gpu", String, nullable=False),
    Column("start", Integer, nullable=False),
    Column("profile", String, nullable=False),
    Column("replica", String, nullable=False),
    Column("deployment", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("moved", Boolean, nullable=False),
    Column("leaving", String, nullable=False),
)

# Which request made an operation: a client that sends it again gets that one.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String, primary_key=True),
    Column("request_digest", String, nullable=False),
    Column("operation", String, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", String, nullable=False),
)
