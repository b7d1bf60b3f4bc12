"""The power sources on a board that an agent knows, and which of them work here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Callable, Union

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import PowerSettings, PowerSource, PowerSourceFacts, Quantity
from device_agent.sensors.battery import Battery
from device_agent.sensors.hwmon import Ina, PowerZ
from device_agent.sensors.mailbox import Mailbox
from device_agent.sensors.pmic import Pmic
from device_agent.sensors.rapl import Rapl

Opener = Callable[[], PowerSource]
"""Makes a source ready to be read. Raises SensorUnavailableError with the reason."""

# Long enough for every counter to move, even one in the units of an idle package.
_PROVING_SECONDS = 0.1


def power_sources(
    settings: PowerSettings | None = None, root: Path = Path("/")
) -> Mapping[str, Opener]:
    """Every source that this agent knows, those of the whole board first."""
    sys, proc, dev = root / "sys", root / "proc", root / "dev"
    return {
        "ina": lambda: Ina(sys, settings),
        "powerz": lambda: PowerZ(sys),
        "battery": lambda: Battery(sys),
        "pmic": lambda: Pmic(Mailbox(dev / "vcio").gencmd),
        "rapl": lambda: Rapl(sys, proc / "cpuinfo"),
    }


def power_source_facts(
    sources: Mapping[str, Opener] | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[PowerSourceFacts, ...]:
    """Which sources work here, and why the others do not."""
    return tuple(
        PowerSourceFacts(name, works=False, why_not=str(result))
        if isinstance(result, SensorUnavailableError)
        else PowerSourceFacts(result.name, works=True, why_not="")
        for name, result in _tried(sources, sleep)
    )


def open_power_sources(
    sources: Mapping[str, Opener] | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[PowerSource, ...]:
    """All sources that work here; none where there are none."""
    return tuple(
        result
        for _, result in _tried(sources, sleep)
        if not isinstance(result, SensorUnavailableError)
    )


_Result = Union[PowerSource, SensorUnavailableError]


def _tried(
    sources: Mapping[str, Opener] | None, sleep: Callable[[float], None]
) -> list[tuple[str, _Result]]:
    known = power_sources() if sources is None else sources
    return [(name, _try(open_source, sleep)) for name, open_source in known.items()]


def _try(open_source: Opener, sleep: Callable[[float], None]) -> _Result:
    try:
        source = open_source()
        if source.quantity is Quantity.JOULES:
            _prove(source, sleep)
    except SensorUnavailableError as reason:
        return reason
    return source


def _prove(source: PowerSource, sleep: Callable[[float], None]) -> None:
    """A counter shows only over time that it moves, and that it does not move too fast."""
    before = source.read()
    sleep(_PROVING_SECONDS)
    if source.read() <= before:
        raise SensorUnavailableError(
            f"{source.name}: the counter does not move (virtual machines show such counters)"
        )
