"""Bundles that studies wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from host.store.database import Database
from host.store.tables import BundleRow


@dataclass(frozen=True)
class StoredBundle:
    """Where a bundle lies, and the SHA-256 of its manifest."""

    id: int
    study_id: int
    path: str
    manifest_sha256: str
    created_at: datetime


class Bundles:
    """The bundles of a workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def add(self, study_id: int, path: str | Path, manifest_sha256: str) -> int:
        """Note a bundle, or its new content where that path is known; returns its id."""
        with self._database.write() as session:
            row = session.scalars(
                select(BundleRow)
                .where(BundleRow.study_id == study_id, BundleRow.path == str(path))
                .with_for_update()
            ).one_or_none()
            if row is None:
                row = BundleRow(study_id=study_id, path=str(path))
                session.add(row)
            row.manifest_sha256, row.created_at = manifest_sha256, self._now()
            session.flush()
            return row.id

    def of_study(self, study_id: int) -> list[StoredBundle]:
        """The bundles of a study, oldest first."""
        statement = select(BundleRow).where(BundleRow.study_id == study_id).order_by(BundleRow.id)
        with self._database.read() as session:
            return [
                StoredBundle(row.id, row.study_id, row.path, row.manifest_sha256, row.created_at)
                for row in session.scalars(statement)
            ]
