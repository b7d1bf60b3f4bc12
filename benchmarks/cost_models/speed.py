"""How fast the latency model is on networks of NAS-Bench-201: predictions a second, one fit."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from cost_models.kernels import KernelGraph
from cost_models.latency import LatencyModel
from cost_models.nnls import FloatArray
from host.network.graph import DeadNetworkError
from host.network.kernels import kernels_of
from host.spaces.base import Candidate, Task
from host.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201

_TASK = Task(channels=3, classes=10)
_NOISE = 0.03
_BATCHES, _BATCH, _FIT_ON, _FITS = 5, 1000, 100, 3


@dataclass(frozen=True)
class Speed:
    """CPU seconds of this process, medians of repeats."""

    predictions_per_second: float
    fit_seconds: float


def speed() -> Speed:
    """Fit a latency model on 100 networks, then predict batches of 1000 others.

    Kernel graphs are ready and each is predicted once: computing its features counts. The
    latencies fitted are those of nominal rates with 3 % noise.
    """
    graphs = _graphs(_FIT_ON + _BATCHES * _BATCH)
    measured, others = graphs[:_FIT_ON], graphs[_FIT_ON:]
    model = LatencyModel()
    latencies = _latencies(model, measured)
    fit_seconds = [_seconds(partial(model.fit, measured, latencies)) for _ in range(_FITS)]
    # The graphs are ready: looking through them for garbage is no part of a prediction.
    gc.collect()
    gc.freeze()
    batches = [others[start : start + _BATCH] for start in range(0, len(others), _BATCH)]
    seconds = [_seconds(partial(model.predict, batch)) for batch in batches]
    gc.unfreeze()
    return Speed(_BATCH / median(seconds), median(fit_seconds))


def _seconds(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def _latencies(model: LatencyModel, graphs: list[KernelGraph]) -> FloatArray:
    rows = model.features(graphs)
    rates = np.array([model.nominal_rates[unit] for _, unit in model.columns])
    noise = np.random.default_rng(0).normal(0.0, _NOISE, len(graphs))
    latencies: FloatArray = rows @ rates * np.exp(noise)
    return latencies


def _graphs(count: int) -> list[KernelGraph]:
    """Kernel graphs of distinct random cells that connect."""
    space = NasBench201()
    numbers = np.random.default_rng(0).permutation(len(OPERATIONS) ** len(EDGES))
    found: list[KernelGraph] = []
    for number in numbers.tolist():
        choices = tuple(
            number // len(OPERATIONS) ** edge % len(OPERATIONS) for edge in range(len(EDGES))
        )
        try:
            found.append(kernels_of(space.build(Candidate(choices), _TASK)))
        except DeadNetworkError:
            continue
        if len(found) == count:
            break
    return found
