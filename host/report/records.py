"""Measurements, profiles and probes for programs: SI units, in the names; absent is None."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from host.measurement import (
    Energy,
    Measurement,
    MeasurementFailure,
    Memory,
    ProbeResult,
    Profile,
    Verdict,
)
from host.measurement.compare import Comparison
from host.report.measurement import Named
from host.report.profile import by_kind

Record = dict[str, Any]

CSV_COLUMNS = (
    "number",
    "model",
    "device",
    "model_sha256",
    "model_size_bytes",
    "protocol",
    "runtime",
    "runtime_library",
    "runtime_version",
    "runtime_options",
    "threads",
    "cpus",
    "governor",
    "verdict",
    "verdict_codes",
    "latency_seconds",
    "latency_low_seconds",
    "latency_high_seconds",
    "latency_kind",
    "sample_count",
    "clean_count",
    "raw_latency_seconds",
    "mean_seconds",
    "min_seconds",
    "mad_seconds",
    "p90_seconds",
    "p95_seconds",
    "p99_seconds",
    "reference_seconds",
    "reference_cpu_seconds",
    "relative_to_reference",
    "load_seconds",
    "first_inference_seconds",
    "base_rss_bytes",
    "load_rss_bytes",
    "peak_rss_bytes",
    "uss_bytes",
    "pss_bytes",
    "energy_net_joules",
    "energy_net_low_joules",
    "energy_net_high_joules",
    "energy_gross_joules",
    "power_watts",
    "idle_watts",
    "energy_kind",
    "energy_source",
    "energy_scope",
    "energy_absent_because",
    "temperature_start_celsius",
    "temperature_max_celsius",
    "measured_at",
    "failure_kind",
    "failure_message",
)
"""Columns of the CSV; a model that could not be measured has a line with the last two."""


def measurement_record(named: Named) -> Record:
    """Everything but the raw samples."""
    m = named.measurement
    return {
        "kind": "measurement",
        "number": named.number,
        "model": named.model_name,
        "device": named.device,
        "device_id": m.device_id,
        "measured_at": m.measured_at.isoformat(),
        "protocol": m.protocol,
        **_run_record(m),
        "cpus": list(m.cpus),
        "verdict": verdict_record(m.verdict),
        **_latency_record(m),
        **_start_record(m),
        **_memory_record(m),
        "energies": [_energy_record(energy) for energy in m.energies],
        "energy_absent_because": None if m.energies else m.energy_absent_because or None,
        "governor": m.governor,
        "load_average_start": m.load_average_start,
        "thermal": plain(m.thermal),
        "preflight": plain(m.preflight),
        "plan": plain(m.plan),
    }


def failure_record(failure: MeasurementFailure, model: str, device: str) -> Record:
    """Why there is no measurement."""
    return {"kind": "failure", "model": model, "device": device, "failure": plain(failure)}


def profile_record(profile: Profile, model: str, device: str) -> Record:
    """Seconds by kind of operator and of every operator, all with the profiler on."""
    return {
        "kind": "profile",
        "model": model,
        "device": device,
        **plain(profile),
        "operator_kinds": [plain(row) for row in by_kind(profile)],
    }


def probe_record(probe: ProbeResult, device: str) -> Record:
    """The preflight, and the samples of every reference model."""
    return {"kind": "probe", "device": device, **plain(probe)}


def comparison_record(first: Named, second: Named, found: Comparison) -> Record:
    """Both measurements without their samples, and what became of the comparison."""
    record: Record = plain(found)
    low, high = record.pop("difference_interval_seconds")
    record |= {"difference_low_seconds": low, "difference_high_seconds": high}
    record["ratio_low"], record["ratio_high"] = record.pop("ratio_interval")
    return {
        "kind": "comparison",
        **record,
        "first": measurement_record(first),
        "second": measurement_record(second),
    }


def verdict_record(verdict: Verdict) -> Record:
    """The level, the codes, and every reason."""
    return {
        "level": verdict.level,
        "codes": list(verdict.codes),
        "reasons": [plain(reason) for reason in verdict.reasons],
    }


def csv_fields(record: Mapping[str, Any]) -> list[str]:
    """The record of a measurement or a failure as the fields of `CSV_COLUMNS`; absent is empty."""
    flat = dict(record)
    for key in ("runtime_options", "cpus"):
        flat[key] = " ".join(map(str, record.get(key, ())))
    if record["kind"] == "failure":
        failure = record["failure"]
        flat |= {"failure_kind": failure["kind"], "failure_message": failure["message"]}
        flat["model_sha256"] = failure["model_sha256"]
    else:
        verdict, thermal = record["verdict"], record["thermal"]
        flat |= {"verdict": verdict["level"], "verdict_codes": " ".join(verdict["codes"])}
        flat["temperature_start_celsius"] = thermal["start_celsius"]
        flat["temperature_max_celsius"] = thermal["max_celsius"]
        flat |= _flat_energy(record["energies"])
    return ["" if (value := flat.get(name)) is None else str(value) for name in CSV_COLUMNS]


def plain(value: Any) -> Any:
    """A frozen dataclass as what JSON knows, moments in ISO 8601; None stays None."""
    return None if value is None else _jsonable(asdict(value))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _run_record(m: Measurement) -> Record:
    return {
        "model_sha256": m.model_sha256,
        "model_size_bytes": m.run.model_size_bytes,
        "runtime": m.runtime,
        "runtime_library": m.runtime_library,
        "runtime_version": m.runtime_version,
        "runtime_options": list(m.runtime_options),
        "threads": m.threads,
        "input_shapes": {shape.name: list(shape.sizes) for shape in m.run.input_shapes},
    }


def _latency_record(m: Measurement) -> Record:
    latency = m.latency
    low, high = latency.interval_seconds
    record: Record = {
        "latency_seconds": latency.seconds,
        "latency_low_seconds": low,
        "latency_high_seconds": high,
        "latency_kind": latency.kind,
        "latency_half_width": latency.half_width,
        "sample_count": latency.n,
        "clean_count": latency.clean,
        "raw_latency_seconds": latency.raw_seconds,
        "mean_seconds": latency.mean_seconds,
        "min_seconds": latency.min_seconds,
        "mad_seconds": latency.mad_seconds,
    }
    for quantile in latency.quantiles:
        name = f"p{quantile.level * 100:.0f}"
        record[f"{name}_seconds"] = quantile.seconds
        record[f"{name}_absent_because"] = quantile.absent_because or None
    return record | {
        "between_processes": latency.between_processes,
        "drift": latency.drift,
        "reference_seconds": latency.reference_seconds,
        "reference_cpu_seconds": latency.reference_cpu_seconds,
        "reference_drift": latency.reference_drift,
        "relative_to_reference": latency.relative_to_reference,
        "canary_seconds": latency.canary_seconds,
    }


def _start_record(m: Measurement) -> Record:
    return {
        "process_count": len(m.processes),
        "load_seconds": median(p.load_seconds for p in m.processes),
        "first_inference_seconds": median(p.first_inference_seconds for p in m.processes),
        "call_overhead_seconds": median(p.call_overhead_seconds for p in m.processes),
        "warmup_runs": [p.warmup_runs for p in m.processes],
        "runs_per_sample": [p.runs_per_sample for p in m.processes],
        "steady": all(p.steady for p in m.processes),
    }


def _memory_record(m: Measurement) -> Record:
    """Of each stage the most of any process."""

    def most(values: Iterable[int | None]) -> int | None:
        return max((value for value in values if value is not None), default=None)

    memories: list[Memory] = [process.memory for process in m.processes]
    return {
        "base_rss_bytes": m.base_rss_bytes,
        "load_rss_bytes": m.load_rss_bytes,
        "peak_rss_bytes": m.peak_rss_bytes,
        "base_uss_bytes": most(memory.base_uss_bytes for memory in memories),
        "uss_bytes": most(memory.uss_bytes for memory in memories),
        "pss_bytes": most(memory.pss_bytes for memory in memories),
    }


def _energy_record(e: Energy) -> Record:
    record: Record = plain(e)
    for name in ("gross", "net"):
        low, high = record.pop(f"{name}_interval_joules")
        record |= {f"{name}_low_joules": low, f"{name}_high_joules": high}
    return record


def _flat_energy(energies: list[Record]) -> Record:
    if not energies:
        return {}
    e = energies[0]
    return {
        "energy_net_joules": e["net_joules"],
        "energy_net_low_joules": e["net_low_joules"],
        "energy_net_high_joules": e["net_high_joules"],
        "energy_gross_joules": e["gross_joules"],
        "power_watts": e["power_watts"],
        "idle_watts": e["idle_watts"],
        "energy_kind": e["kind"],
        "energy_source": e["source"],
        "energy_scope": e["scope"],
    }
