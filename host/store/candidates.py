"""Networks that may be chosen, and what proxies said of them."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from host.store.database import Database, StoreError, insert_absent, retried
from host.store.jobs import IDS_A_QUERY
from host.store.tables import CandidateRow, ScoreRow


class UnknownCandidateError(StoreError):
    """There is no candidate of that key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no candidate {key!r} in this workspace")
        self.key = key


@dataclass(frozen=True)
class StoredCandidate:
    """A network that may be chosen, under the key of its live graph."""

    key: str
    space: str
    text: str
    macs: int
    parameters: int


@dataclass(frozen=True)
class StoredScore:
    """What a version of a proxy says of a candidate that it sees with some input."""

    candidate_key: str
    proxy: str
    version: str
    input_key: str
    value: float | None


class Candidates:
    """The candidates of a workspace; isomorphic ones have one key and one row."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def add(self, key: str, space: str, text: str, macs: int, parameters: int) -> None:
        """Keep a candidate; one that is there already stays as it is."""
        self.add_all([StoredCandidate(key, space, text, macs, parameters)])

    @retried
    def add_all(self, candidates: Iterable[StoredCandidate]) -> None:
        """Keep candidates; those that are there already stay as they are."""
        now = self._now()
        rows = [
            {
                "key": c.key,
                "space": c.space,
                "text": c.text,
                "macs": c.macs,
                "parameters": c.parameters,
                "created_at": now,
            }
            for c in candidates
        ]
        with self._database.write() as session:
            insert_absent(session, CandidateRow, rows)

    def get(self, key: str) -> StoredCandidate:
        """The candidate. Raises UnknownCandidateError."""
        with self._database.read() as session:
            row = session.get(CandidateRow, key)
            if row is None:
                raise UnknownCandidateError(key)
            return StoredCandidate(row.key, row.space, row.text, row.macs, row.parameters)

    def scores(
        self, proxy: str, version: str, input_keys: Mapping[str, str]
    ) -> dict[str, float | None]:
        """The scores that are known, by candidate key; None is a score that was not finite.

        `input_keys` names, by candidate key, the input that the score must be of.
        """
        keys = list(input_keys)
        found: dict[str, float | None] = {}
        with self._database.read() as session:
            for start in range(0, len(keys), IDS_A_QUERY):
                rows = session.execute(
                    select(ScoreRow.candidate_key, ScoreRow.input_key, ScoreRow.value).where(
                        ScoreRow.candidate_key.in_(keys[start : start + IDS_A_QUERY]),
                        ScoreRow.proxy == proxy,
                        ScoreRow.version == version,
                    )
                )
                found |= {key: value for key, of, value in rows if of == input_keys[key]}
        return found

    @retried
    def add_scores(self, scores: Iterable[StoredScore]) -> None:
        """Keep scores of candidates that were added before, in one transaction.

        A value that is not finite is kept as None: it need not be computed again. A score that is
        there already stays as it is.
        """
        rows = [
            {
                "candidate_key": score.candidate_key,
                "proxy": score.proxy,
                "version": score.version,
                "input_key": score.input_key,
                "value": None
                if score.value is None or not math.isfinite(score.value)
                else score.value,
            }
            for score in scores
        ]
        with self._database.write() as session:
            insert_absent(session, ScoreRow, rows)
