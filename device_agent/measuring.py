"""The timing loop: warm-up, calibration, samples. It knows no runtime, and the clock is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from device_agent.work import MeasureSpec

Clock = Callable[[], int]
"""Nanoseconds from some fixed moment."""

MAX_SAMPLES = 50_000
"""What fits in one message of 1 MiB."""

_NANO = 1e-9
# Below this a clock call and a Python loop are no longer small beside the sample.
_MIN_SAMPLE_NS = 1_000_000
# Longer samples instead of more of them once there would be more than this.
_ENOUGH_SAMPLES = 10_000
_MAX_RUNS_PER_SAMPLE = 1 << 20
# Shares of the worker's time after which a slow device goes on with what it has.
_WARMUP_SHARE = 0.3
_SAMPLES_SHARE = 0.85


@dataclass(frozen=True)
class Timings:
    """Seconds of one inference for each sample, in order, and how they came about."""

    latency_seconds: tuple[float, ...]
    runs_per_sample: int
    warmup_runs: int
    cpu_seconds: float


@dataclass(frozen=True)
class TimeBudget:
    """A span of the clock: when it began and how long all work may take."""

    started_ns: int
    seconds: float

    def share_ends_ns(self, share: float) -> int:
        return self.started_ns + int(self.seconds * share / _NANO)

    def left_seconds(self, now_ns: int) -> float:
        return self.seconds - (now_ns - self.started_ns) * _NANO


def time_runs(
    run: Callable[[], None],
    spec: MeasureSpec,
    *,
    clock: Clock,
    cpu_clock: Clock,
    budget: TimeBudget,
) -> Timings:
    """Warm up, then time samples until the spec's minima of count AND of seconds are both met.

    A run below 1 ms is repeated inside a sample until the sample lasts 1 ms. Where the budget is
    short the minima give way: at least one run warms up and at least one sample is taken.
    """
    warmup_runs = _warm_up(run, spec, clock, budget.share_ends_ns(_WARMUP_SHARE))
    target_ns = max(_MIN_SAMPLE_NS, int(spec.min_seconds / _NANO / _ENOUGH_SAMPLES))
    runs_per_sample, calibration_runs = _calibrate(run, target_ns, clock)
    until = clock() + int(spec.min_seconds / _NANO)
    latest = budget.share_ends_ns(_SAMPLES_SHARE)
    samples: list[int] = []
    cpu_started = cpu_clock()
    repeats = range(runs_per_sample)
    while True:
        started = clock()
        for _ in repeats:
            run()
        ended = clock()
        samples.append(ended - started)
        enough = len(samples) >= spec.min_samples and ended >= until
        if enough or ended >= latest or len(samples) >= MAX_SAMPLES:
            break
    cpu_ended = cpu_clock()
    return Timings(
        tuple(sample * _NANO / runs_per_sample for sample in samples),
        runs_per_sample,
        warmup_runs + calibration_runs,
        (cpu_ended - cpu_started) * _NANO,
    )


def _warm_up(run: Callable[[], None], spec: MeasureSpec, clock: Clock, latest: int) -> int:
    now = clock()
    until = now + int(spec.warmup_seconds / _NANO)
    runs = 0
    while runs == 0 or ((runs < spec.warmup_runs or now < until) and now < latest):
        run()
        runs += 1
        now = clock()
    return runs


def _calibrate(run: Callable[[], None], target_ns: int, clock: Clock) -> tuple[int, int]:
    """Runs per sample, a power of two, and how many runs it took to find it."""
    repeats, spent = 1, 0
    while True:
        started = clock()
        for _ in range(repeats):
            run()
        lasted = clock() - started
        spent += repeats
        if lasted >= target_ns or repeats >= _MAX_RUNS_PER_SAMPLE:
            return repeats, spent
        repeats *= 2
