"""Run by Alembic for every command; `state_file` hands in the connection and owns the transaction."""

from alembic import context

from control_plane.adapters.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
