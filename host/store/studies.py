"""Searches: how far they got, and what they found."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from host.errors import UsageError
from host.store.database import Database, insert_absent, retried, upsert
from host.store.tables import (
    AccuracyRecord,
    FrontRow,
    PredictionRecord,
    StudyCandidateRow,
    StudyResultRow,
    StudyRow,
)


class UnknownStudyError(UsageError):
    """No study has that name."""


class StudyExistsError(UsageError):
    """A study of that name is there already."""


@dataclass(frozen=True)
class Study:
    """One search. It runs or waits to be resumed until it is finished or has failed."""

    id: int
    name: str
    config_json: str
    seed: int
    stage: str
    created_at: datetime
    finished_at: datetime | None
    failed_because: str | None


@dataclass(frozen=True)
class StudyCandidate:
    """The part that a candidate plays in a study; it may play several."""

    candidate_key: str
    order: int
    role: str


@dataclass(frozen=True)
class PredictionRow:
    """A prediction, with the interval that holds at `level`; in the unit of the target."""

    candidate_key: str
    device_id: str
    target: str
    value: float
    low: float
    high: float
    level: float
    model_id: int | None


@dataclass(frozen=True)
class AccuracyRow:
    """The metrics of a trained form (such as "fp32") on `n` items not trained on."""

    candidate_key: str
    form: str
    metrics: dict[str, float]
    n: int


class Studies:
    """The studies of a workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    @retried
    def create(self, name: str, config_json: str, seed: int) -> Study:
        """A new study in the stage "created". Raises StudyExistsError."""
        with self._database.write() as session:
            values = {
                "name": name,
                "config_json": config_json,
                "seed": seed,
                "stage": "created",
                "created_at": self._now(),
            }
            row = StudyRow(**values)
            session.add(row)
            try:
                session.flush()
            except IntegrityError as error:
                raise StudyExistsError(
                    f"a study named {name!r} exists already: resume it or choose another name"
                ) from error
            return _study(row)

    def by_name(self, name: str) -> Study:
        """The study of that name. Raises UnknownStudyError, naming those that there are."""
        with self._database.read() as session:
            row = session.scalars(select(StudyRow).where(StudyRow.name == name)).one_or_none()
            if row is not None:
                return _study(row)
            names = ", ".join(session.scalars(select(StudyRow.name).order_by(StudyRow.name)))
        known = f"there are {names}" if names else "there is none yet"
        raise UnknownStudyError(f"no study is named {name!r}: {known}")

    def all(self) -> list[Study]:
        """All studies, oldest first."""
        with self._database.read() as session:
            return [_study(row) for row in session.scalars(select(StudyRow).order_by(StudyRow.id))]

    @retried
    def set_stage(self, study_id: int, stage: str) -> None:
        """Note what the study does now; that also says that it goes on."""
        with self._database.write() as session:
            row = _row(session, study_id)
            row.stage, row.finished_at, row.failed_because = stage, None, None

    @retried
    def finish(self, study_id: int) -> None:
        """Note that the study is complete."""
        with self._database.write() as session:
            row = _row(session, study_id)
            row.finished_at, row.failed_because = self._now(), None

    @retried
    def fail(self, study_id: int, because: str) -> None:
        """Note why the study stopped, in a sentence; it may be resumed."""
        with self._database.write() as session:
            _row(session, study_id).failed_because = because

    @retried
    def add_candidates(self, study_id: int, rows: Sequence[StudyCandidate]) -> None:
        """Note the parts of candidates; a part that is known stays as it is."""
        values = [
            {
                "study_id": study_id,
                "candidate_key": row.candidate_key,
                "role": row.role,
                "position": row.order,
            }
            for row in rows
        ]
        with self._database.write() as session:
            insert_absent(session, StudyCandidateRow, values)

    def candidates(self, study_id: int) -> list[StudyCandidate]:
        """The candidates of a study by role, each role in its order."""
        statement = (
            select(StudyCandidateRow)
            .where(StudyCandidateRow.study_id == study_id)
            .order_by(
                StudyCandidateRow.role,
                StudyCandidateRow.position,
                StudyCandidateRow.candidate_key,
            )
        )
        with self._database.read() as session:
            return [
                StudyCandidate(row.candidate_key, row.position, row.role)
                for row in session.scalars(statement)
            ]

    @retried
    def add_predictions(self, study_id: int, rows: Sequence[PredictionRow]) -> None:
        """Keep predictions; one for the same candidate, device and target is replaced."""
        with self._database.write() as session:
            upsert(session, PredictionRecord, [{"study_id": study_id} | asdict(r) for r in rows])

    def predictions(self, study_id: int) -> list[PredictionRow]:
        """The predictions of a study by candidate, device and target."""
        statement = (
            select(PredictionRecord)
            .where(PredictionRecord.study_id == study_id)
            .order_by(
                PredictionRecord.candidate_key, PredictionRecord.device_id, PredictionRecord.target
            )
        )
        with self._database.read() as session:
            return [
                PredictionRow(
                    candidate_key=row.candidate_key,
                    device_id=row.device_id,
                    target=row.target,
                    value=row.value,
                    low=row.low,
                    high=row.high,
                    level=row.level,
                    model_id=row.model_id,
                )
                for row in session.scalars(statement)
            ]

    @retried
    def add_accuracy(self, study_id: int, row: AccuracyRow) -> None:
        """Keep an accuracy; one of the same candidate and form is replaced."""
        with self._database.write() as session:
            upsert(session, AccuracyRecord, [{"study_id": study_id} | asdict(row)])

    def accuracies(self, study_id: int) -> list[AccuracyRow]:
        """The accuracies of a study by candidate and form."""
        statement = (
            select(AccuracyRecord)
            .where(AccuracyRecord.study_id == study_id)
            .order_by(AccuracyRecord.candidate_key, AccuracyRecord.form)
        )
        with self._database.read() as session:
            return [
                AccuracyRow(row.candidate_key, row.form, dict(row.metrics), row.n)
                for row in session.scalars(statement)
            ]

    @retried
    def add_front(self, study_id: int, keys: Sequence[str]) -> None:
        """Keep the Pareto front in this order; an earlier front is replaced."""
        rows = [
            {"study_id": study_id, "candidate_key": key, "position": position}
            for position, key in enumerate(keys)
        ]
        with self._database.write() as session:
            _row(session, study_id)  # locked, so that two fronts do not become one
            session.execute(delete(FrontRow).where(FrontRow.study_id == study_id))
            insert_absent(session, FrontRow, rows)

    def front(self, study_id: int) -> list[str]:
        """The keys of the candidates on the front, in its order."""
        statement = (
            select(FrontRow.candidate_key)
            .where(FrontRow.study_id == study_id)
            .order_by(FrontRow.position)
        )
        with self._database.read() as session:
            return list(session.scalars(statement))

    @retried
    def put_result(self, study_id: int, name: str, json_text: str) -> None:
        """Keep the outcome of a finished step; an earlier one of that name is replaced."""
        row = {"study_id": study_id, "name": name, "json_text": json_text}
        with self._database.write() as session:
            upsert(session, StudyResultRow, [row])

    def result(self, study_id: int, name: str) -> str | None:
        """The outcome of a step, None while it is not finished."""
        with self._database.read() as session:
            row = session.get(StudyResultRow, (study_id, name))
            return None if row is None else row.json_text


def _row(session: Session, study_id: int) -> StudyRow:
    row = session.get(StudyRow, study_id, with_for_update={"key_share": True})
    if row is None:
        raise UnknownStudyError(f"there is no study with the number {study_id}")
    return row


def _study(row: StudyRow) -> Study:
    return Study(
        id=row.id,
        name=row.name,
        config_json=row.config_json,
        seed=row.seed,
        stage=row.stage,
        created_at=row.created_at,
        finished_at=row.finished_at,
        failed_because=row.failed_because,
    )
