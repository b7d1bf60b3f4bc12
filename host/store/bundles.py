"""Bundles that studies wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from host.store.audit import Audit
from host.store.database import Database, insert_absent, retried
from host.store.tables import BundleRow, StudyRow


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

    def __init__(self, database: Database, now: Callable[[], datetime], audit: Audit) -> None:
        self._database = database
        self._now = now
        self._audit = audit

    @retried
    def add(self, study_id: int, path: str | Path, manifest_sha256: str) -> int:
        """Note a bundle, or its new content where that path is known; returns its id."""
        now = self._now()
        new = {
            "study_id": study_id,
            "path": str(path),
            "manifest_sha256": manifest_sha256,
            "created_at": now,
        }
        with self._database.write() as session:
            insert_absent(session, BundleRow, [new])
            row = session.scalars(
                select(BundleRow)
                .where(BundleRow.study_id == study_id, BundleRow.path == str(path))
                .with_for_update()
            ).one()
            row.manifest_sha256, row.created_at = manifest_sha256, now
            session.flush()
            study = session.scalars(select(StudyRow.name).where(StudyRow.id == study_id)).one()
            details = {"path": str(path), "manifest_sha256": manifest_sha256}
            self._audit.note_in(session, "export", study, details)
            return row.id

    def of_study(self, study_id: int) -> list[StoredBundle]:
        """The bundles of a study, oldest first."""
        statement = select(BundleRow).where(BundleRow.study_id == study_id).order_by(BundleRow.id)
        with self._database.read() as session:
            return [
                StoredBundle(row.id, row.study_id, row.path, row.manifest_sha256, row.created_at)
                for row in session.scalars(statement)
            ]
