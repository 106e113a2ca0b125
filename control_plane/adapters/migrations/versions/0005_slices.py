"""Slices of GPUs that were given out."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "slices",
        sa.Column("server", sa.String, primary_key=True),
        sa.Column("node", sa.String, nullable=False),
        sa.Column("gpu", sa.String, nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("profile", sa.String, nullable=False),
        sa.Column("replica", sa.String, nullable=False),
        sa.Column("deployment", sa.String, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("moved", sa.Boolean, nullable=False),
        sa.Column("leaving", sa.String, nullable=False),
    )
