from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.measuring import MAX_SAMPLES, TimeBudget, time_runs
from device_agent.work import MeasureSpec

MS = 1_000_000


class FakeMachine:
    """A model whose runs take given times; the clock moves only while it runs."""

    def __init__(self, *durations_ns: int) -> None:
        self._durations = durations_ns
        self.runs = 0
        self.now_ns = 0

    def run(self) -> None:
        index = min(self.runs, len(self._durations) - 1)
        self.now_ns += self._durations[index]
        self.runs += 1

    def clock(self) -> int:
        return self.now_ns


def timed(machine: Any, spec: MeasureSpec, seconds: float = 100.0, **changes: Any) -> Any:
    return time_runs(
        machine.run,
        dataclasses.replace(spec, **changes),
        clock=machine.clock,
        cpu_clock=lambda: 2 * machine.now_ns,
        budget=TimeBudget(0, seconds),
    )


def test_warmups_run_but_are_not_timed(spec: MeasureSpec) -> None:
    machine = FakeMachine(90 * MS, 90 * MS, 90 * MS, 5 * MS)

    timings = timed(machine, spec, warmup_runs=3, min_samples=4)

    assert timings.latency_seconds == pytest.approx([0.005] * 4)
    assert timings.warmup_runs == machine.runs - 4


def test_warming_up_lasts_for_both_the_runs_and_the_seconds_asked_for(spec: MeasureSpec) -> None:
    by_count = timed(FakeMachine(10 * MS), spec, warmup_runs=7, warmup_seconds=0.01)
    by_time = timed(FakeMachine(10 * MS), spec, warmup_runs=1, warmup_seconds=0.2)

    # One more run finds out how many runs a sample needs.
    assert by_count.warmup_runs == 7 + 1
    assert by_time.warmup_runs == 20 + 1


def test_sampling_lasts_for_both_the_samples_and_the_seconds_asked_for(spec: MeasureSpec) -> None:
    by_count = timed(FakeMachine(10 * MS), spec, min_samples=30, min_seconds=0.05)
    by_time = timed(FakeMachine(10 * MS), spec, min_samples=3, min_seconds=0.5)

    assert len(by_count.latency_seconds) == 30
    assert len(by_time.latency_seconds) == 50


@settings(deadline=None)
@given(duration_ns=st.integers(200, 30 * MS))
def test_a_sample_lasts_at_least_a_millisecond_and_is_divided_by_its_runs(
    spec: MeasureSpec, duration_ns: Any
) -> None:
    timings = timed(FakeMachine(duration_ns), spec)

    assert timings.runs_per_sample * duration_ns >= MS
    assert timings.runs_per_sample == 1 or timings.runs_per_sample * duration_ns < 2 * MS
    assert timings.latency_seconds == pytest.approx(
        [duration_ns * 1e-9] * len(timings.latency_seconds)
    )


def test_long_sampling_makes_longer_samples_rather_than_a_message_too_large(
    spec: MeasureSpec,
) -> None:
    timings = timed(FakeMachine(MS), spec, seconds=10_000.0, min_seconds=100.0)

    assert len(timings.latency_seconds) <= 10_000
    assert timings.runs_per_sample >= 10


def test_no_more_samples_are_taken_than_fit_in_a_message(spec: MeasureSpec) -> None:
    timings = timed(FakeMachine(MS), spec, seconds=10_000.0, min_samples=10 * MAX_SAMPLES)

    assert len(timings.latency_seconds) == MAX_SAMPLES


def test_a_slow_device_returns_what_it_got_before_its_time_is_over(spec: MeasureSpec) -> None:
    machine = FakeMachine(3000 * MS)

    timings = timed(machine, spec, seconds=60.0, warmup_runs=50, min_samples=1000)

    assert 1 <= len(timings.latency_seconds) < 20
    assert machine.now_ns < 60_000 * MS


def test_even_without_any_time_one_run_warms_up_and_one_sample_is_taken(spec: MeasureSpec) -> None:
    timings = timed(FakeMachine(3000 * MS), spec, seconds=0.5)

    assert timings.latency_seconds == (3.0,)
    assert timings.warmup_runs == 2


def test_processor_time_covers_the_samples_and_nothing_else(spec: MeasureSpec) -> None:
    timings = timed(FakeMachine(10 * MS), spec, min_samples=6)

    assert timings.cpu_seconds == pytest.approx(0.12)
