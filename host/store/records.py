"""Rows to the frozen values that the rest of the host knows, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from host.device import Device, DeviceFacts, Guard, MeterBinding, PowerSource, Runtime
from host.job import Job, JobState
from host.measurement import (
    FailureKind,
    Measurement,
    MeasurementFailure,
    ProbeResult,
    Profile,
    VerifiedOutputs,
)
from host.store.codec import StoredValueError, pack, spec_from_plain, unpack
from host.store.tables import (
    DeviceRow,
    FailureRow,
    JobRow,
    MeasurementRow,
    MeterRow,
    ResultRow,
)

Result = VerifiedOutputs | Profile | ProbeResult
_RESULTS: dict[str, type[Result]] = {
    "verify": VerifiedOutputs,
    "profile": Profile,
    "probe": ProbeResult,
}


def facts_to_json(facts: DeviceFacts) -> dict[str, Any]:
    """The facts as plain JSON values."""
    return asdict(facts)


def facts_from_json(values: Mapping[str, Any]) -> DeviceFacts:
    """The facts that `facts_to_json` wrote."""
    nested = {
        "cpu_flags": tuple(values["cpu_flags"]),
        "runtimes": tuple(Runtime(**runtime) for runtime in values["runtimes"]),
        "power_sources": tuple(PowerSource(**source) for source in values["power_sources"]),
        # Facts that an older program kept have none.
        "guards": tuple(Guard(**guard) for guard in values.get("guards", ())),
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
        revoked_at=row.revoked_at,
    )


def job_from_row(row: JobRow) -> Job:
    """The job of that row. Raises StoredValueError."""
    return Job(
        id=row.id,
        key=row.key,
        device_id=row.device_id,
        spec=spec_from_plain(row.kind, row.spec),
        state=cast("JobState", row.state),
        attempt=row.attempt,
        study_id=row.study_id,
        purpose=row.purpose,
        created_at=row.created_at,
        label=row.label,
    )


def measurement_values(
    job_id: str, idempotency_key: str, measurement: Measurement
) -> dict[str, Any]:
    """The columns of MeasurementRow for a measurement."""
    return {
        "job_id": job_id,
        "idempotency_key": idempotency_key,
        "device_id": measurement.device_id,
        "model_sha256": measurement.model_sha256,
        "protocol": measurement.protocol,
        "runtime": measurement.runtime,
        "runtime_library": measurement.runtime_library,
        "runtime_version": measurement.runtime_version,
        "threads": measurement.threads,
        "latency_seconds": measurement.latency_seconds,
        "latency_kind": measurement.latency_kind,
        "verdict": measurement.verdict.level,
        "energy_kind": None if measurement.energy is None else measurement.energy.kind,
        "peak_rss_bytes": measurement.peak_rss_bytes,
        "measured_at": measurement.measured_at,
        "content": pack(measurement),
    }


def measurement_from_row(row: MeasurementRow) -> Measurement:
    """The measurement of that row. Raises StoredValueError."""
    return unpack(Measurement, row.content)


def result_values(
    job_id: str, idempotency_key: str, result: Result, reported_at: datetime
) -> dict[str, Any]:
    """The columns of ResultRow for any other result."""
    return {
        "job_id": job_id,
        "idempotency_key": idempotency_key,
        "device_id": result.device_id,
        "kind": next(kind for kind, cls in _RESULTS.items() if isinstance(result, cls)),
        "reported_at": reported_at,
        "content": pack(result),
    }


def result_from_row(row: ResultRow) -> Result:
    """The result of that row. Raises StoredValueError."""
    cls = _RESULTS.get(row.kind)
    if cls is None:
        raise StoredValueError(f"the store holds a result of the unknown kind {row.kind!r}")
    return unpack(cls, row.content)


def failure_values(
    job_id: str, idempotency_key: str | None, failure: MeasurementFailure
) -> dict[str, Any]:
    """The columns of FailureRow for a failure; no idempotency key: the host found out."""
    return {"job_id": job_id, "idempotency_key": idempotency_key, **asdict(failure)}


def failure_from_row(row: FailureRow) -> MeasurementFailure:
    """The failure of that row."""
    return MeasurementFailure(
        device_id=row.device_id,
        model_sha256=row.model_sha256,
        kind=cast("FailureKind", row.kind),
        message=row.message,
        failed_at=row.failed_at,
    )


def meter_from_row(row: MeterRow) -> MeterBinding:
    """The meter of that row."""
    return MeterBinding(row.url, dict(row.options))
