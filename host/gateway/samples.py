"""What a device measured, from its message to plain values; every number is checked."""

from datetime import datetime

from host.gateway.checks import (
    MessageError,
    amount,
    as_many,
    at_most,
    count,
    duration,
    each,
    finite,
    not_falling,
    one_of,
    optional,
    optional_text,
    positive,
    seconds_of_ticks,
    text,
    texts,
)
from host.job import Job
from host.measurement import (
    Block,
    EnergyRun,
    Measurement,
    MeasureSpec,
    Memory,
    ModelRun,
    Phase,
    PowerSeries,
    Preflight,
    ProcessRun,
    Thermal,
    Verdict,
)
from host.measurement.samples import NumberKind, PhaseKind, Scope
from protos import genba_agent_pb2 as pb

MAX_PROCESSES = 64
MAX_BLOCKS = 5_000
MAX_SAMPLES = 500_000
MAX_REFERENCES = 1000  # of one block
MAX_CPUS = 4096
MAX_PHASES = 1000
MAX_SERIES = 32
MAX_READINGS = 200_000


def require_runtime(told: str, asked: ModelRun) -> None:
    """See that the runtime is the one that was asked for. Raises MessageError."""
    if told != asked.runtime:
        raise MessageError(
            f"the report is of the runtime {text(told)!r}, but {asked.runtime!r} was asked"
        )


def require_threads(told: int, asked: ModelRun) -> None:
    """See that as many threads ran as were asked for. Raises MessageError."""
    if told != asked.threads:
        raise MessageError(f"the report is of {told} threads, but {asked.threads} were asked")


def measurement_from_pb(m: pb.MeasuredSamples, job: Job, received_at: datetime) -> Measurement:
    """The measurement, without energies and verdict. Raises MessageError."""
    spec = job.spec
    if not isinstance(spec, MeasureSpec):
        raise MessageError(f"the report holds a measurement, but the job is to {spec.kind}")
    if m.protocol != spec.protocol:
        raise MessageError(
            f"the report is of the protocol {text(m.protocol)!r}, but {spec.protocol!r} was asked"
        )
    require_runtime(m.runtime, spec.run)
    require_threads(m.threads, spec.run)
    if not m.HasField("preflight"):
        raise MessageError("the report holds no preflight")
    at_most("cpus", m.cpus, MAX_CPUS)
    energy = _energy_run(m.energy) if m.HasField("energy") else None
    return Measurement(
        device_id=job.device_id,
        run=spec.run,
        plan=spec.plan,
        protocol=m.protocol,
        runtime_library=text(m.runtime_library),
        runtime_version=text(m.runtime_version),
        runtime_options=texts("runtime_options", m.runtime_options),
        cpus=tuple(m.cpus),
        preflight=preflight_from_pb(m.preflight),
        processes=_processes(m),
        thermal=thermal_from_pb(m.thermal),
        governor=optional_text(m, "governor"),
        load_average_start=amount("load_average_start", m.load_average_start),
        energy_run=energy,
        energies=(),
        energy_absent_because="" if energy is not None else _why_no_energy(m, spec),
        verdict=Verdict("OK"),
        measured_at=received_at,
    )


def preflight_from_pb(p: pb.Preflight) -> Preflight:
    """The device before it was measured. Raises MessageError."""
    return Preflight(
        foreign_cpu=amount("preflight.foreign_cpu", p.foreign_cpu),
        swapped_in_pages=optional(p, "swapped_in_pages", count),
        free_ram_bytes=count("preflight.free_ram_bytes", p.free_ram_bytes),
        temperature_celsius=optional(p, "temperature_celsius", finite),
        throttled=texts("preflight.throttled", p.throttled),
        canary_seconds=duration("preflight.canary_seconds", p.canary_seconds),
        waited_seconds=duration("preflight.waited_seconds", p.waited_seconds),
        problems=texts("preflight.problems", p.problems),
    )


def thermal_from_pb(t: pb.Thermal) -> Thermal:
    """Temperature and throttling over the job. Raises MessageError."""
    return Thermal(
        start_celsius=optional(t, "start_celsius", finite),
        end_celsius=optional(t, "end_celsius", finite),
        max_celsius=optional(t, "max_celsius", finite),
        throttle_events=optional(t, "throttle_events", count),
        cooled_seconds=duration("thermal.cooled_seconds", t.cooled_seconds),
        throttled=texts("thermal.throttled", t.throttled),
    )


def _why_no_energy(m: pb.MeasuredSamples, spec: MeasureSpec) -> str:
    unsaid = "it was not asked for" if spec.plan.energy_windows == 0 else "the agent gave no reason"
    return text(m.energy_absent_because) or unsaid


def _processes(m: pb.MeasuredSamples) -> tuple[ProcessRun, ...]:
    at_most("processes", m.processes, MAX_PROCESSES)
    at_most("blocks", [block for process in m.processes for block in process.blocks], MAX_BLOCKS)
    samples = sum(len(b.latency_ticks) for process in m.processes for b in process.blocks)
    if not 1 <= samples <= MAX_SAMPLES:
        raise MessageError(f"a report must hold 1 to {MAX_SAMPLES} samples, but holds {samples}")
    return tuple(_process(process) for process in m.processes)


def _process(p: pb.ProcessRun) -> ProcessRun:
    if p.runs_per_sample < 1:
        raise MessageError("runs_per_sample must be at least 1")
    return ProcessRun(
        memory=_memory(p.memory),
        load_seconds=duration("load_seconds", p.load_seconds),
        first_inference_seconds=duration("first_inference_seconds", p.first_inference_seconds),
        warmup_runs=p.warmup_runs,
        steady=p.steady,
        runs_per_sample=p.runs_per_sample,
        call_overhead_seconds=duration("call_overhead_seconds", p.call_overhead_seconds),
        blocks=tuple(_block(block, p.runs_per_sample) for block in p.blocks),
    )


def _memory(m: pb.Memory) -> Memory:
    return Memory(
        base_rss_bytes=count("base_rss_bytes", m.base_rss_bytes),
        load_rss_bytes=count("load_rss_bytes", m.load_rss_bytes),
        peak_rss_bytes=count("peak_rss_bytes", m.peak_rss_bytes),
        uss_bytes=optional(m, "uss_bytes", count),
        pss_bytes=optional(m, "pss_bytes", count),
        base_uss_bytes=optional(m, "base_uss_bytes", count),
    )


def _block(b: pb.Block, runs_per_sample: int) -> Block:
    latency, reference = b.latency_ticks, b.reference_ticks
    at_most("reference_ticks", reference, MAX_REFERENCES)
    # Of a block without samples nothing is unknown.
    delay_known = bool(b.run_delay_ticks) or not latency
    for name, ticks, others in (
        ("cpu_ticks", b.cpu_ticks, latency),
        ("run_delay_ticks", b.run_delay_ticks, latency),
        ("reference_cpu_ticks", b.reference_cpu_ticks, reference),
    ):
        if ticks:
            as_many(name, ticks, "the list beside it", others)
    delays = seconds_of_ticks("run_delay_ticks", b.run_delay_ticks, least=0)
    return Block(
        started_monotonic_seconds=amount("started_monotonic_seconds", b.started_monotonic_seconds),
        lasted_seconds=duration("lasted_seconds", b.lasted_seconds),
        canary_seconds=duration("canary_seconds", b.canary_seconds),
        reference_seconds=seconds_of_ticks("reference_ticks", reference, least=1),
        reference_cpu_seconds=seconds_of_ticks(
            "reference_cpu_ticks", b.reference_cpu_ticks, least=0
        ),
        latency_seconds=seconds_of_ticks("latency_ticks", latency, least=1, runs=runs_per_sample),
        cpu_seconds=seconds_of_ticks("cpu_ticks", b.cpu_ticks, least=0, runs=runs_per_sample),
        run_delay_seconds=delays if delay_known else None,
        involuntary_switches=optional(b, "involuntary_switches", count),
        steal_seconds=optional(b, "steal_seconds", duration),
    )


def phases_from_pb(e: pb.EnergyRun) -> tuple[Phase, ...]:
    """The phases of an energy run, in order. Raises MessageError."""
    at_most("phases", e.phases, MAX_PHASES)
    phases = tuple(_phase(phase) for phase in e.phases)
    not_falling("phases", [phase.started_monotonic_seconds for phase in phases])
    return phases


def _energy_run(e: pb.EnergyRun) -> EnergyRun:
    at_most("series", e.series, MAX_SERIES)
    return EnergyRun(
        phases=phases_from_pb(e),
        series=tuple(_series(series) for series in e.series),
        temperature_start_celsius=optional(e, "temperature_start_celsius", finite),
        temperature_end_celsius=optional(e, "temperature_end_celsius", finite),
        cpu_utilisation=amount("cpu_utilisation", e.cpu_utilisation),
    )


def _phase(p: pb.Phase) -> Phase:
    known = p.kind in pb.Phase.Kind.values()
    name = pb.Phase.Kind.Name(p.kind).removeprefix("KIND_").lower() if known else ""
    started = amount("phase.started_monotonic_seconds", p.started_monotonic_seconds)
    ended = finite("phase.ended_monotonic_seconds", p.ended_monotonic_seconds)
    duration("the length of a phase", ended - started)
    return Phase(one_of("phase.kind", name, PhaseKind), started, ended, p.inferences)


def _series(s: pb.PowerSeries) -> PowerSeries:
    at_most("series.monotonic_seconds", s.monotonic_seconds, MAX_READINGS)
    if s.energy_joules and s.power_watts:
        raise MessageError("a series must hold joules or watts, not both")
    as_many(
        "series.monotonic_seconds",
        s.monotonic_seconds,
        "the list of its values",
        s.energy_joules or s.power_watts,
    )
    times = each("series.monotonic_seconds", s.monotonic_seconds, amount)
    not_falling("series.monotonic_seconds", times)
    return PowerSeries(
        source=text(s.source),
        scope=one_of("series.scope", s.scope, Scope),
        kind=one_of("series.kind", s.kind, NumberKind),
        max_watts=positive("series.max_watts", s.max_watts),
        monotonic_seconds=times,
        energy_joules=each("series.energy_joules", s.energy_joules, finite),
        power_watts=each("series.power_watts", s.power_watts, finite),
        broken_because=text(s.broken_because),
    )
