"""What a deployment wishes and allows of a version's targets. Those written before wish nothing and allow nothing."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add both columns."""
    op.add_column("deployments", sa.Column("precisions", sa.String, nullable=False, server_default=""))
    op.add_column("deployments", sa.Column("allow_unproven", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Refuse: a Tritonfleet before this one would load what the deployments do not allow."""
    raise NotImplementedError("a state file of an older Tritonfleet comes from a backup, not from a newer one")
