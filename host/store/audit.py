"""Who did what: rows that only grow, each holding the hash of the one before.

A change, a removal or an insertion in the middle breaks the chain; to notice rows cut off at the
end, compare the head with one that was noted elsewhere.
"""

import getpass
import hashlib
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Literal

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.orm import Session

from host.store.codec import StoredValueError
from host.store.database import Database, retried
from host.store.tables import AuditRow

Action = Literal[
    "token",
    "enrol",
    "refuse",
    "revoke",
    "job",
    "cancel",
    "export",
    "import",
    "deploy",
    "login",
]
GENESIS_SHA256 = "0" * 64
"""What the first entry holds in the place of an earlier one."""
_POSTGRESQL_LOCK = 0x67656E6261  # of this log, among the advisory locks of a database
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class AuditEntry:
    """One thing that was done. `subject` is what it was done to, a device for example."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, str]
    previous_sha256: str
    sha256: str


@dataclass(frozen=True)
class AuditCheck:
    """Whether the chain holds: the entries that were checked, the head, the first problem."""

    entries: int
    head_sha256: str
    problem: str | None


def current_actor() -> str:
    """Who runs this process, as USER@MACHINE."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a list of users
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


class Audit:
    """The audit log of a workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime], actor: str) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    @retried
    def note(
        self, action: Action, subject: str, details: Mapping[str, str], *, actor: str | None = None
    ) -> None:
        """Append an entry in a transaction of its own."""
        with self._database.write() as session:
            self.note_in(session, action, subject, details, actor=actor)

    def note_in(
        self,
        session: Session,
        action: Action,
        subject: str,
        details: Mapping[str, str],
        *,
        actor: str | None = None,
    ) -> None:
        """Append an entry to the transaction of what it is about. By default the actor is whoever
        runs this process.

        Do it last: until the transaction ends nobody else can append, and whoever then waits for
        what they hold would wait for ever.
        """
        # On SQLite the transaction is the only one that writes; here it must be.
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRESQL_LOCK})
        last = session.execute(
            select(AuditRow.number, AuditRow.sha256).order_by(AuditRow.number.desc()).limit(1)
        ).one_or_none()
        number, previous = (0, GENESIS_SHA256) if last is None else last
        row = AuditRow(
            number=number + 1,
            at=self._now(),
            actor=_storable(self._actor if actor is None else actor),
            action=action,
            subject=_storable(subject),
            details_json=details_to_json(details),
            previous_sha256=previous,
        )
        row.sha256 = entry_sha256(row)
        session.add(row)
        session.flush()

    def entries(
        self, *, after: int = 0, action: Action | None = None, subject: str | None = None
    ) -> Iterator[AuditEntry]:
        """The entries with numbers above `after`, of that action and subject, in order.

        Raises StoredValueError for one that was changed so that it cannot be read.
        """
        conditions: list[ColumnElement[bool]] = []
        if action is not None:
            conditions.append(AuditRow.action == action)
        if subject is not None:
            conditions.append(AuditRow.subject == subject)
        for rows in self._rows(after, conditions):
            yield from map(entry_from_row, rows)

    def verify(self) -> AuditCheck:
        """Compute the whole chain anew; it stops at the first entry that does not fit."""
        return check_chain(chain.from_iterable(self._rows(0)))

    def _rows(
        self, after: int, conditions: Sequence[ColumnElement[bool]] = ()
    ) -> Iterator[Sequence[AuditRow]]:
        while True:
            statement = (
                select(AuditRow)
                .where(AuditRow.number > after, *conditions)
                .order_by(AuditRow.number)
                .limit(_ROWS_AT_ONCE)
            )
            with self._database.read() as session:
                try:
                    rows = session.scalars(statement).all()
                except (ValueError, TypeError) as error:  # SQLite keeps anything in any column
                    raise StoredValueError(
                        f"an entry of the audit log after number {after} is damaged: {error}"
                    ) from error
                session.expunge_all()
            if not rows:
                return
            yield rows
            after = rows[-1].number


def check_chain(rows: Iterable[AuditRow]) -> AuditCheck:
    """Compute a whole chain anew; it stops at the first entry that does not fit."""
    head, checked = GENESIS_SHA256, 0
    try:
        for row in rows:
            problem = None
            if row.number != checked + 1:
                problem = f"entry {checked + 1} is missing"
            elif row.previous_sha256 != head:
                problem = f"entry {row.number} does not follow the one before"
            elif row.sha256 != entry_sha256(row):
                problem = f"entry {row.number} was changed"
            if problem is not None:
                return AuditCheck(checked, head, problem)
            head, checked = row.sha256, checked + 1
    except StoredValueError as error:
        return AuditCheck(checked, head, str(error))
    return AuditCheck(checked, head, None)


def details_to_json(details: Mapping[str, str]) -> str:
    """The details as the log keeps them: ASCII, so that they may hold any character."""
    return json.dumps(dict(details), sort_keys=True)


def entry_from_row(row: AuditRow) -> AuditEntry:
    """The entry of that row. Raises StoredValueError."""
    try:
        details: Any = json.loads(row.details_json)
    except (ValueError, TypeError) as error:
        raise StoredValueError(
            f"entry {row.number} of the audit log is damaged: its details cannot be read"
        ) from error
    return AuditEntry(
        number=row.number,
        at=row.at,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        details=details,
        previous_sha256=row.previous_sha256,
        sha256=row.sha256,
    )


def entry_sha256(row: AuditRow) -> str:
    """SHA-256 over everything in the row but its own digest, as one JSON list."""
    parts = (
        row.number,
        row.at.astimezone(UTC).isoformat(timespec="microseconds"),
        row.actor,
        row.action,
        row.subject,
        row.details_json,
        row.previous_sha256,
    )
    # Only what was changed by hand holds anything that is no text: it becomes some other text.
    return hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()


def _storable(text: str) -> str:
    """The text without what a database refuses: names of files and people may hold anything."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
