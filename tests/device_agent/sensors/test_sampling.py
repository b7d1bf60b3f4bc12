from __future__ import annotations

import math
import threading
import time
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.codec import to_json
from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import Quantity
from device_agent.sensors.sampling import MAX_READINGS, SeriesRecorder, sampling
from device_agent.work import PowerSeries


class Sensor:
    """A source that says what a function says."""

    scope, kind, max_watts = "board", "measured", 60.0

    def __init__(
        self,
        say: Callable[[], float],
        *,
        name: str = "sensor",
        quantity: Quantity = Quantity.WATTS,
        interval_seconds: float = 0.01,
    ) -> None:
        self.name, self.quantity, self.interval_seconds = name, quantity, interval_seconds
        self.read = say


def fail() -> float:
    raise SensorUnavailableError("the plug was pulled")


def failing_after(readings: int, times: float = math.inf) -> Callable[[], float]:
    taken = 0

    def read() -> float:
        nonlocal taken
        taken += 1
        if readings < taken <= readings + times:
            raise SensorUnavailableError("the plug was pulled")
        return 5.0

    return read


def record(sensor: Sensor, readings: int, *, max_readings: int) -> PowerSeries:
    recorder = SeriesRecorder(sensor, max_readings)
    now = 0.0

    def clock() -> float:
        return now

    for _ in range(readings):
        recorder.read(clock)
        now += 0.01
    return recorder.series()


def test_every_source_is_read_at_its_own_interval() -> None:
    fast = Sensor(lambda: 5.0, name="fast", interval_seconds=0.02)
    slow = Sensor(
        lambda: time.monotonic() * 3.0,
        name="slow",
        interval_seconds=0.1,
        quantity=Quantity.JOULES,
    )
    started = time.monotonic()

    with sampling([fast, slow]) as recorders:
        time.sleep(0.65)

    ended = time.monotonic()
    first, second = (recorder.series() for recorder in recorders)
    assert 8 <= len(first.monotonic_seconds) <= 34
    assert 2 <= len(second.monotonic_seconds) <= 8
    assert first.power_watts == (5.0,) * len(first.monotonic_seconds)
    assert (first.energy_joules, second.power_watts) == ((), ())
    assert list(second.energy_joules) == sorted(second.energy_joules)
    assert len(second.energy_joules) == len(second.monotonic_seconds)
    for series in (first, second):
        assert list(series.monotonic_seconds) == sorted(series.monotonic_seconds)
        assert started <= series.monotonic_seconds[0] <= series.monotonic_seconds[-1] <= ended


def test_a_slow_reading_costs_readings_and_shifts_none() -> None:
    reading_takes = iter([0.15, *[0.0] * 100])
    moments = []

    def read() -> float:
        moments.append(time.monotonic())
        time.sleep(next(reading_takes))
        return 5.0

    with sampling([Sensor(read, interval_seconds=0.1)]):
        time.sleep(0.45)

    assert len(moments) <= 5
    # The reading due after 0.1 s was missed; the next one is that of 0.2 s.
    assert moments[1] - moments[0] >= 0.19


def test_a_source_that_breaks_midway_keeps_what_it_said_and_the_others_go_on() -> None:
    breaking = Sensor(failing_after(4), name="breaking")
    lasting = Sensor(lambda: 7.0, name="lasting")

    with sampling([breaking, lasting]) as recorders:
        time.sleep(0.3)

    broken, whole = (recorder.series() for recorder in recorders)
    assert (broken.power_watts, broken.broken_because) == ((5.0,) * 4, "the plug was pulled")
    assert whole.broken_because == ""
    assert len(whole.power_watts) > 8


def test_a_reading_that_fails_once_or_twice_is_a_gap_and_no_break() -> None:
    series = record(Sensor(failing_after(3, times=2)), 10, max_readings=100)

    assert len(series.power_watts) == 8
    assert series.broken_because == ""


def test_a_source_that_never_answers_gives_an_empty_series_with_the_reason() -> None:
    with sampling([Sensor(fail)]) as (recorder,):
        time.sleep(0.1)

    series = recorder.series()
    assert series.monotonic_seconds == series.power_watts == ()
    assert series.broken_because == "the plug was pulled"


def test_without_sources_nothing_is_read() -> None:
    with sampling([]) as recorders:
        pass

    assert recorders == []


def test_a_defect_of_a_source_does_not_pass_as_a_short_series() -> None:
    def crash() -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), sampling([Sensor(crash)]):
        time.sleep(0.05)


def test_an_error_of_the_run_ends_the_sampling_and_is_what_is_raised() -> None:
    before = threading.active_count()

    with pytest.raises(KeyError), sampling([Sensor(lambda: 5.0)]):
        raise KeyError

    assert threading.active_count() == before


@given(st.integers(0, 700), st.sampled_from([4, 5, 10, 33]))
def test_thinning_keeps_the_energy_of_watts_and_stays_in_bounds(
    readings: int, max_readings: int
) -> None:
    values = iter(range(readings))

    series = record(Sensor(lambda: float(next(values))), readings, max_readings=max_readings)

    assert len(series.power_watts) == len(series.monotonic_seconds) <= max_readings
    # A straight line stays one: each point is the mean of neighbours at the mean of their moments.
    for moment, watts in zip(series.monotonic_seconds, series.power_watts):
        assert watts == pytest.approx(moment / 0.01, abs=1e-6)


@given(st.integers(1, 700), st.sampled_from([4, 5, 10, 33]))
def test_thinning_keeps_the_first_and_the_last_of_a_counter(
    readings: int, max_readings: int
) -> None:
    values = iter(range(readings))
    sensor = Sensor(lambda: float(next(values)), quantity=Quantity.JOULES)

    series = record(sensor, readings, max_readings=max_readings)

    assert series.energy_joules[0] == 0.0
    assert series.energy_joules[-1] == pytest.approx(readings - 1)
    assert len(series.energy_joules) == len(series.monotonic_seconds) <= max_readings
    assert sorted(set(series.energy_joules)) == list(series.energy_joules)


def test_a_long_run_of_five_sources_fits_a_message() -> None:
    series = record(Sensor(lambda: 5.123456789012345), 30_000, max_readings=MAX_READINGS)

    assert MAX_READINGS / 4 < len(series.power_watts) <= MAX_READINGS
    assert len(to_json(series)) * 5 < 1 << 20


def test_reading_costs_little_beside_the_run(machine: Any) -> None:
    from device_agent.sensors.base import PowerSettings
    from device_agent.sensors.hwmon import Ina

    root = machine("raspberry-pi-3-ina219")
    source = Ina(root / "sys", PowerSettings(shunt_ohm={"ina219": 0.1}))
    started = time.process_time()

    with sampling([source]) as (recorder,):
        time.sleep(1.0)

    assert len(recorder.series().power_watts) > 20
    assert time.process_time() - started < 0.1
