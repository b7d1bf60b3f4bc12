"""Outcomes that the host has not acknowledged yet; they survive a power cut."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_agent.codec import from_tagged_json, to_tagged_json
from device_agent.errors import BadAnswerError, DamagedStateError
from device_agent.work import (
    Failure,
    Lease,
    MeasuredSamples,
    Outcome,
    ProbeResult,
    Profile,
    VerifiedOutputs,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS letters (
    idempotency_key TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    lease_id TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    refused_because TEXT
)
"""
_OUTCOMES = (MeasuredSamples, VerifiedOutputs, Profile, ProbeResult, Failure)


@dataclass(frozen=True)
class Letter:
    """One outcome on its way to the host. `boot_id` names the boot of this device in which it came
    about: only there does CLOCK_MONOTONIC mean the same.
    """

    idempotency_key: str
    job_id: str
    attempt: int
    lease_id: str
    boot_id: str
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

    def put(self, lease: Lease, outcome: Outcome, boot_id: str) -> Letter:
        """Keep the outcome of a lease; a second one for the same attempt replaces the first."""
        letter = Letter(
            lease.idempotency_key, lease.job_id, lease.attempt, lease.id, boot_id, outcome
        )
        with self._reported():
            self._connection.execute(
                "INSERT OR REPLACE INTO letters VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (
                    letter.idempotency_key,
                    letter.job_id,
                    letter.attempt,
                    letter.lease_id,
                    letter.boot_id,
                    to_tagged_json(outcome),
                ),
            )
        return letter

    def pending(self) -> list[Letter]:
        """What waits to be reported, oldest first. What cannot be read is set aside."""
        with self._reported():
            rows = self._connection.execute(
                "SELECT idempotency_key, job_id, attempt, lease_id, boot_id, outcome FROM letters"
                " WHERE refused_because IS NULL ORDER BY rowid"
            ).fetchall()
        letters = (self._letter(*row) for row in rows)
        return [letter for letter in letters if letter is not None]

    def remove(self, letter: Letter) -> None:
        """Forget an outcome that the host has acknowledged."""
        with self._reported():
            self._connection.execute(
                "DELETE FROM letters WHERE idempotency_key = ?", (letter.idempotency_key,)
            )

    def set_aside(self, letter: Letter, refused_because: str) -> None:
        """Keep an outcome that the host will never take, but offer it no more."""
        self._set_aside(letter.idempotency_key, refused_because)

    def counts(self) -> tuple[int, int]:
        """How many outcomes wait, and how many were set aside."""
        with self._reported():
            total, aside = self._connection.execute(
                "SELECT COUNT(*), COUNT(refused_because) FROM letters"
            ).fetchone()
        return total - aside, aside

    def _letter(
        self, key: str, job_id: str, attempt: int, lease_id: str, boot_id: str, text: str
    ) -> Letter | None:
        try:
            outcome = from_tagged_json(_OUTCOMES, text)
        except BadAnswerError as error:
            self._set_aside(key, str(error))
            return None
        return Letter(key, job_id, attempt, lease_id, boot_id, outcome)

    def _set_aside(self, idempotency_key: str, refused_because: str) -> None:
        with self._reported():
            self._connection.execute(
                "UPDATE letters SET refused_because = ? WHERE idempotency_key = ?",
                (refused_because, idempotency_key),
            )

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DamagedStateError(str(self._path), str(error)) from error
