"""Rows to the frozen values that the rest of the host knows, and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, cast

from host.device import Device, DeviceFacts, PowerSource, Runtime
from host.job import Job, JobState
from host.measurement import FailureKind, Measurement, MeasurementFailure, MeasureSpec, Power
from host.store.tables import DeviceRow, FailureRow, JobRow, MeasurementRow

_AS_THEY_ARE = tuple(
    field.name
    for field in fields(Measurement)
    if field.name not in {"latency_samples_seconds", "power", "runtime_options"}
)


def facts_to_json(facts: DeviceFacts) -> dict[str, Any]:
    """The facts as plain JSON values."""
    return asdict(facts)


def facts_from_json(values: Mapping[str, Any]) -> DeviceFacts:
    """The facts that `facts_to_json` wrote."""
    nested = {
        "cpu_flags": tuple(values["cpu_flags"]),
        "runtimes": tuple(Runtime(**runtime) for runtime in values["runtimes"]),
        "power_sources": tuple(PowerSource(**source) for source in values["power_sources"]),
    }
    return DeviceFacts(**{**values, **nested})


def device_from_row(row: DeviceRow) -> Device:
    """The device of that row."""
    return Device(
        id=row.id,
        name=row.name,
        spki_sha256=row.spki_sha256,
        enrolled_at=row.enrolled_at,
        last_seen_at=row.last_seen_at,
        agent_version=row.agent_version,
        facts=None if row.facts is None else facts_from_json(row.facts),
    )


def job_from_row(row: JobRow) -> Job:
    """The job of that row."""
    return Job(
        id=row.id,
        key=row.key,
        device_id=row.device_id,
        spec=MeasureSpec(**row.spec),
        state=cast("JobState", row.state),
        attempt=row.attempt,
        study_id=row.study_id,
        purpose=row.purpose,
        created_at=row.created_at,
    )


def measurement_to_row(
    job_id: str, idempotency_key: str, measurement: Measurement
) -> MeasurementRow:
    """The row to keep of a measurement."""
    return MeasurementRow(
        job_id=job_id,
        idempotency_key=idempotency_key,
        latency_samples_seconds=list(measurement.latency_samples_seconds),
        power=None if measurement.power is None else asdict(measurement.power),
        runtime_options=list(measurement.runtime_options),
        **{name: getattr(measurement, name) for name in _AS_THEY_ARE},
    )


def measurement_from_row(row: MeasurementRow) -> Measurement:
    """The measurement of that row."""
    return Measurement(
        latency_samples_seconds=tuple(row.latency_samples_seconds),
        power=None if row.power is None else Power(**row.power),
        runtime_options=tuple(row.runtime_options),
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
    )


def failure_to_row(
    job_id: str, idempotency_key: str | None, failure: MeasurementFailure
) -> FailureRow:
    """The row to keep of a failure; no idempotency key means that the host found out."""
    return FailureRow(job_id=job_id, idempotency_key=idempotency_key, **asdict(failure))


def failure_from_row(row: FailureRow) -> MeasurementFailure:
    """The failure of that row."""
    return MeasurementFailure(
        device_id=row.device_id,
        model_sha256=row.model_sha256,
        kind=cast("FailureKind", row.kind),
        message=row.message,
        failed_at=row.failed_at,
    )
