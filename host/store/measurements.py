"""What devices measured, with every raw sample."""

from sqlalchemy import select

from host.measurement import Measurement
from host.store.database import Database
from host.store.records import measurement_from_row
from host.store.tables import MeasurementRow


class Measurements:
    """The measurements of a workspace; they are written by `Jobs.report` only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_device(self, device_id: str, model_sha256: str | None = None) -> list[Measurement]:
        """The measurements of a device, or of one model on it, oldest first."""
        statement = (
            select(MeasurementRow)
            .where(MeasurementRow.device_id == device_id)
            .order_by(MeasurementRow.id)
        )
        if model_sha256 is not None:
            statement = statement.where(MeasurementRow.model_sha256 == model_sha256)
        with self._database.read() as session:
            return [measurement_from_row(row) for row in session.scalars(statement)]
