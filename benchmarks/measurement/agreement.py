"""(a) Our median against the runtimes' own tools, with the same threads.

ONNX: the samples of our worker's loop against the `model_run` events that onnxruntime's profiler
records of the very same runs. TFLite: our measurement against `litert-benchmark` of the wheel
ai-edge-litert, in turns, and the best round's median of each is compared: what disturbs a round,
or how a process lies in memory, can only make it slower. It rounds to 0.01 ms, so the bar is 2 %
or 20 microseconds.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurement.plant import Plant

RELATIVE_BAR = 0.02
ABSOLUTE_BAR_SECONDS = 20e-6
RUNS = 200
WARMUP = 20


@dataclass(frozen=True)
class Agreement:
    """Two medians of one model, in seconds."""

    model: str
    ours_seconds: float
    theirs_seconds: float

    @property
    def difference_seconds(self) -> float:
        return abs(self.ours_seconds - self.theirs_seconds)

    @property
    def relative(self) -> float:
        return self.difference_seconds / self.theirs_seconds

    @property
    def holds(self) -> bool:
        return self.relative <= RELATIVE_BAR or self.difference_seconds <= ABSOLUTE_BAR_SECONDS


def with_onnxruntime(model: Path) -> Agreement:
    """In a process of its own: what our loop times and what the profiler says of the same runs."""
    script = [sys.executable, "-m", "benchmarks.measurement.profiled", str(model)]
    ran = subprocess.run(script, capture_output=True, text=True, check=True)
    figures = json.loads(ran.stdout)
    return Agreement(model.name, figures["ours_seconds"], figures["theirs_seconds"])


def with_litert(plant: Plant, model: Path, rounds: int) -> Agreement:
    """In turns: one measurement of ours, one run of litert-benchmark."""
    ours, theirs = [], []
    for number in range(rounds):
        (measured,) = plant.measure([model], purpose=f"agreement {number}")
        ours.append(measured.latency_seconds)
        theirs.append(_litert_benchmark(model, measured.cpus))
    return Agreement(model.name, min(ours), min(theirs))


def _litert_benchmark(model: Path, cpus: tuple[int, ...]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = ["taskset", "-c", ",".join(str(cpu) for cpu in cpus)] if cpus else []
        command += [str(Path(sys.executable).with_name("litert-benchmark"))]
        command += [f"--model={model}", f"--num_runs={RUNS}", f"--warmup_runs={WARMUP}"]
        command += ["--num_threads=1", f"--result_json={result}"]
        subprocess.run(command, capture_output=True, check=True)
        return float(json.loads(result.read_text())["latency"]["median_ms"]) * 1e-3
