"""`genba measure`: one model on one device."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import GenbaError, UsageError

if TYPE_CHECKING:
    from host.device import Device
    from host.job import Job
    from host.measurement import Measurement, Outcome
    from host.store import Store, Waiting
    from host.workspace import Workspace

RUNTIME = "onnx"


class ModelFileError(UsageError):
    """The file is not a model that can be sent to a device."""


class NoRuntimeError(UsageError):
    """The device has nothing that runs the model."""


class NotMeasuredError(GenbaError):
    """The device could not measure the model."""


class NoResultError(GenbaError):
    """Nothing came back in time."""


def measure(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The model.")],
    *,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where to measure it.")],
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.0, help="How long to wait.", show_default="no limit"),
    ] = None,
    worker_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=1.0, max=86_400.0, help="How long the device may take."
        ),
    ] = 120.0,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew, even if there is a result already.")
    ] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Measure a model on a device: latency, load time, memory, and power where it can be read."""
    from host.measurement import MeasureSpec

    check_model_file(file)
    with opened(workspace) as (found, store):
        target = store.devices.by_name(device)
        _require_runtime(target)
        blob = store.blobs.put_file(file)
        spec = MeasureSpec(
            model_sha256=blob.sha256,
            model_size_bytes=blob.size_bytes,
            runtime=RUNTIME,
            threads=threads,
            timeout_seconds=worker_timeout,
        )
        purpose = f"measure {uuid4().hex}" if again else "measure"
        job = store.jobs.submit(target.id, spec, purpose=purpose, priority=1)
        outcome = _wait(found, store, job, timeout)
    measurement = _measurement_of(outcome, file, target)
    if as_json:
        print(json.dumps(_as_json(measurement, file, target), ensure_ascii=False, indent=2))
    else:
        _print(measurement, file, target)


def check_model_file(path: Path) -> None:
    """See that the file is a whole, valid ONNX model. Raises ModelFileError."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto

    try:
        model = onnx.load_model_from_string(path.read_bytes())
        if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
            raise ModelFileError(
                f"{path} keeps weights in other files, which no device accepts: save it as one file"
            )
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise ModelFileError(
            f"{path} is not an ONNX file, or only a part of one: export it again"
        ) from error
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0]
        raise ModelFileError(f"{path} is not a valid ONNX model: {first}") from error


def _require_runtime(device: "Device") -> None:
    facts = device.facts
    if facts is None or facts.runtime(RUNTIME) is not None:
        return
    reason = next((r.why_not for r in facts.runtimes if r.name == RUNTIME), "it is not installed")
    raise NoRuntimeError(f"{device.name} cannot run ONNX models: {reason}")


def _wait(workspace: "Workspace", store: "Store", job: "Job", timeout: float | None) -> "Outcome":
    known = store.jobs.outcome(job.id)
    if known is not None:
        _note("measured before; --again measures anew")
        return known

    from host.gateway.server import ensure_gateway
    from host.store import wait_for_outcomes

    try:
        with ensure_gateway(workspace, store):
            watch = _waiting_messages(timeout, time.monotonic)
            for _, outcome in wait_for_outcomes(store, [job], on_wait=watch):
                return outcome
    except KeyboardInterrupt:
        _note("the job stays queued and its result is kept: the same command shows it later")
        raise
    raise NoResultError(f"job {job.id} has no result")


def _waiting_messages(
    timeout: float | None, clock: Callable[[], float]
) -> "Callable[[Waiting], None]":
    started = clock()
    said_offline = False

    def on_wait(waiting: "Waiting") -> None:
        nonlocal said_offline
        if waiting.offline and not said_offline and clock() - started > 1.0:
            said_offline = True
            names = ", ".join(device.name for device in waiting.offline)
            _note(f"waiting for {names}, which is offline: is genba-agent running there?")
        if timeout is not None and clock() - started >= timeout:
            raise NoResultError(
                f"no result within {timeout:g} s: the job stays queued, and the same command"
                " shows its result later"
            )

    return on_wait


def _measurement_of(outcome: "Outcome", file: Path, device: "Device") -> "Measurement":
    from host.measurement import Measurement

    if isinstance(outcome, Measurement):
        return outcome
    raise NotMeasuredError(
        f"{device.name} could not measure {file}: {outcome.kind.replace('_', ' ')}:"
        f" {outcome.message} (--again tries once more)"
    )


def _print(m: "Measurement", file: Path, device: "Device") -> None:
    low, high = m.latency_interval_seconds
    rows = {
        "latency": f"{m.latency_seconds * 1e3:.3f} ms (95 % interval {low * 1e3:.3f} to"
        f" {high * 1e3:.3f} ms, n = {m.sample_count})",
        "load": f"{m.load_seconds * 1e3:.1f} ms",
        "first inference": f"{m.first_inference_seconds * 1e3:.2f} ms",
        "peak memory": f"{m.peak_rss_bytes / 1e6:.1f} MB (before the model"
        f" {m.base_rss_bytes / 1e6:.1f} MB)",
        "power": _power(m),
        "runtime": f"{m.runtime_library} {m.runtime_version}, threads {m.threads}",
        "measured at": m.measured_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
    }
    print(f"{file} on {device.name}")
    for name, value in rows.items():
        print(f"  {name:15}  {value}")


def _power(m: "Measurement") -> str:
    if m.power is None:
        return f"not measured: {m.power_absent_because or 'the agent gave no reason'}"
    p = m.power
    return (
        f"{p.power_watts:.2f} W, {p.energy_per_inference_joules * 1e3:.3f} mJ an inference"
        f" ({p.kind}, {p.source}, {p.scope})"
    )


def _as_json(m: "Measurement", file: Path, device: "Device") -> dict[str, Any]:
    low, high = m.latency_interval_seconds
    return {
        "file": str(file),
        "device": device.name,
        "model_sha256": m.model_sha256,
        "protocol": m.protocol,
        "runtime": m.runtime,
        "runtime_library": m.runtime_library,
        "runtime_version": m.runtime_version,
        "threads": m.threads,
        "latency_seconds": m.latency_seconds,
        "latency_low_seconds": low,
        "latency_high_seconds": high,
        "sample_count": m.sample_count,
        "load_seconds": m.load_seconds,
        "first_inference_seconds": m.first_inference_seconds,
        "base_rss_bytes": m.base_rss_bytes,
        "peak_rss_bytes": m.peak_rss_bytes,
        "power_watts": m.power.power_watts if m.power else None,
        "energy_per_inference_joules": m.power.energy_per_inference_joules if m.power else None,
        "power_kind": m.power.kind if m.power else None,
        "power_absent_because": m.power_absent_because or None,
        "measured_at": m.measured_at.isoformat(),
    }


def _note(sentence: str) -> None:
    print(f"genba: {sentence}", file=sys.stderr)
