"""(b) A/A: the same model in fresh runs, quiet and with a CPU hog pinned beside it.

(c) Order: candidates of the mobile space measured twice, in different order.
"""

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measurement.plant import Plant
from cost_models.evaluate import spearman
from host.measurement import PRESETS, Measurement
from host.network.graph import DeadNetworkError
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.spaces.base import Task, sample
from host.spaces.mobile import Mobile

# As a figure that is quoted is measured, but in a fifth of the time.
PLAN = replace(PRESETS["standard"], budget_seconds=12.0)
TASK = Task(channels=3, classes=10)


@dataclass(frozen=True)
class Repeats:
    """Coefficients of variation over fresh runs of the same model.

    `usable` counts the runs whose verdict is not REJECT, `flagged` those whose raw figure was
    disturbed and whose verdict says so, `unflagged` those where it was and it does not.
    """

    runs: int
    usable: int
    raw_variation: float
    variation: float | None
    kinds: tuple[str, ...]
    verdicts: tuple[str, ...]
    flagged: int
    unflagged: int


def repeats(plant: Plant, model: Path, runs: int, label: str) -> Repeats:
    """Measure one model again and again, each time in three fresh processes."""
    found = [plant.measure([model], plan=PLAN, purpose=f"{label} {n}")[0] for n in range(runs)]
    usable = [m.latency_seconds for m in found if m.verdict.level != "REJECT"]
    disturbed = [m for m in found if is_disturbed(m)]
    flagged = sum(m.verdict.level != "OK" for m in disturbed)
    return Repeats(
        runs=runs,
        usable=len(usable),
        raw_variation=_variation([m.latency.raw_seconds for m in found]),
        variation=_variation(usable) if len(usable) > 1 else None,
        kinds=tuple(sorted({m.latency_kind for m in found})),
        verdicts=tuple(m.verdict.level for m in found),
        flagged=flagged,
        unflagged=len(disturbed) - flagged,
    )


def is_disturbed(measurement: Measurement) -> bool:
    """Whether the median sample waited for its CPU: then the raw median is not the model's."""
    delays = [
        delay / (latency * process.runs_per_sample)
        for process in measurement.processes
        for block in process.blocks
        if block.run_delay_seconds is not None
        for delay, latency in zip(block.run_delay_seconds, block.latency_seconds, strict=True)
    ]
    return bool(delays) and statistics.median(delays) > 0.05


def _variation(values: Sequence[float]) -> float:
    return statistics.stdev(values) / statistics.mean(values)


@contextlib.contextmanager
def hogs(cpus: Sequence[int]) -> Iterator[None]:
    """A busy loop pinned to each of these cores."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(["taskset", "-c", str(cpu), *command]) for cpu in cpus]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def candidates(count: int, folder: Path) -> list[Path]:
    """Networks of the mobile space as ONNX files, drawn with a fixed seed."""
    import numpy as np

    space, rng = Mobile(), np.random.default_rng(0)
    files: list[Path] = []
    while len(files) < count:
        try:
            network = space.build(sample(space, rng), TASK)
        except DeadNetworkError:
            continue
        path = folder / f"candidate-{len(files):02}.onnx"
        path.write_bytes(onnx_bytes(network, random_weights(network, seed=0)))
        files.append(path)
    return files


def order(plant: Plant, files: Sequence[Path]) -> float:
    """Spearman's rho of two measurements of each file, the second in another order."""
    import numpy as np

    other = [files[index] for index in np.random.default_rng(1).permutation(len(files))]
    first = plant.measure(files, purpose="order, first")
    second = dict(zip(other, plant.measure(other, purpose="order, second"), strict=True))
    rho = spearman(
        np.array([m.latency_seconds for m in first]),
        np.array([second[file].latency_seconds for file in files]),
    )
    if rho is None:
        raise ValueError("all latencies are equal")
    return rho
