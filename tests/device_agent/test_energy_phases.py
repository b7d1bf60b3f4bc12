from __future__ import annotations

import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.energy import Step, Timer, full_load, run_phases
from device_agent.work import Phase, PhaseKind

IDLE, STEP, BUSY, PACED = PhaseKind.IDLE, PhaseKind.STEP, PhaseKind.BUSY, PhaseKind.PACED


class Machine:
    """A machine on which a run takes `run_seconds` and sleeping too long `oversleep_seconds`."""

    def __init__(self, run_seconds: float = 0.125, oversleep_seconds: float = 0.0) -> None:
        self.now = 50.0
        self.runs: list[float] = []
        self.loads: list[float] = []
        self.pauses: list[float] = []
        self._run_seconds, self._oversleep_seconds = run_seconds, oversleep_seconds

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self._oversleep_seconds

    def load(self, seconds: float) -> None:
        self.loads.append(seconds)
        self.now += seconds

    def pause(self) -> None:
        self.pauses.append(self.now)

    def run(self) -> None:
        self.runs.append(self.now)
        self.now += self._run_seconds

    def phases(self, paced_hertz: float | None = None, **more: Any) -> tuple[Phase, ...]:
        plan = {"windows": 2, "window_seconds": 10.0, **more}
        return run_phases(
            self.run,
            paced_hertz=paced_hertz,
            timer=Timer(self.clock, self.sleep),
            load=self.load,
            pause=self.pause,
            **plan,
        )


def lasted(phase: Phase) -> float:
    return phase.ended_monotonic_seconds - phase.started_monotonic_seconds


def only(phases: tuple[Phase, ...], kind: PhaseKind) -> Phase:
    (phase,) = [phase for phase in phases if phase.kind is kind]
    return phase


def test_the_step_comes_first_and_every_busy_window_stands_between_idle_ones() -> None:
    machine = Machine()

    phases = machine.phases(paced_hertz=5.0)

    assert [phase.kind for phase in phases] == [
        *(IDLE, STEP, IDLE),
        *(IDLE, BUSY, IDLE, BUSY, IDLE),
        *(PACED, IDLE),
    ]
    assert [lasted(phase) for phase in phases] == pytest.approx([3, 5, 3, *[10] * 7])
    assert machine.loads == [5.0]


def test_phases_follow_each_other_without_a_gap() -> None:
    phases = Machine().phases(paced_hertz=2.0)

    for before, after in zip(phases, phases[1:]):
        assert after.started_monotonic_seconds == before.ended_monotonic_seconds


def test_the_agent_may_have_its_say_before_each_idle_window_and_in_no_phase() -> None:
    machine = Machine()

    phases = machine.phases(paced_hertz=5.0)

    idle = [phase.started_monotonic_seconds for phase in phases if phase.kind is IDLE]
    assert machine.pauses == idle


def test_only_windows_with_the_model_count_inferences() -> None:
    machine = Machine(run_seconds=0.125)

    phases = machine.phases(paced_hertz=5.0)

    counts = {phase.kind: phase.inferences for phase in phases}
    assert counts == {IDLE: 0, STEP: 0, BUSY: 80, PACED: 50}
    assert sum(phase.inferences for phase in phases) == len(machine.runs)


def test_a_run_longer_than_the_window_is_waited_for_and_counted() -> None:
    phases = Machine(run_seconds=25.0).phases(windows=1)

    busy = only(phases, BUSY)
    assert busy.inferences == 1
    assert lasted(busy) == pytest.approx(25.0)


def test_without_a_rate_nothing_is_paced() -> None:
    assert PACED not in [phase.kind for phase in Machine().phases()]


@given(
    hertz=st.floats(0.3, 40.0),
    oversleep=st.floats(0.0, 0.01),
    load=st.floats(0.05, 0.9),
)
def test_a_pace_never_drifts(hertz: float, oversleep: float, load: float) -> None:
    machine = Machine(run_seconds=load / hertz * 0.5, oversleep_seconds=oversleep)

    paced = only(machine.phases(paced_hertz=hertz, windows=0), PACED)

    for tick, moment in enumerate(machine.runs):
        late = moment - (paced.started_monotonic_seconds + tick / hertz)
        assert -1e-6 <= late <= oversleep + 1e-6
    assert paced.inferences == len(machine.runs)
    # Whole periods, so that the idle time of each inference is in the window.
    assert lasted(paced) * hertz == pytest.approx(paced.inferences, abs=oversleep * hertz + 1e-4)
    assert lasted(paced) >= 10.0 - 1e-6


def test_one_late_run_does_not_move_those_after_it() -> None:
    machine = Machine(run_seconds=0.05)
    run, late = machine.run, iter([0.0, 0.0, 0.3, *[0.0] * 100])

    def run_late() -> None:
        run()
        machine.now += next(late)

    machine.run = run_late  # type: ignore[method-assign]
    paced = only(machine.phases(paced_hertz=5.0, windows=0), PACED)

    ticks = [moment - paced.started_monotonic_seconds for moment in machine.runs]
    assert ticks[:7] == pytest.approx([0.0, 0.2, 0.4, 0.75, 0.8, 1.0, 1.2])
    assert paced.inferences == 50


def test_a_model_slower_than_the_rate_is_told_by_its_count() -> None:
    paced = only(Machine(run_seconds=0.4).phases(paced_hertz=5.0), PACED)

    assert paced.inferences == 25
    assert lasted(paced) == pytest.approx(10.0)


def test_a_rate_below_one_in_a_window_lasts_a_whole_period() -> None:
    paced = only(Machine().phases(paced_hertz=0.05), PACED)

    assert paced.inferences == 1
    assert lasted(paced) == pytest.approx(20.0)


def test_another_step_may_be_asked_for() -> None:
    machine = Machine()

    phases = machine.phases(step=Step(rest_seconds=1.0, load_seconds=2.0))

    assert [lasted(phase) for phase in phases[:3]] == pytest.approx([1.0, 2.0, 1.0])


def test_what_a_run_raises_is_raised() -> None:
    machine = Machine()

    def fail() -> None:
        raise MemoryError

    machine.run = fail  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        machine.phases()


def test_full_load_keeps_every_core_that_is_allowed_busy() -> None:
    started, cpu = time.monotonic(), time.process_time()

    full_load(0.6)

    wall = time.monotonic() - started
    assert 0.6 <= wall < 3.0
    # Others may use these cores too, so only a lower bound holds.
    assert time.process_time() - cpu > 0.1 * wall * len(os.sched_getaffinity(0))


def test_phases_on_the_real_clock_are_those_of_the_monotonic_one() -> None:
    started = time.monotonic()

    phases = run_phases(
        lambda: time.sleep(0.001),
        windows=1,
        window_seconds=0.05,
        paced_hertz=100.0,
        timer=Timer(time.monotonic, time.sleep),
        load=full_load,
        pause=lambda: None,
        step=Step(rest_seconds=0.02, load_seconds=0.02),
    )

    assert started <= phases[0].started_monotonic_seconds
    assert phases[-1].ended_monotonic_seconds <= time.monotonic()
    assert only(phases, PACED).inferences <= 5
    assert only(phases, BUSY).inferences >= 1
