"""Connections and transactions, alike on SQLite and PostgreSQL."""

import functools
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Session

from host.errors import GenbaError, UsageError
from host.store.trouble import is_conflict, what_to_do

PATIENCE_SECONDS = 30.0
"""How long to wait for what others have locked, and for a connection."""
DIALECTS = ("sqlite", "postgresql")
_TRIES = 10
_PAUSE_SECONDS = 0.02
_MIGRATION_LOCK = 0x67656E6262  # among the advisory locks of a PostgreSQL database
P = ParamSpec("P")
T = TypeVar("T")


class StoreError(GenbaError):
    """The store cannot do what was asked."""


class ConflictError(StoreError):
    """A transaction of somebody else was in the way; nothing happened of this one."""


class StoreUrlError(UsageError):
    """The address of the store is wrong."""


def retried(method: Callable[P, T]) -> Callable[P, T]:
    """Have a method that is one writing transaction begin anew after a ConflictError.

    PostgreSQL ends one of several transactions that wait for each other, for example.
    """

    @functools.wraps(method)
    def trying(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_TRIES - 1):
            try:
                return method(*args, **kwargs)
            except ConflictError:
                time.sleep(_PAUSE_SECONDS)  # whoever was in the way goes first
        return method(*args, **kwargs)

    return trying


class Database:
    """Gives transactions; several processes may use the same database at once."""

    def __init__(self, place: str | Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """`place` is the path of an SQLite file, or a SQLAlchemy URL.

        Whoever waits for others longer than `patience_seconds` gets a StoreError. Raises
        StoreUrlError where the URL cannot be used.
        """
        self.engine = _engine(place, patience_seconds)
        self.shown = self.engine.url.render_as_string(hide_password=True)
        # What PostgreSQL's administrator made the default must not matter. A transaction that
        # reads sees one moment, as it does on SQLite.
        levels = self.engine.dialect.name == "postgresql"
        self._reading = self.engine.execution_options(
            **{"isolation_level": "REPEATABLE READ"} if levels else {}
        )
        self._writing = self.engine.execution_options(
            genba_writes=True, **{"isolation_level": "READ COMMITTED"} if levels else {}
        )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads; it sees one moment."""
        with self._translated(), Session(self._reading) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that writes: all of it happens or nothing.

        On SQLite no other process writes meanwhile; elsewhere lock what you depend on. Raises
        ConflictError where it can be begun anew: see `retried`.
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
            if connection.dialect.name == "postgresql":  # SQLite has one that writes anyway
                lock = text("SELECT pg_advisory_xact_lock(:key)")
                connection.execute(lock, {"key": _MIGRATION_LOCK})
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
            if error.orig is not None and is_conflict(error.orig):
                raise ConflictError(
                    f"the store {self.shown} is too busy: run this again in a moment"
                ) from error
            raise StoreError(
                f"the store {self.shown} cannot be used: {what_to_do(error)}"
            ) from error
        except PoolTimeoutError as error:
            raise StoreError(
                f"the store {self.shown} cannot be used: all connections of this process are busy;"
                " run this again in a moment"
            ) from error


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
        statement = _insert(session, table).on_conflict_do_nothing()
        session.execute(statement, _in_order(table, rows))


def upsert(
    session: Session, table: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert the rows; where the primary key is there already, replace the other columns."""
    if not rows:
        return
    statement = _insert(session, table)
    keys = [column.name for column in table.__table__.primary_key]
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    session.execute(statement, _in_order(table, rows))


def _in_order(
    table: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The rows by primary key: transactions that insert the same ones in different orders would
    wait for each other. Where the database gives the key, their order is kept.
    """
    keys = [column.name for column in table.__table__.primary_key]
    if not all(key in rows[0] for key in keys):
        return list(rows)
    return sorted(rows, key=lambda row: [row[key] for key in keys])


def _insert(session: Session, table: type[DeclarativeBase]) -> sqlite.Insert | postgresql.Insert:
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def _engine(place: str | Path, patience_seconds: float) -> Engine:
    url = _url(place)
    name = url.get_backend_name()
    if name not in DIALECTS:
        raise StoreUrlError(f"a store cannot be kept in {name!r}; use sqlite or postgresql")
    try:
        # One that a restarted server has closed is noticed before it is used.
        engine = create_engine(
            url, pool_pre_ping=name == "postgresql", pool_timeout=patience_seconds
        )
    except NoSuchModuleError as error:
        raise StoreUrlError(f"the address of the store names an unknown driver: {error}") from error
    except ModuleNotFoundError as error:
        raise StoreUrlError(
            f"the store needs the Python module {error.name}: install genba[postgres]"
        ) from error
    if name == "sqlite":
        _prepare_sqlite(engine, patience_seconds)
    else:
        _prepare_postgresql(engine, patience_seconds)
    return engine


def _url(place: str | Path) -> URL:
    if isinstance(place, Path):
        return URL.create("sqlite", database=str(place))
    try:
        url = make_url(place)
    except ArgumentError as error:
        raise StoreUrlError(
            "the address of the store is not a URL such as postgresql+psycopg://user@server/genba"
        ) from error
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _log_ahead(connection: sqlite3.Connection, patience_seconds: float) -> None:
    """Have SQLite write changes to a log before they reach the file.

    Where several connections ask for it on a new file at the same time, SQLite tells all but one
    at once that the file is locked, whatever the busy timeout: they could wait for each other for
    ever. Asked again, they find it done.
    """
    give_up_at = time.monotonic() + patience_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
        else:
            return
        time.sleep(0.01)


def _prepare_sqlite(engine: Engine, patience_seconds: float) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # sqlite3 would begin transactions when it sees fit; we begin them ourselves.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {round(patience_seconds * 1000)}")
        _log_ahead(connection, patience_seconds)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # A transaction that reads first and writes later fails at once, whatever the busy
        # timeout, when another process has written in between: writers take the lock first.
        writes = connection.get_execution_options().get("genba_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgresql(engine: Engine, patience_seconds: float) -> None:
    settings = {
        "synchronous_commit": "on",  # what was told to a device as kept is kept
        "lock_timeout": f"{round(patience_seconds * 1000)}ms",
        # A host that vanished in the middle of a transaction must not lock out the others: by
        # default the server asks for the first time after two hours whether it is still there.
        "tcp_keepalives_idle": "30s",
        "tcp_keepalives_interval": "10s",
        "tcp_keepalives_count": "3",
    }

    @event.listens_for(engine, "do_connect")
    def _connecting(
        _dialect: object, _record: object, _args: object, parameters: dict[str, Any]
    ) -> None:
        parameters.setdefault("connect_timeout", max(2, round(patience_seconds / 3)))
        # The same for this side: a server that lost its power says nothing.
        parameters.setdefault("keepalives_idle", 30)
        parameters.setdefault("keepalives_interval", 10)
        parameters.setdefault("keepalives_count", 3)
        parameters.setdefault("tcp_user_timeout", 30_000)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for name, value in settings.items():
                cursor.execute(f"SET {name} = '{value}'")
        connection.commit()
