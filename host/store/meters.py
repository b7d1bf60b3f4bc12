"""Which meter on the network measures which device."""

from host.device import MeterBinding
from host.store.database import Database, retried, upsert
from host.store.devices import require_device
from host.store.records import meter_from_row
from host.store.tables import MeterRow


class Meters:
    """The meters of a workspace; a device has at most one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    def bind(self, device_id: str, binding: MeterBinding) -> None:
        """Let this meter be the device's, in place of any other.

        Raises UnknownDeviceError for a removed or unknown device.
        """
        with self._database.write() as session:
            require_device(session, device_id)
            row = {"device_id": device_id, "url": binding.url, "options": dict(binding.options)}
            upsert(session, MeterRow, [row])

    def of_device(self, device_id: str) -> MeterBinding | None:
        """The device's meter."""
        with self._database.read() as session:
            row = session.get(MeterRow, device_id)
            return None if row is None else meter_from_row(row)

    @retried
    def unbind(self, device_id: str) -> bool:
        """Forget the device's meter; returns whether it had one."""
        with self._database.write() as session:
            row = session.get(MeterRow, device_id)
            if row is not None:
                session.delete(row)
            return row is not None
