"""Operations with their steps, and the idempotency keys that clients gave."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "operations",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("deployment", sa.String, nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("server", sa.String, nullable=False, index=True),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("updated_at", sa.String, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("cancel_asked", sa.Boolean, nullable=False),
    )
    op.create_index("ix_operations_newest", "operations", ["created_at", "id"])
    op.create_table(
        "operation_steps",
        sa.Column("operation", sa.String, sa.ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("server", sa.String, nullable=False, index=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("error_kind", sa.String, nullable=False),
        sa.Column("started_at", sa.String),
        sa.Column("ended_at", sa.String),
        sa.Column("retry_at", sa.String),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("request_digest", sa.String, nullable=False),
        sa.Column(
            "operation", sa.String, sa.ForeignKey("operations.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("at", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Refuse: a Tritonfleet before this one would forget what was under way."""
    raise NotImplementedError("a state file of an older Tritonfleet comes from a backup, not from a newer one")
