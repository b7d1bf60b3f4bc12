"""What devices measured, with every raw sample, and how they compare with themselves."""

import builtins
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Select, and_, select

from host.errors import UsageError
from host.measurement import PROTOCOL, Measurement, ProbeResult, is_disturbed
from host.measurement.judge import Baseline
from host.store.codec import unpack
from host.store.database import Database
from host.store.records import measurement_from_row
from host.store.tables import JobRow, LeaseRow, MeasurementRow, ResultRow

OLDEST_CONSIDERED = 10  # of the measurements that may tell how fast a device was


class UnknownMeasurementError(UsageError):
    """There is no measurement of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"there is no measurement {number} in this workspace: `genba measurements list` shows"
            " those that there are"
        )
        self.number = number


@dataclass(frozen=True)
class StoredMeasurement:
    """A measurement under the number that people call it by; `label` is that of its job."""

    number: int
    label: str
    measurement: Measurement


@dataclass(frozen=True)
class AskedMeasurement:
    """A measurement with the purpose of its job, and the session of the agent that made it."""

    purpose: str
    session_id: str | None
    latency_seconds: float
    measurement: Measurement


class Measurements:
    """The measurements of a workspace; they are written by `Jobs.report` only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self, device_id: str | None = None, model_sha256: str | None = None, limit: int = 100
    ) -> builtins.list[StoredMeasurement]:
        """The newest measurements, or those of a device or of a model, newest first."""
        chosen = _chosen(device_id, model_sha256)
        statement = chosen.order_by(MeasurementRow.id.desc()).limit(limit)
        with self._database.read() as session:
            return [_stored(row, label) for row, label in session.execute(statement)]

    def get(self, number: int) -> StoredMeasurement:
        """The measurement of that number. Raises UnknownMeasurementError."""
        statement = _chosen().where(MeasurementRow.id == number)
        with self._database.read() as session:
            found = session.execute(statement).one_or_none()
            if found is None:
                raise UnknownMeasurementError(number)
            return _stored(*found)

    def number_of(self, job_id: str) -> int | None:
        """The number of the measurement that a job made, if it made one."""
        with self._database.read() as session:
            return session.scalar(select(MeasurementRow.id).where(MeasurementRow.job_id == job_id))

    def of_device(
        self, device_id: str, model_sha256: str | None = None
    ) -> builtins.list[Measurement]:
        """The measurements of a device, or of one model on it, oldest first."""
        statement = _chosen(device_id, model_sha256).order_by(MeasurementRow.id)
        with self._database.read() as session:
            return [measurement_from_row(row) for row, _ in session.execute(statement)]

    def asked_for(self, device_id: str, purpose_starts: str) -> builtins.list[AskedMeasurement]:
        """What a device measured for purposes that start so, oldest first.

        The latency is a column of its own: to compute it again from the samples takes longer.
        """
        statement = (
            select(MeasurementRow, JobRow.purpose, LeaseRow.session_id)
            .join(JobRow, JobRow.id == MeasurementRow.job_id)
            .outerjoin(
                LeaseRow, and_(LeaseRow.job_id == JobRow.id, LeaseRow.attempt == JobRow.attempt)
            )
            .where(
                MeasurementRow.device_id == device_id,
                JobRow.purpose.startswith(purpose_starts, autoescape=True),
            )
            .order_by(MeasurementRow.id)
        )
        with self._database.read() as session:
            return [
                AskedMeasurement(purpose, by, row.latency_seconds, measurement_from_row(row))
                for row, purpose, by in session.execute(statement)
            ]

    def with_measured_energy(
        self, device_ids: Iterable[str], limit: int = 12
    ) -> builtins.list[Measurement]:
        """The newest measurements of these devices whose energy a sensor measured."""
        statement = (
            select(MeasurementRow)
            .where(
                MeasurementRow.device_id.in_(tuple(device_ids)),
                MeasurementRow.energy_kind == "measured",
            )
            .order_by(MeasurementRow.id.desc())
            .limit(limit)
        )
        with self._database.read() as session:
            return [measurement_from_row(row) for row in session.scalars(statement)]

    def baseline(self, device_id: str, runtime: str, library: str, version: str) -> Baseline | None:
        """How fast the reference model of that runtime ran when the device was last probed in
        peace.

        Of a device that never was with it: at the first measurement that nothing disturbed.
        """
        return self._probed(device_id, (runtime, library, version)) or self._measured(
            device_id, (runtime, library, version)
        )

    def _probed(self, device_id: str, runtime: tuple[str, str, str]) -> Baseline | None:
        statement = (
            select(ResultRow)
            .where(ResultRow.device_id == device_id, ResultRow.kind == "probe")
            .order_by(ResultRow.id.desc())
        )
        with self._database.read() as session:
            for row in session.scalars(statement):
                found = _baseline_of_probe(unpack(ProbeResult, row.content), runtime)
                if found is not None:
                    return found
        return None

    def _measured(self, device_id: str, runtime: tuple[str, str, str]) -> Baseline | None:
        name, library, version = runtime
        statement = (
            select(MeasurementRow)
            .where(
                MeasurementRow.device_id == device_id,
                MeasurementRow.protocol == PROTOCOL,
                MeasurementRow.runtime == name,
                MeasurementRow.runtime_library == library,
                MeasurementRow.runtime_version == version,
                MeasurementRow.verdict != "REJECT",
                MeasurementRow.latency_kind == "measured",
            )
            .order_by(MeasurementRow.id)
            .limit(OLDEST_CONSIDERED)
        )
        with self._database.read() as session:
            for row in session.scalars(statement):
                found = _baseline_of_measurement(measurement_from_row(row))
                if found is not None:
                    return found
        return None


def _chosen(
    device_id: str | None = None, model_sha256: str | None = None
) -> Select[MeasurementRow, str]:
    statement = select(MeasurementRow, JobRow.label).join(
        JobRow, JobRow.id == MeasurementRow.job_id
    )
    if device_id is not None:
        statement = statement.where(MeasurementRow.device_id == device_id)
    if model_sha256 is not None:
        statement = statement.where(MeasurementRow.model_sha256 == model_sha256)
    return statement


def _stored(row: MeasurementRow, label: str) -> StoredMeasurement:
    return StoredMeasurement(row.id, label, measurement_from_row(row))


def _baseline_of_probe(probe: ProbeResult, runtime: tuple[str, str, str]) -> Baseline | None:
    if is_disturbed(probe):
        return None
    for run in probe.references:
        told = (run.runtime, run.runtime_library, run.runtime_version)
        if told == runtime and run.latency_seconds and run.cpu_seconds:
            return Baseline(
                reference_seconds=statistics.median(run.latency_seconds),
                reference_cpu_seconds=statistics.median(run.cpu_seconds),
                canary_seconds=statistics.median(run.canary_seconds)
                if run.canary_seconds
                else None,
                since=probe.probed_at,
            )
    return None


def _baseline_of_measurement(measurement: Measurement) -> Baseline | None:
    latency = measurement.latency
    if latency.contended or {"BUSY", "CONTENDED", "THROTTLED"} & set(measurement.verdict.codes):
        return None
    if latency.reference_seconds is None or latency.reference_cpu_seconds is None:
        return None
    return Baseline(
        reference_seconds=latency.reference_seconds,
        reference_cpu_seconds=latency.reference_cpu_seconds,
        canary_seconds=latency.canary_seconds,
        since=measurement.measured_at,
    )
