"""Temperature, as the kernel tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agent.sensors.thermal import cpu_temperature_celsius


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n", encoding="ascii")


def test_the_package_is_preferred_to_other_thermal_zones(tmp_path: Path) -> None:
    write(tmp_path / "class/thermal/thermal_zone0", type="acpitz", temp=27_800)
    write(tmp_path / "class/thermal/thermal_zone1", type="x86_pkg_temp", temp=61_000)
    write(tmp_path / "class/hwmon/hwmon0", name="coretemp", temp1_input=60_000)

    assert cpu_temperature_celsius(tmp_path) == pytest.approx(61.0)


def test_a_chip_of_hwmon_serves_where_no_zone_is_the_cpu(tmp_path: Path) -> None:
    write(tmp_path / "class/thermal/thermal_zone0", type="acpitz", temp=27_800)
    write(tmp_path / "class/hwmon/hwmon0", name="nvme", temp1_input=45_000)
    write(tmp_path / "class/hwmon/hwmon1", name="k10temp", temp1_input=52_125)

    assert cpu_temperature_celsius(tmp_path) == pytest.approx(52.125)


@pytest.mark.parametrize("temp", ["", "hot", "999000", "-300000"])
def test_a_temperature_that_makes_no_sense_is_absent(tmp_path: Path, temp: str) -> None:
    write(tmp_path / "class/thermal/thermal_zone0", type="cpu-thermal", temp=temp)

    assert cpu_temperature_celsius(tmp_path) is None


def test_no_sensor_means_no_temperature(tmp_path: Path) -> None:
    assert cpu_temperature_celsius(tmp_path) is None
