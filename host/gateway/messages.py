"""Messages to plain values and back. What a device sends is checked here, and nowhere trusted."""

import math
from dataclasses import fields
from datetime import datetime
from typing import Literal, cast, get_args

from host.device import DeviceFacts, PowerSource, Runtime
from host.errors import GenbaError
from host.job import Job, Lease
from host.measurement import (
    FailureKind,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    Outcome,
    Power,
)
from protos import genba_agent_pb2 as pb

TEXT_MAX_CHARACTERS = 4000
PowerKind = Literal["measured", "derived", "estimated"]


class MessageError(GenbaError):
    """A device sent something that makes no sense."""


def text(value: str) -> str:
    """The text, safe to print: without control characters, and not too long."""
    kept = value[:TEXT_MAX_CHARACTERS]
    return "".join(c if c.isprintable() or c == "\n" else " " for c in kept).strip()


def session_id(value: str) -> str:
    """The id of a session of an agent. Raises MessageError."""
    if not 1 <= len(value) <= 64 or not value.isprintable():
        raise MessageError("session_id must have 1 to 64 printable characters")
    return value


def facts_from_pb(message: pb.DeviceFacts) -> DeviceFacts:
    """What the device says that it is. Raises MessageError."""
    m = message
    return DeviceFacts(
        hostname=text(m.hostname),
        machine=text(m.machine),
        pointer_bits=m.pointer_bits,
        cpu_model=text(m.cpu_model),
        cpu_flags=tuple(text(flag) for flag in m.cpu_flags),
        cpu_cores_physical=m.cpu_cores_physical if m.HasField("cpu_cores_physical") else None,
        cpu_cores_logical=m.cpu_cores_logical,
        ram_bytes=m.ram_bytes,
        os_name=text(m.os_name),
        kernel=text(m.kernel),
        python_version=text(m.python_version),
        governor=text(m.governor) if m.HasField("governor") else None,
        temperature_celsius=(
            _finite("temperature_celsius", m.temperature_celsius)
            if m.HasField("temperature_celsius")
            else None
        ),
        cpu_max_hertz=(
            _finite("cpu_max_hertz", m.cpu_max_hertz, least=0.0)
            if m.HasField("cpu_max_hertz")
            else None
        ),
        runtimes=tuple(
            Runtime(text(r.name), text(r.library), text(r.version), r.works, text(r.why_not))
            for r in m.runtimes
        ),
        power_sources=tuple(
            PowerSource(text(p.name), p.works, text(p.why_not)) for p in m.power_sources
        ),
    )


def lease_to_pb(lease: Lease) -> pb.Lease:
    """The lease as an agent gets it."""
    spec = lease.job.spec
    return pb.Lease(
        lease_id=lease.lease_id,
        job_id=lease.job.id,
        attempt=lease.attempt,
        lease_seconds=lease.lease_seconds,
        spec=pb.MeasureSpec(**{f.name: getattr(spec, f.name) for f in fields(MeasureSpec)}),
    )


def outcome_from_pb(request: pb.ReportRequest, job: Job, received_at: datetime) -> Outcome:
    """What became of the job; the host stamps the time. Raises MessageError."""
    which = request.WhichOneof("outcome")
    if which == "measured":
        return _measurement_from_pb(request.measured, job, received_at)
    if which == "failure":
        return _failure_from_pb(request.failure, job, received_at)
    raise MessageError("the report holds neither a measurement nor a failure")


def _measurement_from_pb(m: pb.MeasuredSamples, job: Job, received_at: datetime) -> Measurement:
    asked, told = (job.spec.protocol, job.spec.runtime), (m.protocol, m.runtime)
    if asked != told:
        raise MessageError(f"the report is of protocol and runtime {told}, but {asked} was asked")
    if not m.latency_seconds:
        raise MessageError("the report holds no latency sample")
    if m.runs_per_sample < 1:
        raise MessageError("runs_per_sample must be at least 1")
    return Measurement(
        device_id=job.device_id,
        model_sha256=job.spec.model_sha256,
        protocol=m.protocol,
        runtime=m.runtime,
        runtime_library=text(m.runtime_library),
        runtime_version=text(m.runtime_version),
        threads=m.threads,
        latency_samples_seconds=tuple(_positive("latency_seconds", s) for s in m.latency_seconds),
        runs_per_sample=m.runs_per_sample,
        warmup_runs=m.warmup_runs,
        load_seconds=_finite("load_seconds", m.load_seconds, least=0.0),
        first_inference_seconds=_finite(
            "first_inference_seconds", m.first_inference_seconds, least=0.0
        ),
        base_rss_bytes=m.base_rss_bytes,
        load_rss_bytes=m.load_rss_bytes,
        peak_rss_bytes=m.peak_rss_bytes,
        power=_power_from_pb(m.power) if m.HasField("power") else None,
        power_absent_because=text(m.power_absent_because),
        temperature_start_celsius=(
            _finite("temperature_start_celsius", m.temperature_start_celsius)
            if m.HasField("temperature_start_celsius")
            else None
        ),
        temperature_end_celsius=(
            _finite("temperature_end_celsius", m.temperature_end_celsius)
            if m.HasField("temperature_end_celsius")
            else None
        ),
        governor=text(m.governor) if m.HasField("governor") else None,
        load_average_start=_finite("load_average_start", m.load_average_start, least=0.0),
        runtime_options=tuple(text(option) for option in m.runtime_options),
        cpu_seconds=(
            _finite("cpu_seconds", m.cpu_seconds, least=0.0) if m.HasField("cpu_seconds") else None
        ),
        measured_at=received_at,
    )


def _power_from_pb(p: pb.PowerReading) -> Power:
    if p.kind not in get_args(PowerKind):
        raise MessageError(f"power.kind must be one of {', '.join(get_args(PowerKind))}")
    if p.inferences < 1:
        raise MessageError("power.inferences must be at least 1")
    return Power(
        source=text(p.source),
        scope=text(p.scope),
        kind=cast("PowerKind", p.kind),
        energy_joules=_finite("power.energy_joules", p.energy_joules, least=0.0),
        window_seconds=_positive("power.window_seconds", p.window_seconds),
        inferences=p.inferences,
        idle_watts=(
            _finite("power.idle_watts", p.idle_watts, least=0.0)
            if p.HasField("idle_watts")
            else None
        ),
    )


def _failure_from_pb(f: pb.Failure, job: Job, received_at: datetime) -> MeasurementFailure:
    known = f.kind in pb.Failure.Kind.values()
    kind = pb.Failure.Kind.Name(f.kind).removeprefix("KIND_").lower() if known else ""
    if kind not in get_args(FailureKind):
        raise MessageError(f"the report holds a failure of the unknown kind {f.kind}")
    return MeasurementFailure(
        device_id=job.device_id,
        model_sha256=job.spec.model_sha256,
        kind=cast("FailureKind", kind),
        message=text(f.message) or "the agent gave no reason",
        failed_at=received_at,
    )


def _finite(name: str, value: float, least: float = -math.inf) -> float:
    if not math.isfinite(value) or value < least:
        raise MessageError(f"{name} must be a finite number of {least} or more, but is {value}")
    return value


def _positive(name: str, value: float) -> float:
    if not math.isfinite(value) or value <= 0:
        raise MessageError(f"{name} must be a finite number above 0, but is {value}")
    return value
