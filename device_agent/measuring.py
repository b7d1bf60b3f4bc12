"""The timing loop: warm-up until steady, then blocks of samples between looks at a reference model.

It knows no runtime, and whatever it reads is given. A sample is one run, or as many as last a
millisecond.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

from device_agent.bootstrap import relative_half_width
from device_agent.instruments import Clock, Instruments
from device_agent.interference import RunDelay
from device_agent.steadiness import is_steady
from device_agent.work import Block, Plan

Run = Callable[[], None]

MAX_SAMPLES = 50_000
"""What fits in one message of 1 MiB, of all processes together."""

_NANO = 1e-9
# Below this a clock call and a Python loop are no longer small beside the sample.
_MIN_SAMPLE_NS = 1_000_000
_MAX_RUNS_PER_SAMPLE = 1 << 20
# One interruption can last this long and make a short sample seem long enough.
_INTERRUPTION_NS = 100_000_000
_REFERENCE_SAMPLES = 5
# After a look at the reference model the caches hold its data and the clock may have dropped.
_REWARM_NS = 20_000_000
_LONGEST_WARMUP_SAMPLES = 300
_LARGEST_WINDOW, _SMALLEST_WINDOW, _WINDOW_NS = 20, 5, 500_000_000
# Shares of the budget after which a device stops warming up: the second one only where it has
# not even run the two windows that are compared.
_WARMUP_SHARE, _LONGEST_WARMUP_SHARE = 0.3, 0.5
# The interval of the median is computed anew when the samples have grown by this factor.
_GROWTH = 1.2


@dataclass(frozen=True)
class Share:
    """The part of a plan that falls to one process, and when its time began by the clock."""

    plan: Plan
    min_samples: int
    budget_seconds: float
    started_ns: int

    def ends_ns(self, share: float = 1.0) -> int:
        """When that share of the budget is used up."""
        return self.started_ns + int(self.budget_seconds * share / _NANO)


@dataclass(frozen=True)
class Warmup:
    """How a model was brought to its steady state, or that it was not."""

    runs: int
    steady: bool
    runs_per_sample: int


def warm_up(run: Run, share: Share, clock: Clock) -> Warmup:
    """Run for the plan's minimum, find how many runs make a sample, then go on until two
    neighbouring windows of samples look alike; at most 300 samples or 30 % of the budget (50 %
    where a run takes so long that two windows of five do not fit). It runs once at least.
    """
    runs, lasted = _minimal_warmup(run, share, clock)
    per_sample, spent, sample_ns = _calibrate(run, clock)
    runs += spent
    samples = [*lasted, float(sample_ns)] if per_sample == 1 else []
    window = max(_SMALLEST_WINDOW, min(_LARGEST_WINDOW, _WINDOW_NS // sample_ns))
    stride = max(1, window // 4)
    latest, last_resort = share.ends_ns(_WARMUP_SHARE), share.ends_ns(_LONGEST_WARMUP_SHARE)
    taken = 0
    while True:
        enough = len(samples) >= 2 * window
        if enough and taken % stride == 0 and is_steady(*_last_windows(samples, window)):
            return Warmup(runs, True, per_sample)
        if taken >= _LONGEST_WARMUP_SAMPLES or clock() >= (latest if enough else last_resort):
            return Warmup(runs, False, per_sample)
        samples.append(_sample(run, per_sample, clock))
        runs += per_sample
        taken += 1


def time_blocks(
    run: Run,
    reference: Run,
    share: Share,
    runs_per_sample: int,
    *,
    instruments: Instruments,
    cpus: tuple[int, ...] = (),
) -> tuple[Block, ...]:
    """Blocks of samples until the median is known well enough, or the budget ends.

    Before each block stand the canary loop and some samples of `reference`; a last block has them
    alone. At least one sample is taken, however short the budget. Steal is that of `cpus`.
    """
    timer = _Timer(run, reference, share, runs_per_sample, instruments=instruments, cpus=cpus)
    goal = _Goal(share)
    blocks: list[Block] = []
    while True:
        # Whatever the agent has to do, it does now; each block warms the caches up again.
        instruments.pause()
        began = instruments.clock()
        blocks.append(timer.block())
        ended = instruments.clock()
        if goal.is_reached(blocks) or ended + (ended - began) > share.ends_ns():
            break
    blocks.append(timer.closing_block())
    timer.close()
    return tuple(blocks)


def time_alone(run: Run, samples: int, instruments: Instruments) -> list[tuple[float, float]]:
    """Wall and CPU seconds of one run, for each of so many samples in a row."""
    per_sample, _, _ = _calibrate(run, instruments.clock)
    return _paired_samples(run, per_sample, samples, instruments)


class _Timer:
    """Takes blocks of one model; keeps open what is read at every sample."""

    def __init__(
        self,
        run: Run,
        reference: Run,
        share: Share,
        runs_per_sample: int,
        *,
        instruments: Instruments,
        cpus: tuple[int, ...],
    ) -> None:
        self._run = run
        self._reference = reference
        self._plan = share.plan
        self._latest = share.ends_ns()
        self._per_sample = runs_per_sample
        self._instruments = instruments
        self._cpus = cpus
        self._per_reference, _, _ = _calibrate(reference, instruments.clock)
        self._sample_ns = 0
        # The runtime's threads are there by now.
        self._run_delay: RunDelay | None = instruments.open_run_delay()

    def close(self) -> None:
        if self._run_delay is not None:
            self._run_delay.close()

    def block(self) -> Block:
        return self._block(self._samples)

    def closing_block(self) -> Block:
        return self._block(lambda: ([], [], []))

    def _block(self, take: Callable[[], tuple[list[int], list[int], list[int]]]) -> Block:
        tools = self._instruments
        started = tools.monotonic_seconds()
        canary = tools.canary(tools.clock)
        references = _paired_samples(
            self._reference, self._per_reference, _REFERENCE_SAMPLES, tools
        )
        steal, switches = tools.steal_seconds(self._cpus), tools.involuntary_switches()
        wall, cpu, delays = take()
        switches = tools.involuntary_switches() - switches
        steal_after = tools.steal_seconds(self._cpus)
        scale = _NANO / self._per_sample
        return Block(
            started_monotonic_seconds=started,
            lasted_seconds=tools.monotonic_seconds() - started,
            canary_seconds=canary,
            reference_seconds=tuple(seconds for seconds, _ in references),
            reference_cpu_seconds=tuple(seconds for _, seconds in references),
            latency_seconds=tuple(sample * scale for sample in wall),
            cpu_seconds=tuple(sample * scale for sample in cpu),
            run_delay_seconds=(
                None if self._run_delay is None else tuple(delay * _NANO for delay in delays)
            ),
            involuntary_switches=switches,
            # A virtual machine's count may step back when it moves to another host.
            steal_seconds=(
                None if steal is None or steal_after is None else max(0.0, steal_after - steal)
            ),
        )

    def _samples(self) -> tuple[list[int], list[int], list[int]]:
        run, clock, cpu_clock = self._run, self._instruments.clock, self._instruments.cpu_clock
        run_delay: Callable[[], int] = self._run_delay or _no_delay
        repeats = range(self._per_sample)
        self._rewarm()
        until = min(self._latest, clock() + int(self._plan.block_seconds / _NANO))
        wall: list[int] = []
        cpu: list[int] = []
        delays: list[int] = []
        ended, delayed = clock(), run_delay()
        while not wall or (len(wall) < self._plan.block_runs and ended < until):
            cpu_started = cpu_clock()
            started = clock()
            for _ in repeats:
                run()
            ended = clock()
            cpu_ended = cpu_clock()
            before, delayed = delayed, run_delay()
            wall.append(max(1, ended - started))
            cpu.append(cpu_ended - cpu_started)
            # A thread that ended meanwhile takes its count with it.
            delays.append(max(0, delayed - before))
        self._sample_ns = min(wall)
        return wall, cpu, delays

    def _rewarm(self) -> None:
        if self._sample_ns >= 5 * _REWARM_NS:
            return  # some milliseconds of cold caches are nothing beside such a run
        clock = self._instruments.clock
        until = min(self._latest, clock() + _REWARM_NS)
        while clock() < until:
            self._run()


class _Goal:
    """When there are samples enough: the plan's minima, and an interval that is narrow enough."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._most = MAX_SAMPLES // share.plan.processes
        self._look_again_at = float(share.min_samples)

    def is_reached(self, blocks: Sequence[Block]) -> bool:
        taken = sum(len(block.latency_seconds) for block in blocks)
        if taken >= self._most:
            return True
        if len(blocks) < self._share.plan.min_blocks or taken < self._look_again_at:
            return False
        self._look_again_at = taken * _GROWTH
        half_width = relative_half_width([block.latency_seconds for block in blocks])
        return half_width is not None and half_width <= self._share.plan.half_width


def _no_delay() -> int:
    return 0


def _minimal_warmup(run: Run, share: Share, clock: Clock) -> tuple[int, list[float]]:
    """How many runs the plan asks for, and the nanoseconds of the last ones."""
    now = clock()
    until, latest = now + int(share.plan.warmup_seconds / _NANO), share.ends_ns(_WARMUP_SHARE)
    runs = 0
    lasted: deque[float] = deque(maxlen=2 * _LARGEST_WINDOW)
    while runs == 0 or ((runs < share.plan.warmup_runs or now < until) and now < latest):
        lasted.append(_sample(run, 1, clock))
        runs += 1
        now = clock()
    return runs, list(lasted)


def _last_windows(samples: Sequence[float], window: int) -> tuple[Sequence[float], Sequence[float]]:
    return samples[-2 * window : -window], samples[-window:]


def _paired_samples(
    run: Run, per_sample: int, samples: int, instruments: Instruments
) -> list[tuple[float, float]]:
    clock, cpu_clock = instruments.clock, instruments.cpu_clock
    scale = _NANO / per_sample
    found = []
    for _ in range(samples):
        cpu_started = cpu_clock()
        wall = _sample(run, per_sample, clock)
        found.append((wall * scale, (cpu_clock() - cpu_started) * scale))
    return found


def _sample(run: Run, per_sample: int, clock: Clock) -> int:
    """Nanoseconds of so many runs; never 0, whatever the clock's resolution."""
    started = clock()
    for _ in range(per_sample):
        run()
    return max(1, clock() - started)


def _calibrate(run: Run, clock: Clock) -> tuple[int, int, int]:
    """Runs per sample, a power of two; how many runs it took to find it; how long it lasts, ns."""
    repeats, spent = 1, 0
    while True:
        lasted = _sample(run, repeats, clock)
        spent += repeats
        if _MIN_SAMPLE_NS <= lasted < _INTERRUPTION_NS:
            lasted = min(lasted, _sample(run, repeats, clock))
            spent += repeats
        if lasted >= _MIN_SAMPLE_NS or repeats >= _MAX_RUNS_PER_SAMPLE:
            return repeats, spent, lasted
        repeats *= 2
