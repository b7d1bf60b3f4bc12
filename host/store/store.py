"""The store as one thing."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from host.store.audit import Audit, current_actor
from host.store.blobs import Blobs
from host.store.bundles import Bundles
from host.store.candidates import Candidates
from host.store.cost_models import CostModels
from host.store.database import Database
from host.store.devices import Devices
from host.store.jobs import Jobs
from host.store.measurements import Measurements
from host.store.meters import Meters
from host.store.migrate import upgrade
from host.store.probes import Probes
from host.store.queue_view import QueueView
from host.store.studies import Studies


def utc_now() -> datetime:
    """The host's clock."""
    return datetime.now(UTC)


class Store:
    """All that a workspace remembers; a context manager that closes its connections.

    Its parts take and return frozen values. Several processes and threads may use one store at
    the same time; an object of this class must not cross a fork.
    """

    def __init__(
        self,
        database: Database,
        blobs_folder: Path,
        now: Callable[[], datetime] = utc_now,
        actor: str | None = None,
    ) -> None:
        self._database = database
        self.now = now
        self.audit = Audit(database, now, current_actor() if actor is None else actor)
        self.blobs = Blobs(database, blobs_folder, now)
        self.devices = Devices(database, now, self.audit)
        self.jobs = Jobs(database, now, self.audit)
        self.measurements = Measurements(database)
        self.probes = Probes(database)
        self.queue_view = QueueView(database, now)
        self.meters = Meters(database)
        self.candidates = Candidates(database, now)
        self.studies = Studies(database, now)
        self.cost_models = CostModels(database, now)
        self.bundles = Bundles(database, now, self.audit)

    @classmethod
    def open(
        cls,
        place: str | Path,
        *,
        blobs_folder: Path,
        now: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Open the SQLite file at a path, or the database at a SQLAlchemy URL.

        Makes or updates the schema first. Raises StoreUrlError where the URL cannot be used and
        StoreError where the database cannot.
        """
        database = Database(place)
        try:
            upgrade(database)
        except BaseException:
            database.close()
            raise
        return cls(database, blobs_folder, now)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
