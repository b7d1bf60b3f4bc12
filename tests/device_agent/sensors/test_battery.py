from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.battery import Battery

SUPPLIES = Path("sys/class/power_supply")


def say(root: Path, file: str, value: object) -> None:
    (root / SUPPLIES / file).write_text(f"{value}\n", encoding="ascii")


def test_what_leaves_the_battery_is_what_the_board_draws(machine: Any) -> None:
    source = Battery(machine("thinkpad-t480") / "sys")

    assert source.read() == pytest.approx(6.213)
    assert (source.scope, source.kind) == ("board", "measured")


def test_current_times_voltage_serves_where_no_power_is_told(machine: Any) -> None:
    root = machine("thinkpad-t480")
    (root / SUPPLIES / "BAT0/power_now").unlink()
    # Newer drivers count what leaves as negative.
    say(root, "BAT0/current_now", -531_000)

    assert Battery(root / "sys").read() == pytest.approx(0.531 * 11.684)


def test_two_batteries_that_discharge_are_added_up(machine: Any) -> None:
    root = machine("thinkpad-t480")
    say(root, "BAT1/status", "Discharging")
    say(root, "BAT1/power_now", 2_000_000)

    assert Battery(root / "sys").read() == pytest.approx(8.213)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_a_battery_that_does_not_discharge_is_refused_at_each_reading(
    machine: Any, status: str
) -> None:
    root = machine("thinkpad-t480")
    source = Battery(root / "sys")
    say(root, "BAT0/status", status)

    with pytest.raises(SensorUnavailableError, match=f"BAT0 is '{status}'.*unplug the charger"):
        source.read()
    say(root, "BAT0/status", "Discharging")
    assert source.read() == pytest.approx(6.213)


def test_a_battery_that_charges_from_another_is_refused(machine: Any) -> None:
    root = machine("thinkpad-t480")
    say(root, "BAT1/status", "Charging")

    with pytest.raises(SensorUnavailableError, match="BAT1 is 'Charging'"):
        Battery(root / "sys")


def test_a_charger_that_helps_the_battery_is_refused(machine: Any) -> None:
    root = machine("thinkpad-t480")
    source = Battery(root / "sys")
    say(root, "AC/online", 1)

    with pytest.raises(SensorUnavailableError, match="the charger AC supplies the board too"):
        source.read()


def test_the_battery_of_a_mouse_is_none_of_this_machine(machine: Any) -> None:
    root = machine("thinkpad-t480")
    for name in ("BAT0", "BAT1"):
        for file in (root / SUPPLIES / name).iterdir():
            file.unlink()

    with pytest.raises(SensorUnavailableError, match="no battery"):
        Battery(root / "sys")


@pytest.mark.parametrize("microwatts", [0, 6_213_000_000])
def test_a_power_that_no_portable_draws_is_refused(machine: Any, microwatts: int) -> None:
    root = machine("thinkpad-t480")
    say(root, "BAT0/power_now", microwatts)

    with pytest.raises(SensorUnavailableError, match="no such machine draws"):
        Battery(root / "sys")
