"""Messages to plain values and back. What a device sends is checked here, and nowhere trusted."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from host.device import DeviceFacts, Guard, PowerSource, Runtime
from host.gateway.checks import (
    MessageError,
    amount,
    as_many,
    at_most,
    count,
    duration,
    each,
    finite,
    one_of,
    optional,
    optional_text,
    positive,
    sha256,
    text,
    texts,
)
from host.gateway.samples import (
    measurement_from_pb,
    preflight_from_pb,
    require_runtime,
    require_threads,
    thermal_from_pb,
)
from host.job import Job, Lease
from host.measurement import (
    FailureKind,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    OperatorTime,
    Outcome,
    Plan,
    ProbeResult,
    ProbeSpec,
    Profile,
    ProfileSpec,
    Readiness,
    ReferenceRun,
    VerifiedOutputs,
    VerifySpec,
    blobs_of,
)
from protos import genba_agent_pb2 as pb

MAX_OPERATORS = 20_000
MAX_REFERENCES = 100
MAX_REFERENCE_SAMPLES = 10_000
_TASK_OF_OUTCOME = {
    "measured": "measure",
    "verified": "verify",
    "profile": "profile",
    "probe": "probe",
}


def facts_from_pb(message: pb.DeviceFacts) -> DeviceFacts:
    """What the device says that it is. Raises MessageError."""
    m = message
    return DeviceFacts(
        hostname=text(m.hostname),
        machine=text(m.machine),
        pointer_bits=m.pointer_bits,
        cpu_model=text(m.cpu_model),
        cpu_flags=texts("cpu_flags", m.cpu_flags),
        cpu_cores_physical=optional(m, "cpu_cores_physical", count),
        cpu_cores_logical=m.cpu_cores_logical,
        ram_bytes=m.ram_bytes,
        os_name=text(m.os_name),
        kernel=text(m.kernel),
        python_version=text(m.python_version),
        governor=optional_text(m, "governor"),
        temperature_celsius=optional(m, "temperature_celsius", finite),
        cpu_max_hertz=optional(m, "cpu_max_hertz", amount),
        runtimes=tuple(
            Runtime(text(r.name), text(r.library), text(r.version), r.works, text(r.why_not))
            for r in m.runtimes
        ),
        power_sources=tuple(
            PowerSource(text(p.name), p.works, text(p.why_not)) for p in m.power_sources
        ),
        guards=tuple(Guard(text(g.name), g.works, text(g.how), text(g.why_not)) for g in m.guards),
        emulated=m.emulated if m.HasField("emulated") else None,
    )


def lease_to_pb(lease: Lease) -> pb.Lease:
    """The lease as an agent gets it."""
    spec = lease.job.spec
    message = pb.Lease(
        lease_id=lease.lease_id,
        device_id=lease.job.device_id,
        job_id=lease.job.id,
        attempt=lease.attempt,
        lease_seconds=lease.lease_seconds,
    )
    if isinstance(spec, MeasureSpec):
        message.measure.CopyFrom(_measure_to_pb(spec))
    elif isinstance(spec, VerifySpec):
        message.verify.CopyFrom(_verify_to_pb(spec))
    elif isinstance(spec, ProfileSpec):
        message.profile.CopyFrom(_profile_to_pb(spec))
    else:
        message.probe.CopyFrom(_probe_to_pb(spec))
    return message


def outcome_from_pb(request: pb.ReportRequest, job: Job, received_at: datetime) -> Outcome:
    """What became of the job; the host stamps the time.

    A measurement has neither its energies nor its verdict yet. Raises MessageError.
    """
    which = request.WhichOneof("outcome")
    if which is None:
        raise MessageError("the report holds neither a result nor a failure")
    if which == "failure":
        return _failure_from_pb(request.failure, job, received_at)
    if _TASK_OF_OUTCOME[which] != job.spec.kind:
        raise MessageError(f"the report holds {which}, but the job is to {job.spec.kind}")
    return _READERS[which](getattr(request, which), job, received_at)


def _measure_to_pb(spec: MeasureSpec) -> pb.MeasureSpec:
    return pb.MeasureSpec(
        protocol=spec.protocol,
        run=_run_to_pb(spec.run),
        readiness=_readiness_to_pb(spec.readiness),
        plan=_plan_to_pb(spec.plan),
        timeout_seconds=spec.timeout_seconds,
    )


def _verify_to_pb(spec: VerifySpec) -> pb.VerifySpec:
    return pb.VerifySpec(
        protocol=spec.protocol,
        run=_run_to_pb(spec.run),
        inputs_sha256=spec.inputs_sha256,
        inputs_size_bytes=spec.inputs_size_bytes,
        max_output_bytes=spec.max_output_bytes,
        timeout_seconds=spec.timeout_seconds,
    )


def _profile_to_pb(spec: ProfileSpec) -> pb.ProfileSpec:
    return pb.ProfileSpec(
        protocol=spec.protocol,
        run=_run_to_pb(spec.run),
        runs=spec.runs,
        timeout_seconds=spec.timeout_seconds,
    )


def _probe_to_pb(spec: ProbeSpec) -> pb.ProbeSpec:
    return pb.ProbeSpec(
        protocol=spec.protocol,
        readiness=_readiness_to_pb(spec.readiness),
        timeout_seconds=spec.timeout_seconds,
    )


def _run_to_pb(run: ModelRun) -> pb.ModelRun:
    return pb.ModelRun(
        model_sha256=run.model_sha256,
        model_size_bytes=run.model_size_bytes,
        runtime=run.runtime,
        threads=run.threads,
        input_shapes=[pb.InputShape(name=s.name, sizes=s.sizes) for s in run.input_shapes],
        options=run.options,
    )


# A field that is None stays unset.
def _readiness_to_pb(readiness: Readiness) -> pb.Readiness:
    return pb.Readiness(
        observe_seconds=readiness.observe_seconds,
        max_foreign_cpu=readiness.max_foreign_cpu,
        min_free_ram_bytes=readiness.min_free_ram_bytes,
        max_start_celsius=readiness.max_start_celsius,
        wait_seconds=readiness.wait_seconds,
        measure_when_busy=readiness.measure_when_busy,
    )


def _plan_to_pb(plan: Plan) -> pb.Plan:
    return pb.Plan(
        processes=plan.processes,
        warmup_runs=plan.warmup_runs,
        warmup_seconds=plan.warmup_seconds,
        min_blocks=plan.min_blocks,
        block_runs=plan.block_runs,
        block_seconds=plan.block_seconds,
        min_samples=plan.min_samples,
        half_width=plan.half_width,
        budget_seconds=plan.budget_seconds,
        energy_windows=plan.energy_windows,
        energy_window_seconds=plan.energy_window_seconds,
        paced_hertz=plan.paced_hertz,
    )


def _failure_from_pb(f: pb.Failure, job: Job, received_at: datetime) -> MeasurementFailure:
    known = f.kind in pb.Failure.Kind.values()
    name = pb.Failure.Kind.Name(f.kind).removeprefix("KIND_").lower() if known else ""
    return MeasurementFailure(
        device_id=job.device_id,
        model_sha256=next(iter(blobs_of(job.spec)), None),
        kind=one_of("failure.kind", name, FailureKind),
        message=text(f.message) or "the agent gave no reason",
        failed_at=received_at,
    )


def _verified_from_pb(v: pb.VerifiedOutputs, job: Job, received_at: datetime) -> VerifiedOutputs:
    spec = job.spec
    if not isinstance(spec, VerifySpec):
        raise MessageError("the job is not to verify")
    require_runtime(v.runtime, spec.run)
    if v.outputs_size_bytes > spec.max_output_bytes:
        raise MessageError(
            f"the outputs have {v.outputs_size_bytes} bytes, but may have {spec.max_output_bytes}"
        )
    if v.examples < 1:
        raise MessageError("examples must be at least 1")
    return VerifiedOutputs(
        device_id=job.device_id,
        run=spec.run,
        inputs_sha256=spec.inputs_sha256,
        runtime_library=text(v.runtime_library),
        runtime_version=text(v.runtime_version),
        runtime_options=texts("runtime_options", v.runtime_options),
        outputs_sha256=sha256("outputs_sha256", v.outputs_sha256),
        outputs_size_bytes=v.outputs_size_bytes,
        examples=v.examples,
        verified_at=received_at,
    )


def _profile_from_pb(p: pb.Profile, job: Job, received_at: datetime) -> Profile:
    spec = job.spec
    if not isinstance(spec, ProfileSpec):
        raise MessageError("the job is not to profile")
    require_runtime(p.runtime, spec.run)
    require_threads(p.threads, spec.run)
    if p.runs < 1:
        raise MessageError("runs must be at least 1")
    at_most("operators", p.operators, MAX_OPERATORS)
    operators = [
        OperatorTime(text(o.name), text(o.kind), duration("operators.seconds", o.seconds))
        for o in p.operators
    ]
    return Profile(
        device_id=job.device_id,
        run=spec.run,
        runtime_library=text(p.runtime_library),
        runtime_version=text(p.runtime_version),
        runtime_options=texts("runtime_options", p.runtime_options),
        runs=p.runs,
        run_seconds=duration("run_seconds", positive("run_seconds", p.run_seconds)),
        operators=tuple(sorted(operators, key=lambda o: o.seconds, reverse=True)),
        profiled_at=received_at,
    )


def _probe_from_pb(p: pb.ProbeResult, job: Job, received_at: datetime) -> ProbeResult:
    if not p.HasField("preflight"):
        raise MessageError("the probe holds no preflight")
    at_most("references", p.references, MAX_REFERENCES)
    return ProbeResult(
        device_id=job.device_id,
        preflight=preflight_from_pb(p.preflight),
        references=tuple(_reference_from_pb(r) for r in p.references),
        thermal=thermal_from_pb(p.thermal),
        governor=optional_text(p, "governor"),
        probed_at=received_at,
    )


def _reference_from_pb(r: pb.ReferenceRun) -> ReferenceRun:
    at_most("references.latency_seconds", r.latency_seconds, MAX_REFERENCE_SAMPLES)
    at_most("references.canary_seconds", r.canary_seconds, MAX_REFERENCE_SAMPLES)
    as_many("references.cpu_seconds", r.cpu_seconds, "latency_seconds", r.latency_seconds)
    if not r.latency_seconds and not r.failed_because:
        raise MessageError("a reference run holds neither samples nor why there are none")
    return ReferenceRun(
        runtime=text(r.runtime),
        runtime_library=text(r.runtime_library),
        runtime_version=text(r.runtime_version),
        latency_seconds=each("references.latency_seconds", r.latency_seconds, positive),
        cpu_seconds=each("references.cpu_seconds", r.cpu_seconds, amount),
        canary_seconds=each("references.canary_seconds", r.canary_seconds, positive),
        failed_because=text(r.failed_because),
    )


_READERS: dict[str, Callable[[Any, Job, datetime], Outcome]] = {
    "measured": measurement_from_pb,
    "verified": _verified_from_pb,
    "profile": _profile_from_pb,
    "probe": _probe_from_pb,
}
