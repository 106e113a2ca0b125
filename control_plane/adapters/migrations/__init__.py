"""Alembic's scripts: how the state file gets the tables of `adapters.tables`, one revision after the other."""
