"""The power sources that an agent knows, and how a reading is taken from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import EnergySensor, PowerSourceFacts
from device_agent.sensors.rapl import Rapl
from device_agent.work import PowerReading

Opener = Callable[[], EnergySensor]

SOURCES: Mapping[str, Opener] = {"rapl": Rapl}

IDLE_SECONDS = 1.0
BUSY_SECONDS = 2.0
_NANO = 1e-9


def power_source_facts(sources: Mapping[str, Opener] = SOURCES) -> tuple[PowerSourceFacts, ...]:
    """Which sources work here, and why the others do not."""
    tried = [(name, _try(open_source)) for name, open_source in sources.items()]
    return tuple(
        PowerSourceFacts(name, works=False, why_not=str(result))
        if isinstance(result, SensorUnavailableError)
        else PowerSourceFacts(name, works=True, why_not="")
        for name, result in tried
    )


def open_power_source(sources: Mapping[str, Opener] = SOURCES) -> EnergySensor:
    """The first source that works. Raises SensorUnavailableError with every source's reason."""
    reasons = []
    for name, open_source in sources.items():
        result = _try(open_source)
        if not isinstance(result, SensorUnavailableError):
            return result
        reasons.append(f"{name}: {result}")
    raise SensorUnavailableError("; ".join(reasons) or "this agent knows no power source")


def _try(open_source: Opener) -> EnergySensor | SensorUnavailableError:
    try:
        return open_source()
    except SensorUnavailableError as reason:
        return reason


def measure_power(
    run: Callable[[], None],
    sensor: EnergySensor,
    *,
    clock: Callable[[], int],
    sleep: Callable[[float], None],
) -> PowerReading:
    """Energy of inferences back to back for at least BUSY_SECONDS, after IDLE_SECONDS of rest.

    `clock` counts nanoseconds. A window of its own, so that reading never touches a latency.
    Raises SensorUnavailableError where the counter stands still or shows an impossible power.
    """
    idle_from, started = sensor.read(), clock()
    sleep(IDLE_SECONDS)
    idle_to, rested = sensor.read(), clock()
    inferences = 0
    until = rested + int(BUSY_SECONDS / _NANO)
    while clock() < until or inferences == 0:
        run()
        inferences += 1
    busy_to, ended = sensor.read(), clock()
    window_seconds = (ended - rested) * _NANO
    energy_joules = sensor.joules_between(idle_to, busy_to)
    _check_plausible(energy_joules / window_seconds, sensor)
    idle_seconds = (rested - started) * _NANO
    return PowerReading(
        source=sensor.name,
        scope=sensor.scope,
        kind=sensor.kind,
        energy_joules=energy_joules,
        window_seconds=window_seconds,
        inferences=inferences,
        idle_watts=sensor.joules_between(idle_from, idle_to) / idle_seconds,
    )


def _check_plausible(watts: float, sensor: EnergySensor) -> None:
    if watts <= 0:
        raise SensorUnavailableError(f"{sensor.name}: the counter does not move")
    if watts > sensor.max_watts:
        raise SensorUnavailableError(
            f"{sensor.name}: the counter shows {watts:.0f} W, more than the"
            f" {sensor.max_watts:.0f} W that this CPU can draw: its unit is wrong"
        )
