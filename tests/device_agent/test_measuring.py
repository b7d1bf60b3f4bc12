"""The timing loop on a made-up machine whose clock moves only while something runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.instruments import Instruments
from device_agent.measuring import MAX_SAMPLES, Share, time_alone, time_blocks, warm_up
from device_agent.work import Plan

MS = 1_000_000
PLAN = Plan(
    processes=1,
    warmup_runs=5,
    warmup_seconds=0.0,
    min_blocks=5,
    block_runs=30,
    block_seconds=1.0,
    min_samples=30,
    half_width=0.01,
    budget_seconds=60.0,
    energy_windows=0,
    energy_window_seconds=10.0,
)


class FakeMachine:
    """A model whose runs take given times, a reference of 2 ms and a canary of 5 ms."""

    def __init__(self, *durations_ns: int, noise: Any = None) -> None:
        self._durations = durations_ns
        self._noise = noise or (lambda run: 0)
        self.log: list[str] = []
        self.runs = 0
        self.now_ns = 0
        self.waited_ns = 0
        self.counters_open = 0

    def run(self) -> None:
        index = min(self.runs, len(self._durations) - 1)
        waited = self._noise(self.runs)
        self.now_ns += self._durations[index] + waited
        self.waited_ns += waited
        self.runs += 1
        self.log.append("model")

    def reference(self) -> None:
        self.now_ns += 2 * MS
        self.log.append("reference")

    def canary(self, clock: Any) -> float:
        self.now_ns += 5 * MS
        self.log.append("canary")
        return 0.005

    def clock(self) -> int:
        return self.now_ns

    @property
    def instruments(self) -> Instruments:
        return Instruments(
            clock=self.clock,
            cpu_clock=lambda: self.now_ns - self.waited_ns,
            monotonic_seconds=lambda: self.now_ns * 1e-9,
            open_run_delay=lambda: Waited(self),
            involuntary_switches=lambda: 7,
            steal_seconds=lambda cpus: self.now_ns * 1e-10,
            canary=self.canary,
        )


class Waited:
    """Counts the time that a made-up machine kept its model waiting."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine
        machine.counters_open += 1

    def __call__(self) -> int:
        return self._machine.waited_ns

    def close(self) -> None:
        self._machine.counters_open -= 1


def share(**changes: Any) -> Share:
    plan = dataclasses.replace(PLAN, **changes)
    return Share(plan, plan.min_samples, plan.budget_seconds, started_ns=0)


def timed(machine: FakeMachine, **changes: Any) -> Any:
    part = share(**changes)
    warmup = warm_up(machine.run, part, machine.clock)
    return blocks_of(machine, part, warmup.runs_per_sample)


def blocks_of(machine: FakeMachine, part: Share, runs_per_sample: int = 1, **tools: Any) -> Any:
    instruments = dataclasses.replace(machine.instruments, **tools)
    return time_blocks(
        machine.run, machine.reference, part, runs_per_sample, instruments=instruments
    )


def test_a_model_is_run_until_two_windows_look_alike() -> None:
    slow_start = [90 * MS - 2 * MS * n for n in range(40)]
    machine = FakeMachine(*slow_start, 10 * MS)

    warmup = warm_up(machine.run, share(), machine.clock)

    assert warmup.steady
    assert warmup.runs == machine.runs
    assert warmup.runs > len(slow_start)


def test_a_model_that_is_steady_from_the_start_warms_up_as_long_as_the_plan_says() -> None:
    by_runs, by_seconds = FakeMachine(10 * MS), FakeMachine(10 * MS)

    runs = warm_up(by_runs.run, share(warmup_runs=50), by_runs.clock)
    seconds = warm_up(by_seconds.run, share(warmup_seconds=0.7), by_seconds.clock)

    # Two more find out how long a sample lasts.
    assert (runs.runs, runs.steady) == (50 + 2, True)
    assert (seconds.runs, seconds.steady) == (70 + 2, True)


def test_a_model_that_never_settles_is_given_up_and_said_so() -> None:
    endless = FakeMachine(*[10 * MS + MS * n for n in range(1000)])
    by_time = warm_up(endless.run, share(budget_seconds=10.0), endless.clock)
    spent_seconds = endless.now_ns * 1e-9

    swinging = FakeMachine(*[MS * (10 + n * 7919 % 97) for n in range(10_000)])
    by_count = warm_up(swinging.run, share(budget_seconds=1e4), swinging.clock)

    assert not by_time.steady
    assert spent_seconds == pytest.approx(3.0, abs=0.2)
    assert not by_count.steady
    assert by_count.runs <= 310


def test_a_model_of_long_runs_may_take_half_the_budget_to_show_that_it_is_steady() -> None:
    machine = FakeMachine(250 * MS)

    warmup = warm_up(machine.run, share(budget_seconds=6.0), machine.clock)

    assert warmup.steady
    assert 0.3 * 6.0 < machine.now_ns * 1e-9 <= 0.5 * 6.0


def test_a_slow_device_warms_up_for_one_run_at_least() -> None:
    machine = FakeMachine(30_000 * MS)

    warmup = warm_up(machine.run, share(budget_seconds=1.0), machine.clock)

    assert warmup.runs >= 1
    assert not warmup.steady


def test_one_interruption_does_not_make_samples_shorter_than_a_millisecond() -> None:
    machine = FakeMachine(MS // 100, noise=lambda run: 20 * MS if run == 7 else 0)

    warmup = warm_up(machine.run, share(), machine.clock)

    assert warmup.runs_per_sample == 128


def test_every_block_begins_with_the_canary_and_the_reference_and_a_last_one_has_no_more() -> None:
    machine = FakeMachine(10 * MS)

    blocks = timed(machine)

    assert len(blocks) == PLAN.min_blocks + 1
    assert all(len(block.reference_seconds) == 5 for block in blocks)
    assert all(block.canary_seconds == pytest.approx(0.005) for block in blocks)
    assert blocks[-1].latency_seconds == ()
    assert machine.log.index("canary") < machine.log.index("model", machine.log.index("canary"))


def test_a_block_ends_after_its_runs_or_its_seconds() -> None:
    by_runs = timed(FakeMachine(10 * MS))
    by_seconds = timed(FakeMachine(100 * MS))

    assert {len(block.latency_seconds) for block in by_runs[:-1]} == {30}
    assert {len(block.latency_seconds) for block in by_seconds[:-1]} == {10}


def test_the_model_runs_untimed_after_the_reference() -> None:
    machine = FakeMachine(10 * MS)
    part = share()
    warmup = warm_up(machine.run, part, machine.clock)
    before = machine.runs

    blocks = blocks_of(machine, part, warmup.runs_per_sample)

    timed_runs = sum(len(block.latency_seconds) for block in blocks)
    assert machine.runs - before == timed_runs + 2 * PLAN.min_blocks


def test_a_run_below_a_millisecond_is_repeated_inside_a_sample() -> None:
    machine = FakeMachine(MS // 10)

    blocks = timed(machine)

    assert blocks[0].latency_seconds == pytest.approx((1e-4,) * 30)
    assert blocks[0].cpu_seconds == pytest.approx((1e-4,) * 30)


def test_samples_go_on_until_the_median_is_known_well_enough() -> None:
    noisy = [10 * MS if n // 35 % 2 else 11 * MS for n in range(100_000)]

    steady, wide = timed(FakeMachine(10 * MS)), timed(FakeMachine(*noisy))

    assert len(steady) == PLAN.min_blocks + 1
    assert len(wide) > len(steady)


def test_samples_end_with_the_budget_whatever_the_spread() -> None:
    machine = FakeMachine(*[MS * (5 + n * 7919 % 97) for n in range(100_000)])

    timed(machine, half_width=1e-9, budget_seconds=10.0)

    assert machine.now_ns <= 10e9


def test_one_sample_is_taken_however_short_the_budget() -> None:
    blocks = timed(FakeMachine(30_000 * MS), budget_seconds=0.001)

    assert [len(block.latency_seconds) for block in blocks] == [1, 0]


def test_waiting_for_a_core_is_counted_for_the_sample_that_waited() -> None:
    machine = FakeMachine(10 * MS, noise=lambda run: 4 * MS if run % 3 == 0 else 0)

    block = timed(machine)[0]

    waited = [delay > 0 for delay in block.run_delay_seconds]
    assert any(waited)
    assert [latency > 0.011 for latency in block.latency_seconds] == waited
    assert block.cpu_seconds == pytest.approx((0.01,) * len(waited))
    assert machine.counters_open == 0
    assert block.steal_seconds == pytest.approx(sum(block.latency_seconds) / 10, rel=0.1)


def test_a_kernel_that_counts_no_delay_gives_none() -> None:
    machine = FakeMachine(10 * MS)

    blocks = blocks_of(machine, share(), open_run_delay=lambda: None)

    assert blocks[0].run_delay_seconds is None


def test_a_count_of_stolen_time_that_steps_back_is_nothing_stolen() -> None:
    counts = iter([5.0, 4.0, *[4.0] * 1000])
    machine = FakeMachine(10 * MS)

    blocks = blocks_of(machine, share(), steal_seconds=lambda _cpus: next(counts))

    assert blocks[0].steal_seconds == 0.0


def test_a_kernel_that_counts_no_stolen_time_gives_none() -> None:
    blocks = blocks_of(FakeMachine(10 * MS), share(), steal_seconds=lambda _cpus: None)

    assert blocks[0].steal_seconds is None


def test_no_more_samples_than_a_message_holds() -> None:
    machine = FakeMachine(MS, *[MS + n % 1000 for n in range(10)])

    blocks = timed(
        machine,
        half_width=0.0,
        block_runs=5_000,
        block_seconds=1e6,
        budget_seconds=1e6,
        processes=4,
    )

    assert sum(len(b.latency_seconds) for b in blocks) <= MAX_SAMPLES // 4 + 5_000


@settings(deadline=None, max_examples=30)
@given(
    durations=st.lists(st.integers(1_000, 400 * MS), min_size=1, max_size=30),
    budget=st.floats(0.01, 5.0),
)
def test_there_are_samples_and_no_overrun_whatever_the_model_does(
    durations: Any, budget: float
) -> None:
    machine = FakeMachine(*durations)

    blocks = timed(machine, budget_seconds=budget)

    assert blocks[0].latency_seconds
    longest = max(durations) * 1e-9
    assert machine.now_ns * 1e-9 <= budget + 30 * longest + 0.5


def test_a_model_alone_is_timed_by_wall_and_cpu() -> None:
    machine = FakeMachine(4 * MS, noise=lambda run: MS)

    samples = time_alone(machine.run, 3, machine.instruments)

    assert samples == [pytest.approx((0.005, 0.004))] * 3


def test_a_slow_model_spends_its_budget_on_samples() -> None:
    machine = FakeMachine(2_000 * MS)

    blocks = timed(machine, budget_seconds=60.0)

    samples = sum(len(block.latency_seconds) for block in blocks)
    assert samples >= 15
