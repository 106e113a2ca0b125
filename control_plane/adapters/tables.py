"""The tables of the state file, as SQLAlchemy Core sees them. `migrations` is what makes them; keep the two alike."""

from sqlalchemy import Boolean, Column, ForeignKey, Integer, MetaData, String, Table, false

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
