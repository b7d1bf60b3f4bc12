"""The schema of the store: made and updated by Alembic, from the migrations in this package."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from host.store.database import Database, StoreError
from host.store.migrations import HEAD


class NewerStoreError(StoreError):
    """The store was written by a newer program."""


def upgrade(database: Database) -> None:
    """Bring the schema to this program's version.

    Processes that do so at once wait for each other. Raises NewerStoreError where the schema is
    of a version that this program does not know, and StoreError where the database cannot be used.
    """
    with database.read() as session:
        if _version(session.connection()) == HEAD:
            return
    with database.connect_to_migrate() as connection:
        # Another process may have done it while this one waited for the lock.
        if _version(connection) != HEAD:
            _run_alembic(connection, database.shown)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def _run_alembic(connection: Connection, shown: str) -> None:
    # Imported only where the schema is not up to date: every command opens the store.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise NewerStoreError(
            f"the store {shown} was written by a newer genba: update genba to open it"
        ) from error
