"""Fitted cost models, as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

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
            if row is None:
                return None
            return StoredCostModel(
                row.id, row.device_id, row.target, row.model_json, row.n, row.created_at
            )
