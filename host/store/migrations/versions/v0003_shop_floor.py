"""Revoked devices and their sessions, turns between studies, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SQLITE_TRIGGER = """
CREATE TRIGGER audit_log_no_{verb} BEFORE {verb} ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END
"""
# INSERT OR REPLACE removes rows without a word to the trigger of DELETE.
_SQLITE_INSERT_TRIGGER = """
CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log
WHEN EXISTS (SELECT 1 FROM audit_log WHERE number >= NEW.number)
OR EXISTS (SELECT 1 FROM audit_log WHERE sha256 = NEW.sha256)
OR EXISTS (SELECT 1 FROM audit_log WHERE previous_sha256 = NEW.previous_sha256)
BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END
"""
_POSTGRESQL_FUNCTION = """
CREATE FUNCTION audit_log_only_grows() RETURNS trigger AS $$
BEGIN RAISE EXCEPTION 'the audit log only grows'; END
$$ LANGUAGE plpgsql
"""
_POSTGRESQL_TRIGGER = """
CREATE TRIGGER audit_log_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_only_grows()
"""


def upgrade() -> None:
    """Bring a store of version 0002 to this one; nothing is lost."""
    with op.batch_alter_table("devices") as table:
        table.add_column(sa.Column("revoked_at", sa.DateTime(timezone=True)))
        table.add_column(sa.Column("session_id", sa.String(64)))
    with op.batch_alter_table("jobs") as table:
        table.add_column(
            sa.Column("turn", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        )
        table.drop_index("ix_jobs_queue")
        table.create_index("ix_jobs_queue", ["device_id", "state", "priority", "turn", "number"])
    with op.batch_alter_table("jobs") as table:
        table.alter_column("turn", server_default=None)
    op.create_table(
        "audit_log",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details_json", sa.Text(), nullable=False),
        sa.Column("previous_sha256", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_log")),
        sa.UniqueConstraint("previous_sha256", name=op.f("uq_audit_log_previous_sha256")),
        sa.UniqueConstraint("sha256", name=op.f("uq_audit_log_sha256")),
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(_SQLITE_TRIGGER.format(verb=verb))
        op.execute(_SQLITE_INSERT_TRIGGER)
    else:
        op.execute(_POSTGRESQL_FUNCTION)
        op.execute(_POSTGRESQL_TRIGGER)


def downgrade() -> None:
    """Refuse: an audit log that can be dropped is none."""
    raise NotImplementedError("restore the copy of the store that was made before the update")
