"""This machine as a device: one fresh worker of the agent for each look at a model file.

The worker times the model between looks at the reference model and tells its peak memory, as it
does on a device; the figure is that of `latency_of`, the median of the samples that were not
disturbed. Where a neighbour disturbed most of them the file is looked at again, in a fresh worker.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from device_agent.asking import Workers
from device_agent.errors import AgentError
from device_agent.processes import Cancellation, default_worker_command
from device_agent.requests import MeasuredProcess, MeasureRequest
from device_agent.scan_limits import ScanLimits
from device_agent.surroundings import Deadline, Surroundings
from device_agent.work import InputShape, ModelRun, Plan
from host.measurement.samples import Block, Memory, ProcessRun
from host.measurement.statistics import latency_of

PLAN = Plan(
    processes=1,
    warmup_runs=3,
    warmup_seconds=0.1,
    min_blocks=3,
    block_runs=20,
    block_seconds=0.25,
    min_samples=30,
    half_width=0.02,
    budget_seconds=2.5,
    energy_windows=0,
    energy_window_seconds=0.0,
)
TIMEOUT_SECONDS = 60.0
_GIBI = 1 << 30


class NotMeasuredError(Exception):
    """A model file that the runtime does not run; the text says why."""


@dataclass(frozen=True)
class Look:
    """What one worker found. `quiet` is off where most samples were disturbed."""

    latency_seconds: float
    peak_rss_bytes: int
    reference_seconds: float | None
    quiet: bool


def look(model: Path, threads: int, shapes: dict[str, tuple[int, ...]]) -> Look:
    """Measure one model file in a fresh worker. Raises NotMeasuredError."""
    runtime = "tflite" if model.suffix == ".tflite" else "onnx"
    given = tuple(InputShape(name, sizes) for name, sizes in shapes.items())
    run = ModelRun("", model.stat().st_size, runtime, threads=threads, input_shapes=given)
    workers = Workers(
        command=default_worker_command(),
        address_space_bytes=64 * _GIBI,
        parent_pid=os.getpid(),
        deadline=Deadline(Surroundings(), TIMEOUT_SECONDS, Cancellation()),
        scan=ScanLimits(control_flow=True),
        rss_bytes=8 * _GIBI,
    )
    request = MeasureRequest(
        workers.confinement(), model, run, PLAN, PLAN.min_samples, PLAN.budget_seconds
    )
    try:
        answer = workers.ask("measure", request, MeasuredProcess)
    except AgentError as error:
        raise NotMeasuredError(f"{model.name}: {error}") from error
    process = _process(answer)
    latency = latency_of([process], threads)
    return Look(
        latency.seconds,
        process.memory.peak_rss_bytes,
        latency.reference_cpu_seconds,
        quiet=not latency.contended,
    )


def _process(answer: MeasuredProcess) -> ProcessRun:
    """The host's view of what a worker told."""
    told = dataclasses.asdict(answer.run)
    blocks = tuple(Block(**block) for block in told.pop("blocks"))
    return ProcessRun(memory=Memory(**told.pop("memory")), blocks=blocks, **told)
