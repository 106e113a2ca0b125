"""What deployments need beside their versions, their earlier revisions, and servers that are to hold nothing.

Deployments written before need nothing: one replica on every server that fits, all traffic to one version.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns and tables."""
    op.add_column("deployments", sa.Column("needs", sa.String, nullable=False, server_default="{}"))
    op.add_column("deployments", sa.Column("others", sa.String, nullable=False, server_default="[]"))
    op.create_table(
        "deployment_revisions",
        sa.Column("deployment", sa.String, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("body", sa.String, nullable=False),
    )
    op.create_table(
        "server_marks",
        sa.Column("server", sa.String, primary_key=True),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("at", sa.String, nullable=False),
        sa.Column("by_operator", sa.Boolean, nullable=False),
    )
    op.create_table(
        "registered_servers",
        sa.Column("server", sa.String, primary_key=True),
        sa.Column("body", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Refuse: a Tritonfleet before this one would serve on servers that deployments do not ask for."""
    raise NotImplementedError("a state file of an older Tritonfleet comes from a backup, not from a newer one")
