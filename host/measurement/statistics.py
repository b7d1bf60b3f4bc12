"""Statistics of latency samples: what to quote, how sure it is, and what may not be quoted.

**Clean samples.** A sample is clean when the threads of the worker waited for a CPU during at most
5 % of its wall time, and the reference model beside its block took at most 10 % more CPU time than
beside the quickest block. The second part sees what run delay cannot: a neighbour on the other
hyperthread or in another virtual machine, a lower clock. It looks at the reference only, never at
the model's own time, so it picks no favourable samples; it is left out where it would keep less
than 30 samples or a third. Tried with squeezenet (6.6 ms, one thread) on a shared 2-core virtual
machine without foreign load of its own: over random threes of ten fresh processes the median varied
by 1.5 % (coefficient of variation) without the second part and by 0.4 % with it.

**Contention-corrected figure.** Where fewer than 30 samples are clean and the model runs on one
thread, the figure is the lower quartile of its CPU time. Ten fresh processes each of 200 samples,
same machine and model, a CPU hog pinned to the same core (every raw sample contended) or none; the
quietest processes had a median of 6.59 ms:

| figure                         | variation, hog | hog / quiet median | variation, quiet |
|--------------------------------|----------------|--------------------|------------------|
| wall time, median              | 13.7 %         | 1.88               | 5.0 %            |
| wall time less run delay       | 0.7 %          | 1.04               | 5.0 %            |
| CPU time, median               | 0.5 %          | 1.05               | 5.0 %            |
| CPU time, lower quartile       | 0.3 %          | 1.04               | 2.1 %            |
| CPU time, quickest block       | 0.7 %          | 1.04               | 1.6 %            |
| CPU time / reference's         | 1.4 %          |                    | 4.3 %            |
| CPU time / canary's            | 6.2 %          |                    | 5.7 %            |

CPU time is disturbed upwards only (caches refilled after a switch, a shared hyperthread, time
stolen from a virtual machine), so its lower quartile is both steadier and nearer to the truth than
its median. With a memory hog on the other core besides, no figure of one process holds (CPU time:
11 to 12 % variation, 25 to 32 % too long). That shows in the reference model (13 % above its
baseline) and between processes: of ten measurements of three such processes nine were rejected.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from host.errors import GenbaError
from host.measurement.resampling import (
    interval_around,
    quantile,
    quantile_draws,
    t_quantile,
)
from host.measurement.samples import Block, NumberKind, ProcessRun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]

MIN_CLEAN = 30
MAX_WAITING_SHARE = 0.05  # of a sample's wall time, or of a block's for time stolen by a hypervisor
MAX_SWITCHES_PER_SECOND = 20.0  # a fair scheduler preempts beside one hog at 50 to 125 Hz
MAX_SLOWED_REFERENCE = 1.10
_MIN_SETTLED_SHARE = 1 / 3
_DERIVED_LEVEL = 0.25
_TREND_POINTS = 200

QUANTILE_MINIMA = ((0.90, 64), (0.95, 130), (0.99, 662))
"""Samples from which a quantile is known: early stopping of MLPerf LoadGen at 99 % confidence."""

SampleState = Literal["clean", "delayed", "unsettled"]
"""Used for the figure; waited for a CPU; beside a slowed reference."""


class NoSamplesError(GenbaError):
    """A measurement without a single latency sample."""


@dataclass(frozen=True)
class Quantile:
    """A quantile of the latency, or None and why there is none."""

    level: float
    seconds: float | None
    absent_because: str = ""


@dataclass(frozen=True)
class Latency:
    """The figure to use: the median of the clean samples ("measured"), or of the CPU time of
    one thread its lower quartile where the device was never quiet ("derived").

    `raw_seconds` is the median of all samples whatever disturbed them. Mean, minimum, MAD and
    quantiles are of the samples that the figure comes from, and the reference is that of their
    blocks. `between_processes` is the range of the processes' figures and `drift` the trend over
    the measurement (Theil–Sen, with the samples beside a slowed reference), both relative to the
    figure; `reference_drift` is how much slower the reference ran in the last quarter than in the
    first, in CPU time where the device was contended. `delayed` counts the samples that waited for
    a CPU; `unsettled` those that did not, beside a slowed reference.

    `interval_seconds` is for the next fresh process: where several ran, it is at least as wide as
    Student's interval of their figures. `sampling_half_width` is that of the samples alone,
    relative: what more samples can make narrower.
    """

    seconds: float
    interval_seconds: tuple[float, float]
    kind: NumberKind
    n: int
    clean: int
    raw_seconds: float
    mean_seconds: float
    min_seconds: float
    mad_seconds: float
    quantiles: tuple[Quantile, ...]
    between_processes: float | None
    drift: float | None
    reference_seconds: float | None
    reference_cpu_seconds: float | None
    reference_drift: float | None
    canary_seconds: float | None
    delayed: int = 0
    unsettled: int = 0
    sampling_half_width: float = 0.0

    def quantile(self, level: float) -> float | None:
        """The latency in seconds that this share of the samples does not exceed, where known."""
        return next((q.seconds for q in self.quantiles if q.level == level), None)

    @property
    def half_width(self) -> float:
        """Half the 95 % interval, relative to the figure."""
        low, high = self.interval_seconds
        return (high - low) / 2 / self.seconds

    @property
    def contended(self) -> bool:
        """Whether too few samples were clean for a figure of the wall clock."""
        return self.clean < min(MIN_CLEAN, self.n)

    @property
    def relative_to_reference(self) -> float | None:
        """The latency in units of the reference model's, for comparison across days; CPU time
        over CPU time where it is derived.
        """
        reference = self.reference_cpu_seconds if self.kind == "derived" else self.reference_seconds
        return self.seconds / reference if reference else None


@dataclass(frozen=True)
class _Table:
    """All samples in the order in which they were taken; `cpu` is NaN where it is not known."""

    wall: "FloatArray"
    cpu: "FloatArray"
    process: "NDArray[np.int64]"
    block: "NDArray[np.int64]"
    delayed: "BoolArray"
    unsettled: "BoolArray"


def latency_of(processes: Sequence[ProcessRun], threads: int) -> Latency:
    """The statistics of a measurement's samples, as this module's text defines them; seconds of
    one inference. Raises NoSamplesError where there is no sample.
    """
    import numpy as np

    table = _table(processes, threads)
    chosen = _choose(table, threads)
    values = chosen.values[chosen.taken]
    draws = quantile_draws(_by(table.block, chosen.values, chosen.taken), chosen.level)
    figure = quantile(values, chosen.level)
    within = interval_around(figure, draws, lambda low: max(low, 0.0))
    used = set(table.block[chosen.taken].tolist())
    references = [b for i, b in enumerate(_blocks(processes)) if i in used]
    return Latency(
        seconds=figure,
        interval_seconds=_with_processes(within, figure, _figures_of_processes(table, chosen)),
        kind=chosen.kind,
        n=len(table.wall),
        clean=chosen.clean,
        raw_seconds=quantile(table.wall, 0.5),
        mean_seconds=float(values.mean()),
        min_seconds=float(values.min()),
        mad_seconds=quantile(np.abs(values - quantile(values, 0.5)), 0.5),
        quantiles=_quantiles(values, contended=chosen.contended),
        between_processes=_range_of_processes(table, chosen),
        drift=_drift(chosen.values[chosen.taken | (~table.delayed & (not chosen.contended))]),
        reference_seconds=_median([x for b in references for x in b.reference_seconds]),
        reference_cpu_seconds=_median([x for b in references for x in b.reference_cpu_seconds]),
        reference_drift=_reference_drift(processes, contended=chosen.contended),
        canary_seconds=_median([b.canary_seconds for b in _blocks(processes)]),
        delayed=int(table.delayed.sum()),
        unsettled=int((table.unsettled & ~table.delayed).sum()),
        sampling_half_width=(within[1] - within[0]) / 2 / figure,
    )


def latency_draws(processes: Sequence[ProcessRun], threads: int, seed: int) -> "FloatArray":
    """What `latency_of(...).seconds` might have been, by the block bootstrap."""
    table = _table(processes, threads)
    chosen = _choose(table, threads)
    return quantile_draws(_by(table.block, chosen.values, chosen.taken), chosen.level, seed)


@dataclass(frozen=True)
class _Chosen:
    """What the figure comes from: the quantile `level` of the `values` that are `taken`."""

    kind: NumberKind
    values: "FloatArray"
    taken: "BoolArray"
    level: float
    clean: int
    contended: bool


def _choose(table: _Table, threads: int) -> _Chosen:
    import numpy as np

    clean = _clean(table)
    found = int(clean.sum())
    if found >= min(MIN_CLEAN, len(clean)):
        return _Chosen("measured", table.wall, clean, 0.5, found, contended=False)
    everything = np.ones_like(clean)
    if threads == 1 and bool(np.isfinite(table.cpu).all()):
        return _Chosen("derived", table.cpu, everything, _DERIVED_LEVEL, found, contended=True)
    return _Chosen("measured", table.wall, everything, 0.5, found, contended=True)


def _clean(table: _Table) -> "BoolArray":
    undelayed = ~table.delayed
    settled = undelayed & ~table.unsettled
    enough = max(MIN_CLEAN, _MIN_SETTLED_SHARE * int(undelayed.sum()))
    return settled if int(settled.sum()) >= enough else undelayed


def _table(processes: Sequence[ProcessRun], threads: int) -> _Table:
    import numpy as np

    blocks = [(number, run, block) for number, run in enumerate(processes) for block in run.blocks]
    sizes = [len(block.latency_seconds) for _, _, block in blocks]
    if not sum(sizes):
        raise NoSamplesError("the device reported no latency samples; measure again")
    cpu = [_cpu_of(block) for _, _, block in blocks]
    slowed = [flag for process in processes for flag in _slowed_blocks(process)]
    delayed = [
        _delayed(block, c, run.runs_per_sample, threads)
        for (_, run, block), c in zip(blocks, cpu, strict=True)
    ]
    levels = np.asarray(slowed, dtype=float)
    sampled = levels[np.isfinite(levels) & (np.asarray(sizes) > 0)]
    quickest = sampled.min() if len(sampled) else np.inf
    return _Table(
        wall=np.concatenate([np.asarray(b.latency_seconds, dtype=float) for _, _, b in blocks]),
        cpu=np.concatenate(cpu),
        process=np.repeat([number for number, _, _ in blocks], sizes),
        block=np.repeat(np.arange(len(blocks)), sizes),
        delayed=np.concatenate(delayed),
        unsettled=np.repeat(levels > MAX_SLOWED_REFERENCE * quickest, sizes),
    )


def _cpu_of(block: Block) -> "FloatArray":
    import numpy as np

    cpu = np.asarray(block.cpu_seconds, dtype=float)
    if len(cpu) == len(block.latency_seconds):
        return np.where(cpu > 0, cpu, np.nan)
    return np.full(len(block.latency_seconds), np.nan)


def _slowed_blocks(process: ProcessRun) -> list[float]:
    """How long the reference ran beside each block: the mean of before it and after it."""
    levels = [
        _median(b.reference_cpu_seconds) or _median(b.reference_seconds) or math.nan
        for b in process.blocks
    ]
    after = [*levels[1:], math.nan]
    return [
        before if math.isnan(later) else (before + later) / 2
        for before, later in zip(levels, after, strict=True)
    ]


def _delayed(block: Block, cpu: "FloatArray", runs: int, threads: int) -> "BoolArray":
    """Which samples waited for a CPU. Run delay says it best; without it the wall time of one
    thread that was not CPU time; without that what is known of the block as a whole.
    """
    import numpy as np

    wall = np.asarray(block.latency_seconds, dtype=float)
    stolen = (block.steal_seconds or 0.0) > MAX_WAITING_SHARE * block.lasted_seconds
    if stolen:
        return np.ones(len(wall), dtype=np.bool_)
    if block.run_delay_seconds is not None and len(block.run_delay_seconds) == len(wall):
        return np.asarray(block.run_delay_seconds, dtype=float) > MAX_WAITING_SHARE * wall * runs
    if threads == 1 and bool(np.isfinite(cpu).all()):
        return wall - cpu > MAX_WAITING_SHARE * wall
    limit = MAX_SWITCHES_PER_SECOND * block.lasted_seconds
    return np.full(len(wall), (block.involuntary_switches or 0) > limit)


def _by(
    groups: "NDArray[np.int64]", values: "FloatArray", taken: "BoolArray"
) -> "list[FloatArray]":
    """The values taken of every group that has one, in order; groups are numbered in order."""
    import numpy as np

    numbers = groups[taken]
    return np.split(values[taken], np.flatnonzero(np.diff(numbers)) + 1)


def _quantiles(values: "FloatArray", *, contended: bool) -> tuple[Quantile, ...]:

    def known(level: float, minimum: int) -> Quantile:
        if contended:
            reason = "the device was not quiet: other programs made the longest samples"
            return Quantile(level, None, reason)
        if len(values) < minimum:
            reason = f"p{level * 100:.0f} needs {minimum} clean samples, there are {len(values)}"
            return Quantile(level, None, reason)
        return Quantile(level, quantile(values, level))

    return tuple(known(level, minimum) for level, minimum in QUANTILE_MINIMA)


def _figures_of_processes(table: _Table, chosen: _Chosen) -> list[float]:

    groups = _by(table.process, chosen.values, chosen.taken)
    return [quantile(group, chosen.level) for group in groups]


def _with_processes(
    within: tuple[float, float], figure: float, figures: Sequence[float]
) -> tuple[float, float]:
    """Fresh processes differ by more than their samples tell (memory layout): not less than
    Student's interval of the mean of their figures.
    """
    if len(figures) < 2:
        return within
    margin = t_quantile(len(figures) - 1) * statistics.stdev(figures) / len(figures) ** 0.5
    return max(0.0, min(within[0], figure - margin)), max(within[1], figure + margin)


def _range_of_processes(table: _Table, chosen: _Chosen) -> float | None:
    """Where only one process ran beside a reference at full speed, all samples that did not wait
    are compared: that the others were slow must not be lost.
    """
    import numpy as np

    groups = _by(table.process, chosen.values, chosen.taken)
    if len(groups) < 2 and not chosen.contended:
        groups = _by(table.process, chosen.values, ~table.delayed)
    if len(groups) < 2:
        return None
    figures = [quantile(group, chosen.level) for group in groups]
    return (max(figures) - min(figures)) / float(np.median(figures))


def _drift(values: "FloatArray") -> float | None:
    """Theil–Sen slope over the whole length, relative to the median. Long series are first
    reduced to medians of equal stretches: the slopes between all pairs cost n².
    """
    import numpy as np

    if len(values) < 3:
        return None
    length = -(-len(values) // _TREND_POINTS)
    points = np.median(values[: len(values) // length * length].reshape(-1, length), axis=1)
    i, j, apart = _pairs(len(points))
    slope = float(np.median((points[j] - points[i]) / apart))
    return slope * len(points) / quantile(values, 0.5)


@lru_cache(maxsize=8)
def _pairs(count: int) -> "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]":
    """The numbers of both points of every pair of so many, and how far they lie apart."""
    import numpy as np

    i, j = np.triu_indices(count, 1)
    return i, j, j - i


def _reference_drift(processes: Sequence[ProcessRun], *, contended: bool) -> float | None:
    both = [(b.reference_cpu_seconds, b.reference_seconds) for b in _blocks(processes)]
    blocks = [cpu if contended else wall for cpu, wall in both if (cpu if contended else wall)]
    if len(blocks) < 2:
        return None
    quarter = max(1, len(blocks) // 4)
    first = _median([x for block in blocks[:quarter] for x in block])
    last = _median([x for block in blocks[-quarter:] for x in block])
    return last / first - 1 if first and last else None


def _blocks(processes: Sequence[ProcessRun]) -> list[Block]:
    return [block for process in processes for block in process.blocks]


def _median(values: Sequence[float]) -> float | None:
    """The median of the values above zero: nothing takes no time, a zero is no reading."""
    import statistics

    known = [x for x in values if x > 0]
    return statistics.median(known) if known else None


def sample_states(processes: Sequence[ProcessRun], threads: int) -> tuple[SampleState, ...]:
    """What each sample is, in the order in which they were taken; "unsettled" are those that are
    left out for a slowed reference. Raises NoSamplesError.
    """
    table = _table(processes, threads)
    clean = _clean(table)
    return tuple(
        "clean" if is_clean else "delayed" if was_delayed else "unsettled"
        for is_clean, was_delayed in zip(clean.tolist(), table.delayed.tolist(), strict=True)
    )
