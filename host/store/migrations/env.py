"""Run by Alembic, on the connection that `host.store.migrate` gives it."""

from alembic import context

from host.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # also on SQLite: a migration happens wholly or not at all
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
