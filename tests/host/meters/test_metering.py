"""Meters read while devices measure: clocks, gaps, meters that fail, the energy that follows."""

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from host.device import MeterBinding
from host.gateway.metering import MAX_READINGS, SLACK_SECONDS, Metering
from host.measurement import EnergyRun, MeasureSpec, Phase, PowerSeries, ProbeSpec, Readiness
from host.measurement.energy import energies_of
from host.measurement.samples import PhaseKind
from host.meters import (
    Meter,
    MeterError,
    MeterFacts,
    MeterUsageError,
    Quantity,
    Reading,
    meter_name,
    open_meter,
)
from host.store import Store

if TYPE_CHECKING:
    from tests.host.conftest import Fleet
    from tests.host.meters.conftest import Bench

FACTS = MeterFacts("fake line-3", "wall", "measured", "watts", 1000.0, 0.5, resolution_watts=0.1)
BINDING = MeterBinding("shelly://line-3")
BOOTED_SECONDS = 1_000_000.0
"""What the host's clock shows more than the device's."""
IDLE_WATTS, BUSY_WATTS, INFERENCES = 5.0, 41.5, 1000


class VirtualTime:
    """Time that passes only while somebody pauses."""

    def __init__(self) -> None:
        self.now = BOOTED_SECONDS
        self.stop_at: float | None = None
        self._reached = threading.Event()

    def clock(self) -> float:
        return self.now

    def pause(self, stopped: threading.Event, seconds: float) -> bool:
        if self.stop_at is not None and self.now + seconds > self.stop_at:
            self.now = self.stop_at
            self._reached.set()
            return stopped.wait(10)
        self.now += max(seconds, 1e-6)
        return stopped.is_set()

    def run_to(self, moment: float) -> None:
        """Wait until the thread that pauses has come to this moment."""
        assert self._reached.wait(10), f"time stands at {self.now}, not at {moment}"


class FakeMeter(Meter):
    """Says what a function of the host's time says; errors that this returns are raised."""

    def __init__(
        self,
        say: Callable[[float], float | Exception],
        clock: Callable[[], float],
        facts: MeterFacts,
    ) -> None:
        super().__init__(facts)
        self.closed = 0
        self._say, self._clock = say, clock

    def read(self) -> Reading:
        said = self._say(self._clock())
        if isinstance(said, Exception):
            raise said
        if self.quantity == "watts":
            return Reading(power_watts=said)
        return Reading(energy_joules=said)

    def close(self) -> None:
        self.closed += 1


class Plant:
    """A metering of one device in virtual time, and the meters that it opened."""

    def __init__(self, store: Store, fleet: "Fleet") -> None:
        self.time = VirtualTime()
        self.device = fleet.device()
        self.spec = self._spec(fleet)
        self.say: Callable[[float], float | Exception] = lambda _: 10.0
        self.open_error: Callable[[float], Exception | None] = lambda _: None
        self.facts = FACTS
        self.meters: list[FakeMeter] = []
        self.store = store
        store.meters.bind(self.device.id, BINDING)
        self.metering = Metering(store, self._open, self.time.clock, self.time.pause)

    def _spec(self, fleet: "Fleet") -> MeasureSpec:
        spec = fleet.spec()
        return replace(spec, plan=spec.plan.with_energy(5))

    def _open(self, binding: MeterBinding, clock: Callable[[], float]) -> Meter:
        assert binding == BINDING
        error = self.open_error(clock())
        if error is not None:
            raise error
        self.meters.append(FakeMeter(self.say, clock, self.facts))
        return self.meters[-1]

    def metered(
        self, seconds: float, phases: tuple[Phase, ...] = ()
    ) -> tuple[tuple[PowerSeries, ...], str]:
        """The series of a job that is reported after so many seconds."""
        self.time.stop_at = BOOTED_SECONDS + seconds
        self.metering.started(self.device.id, "job", self.spec)
        self.time.run_to(self.time.stop_at)
        return self.metering.finished("job", self.time.now - BOOTED_SECONDS, phases)


@pytest.fixture
def plant(store: Store, fleet: "Fleet") -> Plant:
    return Plant(store, fleet)


def an_energy_run(started: float) -> tuple[Phase, ...]:
    """The phases of five windows as the agent makes them, on the device's clock."""
    pattern: list[tuple[PhaseKind, float]] = [("idle", 3), ("step", 5), ("idle", 3), ("idle", 10)]
    pattern += [("busy", 10.0), ("idle", 10.0)] * 5
    phases, at = [], started
    for kind, seconds in pattern:
        phases.append(Phase(kind, at, at + seconds, INFERENCES if kind == "busy" else 0))
        at += seconds
    return tuple(phases)


def load_at(phases: tuple[Phase, ...], moment: float) -> float:
    """The watts of a device at a moment of its clock."""
    for phase in phases:
        if phase.started_monotonic_seconds <= moment < phase.ended_monotonic_seconds:
            return BUSY_WATTS if phase.kind in {"step", "busy"} else IDLE_WATTS
    return IDLE_WATTS


def joules_at(phases: tuple[Phase, ...], moment: float) -> float:
    """What a counter shows that was 0 when the device started."""
    busy = sum(
        max(0.0, min(moment, phase.ended_monotonic_seconds) - phase.started_monotonic_seconds)
        for phase in phases
        if phase.kind in {"step", "busy"}
    )
    return 1e6 + IDLE_WATTS * moment + (BUSY_WATTS - IDLE_WATTS) * busy


def energy_of(series: tuple[PowerSeries, ...], phases: tuple[Phase, ...]):
    energies, because = energies_of(EnergyRun(phases, series, None, None, 1.0))
    assert because == ""
    return energies[0]


@pytest.mark.parametrize("lag_seconds", [0.0, 1.5, 3.0])
def test_a_meter_that_is_late_gives_the_right_energy(plant: Plant, lag_seconds: float) -> None:
    phases = an_energy_run(started=40.0)
    plant.say = lambda now: load_at(phases, now - BOOTED_SECONDS - lag_seconds)

    series, because = plant.metered(165.0, phases)
    energy = energy_of(series, phases)

    assert because == ""
    assert energy.lag_seconds == pytest.approx(lag_seconds, abs=0.3)
    assert energy.gross_joules == pytest.approx(BUSY_WATTS * 10 / INFERENCES, rel=0.01)
    assert energy.net_joules == pytest.approx((BUSY_WATTS - IDLE_WATTS) * 10 / INFERENCES, rel=0.01)
    assert energy.idle_watts == pytest.approx(IDLE_WATTS, rel=0.01)
    assert (energy.source, energy.scope, energy.kind) == ("fake line-3", "wall", "measured")


def test_a_late_counter_gives_the_right_energy_too(plant: Plant) -> None:
    phases = an_energy_run(started=40.0)
    plant.facts = replace(FACTS, quantity="joules")
    plant.say = lambda now: joules_at(phases, now - BOOTED_SECONDS - 1.5)

    series, _ = plant.metered(165.0, phases)
    energy = energy_of(series, phases)

    assert series[0].power_watts == ()
    assert energy.lag_seconds == pytest.approx(1.5, abs=0.3)
    assert energy.net_joules == pytest.approx((BUSY_WATTS - IDLE_WATTS) * 10 / INFERENCES, rel=0.01)


def test_a_report_that_was_under_way_for_long_changes_only_the_lag(plant: Plant) -> None:
    phases = an_energy_run(started=40.0)
    plant.say = lambda now: load_at(phases, now - BOOTED_SECONDS - 1.5)
    plant.time.stop_at = BOOTED_SECONDS + 165.0
    plant.metering.started(plant.device.id, "job", plant.spec)
    plant.time.run_to(plant.time.stop_at)

    series, _ = plant.metering.finished("job", 164.5, phases)  # sent half a second ago
    energy = energy_of(series, phases)

    assert energy.lag_seconds == pytest.approx(1.0, abs=0.3)
    assert energy.gross_joules == pytest.approx(BUSY_WATTS * 10 / INFERENCES, rel=0.01)


def test_readings_are_on_the_clock_of_the_device(plant: Plant) -> None:
    plant.say = lambda now: now - BOOTED_SECONDS

    (series,), because = plant.metered(10.0)

    assert because == ""
    assert series.power_watts == pytest.approx(series.monotonic_seconds, abs=1e-3)
    assert len(series.monotonic_seconds) == pytest.approx(20, abs=2)
    assert series.resolution_watts == 0.1
    assert series.max_watts == 1000


def test_a_series_is_cut_to_the_energy_run_and_what_a_late_meter_says_after_it(
    plant: Plant,
) -> None:
    phases = (Phase("idle", 50.0, 60.0, 0),)

    (series,), _ = plant.metered(100.0, phases)

    assert series.monotonic_seconds[0] == pytest.approx(49.0, abs=0.5)
    assert series.monotonic_seconds[-1] == pytest.approx(70.0, abs=0.5)


def test_a_meter_that_fails_for_a_while_is_opened_again_and_the_gap_is_told(plant: Plant) -> None:
    def say(now: float) -> float | Exception:
        return MeterError("it rests") if 20 <= now - BOOTED_SECONDS < 40 else 10.0

    plant.say = say

    (series,), because = plant.metered(60.0)

    gaps = [b - a for a, b in pairwise(series.monotonic_seconds)]
    assert 20 <= max(gaps) < 27
    assert because.startswith("fake line-3 was silent for 2")
    assert because.endswith(": it rests")
    assert len(plant.meters) > 2
    assert [meter.closed for meter in plant.meters[:-1]] == [1] * (len(plant.meters) - 1)


def test_a_meter_that_dies_is_told_with_what_it_said_before(plant: Plant) -> None:
    plant.say = lambda now: MeterError("it died") if now - BOOTED_SECONDS > 30 else 10.0

    (series,), because = plant.metered(60.0)

    assert len(series.power_watts) == pytest.approx(60, abs=3)
    assert because == "fake line-3 was silent for 30 s: it died"


def test_silence_outside_of_the_energy_run_is_not_told(plant: Plant) -> None:
    plant.say = lambda now: MeterError("asleep") if now - BOOTED_SECONDS < 40 else 10.0

    (series,), because = plant.metered(90.0, (Phase("idle", 50.0, 80.0, 0),))

    assert because == ""
    assert len(series.power_watts) > 50


@pytest.mark.parametrize(
    "error",
    [MeterError("it does not answer"), MeterUsageError("the URL is wrong"), OSError("no route")],
)
def test_a_meter_that_never_answers_is_a_broken_series_with_the_reason(
    plant: Plant, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    plant.open_error = lambda _: error

    (series,), because = plant.metered(60.0)

    assert because == ""
    assert (series.source, series.power_watts, series.monotonic_seconds) == (
        "shelly line-3",
        (),
        (),
    )
    assert str(error) in series.broken_because
    assert energies_of(EnergyRun(an_energy_run(1.0), (series,), None, None, 1.0))[0] == ()
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1


def test_a_library_that_raises_anything_ends_no_thread(plant: Plant) -> None:
    def say(now: float) -> float | Exception:
        return ZeroDivisionError("oops") if now - BOOTED_SECONDS < 20 else 10.0

    plant.say = say

    (series,), because = plant.metered(40.0)

    assert len(series.power_watts) > 20
    assert because == ""  # before the first reading, and nobody said that it was wanted then


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reading_that_is_no_number_is_none(plant: Plant, value: float) -> None:
    plant.say = lambda _: value

    (series,), _ = plant.metered(10.0)

    assert "not a number" in series.broken_because


def test_a_meter_is_read_no_longer_than_the_job_may_take_and_no_more_often_than_is_kept(
    plant: Plant,
) -> None:
    plant.facts = replace(FACTS, interval_seconds=0.001)
    plant.spec = replace(plant.spec, timeout_seconds=300.0)
    plant.metering.started(plant.device.id, "job", plant.spec)
    until = BOOTED_SECONDS + 300 + SLACK_SECONDS
    ended = time.monotonic() + 20
    while plant.time.now < until and time.monotonic() < ended:
        time.sleep(0.01)
    time.sleep(0.05)
    plant.time.now += 1000

    (series,), because = plant.metering.finished("job", plant.time.now - BOOTED_SECONDS)

    assert len(series.power_watts) == pytest.approx(MAX_READINGS, rel=0.01)
    assert len(series.power_watts) <= MAX_READINGS
    assert series.monotonic_seconds[-1] <= 361
    assert because.startswith("fake line-3 was silent for 100")


def test_without_the_clock_of_the_device_there_is_no_series_but_a_reason(plant: Plant) -> None:
    plant.time.stop_at = BOOTED_SECONDS + 5
    plant.metering.started(plant.device.id, "job", plant.spec)
    plant.time.run_to(plant.time.stop_at)

    series, because = plant.metering.finished("job", None)

    assert series == ()
    assert because.startswith("the agent did not say what its clock shows")
    assert "shelly line-3" in because


def test_only_jobs_that_measure_energy_on_a_metered_device_are_metered(
    plant: Plant, store: Store, fleet: "Fleet"
) -> None:
    other = fleet.device("bare")
    latency_only = replace(plant.spec, plan=replace(plant.spec.plan, energy_windows=0))
    probe = ProbeSpec(Readiness())

    plant.metering.started(plant.device.id, "a", latency_only)
    plant.metering.started(plant.device.id, "b", probe)
    plant.metering.started(other.id, "c", plant.spec)

    assert [plant.metering.finished(job, 1.0) for job in "abcd"] == [((), "")] * 4
    assert plant.meters == []


def test_a_dropped_job_closes_its_meter(plant: Plant) -> None:
    plant.time.stop_at = BOOTED_SECONDS + 5
    plant.metering.started(plant.device.id, "job", plant.spec)
    plant.time.run_to(plant.time.stop_at)

    plant.metering.dropped("job")
    plant.metering.dropped("never started")

    until = time.monotonic() + 5
    while not plant.meters[0].closed and time.monotonic() < until:
        time.sleep(0.01)
    assert plant.meters[0].closed == 1
    assert plant.metering.finished("job", 1.0) == ((), "")


def test_a_meter_that_hangs_holds_up_nobody(store: Store, fleet: "Fleet") -> None:
    device, answers = fleet.device(), threading.Event()
    store.meters.bind(device.id, BINDING)
    spec = fleet.spec()
    spec = replace(spec, plan=spec.plan.with_energy(5))

    def say(_: float) -> float:
        answers.wait(10)
        return 1.0

    def hanging(binding: MeterBinding, clock: Callable[[], float]) -> Meter:
        return FakeMeter(say, clock, FACTS)

    metering = Metering(store, hanging)
    started = time.monotonic()
    metering.started(device.id, "job", spec)
    (series,), _ = metering.finished("job", time.monotonic())
    metering.started(device.id, "job", spec)
    metering.started(device.id, "job", spec)
    metering.dropped("job")
    lasted = time.monotonic() - started
    answers.set()

    assert lasted < 2
    assert series.broken_because == "it gave no reading while the device measured energy"


@contextmanager
def metered_for_real(store: Store, fleet: "Fleet", binding: MeterBinding):
    device = fleet.device()
    store.meters.bind(device.id, binding)
    spec = fleet.spec()
    metering = Metering(store)
    metering.started(device.id, "job", replace(spec, plan=spec.plan.with_energy(5)))
    yield metering
    metering.dropped("job")


def wait_for_meter_threads() -> None:
    """Until the meters are closed, in the threads that read them."""
    until = time.monotonic() + 10
    while any(thread.name == "genba-meter" for thread in threading.enumerate()):
        assert time.monotonic() < until, "a meter was not closed"
        time.sleep(0.01)


def finished_after(metering: Metering, readings: int) -> PowerSeries:
    """The series once it has so many readings; looks through the one that is kept."""
    recorder = metering._recorders["job"]
    until = time.monotonic() + 10
    while len(recorder._times) < readings and time.monotonic() < until:
        time.sleep(0.01)
    (series,), _ = metering.finished("job", time.monotonic() - BOOTED_SECONDS)
    return series


@pytest.mark.parametrize(
    "bench_name",
    ["modbus_bench", "shelly_bench", "tasmota_bench", "mqtt_bench", "snmp_bench", "nut_bench"],
)
def test_every_meter_is_read_in_a_thread_by_the_clock_of_the_host(
    store: Store, fleet: "Fleet", request: pytest.FixtureRequest, bench_name: str
) -> None:
    bench: Bench = request.getfixturevalue(bench_name)
    binding = bench.bound(interval_seconds="0.02")
    earliest = time.monotonic() - BOOTED_SECONDS

    with metered_for_real(store, fleet, binding) as metering:
        series = finished_after(metering, 10)

    latest = time.monotonic() - BOOTED_SECONDS
    assert series.source == meter_name(binding)
    assert series.power_watts[:10] == pytest.approx([bench.watts[0]] * 10)
    assert earliest <= series.monotonic_seconds[0] < series.monotonic_seconds[-1] <= latest
    wait_for_meter_threads()


def test_a_value_that_was_published_once_is_read_once(
    store: Store, fleet: "Fleet", mqtt_bench: "Bench"
) -> None:
    binding = mqtt_bench.bound(interval_seconds="0.02")

    with metered_for_real(store, fleet, binding) as metering:
        series = finished_after(metering, 6)

    wait_for_meter_threads()
    steps = [b - a for a, b in pairwise(series.monotonic_seconds)]
    assert statistics.median(steps) > 0.04  # it is published every 50 ms


def test_the_default_way_to_open_is_the_catalogue(store: Store) -> None:
    assert Metering(store)._open_meter is open_meter


def test_a_reading_without_the_quantity_is_told() -> None:
    wanted: Quantity = "watts"

    with pytest.raises(MeterError, match="no power"):
        Reading(energy_joules=1.0).value(wanted)
