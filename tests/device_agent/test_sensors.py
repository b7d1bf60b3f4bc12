from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import EnergyReading
from device_agent.sensors.memory import ProcessMemory
from device_agent.sensors.power import measure_power, open_power_source, power_source_facts
from device_agent.sensors.rapl import Rapl
from device_agent.sensors.thermal import cpu_temperature_celsius

RANGE_UJ = 262_143_328_850
HASWELL = "vendor_id : GenuineIntel\ncpu family : 6\nmodel\t\t: 60\n"
IVY_BRIDGE = "vendor_id : GenuineIntel\ncpu family : 6\nmodel\t\t: 58\n"
ZEN = "vendor_id : AuthenticAMD\ncpu family : 23\nmodel\t\t: 49\n"


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n", encoding="ascii")


def add_domain(powercap: Path, folder: str, name: str, energy_uj: int, **more: object) -> Path:
    write(powercap / folder, name=name, energy_uj=energy_uj, max_energy_range_uj=RANGE_UJ, **more)
    return powercap / folder / "energy_uj"


@pytest.fixture
def powercap(tmp_path: Path) -> Any:
    """One package with its sub-domain, and a second counter that is not a package."""
    folder = tmp_path / "powercap"
    add_domain(folder, "intel-rapl:0", "package-0", 1_000, constraint_0_power_limit_uw=65_000_000)
    add_domain(folder, "intel-rapl:0:0", "core", 77)
    add_domain(folder, "intel-rapl:1", "psys", 88)
    return folder


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Any:
    path = tmp_path / "cpuinfo"
    path.write_text(HASWELL, encoding="ascii")
    return path


class FakeMeter:
    """A meter whose counter grows with the fake clock."""

    name, scope, kind, max_watts = "fake", "board", "measured", 100.0

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def read(self) -> EnergyReading:
        return EnergyReading((int(self._machine.microjoules),))

    def joules_between(self, earlier: Any, later: Any) -> float:
        return float(later.counters[0] - earlier.counters[0]) * 1e-6


class FakeMachine:
    def __init__(self, idle_watts: float, busy_watts: float, run_seconds: float) -> None:
        self.now_ns, self.microjoules = 0, 0.0
        self._idle_watts, self._busy_watts, self._run_seconds = idle_watts, busy_watts, run_seconds

    def clock(self) -> int:
        return self.now_ns

    def _pass(self, seconds: float, watts: float) -> None:
        self.now_ns += round(seconds * 1e9)
        self.microjoules += seconds * watts * 1e6

    def sleep(self, seconds: float) -> None:
        self._pass(seconds, self._idle_watts)

    def run(self) -> None:
        self._pass(self._run_seconds, self._busy_watts)


@pytest.mark.parametrize("make", ["rapl", "fake"])
def test_every_energy_sensor_keeps_the_contract(make: Any, powercap: Path, cpuinfo: Path) -> None:
    sensor = Rapl(powercap, cpuinfo) if make == "rapl" else FakeMeter(FakeMachine(1, 2, 0.1))

    reading = sensor.read()

    assert sensor.name
    assert sensor.scope in ("package", "board", "wall")
    assert sensor.kind in ("measured", "derived", "estimated")
    assert sensor.max_watts > 0
    assert sensor.joules_between(reading, reading) == 0


def test_only_packages_are_counted(powercap: Path, cpuinfo: Path) -> None:
    sensor = Rapl(powercap, cpuinfo)
    before = sensor.read()
    for folder in powercap.iterdir():
        energy = folder / "energy_uj"
        energy.write_text(str(int(energy.read_text()) + 3_000_000), encoding="ascii")

    assert sensor.joules_between(before, sensor.read()) == pytest.approx(3.0)


def test_all_sockets_are_added_up(powercap: Path, cpuinfo: Path) -> None:
    second = add_domain(powercap, "intel-rapl:2", "package-1", 500)
    sensor = Rapl(powercap, cpuinfo)
    before = sensor.read()

    second.write_text("2000500", encoding="ascii")

    assert sensor.joules_between(before, sensor.read()) == pytest.approx(2.0)


@settings(deadline=None)
@given(start=st.integers(0, RANGE_UJ - 1), used=st.integers(0, RANGE_UJ - 1))
def test_a_counter_that_wraps_loses_nothing(start: Any, used: Any) -> None:
    sensor = Rapl.__new__(Rapl)
    package = type("Package", (), {"wrap_microjoules": RANGE_UJ})()
    sensor._packages = (package,)

    later = EnergyReading(((start + used) % RANGE_UJ,))

    assert sensor.joules_between(EnergyReading((start,)), later) == pytest.approx(used * 1e-6)


@pytest.mark.parametrize(
    ("text", "kind"),
    [(HASWELL, "measured"), (IVY_BRIDGE, "derived"), (ZEN, "derived"), ("", "derived")],
)
def test_only_cpus_that_measure_are_labelled_measured(
    powercap: Path, cpuinfo: Path, text: str, kind: Any
) -> None:
    cpuinfo.write_text(text, encoding="ascii")

    assert Rapl(powercap, cpuinfo).kind == kind


def test_a_machine_without_rapl_says_so(tmp_path: Path, cpuinfo: Path) -> None:
    with pytest.raises(SensorUnavailableError, match="no RAPL"):
        Rapl(tmp_path / "nothing", cpuinfo)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_counter_kept_for_root_says_what_to_do(powercap: Path, cpuinfo: Path) -> None:
    (powercap / "intel-rapl:0" / "energy_uj").chmod(0)

    with pytest.raises(SensorUnavailableError, match="udev"):
        Rapl(powercap, cpuinfo)


def test_a_permission_that_is_missing_says_what_to_do(
    powercap: Path, cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)

    with pytest.raises(SensorUnavailableError, match="udev"):
        Rapl(powercap, cpuinfo)


def test_a_counter_that_is_no_number_is_unavailable(powercap: Path, cpuinfo: Path) -> None:
    (powercap / "intel-rapl:0" / "energy_uj").write_text("broken", encoding="ascii")

    with pytest.raises(SensorUnavailableError, match="no number"):
        Rapl(powercap, cpuinfo)


def test_power_is_taken_over_whole_runs_with_idle_beside_it() -> None:
    machine = FakeMachine(idle_watts=3.0, busy_watts=20.0, run_seconds=0.3)

    reading = measure_power(
        machine.run, FakeMeter(machine), clock=machine.clock, sleep=machine.sleep
    )

    assert reading.inferences == 7
    assert reading.window_seconds == pytest.approx(2.1)
    assert reading.energy_joules == pytest.approx(42.0)
    assert reading.idle_watts == pytest.approx(3.0)


def test_a_counter_that_stands_still_is_no_reading_of_zero() -> None:
    machine = FakeMachine(idle_watts=0.0, busy_watts=0.0, run_seconds=0.3)

    with pytest.raises(SensorUnavailableError, match="does not move"):
        measure_power(machine.run, FakeMeter(machine), clock=machine.clock, sleep=machine.sleep)


def test_an_impossible_power_is_refused() -> None:
    machine = FakeMachine(idle_watts=3.0, busy_watts=10_000.0, run_seconds=0.3)

    with pytest.raises(SensorUnavailableError, match="unit is wrong"):
        measure_power(machine.run, FakeMeter(machine), clock=machine.clock, sleep=machine.sleep)


def test_a_source_that_does_not_work_says_why(tmp_path: Path, cpuinfo: Path) -> None:
    sources = {"rapl": lambda: Rapl(tmp_path / "nothing", cpuinfo)}

    (facts,) = power_source_facts(sources)
    with pytest.raises(SensorUnavailableError, match="rapl: this machine has no RAPL"):
        open_power_source(sources)

    assert not facts.works
    assert "no RAPL" in facts.why_not


def test_a_source_that_works_has_no_reason(powercap: Path, cpuinfo: Path) -> None:
    (facts,) = power_source_facts({"rapl": lambda: Rapl(powercap, cpuinfo)})

    assert facts.works
    assert facts.why_not == ""


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


def test_memory_is_read_in_bytes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tworker\nVmHWM:\t   68408 kB\nVmRSS:\t   59498 kB\n")
    memory = ProcessMemory(status)

    assert memory.rss_bytes() == 59_498 * 1024
    assert memory.peak_rss_bytes() == 68_408 * 1024


def test_the_peak_of_this_process_is_not_below_what_it_holds() -> None:
    memory = ProcessMemory()

    assert memory.peak_rss_bytes() >= memory.rss_bytes() > 1 << 20


def test_a_kernel_without_these_lines_is_unavailable(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tworker\n")

    with pytest.raises(SensorUnavailableError, match="VmRSS"):
        ProcessMemory(status).rss_bytes()
