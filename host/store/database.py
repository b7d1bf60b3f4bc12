"""Connections and transactions, alike on SQLite and PostgreSQL."""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import DeclarativeBase, Session

from host.errors import GenbaError, UsageError

BUSY_TIMEOUT_SECONDS = 30
DIALECTS = ("sqlite", "postgresql")


class StoreError(GenbaError):
    """The store cannot do what was asked."""


class StoreUrlError(UsageError):
    """The address of the store is wrong."""


class Database:
    """Gives transactions; several processes may use the same database at once."""

    def __init__(self, place: str | Path) -> None:
        """`place` is the path of an SQLite file, or a SQLAlchemy URL.

        Raises StoreUrlError where the URL cannot be used.
        """
        self.engine = _engine(place)
        self.shown = self.engine.url.render_as_string(hide_password=True)
        self._writing = self.engine.execution_options(genba_writes=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with self._translated(), Session(self.engine) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that writes: all of it happens or nothing.

        On SQLite no other process writes meanwhile; elsewhere lock what you depend on.
        """
        with self._translated(), Session(self._writing) as session, session.begin():
            yield session

    @contextmanager
    def connect_to_migrate(self) -> Iterator[Connection]:
        """A connection in a writing transaction, for a change of the schema.

        Raises StoreError where a row would refer to one that is not there.
        """
        with (
            self._translated(),
            self._writing.connect() as connection,
            _rebuilding(connection),
            connection.begin(),
        ):
            yield connection
            _check_references(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"the store {self.shown} cannot be used: {error.orig}") from error


@contextmanager
def _rebuilding(connection: Connection) -> Iterator[None]:
    """Let SQLite replace tables that others refer to; see "Making Other Kinds Of Table Schema
    Changes", https://www.sqlite.org/lang_altertable.html. It can only be said outside of a
    transaction.
    """
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        yield
        return
    raw.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys = ON")


def _check_references(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise StoreError(
            f"a row of the table {broken[0]!r} refers to one of {broken[2]!r} that is not there:"
            " restore a copy of the store"
        )


def insert_absent(
    session: Session, table: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert the rows whose keys are not there yet; leave the others as they are."""
    if rows:
        session.execute(_insert(session, table).on_conflict_do_nothing(), rows)


def upsert(
    session: Session, table: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert the rows; where the primary key is there already, replace the other columns."""
    if not rows:
        return
    statement = _insert(session, table)
    keys = [column.name for column in table.__table__.primary_key]
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def _insert(session: Session, table: type[DeclarativeBase]) -> sqlite.Insert | postgresql.Insert:
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def _engine(place: str | Path) -> Engine:
    url = _url(place)
    name = url.get_backend_name()
    if name not in DIALECTS:
        raise StoreUrlError(f"a store cannot be kept in {name!r}; use sqlite or postgresql")
    try:
        engine = create_engine(url)
    except NoSuchModuleError as error:
        raise StoreUrlError(f"the address of the store names an unknown driver: {error}") from error
    except ModuleNotFoundError as error:
        raise StoreUrlError(
            f"the store needs the Python module {error.name}: install genba[postgres]"
        ) from error
    if name == "sqlite":
        _prepare_sqlite(engine)
    return engine


def _url(place: str | Path) -> URL:
    if isinstance(place, Path):
        return URL.create("sqlite", database=str(place))
    try:
        return make_url(place)
    except ArgumentError as error:
        raise StoreUrlError(
            "the address of the store is not a URL such as postgresql+psycopg://user@server/genba"
        ) from error


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Have SQLite write changes to a log before they reach the file.

    Where several connections ask for it on a new file at the same time, SQLite tells all but one
    at once that the file is locked, whatever the busy timeout: they could wait for each other for
    ever. Asked again, they find it done.
    """
    give_up_at = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
        else:
            return
        time.sleep(0.01)


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # sqlite3 would begin transactions when it sees fit; we begin them ourselves.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
        _log_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # A transaction that reads first and writes later fails at once, whatever the busy
        # timeout, when another process has written in between: writers take the lock first.
        writes = connection.get_execution_options().get("genba_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
