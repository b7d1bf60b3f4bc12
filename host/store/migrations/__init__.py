"""Alembic's migrations of the store."""

HEAD = "0003"
"""The newest revision: a store of this version needs no migration."""
