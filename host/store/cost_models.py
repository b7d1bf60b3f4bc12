"""Fitted cost models, as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from host.store.database import Database, retried
from host.store.tables import CostModelRow


@dataclass(frozen=True)
class StoredCostModel:
    """A cost model of a device for a target, fitted to `n` measurements."""

    id: int
    device_id: str
    target: str
    model_json: str
    n: int
    created_at: datetime


class CostModels:
    """The cost models of a workspace; every fit is kept."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    @retried
    def add(self, device_id: str, target: str, model_json: str, n: int) -> int:
        """Keep a model; returns its id."""
        with self._database.write() as session:
            row = CostModelRow(
                device_id=device_id,
                target=target,
                model_json=model_json,
                n=n,
                created_at=self._now(),
            )
            session.add(row)
            session.flush()
            return row.id

    def latest(self, device_id: str, target: str) -> StoredCostModel | None:
        """The model that was added last for that device and target."""
        statement = (
            select(CostModelRow)
            .where(CostModelRow.device_id == device_id, CostModelRow.target == target)
            .order_by(CostModelRow.id.desc())
            .limit(1)
        )
        with self._database.read() as session:
            row = session.scalars(statement).one_or_none()
            return None if row is None else _stored(row)

    def newest(self, device_id: str) -> list[StoredCostModel]:
        """The model that was added last for each target of that device, by target."""
        last = (
            select(func.max(CostModelRow.id))
            .where(CostModelRow.device_id == device_id)
            .group_by(CostModelRow.target)
        )
        statement = (
            select(CostModelRow).where(CostModelRow.id.in_(last)).order_by(CostModelRow.target)
        )
        with self._database.read() as session:
            return [_stored(row) for row in session.scalars(statement)]

    def newest_of_all(self, starts: str, ends: str) -> list[StoredCostModel]:
        """The model that was added last for each device and target that starts and ends so,
        newest first.
        """
        last = (
            select(func.max(CostModelRow.id))
            .where(
                CostModelRow.target.startswith(starts, autoescape=True),
                CostModelRow.target.endswith(ends, autoescape=True),
            )
            .group_by(CostModelRow.device_id, CostModelRow.target)
        )
        statement = (
            select(CostModelRow).where(CostModelRow.id.in_(last)).order_by(CostModelRow.id.desc())
        )
        with self._database.read() as session:
            return [_stored(row) for row in session.scalars(statement)]


def _stored(row: CostModelRow) -> StoredCostModel:
    return StoredCostModel(row.id, row.device_id, row.target, row.model_json, row.n, row.created_at)
