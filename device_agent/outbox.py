"""Outcomes that the host has not acknowledged yet; they survive a power cut."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import DamagedStateError
from device_agent.work import Lease, Outcome, outcome_from_json, outcome_to_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outcomes (
    idempotency_key TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    refused_because TEXT
)
"""


@dataclass(frozen=True)
class Letter:
    """One outcome on its way to the host."""

    idempotency_key: str
    job_id: str
    attempt: int
    outcome: Outcome


class Outbox:
    """A small SQLite file; a method that returned has its effect on the disk.

    Used from one thread. Every method raises DamagedStateError where the file is unusable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._reported():
            self._connection = sqlite3.connect(str(path), isolation_level=None)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def put(self, lease: Lease, outcome: Outcome) -> Letter:
        """Keep the outcome of a lease; a second one for the same attempt replaces the first."""
        letter = Letter(lease.idempotency_key, lease.job_id, lease.attempt, outcome)
        with self._reported():
            self._connection.execute(
                "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, NULL)",
                (letter.idempotency_key, letter.job_id, letter.attempt, outcome_to_json(outcome)),
            )
        return letter

    def pending(self) -> list[Letter]:
        """What waits to be reported, oldest first."""
        with self._reported():
            rows = self._connection.execute(
                "SELECT idempotency_key, job_id, attempt, outcome FROM outcomes"
                " WHERE refused_because IS NULL ORDER BY rowid"
            ).fetchall()
        return [
            Letter(key, job, attempt, outcome_from_json(text)) for key, job, attempt, text in rows
        ]

    def remove(self, letter: Letter) -> None:
        """Forget an outcome that the host has acknowledged."""
        with self._reported():
            self._connection.execute(
                "DELETE FROM outcomes WHERE idempotency_key = ?", (letter.idempotency_key,)
            )

    def set_aside(self, letter: Letter, refused_because: str) -> None:
        """Keep an outcome that the host will never take, but offer it no more."""
        with self._reported():
            self._connection.execute(
                "UPDATE outcomes SET refused_because = ? WHERE idempotency_key = ?",
                (refused_because, letter.idempotency_key),
            )

    def counts(self) -> tuple[int, int]:
        """How many outcomes wait, and how many were set aside."""
        with self._reported():
            total, aside = self._connection.execute(
                "SELECT COUNT(*), COUNT(refused_because) FROM outcomes"
            ).fetchone()
        return total - aside, aside

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DamagedStateError(str(self._path), str(error)) from error
