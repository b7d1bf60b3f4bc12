"""What a database says when it cannot go on, as a sentence that says what to do."""

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError

# SQLSTATE, by the class that its first two characters are: see appendix A of PostgreSQL's manual.
_CONFLICTS = ("40001", "40P01")  # serialisation failure, deadlock
_LOST = "the connection was lost; see that its server runs and run this again"
_UNREACHED = (
    "its server cannot be reached; see that it runs, and that server, user, password and database"
    " are right in its address"
)
_POSTGRESQL = {
    "08": _LOST,
    "25006": "its server takes no changes; use the address of the primary server",
    "42501": "the user may not do this there; make the user the owner of the database",
    "53100": "the disk of its server is full; free some space there and run this again",
    "55P03": "another process keeps it locked; run this again when that has ended",
    "57P": _LOST,
    "58": "its server cannot read or write its files; look into the log of the server",
    "XX": "it is damaged; restore a copy of the database",
}
_SQLITE = {
    sqlite3.SQLITE_FULL: "its disk is full; free some space there and run this again",
    sqlite3.SQLITE_READONLY: "it cannot be written; make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; make sure that its folder is there and writable",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; run this again when that has ended",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a copy of the file",
    sqlite3.SQLITE_NOTADB: "it is no database or damaged; restore a copy of the file",
    sqlite3.SQLITE_IOERR: "its disk fails, is full or limits the size of files; mend that and run"
    " this again",
}


def is_conflict(error: BaseException) -> bool:
    """Whether the same transaction may well succeed when it is begun anew at once."""
    return _sqlstate(error) in _CONFLICTS


def what_to_do(error: DBAPIError) -> str:
    """What is wrong and what to do about it."""
    said = " ".join(str(error.orig).split())
    if isinstance(error.orig, sqlite3.Error):
        # The lowest byte of the code: https://www.sqlite.org/rescode.html
        known = _SQLITE.get(getattr(error.orig, "sqlite_errorcode", 0) & 0xFF)
    elif error.connection_invalidated:
        known = _LOST
    else:
        known = _of_postgresql(_sqlstate(error.orig), isinstance(error, OperationalError))
    return said if known is None else f"{known} ({said})"


def _of_postgresql(state: str, operational: bool) -> str | None:
    if not state and operational:  # nobody who could give a state has answered
        return _UNREACHED
    return next((_POSTGRESQL[k] for k in (state, state[:3], state[:2]) if k in _POSTGRESQL), None)


def _sqlstate(error: BaseException | None) -> str:
    return getattr(error, "sqlstate", None) or ""
