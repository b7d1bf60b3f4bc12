"""Outcomes that the host has not acknowledged yet; they survive a power cut."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from device_agent.codec import from_tagged_json, to_tagged_json
from device_agent.errors import BadAnswerError, DamagedOutboxError, DamagedStateError
from device_agent.files import sync_folder
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

    Used from one thread. Every method raises DamagedOutboxError where the file is no database, or
    no whole one, and DamagedStateError where it cannot be used for another reason.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._reported(), contextlib.ExitStack() as unless_opened:
            self._connection = sqlite3.connect(str(path), isolation_level=None)
            unless_opened.callback(self._connection.close)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_SCHEMA)
            self._check()
            unless_opened.pop_all()

    def close(self) -> None:
        self._connection.close()

    def put(self, lease: Lease, outcome: Outcome, boot_id: str) -> Letter:
        """Keep the outcome of a lease; a second one for the same attempt replaces the first."""
        letter = _letter(lease, outcome, boot_id)
        self.keep(letter)
        return letter

    def keep(self, letter: Letter) -> None:
        """As `put`, of a letter that was written before."""
        with self._reported():
            self._connection.execute(
                "INSERT OR REPLACE INTO letters VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (
                    letter.idempotency_key,
                    letter.job_id,
                    letter.attempt,
                    letter.lease_id,
                    letter.boot_id,
                    to_tagged_json(letter.outcome),
                ),
            )

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

    def _check(self) -> None:
        """SQLite undoes what a power cut interrupted; a card that lost pages it only finds out."""
        (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise DamagedOutboxError(str(self._path), found)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # SQLITE_CORRUPT and SQLITE_NOTADB are the codes of this class and of none below it.
            damaged = type(error) is sqlite3.DatabaseError
            kind = DamagedOutboxError if damaged else DamagedStateError
            raise kind(str(self._path), str(error)) from error


class SafeOutbox:
    """An outbox that loses nothing while its process lives, whatever the disk does.

    What the disk does not take is held in memory and offered to it again; a file that is no
    database is set aside under another name, and a new one begun. Both are said to a person.
    Used from one thread.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Raises DamagedStateError where neither the file nor a new one can be used."""
        self._path = path
        self._say = say
        self._unsaved: dict[str, Letter] = {}
        self._refused: dict[str, str] = {}
        self._delivered: dict[str, Letter] = {}
        self._problem = ""
        self._outbox: Outbox | None = None
        self._mending(lambda: self._disk().counts())

    def close(self) -> None:
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None

    def put(self, lease: Lease, outcome: Outcome, boot_id: str) -> Letter:
        """Keep the outcome of a lease, in memory where the disk does not take it."""
        letter = _letter(lease, outcome, boot_id)
        self._unsaved[letter.idempotency_key] = letter
        self.settle()
        return letter

    def pending(self) -> list[Letter]:
        """What waits to be reported, oldest first."""
        self.settle()
        saved: list[Letter] = []
        self._try(lambda: saved.extend(self._disk().pending()))
        done = {*self._unsaved, *self._refused, *self._delivered}
        unsaved = [letter for key, letter in self._unsaved.items() if key not in self._refused]
        return [letter for letter in saved if letter.idempotency_key not in done] + unsaved

    def remove(self, letter: Letter) -> None:
        """Forget an outcome that the host has acknowledged."""
        self._unsaved.pop(letter.idempotency_key, None)
        self._delivered[letter.idempotency_key] = letter
        self.settle()

    def set_aside(self, letter: Letter, refused_because: str) -> None:
        """Keep an outcome that the host will never take, but offer it no more."""
        self._refused[letter.idempotency_key] = refused_because
        self._unsaved.setdefault(letter.idempotency_key, letter)
        self.settle()

    @property
    def owes(self) -> bool:
        """Whether memory holds an outcome that the disk has not taken yet."""
        return bool(self._unsaved)

    def settle(self) -> None:
        """Bring to the disk what it owes."""
        if (self._unsaved or self._delivered) and self._try(self._write):
            self._problem = ""

    def require_settled(self) -> None:
        """Raises DamagedStateError where memory alone holds an outcome."""
        self.settle()
        if self.owes:
            raise DamagedStateError(str(self._path), "an outcome is in memory alone")

    def _write(self) -> None:
        disk = self._disk()
        # Removing comes first: it makes room.
        for key, letter in list(self._delivered.items()):
            disk.remove(letter)
            del self._delivered[key]
        for key, letter in list(self._unsaved.items()):
            disk.keep(letter)
            if key in self._refused:
                disk.set_aside(letter, self._refused.pop(key))
            del self._unsaved[key]

    def _try(self, act: Callable[[], object]) -> bool:
        try:
            self._mending(act)
        except DamagedStateError as error:
            self._tell(str(error))
            return False
        return True

    def _mending(self, act: Callable[[], object]) -> None:
        """Do it, in a new file where the old one is no database."""
        try:
            act()
        except DamagedOutboxError as error:
            self.close()
            self._set_file_aside(error)
            act()

    def _disk(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox(self._path)
        return self._outbox

    def _set_file_aside(self, error: DamagedOutboxError) -> None:
        """Raises DamagedStateError where it cannot be renamed."""
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.damaged-{number}")).exists():
            number += 1
        try:
            # Together with the journal from which SQLite could undo what was interrupted.
            with contextlib.suppress(FileNotFoundError):
                _beside(self._path).replace(_beside(aside))
            self._path.replace(aside)
            sync_folder(self._path.parent)
        except OSError as problem:
            raise DamagedStateError(str(self._path), problem.strerror or str(problem)) from error
        self._say(
            f"the outbox was damaged ({error.problem}) and lies in {aside} now: outcomes that"
            " waited in it are not reported, and their jobs run again"
        )

    def _tell(self, problem: str) -> None:
        """Say it once, not at every attempt."""
        if problem != self._problem:
            self._problem = problem
            held = "; an outcome is held in memory until then, and no other job is taken"
            self._say(problem + (held if self._unsaved else ""))


def _letter(lease: Lease, outcome: Outcome, boot_id: str) -> Letter:
    return Letter(lease.idempotency_key, lease.job_id, lease.attempt, lease.id, boot_id, outcome)


def _beside(path: Path) -> Path:
    """Where SQLite keeps the rollback journal of a database (its documentation of file formats)."""
    return path.with_name(f"{path.name}-journal")
