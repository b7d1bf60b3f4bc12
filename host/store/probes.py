"""What devices said of themselves when they were probed."""

from sqlalchemy import select

from host.measurement import ProbeResult
from host.store.codec import unpack
from host.store.database import Database
from host.store.tables import ResultRow


class Probes:
    """The probes of a workspace; they are written by `Jobs.report` only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, device_id: str) -> ProbeResult | None:
        """The newest probe of the device."""
        statement = (
            select(ResultRow)
            .where(ResultRow.device_id == device_id, ResultRow.kind == "probe")
            .order_by(ResultRow.id.desc())
            .limit(1)
        )
        with self._database.read() as session:
            row = session.scalars(statement).one_or_none()
            return None if row is None else unpack(ProbeResult, row.content)
