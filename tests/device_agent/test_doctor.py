"""The doctor finds what spoils figures on a device, and names the command that mends each."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from device_agent.doctor import Check, Patient, State, examine
from device_agent.runtimes.base import RuntimeFacts
from device_agent.sensors.base import PowerSourceFacts
from device_agent.sensors.mailbox import Mailbox
from device_agent.state import Home
from device_agent.surroundings import Surroundings
from device_agent.system import GuardFacts, Roots

MACHINES = Path(__file__).parent / "machines"
WORKS = RuntimeFacts("onnx", "onnxruntime", "1.23.2", works=True, why_not="")
RAPL = PowerSourceFacts("rapl", works=True, why_not="")
GUARDS = ("network", "files", "system-calls", "memory")


@pytest.fixture
def examined(machine: Any, tmp_path: Path) -> Any:
    """The checks by name, of the made-up machine with changes to the patient."""
    machine.write(machine.proc / "self/schedstat", "1 2 3")

    def run(**changes: Any) -> dict[str, Check]:
        patient = Patient(
            home=Home(tmp_path / "home"),
            runtimes=(WORKS,),
            power_sources=(RAPL,),
            guards=tuple(GuardFacts(name, works=True, how="so", why_not="") for name in GUARDS),
            around=machine.surroundings(),
            today=lambda: dt.date(2026, 11, 24),
            online_cpus=2,
            cgroups=tmp_path / "cgroup",
            machine="x86_64",
            pointer_bits=64,
            python="3.11",
            installed={"numpy": "1.26.4"}.get,
        )
        return {check.name: check for check in examine(dataclasses.replace(patient, **changes))}

    return run


def assert_mended_by(check: Check, state: State, *words: str) -> None:
    assert check.state is state, check
    assert check.meaning
    for word in words:
        assert word in check.found + check.mend, check


def test_a_good_device_has_nothing_to_mend(examined: Any, machine: Any) -> None:
    machine.set_celsius(41.0)

    checks = examined()

    wrong = {name: check for name, check in checks.items() if check.state is not State.OK}
    assert set(wrong) == {"enrolment"}
    assert len(checks) >= 22
    for check in checks.values():
        assert check.found
        assert bool(check.mend) == (check.state is not State.OK)


@pytest.mark.parametrize(
    ("file", "text", "name", "words"),
    [
        (
            "devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "powersave",
            "governor",
            ("powersave", "echo performance | sudo tee"),
        ),
        (
            "devices/system/cpu/intel_pstate/no_turbo",
            "0",
            "turbo",
            ("echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo",),
        ),
        (
            "devices/system/cpu/cpufreq/boost",
            "1",
            "turbo",
            ("echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost",),
        ),
        (
            "devices/system/clocksource/clocksource0/current_clocksource",
            "acpi_pm",
            "clocksource",
            ("acpi_pm",),
        ),
    ],
)
def test_a_setting_of_the_kernel_that_makes_figures_scatter_is_found(
    examined: Any, machine: Any, file: str, text: str, name: str, words: tuple[str, ...]
) -> None:
    machine.write(machine.sys / file, text)

    assert_mended_by(examined()[name], State.WARN, *words)


def test_cores_of_different_governors_are_all_named(examined: Any, machine: Any) -> None:
    for core, governor in enumerate(("performance", "schedutil")):
        file = f"devices/system/cpu/cpu{core}/cpufreq/scaling_governor"
        machine.write(machine.sys / file, governor)

    assert examined()["governor"].found == "performance, schedutil"


@pytest.mark.parametrize(
    ("schedstat", "words"),
    [("", "CONFIG_SCHEDSTATS"), ("5 0 0", "sudo sysctl -w kernel.task_delayacct=1")],
)
def test_a_kernel_that_does_not_tell_who_waited_is_found(
    examined: Any, machine: Any, schedstat: str, words: str
) -> None:
    machine.write(machine.proc / "self/schedstat", schedstat)

    assert_mended_by(examined()["schedstat"], State.WARN, words)


def test_a_clock_before_2020_fails(examined: Any) -> None:
    checks = examined(today=lambda: dt.date(1970, 1, 1))

    assert_mended_by(checks["date"], State.FAIL, "1970-01-01", "timedatectl")


def test_little_memory_used_swap_and_pressure_are_found(examined: Any, machine: Any) -> None:
    lines = "MemTotal: 900000 kB\nMemAvailable: 50000 kB\nSwapTotal: 100000 kB\nSwapFree: 20000 kB"
    machine.write(machine.proc / "meminfo", lines)
    machine.write(machine.proc / "pressure/memory", "some avg10=31.50 avg60=1.0 avg300=0 total=5")

    checks = examined()

    assert_mended_by(checks["free memory"], State.FAIL, "49 MiB", "ps aux")
    assert_mended_by(checks["swap"], State.WARN, "78 MiB", "sudo swapoff -a")
    assert_mended_by(checks["pressure"], State.WARN, "31.5 %")


def test_a_busy_device_names_who_keeps_it_busy(examined: Any, machine: Any) -> None:
    machine.loads = {0: 0.9, 1: 0.0}
    machine.programs = {77: ("scada", 1, 0.9)}

    assert_mended_by(
        examined()["other programs"], State.WARN, "45% of the CPU", "scada (process 77)"
    )


def test_cores_that_are_kept_from_the_agent_are_found(examined: Any, machine: Any) -> None:
    around = machine.surroundings(allowed_cpus=lambda: frozenset({1}))

    checks = examined(around=around, online_cpus=4)

    assert_mended_by(checks["cores"], State.WARN, "1 of 4", "AllowedCPUs=")


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        (
            "0::/system.slice/genba-agent.service",
            {
                "system.slice/genba-agent.service/cpu.max": "50000 100000",
                "system.slice/genba-agent.service/memory.max": str(300 << 20),
            },
        ),
        ("0::/../elsewhere", {"cpu.max": "50000 100000", "memory.max": str(300 << 20)}),
        (
            "3:cpu,cpuacct:/docker/1\n2:memory:/docker/1",
            {
                "cpu,cpuacct/docker/1/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
                "memory/docker/1/memory.limit_in_bytes": str(300 << 20),
            },
        ),
    ],
    ids=["version 2", "inside a container", "version 1"],
)
def test_limits_of_a_cgroup_are_found(
    examined: Any, machine: Any, tmp_path: Path, cgroup: str, files: dict[str, str]
) -> None:
    machine.write(machine.proc / "self/cgroup", cgroup)
    for name, text in files.items():
        machine.write(tmp_path / "cgroup" / name, text)

    checks = examined()

    assert_mended_by(checks["cgroup cpu"], State.WARN, "0.5 cores", "CPUQuota=")
    assert_mended_by(checks["cgroup memory"], State.WARN, "300 MiB", "MemoryMax=infinity")


def test_a_cgroup_without_limits_is_fine(examined: Any, machine: Any, tmp_path: Path) -> None:
    machine.write(machine.proc / "self/cgroup", "0::/a\n4:memory:/b")
    machine.write(tmp_path / "cgroup/a/cpu.max", "max 100000")
    machine.write(tmp_path / "cgroup/a/memory.max", "max")
    machine.write(tmp_path / "cgroup/memory/b/memory.limit_in_bytes", "9223372036854771712")

    checks = examined()

    assert checks["cgroup cpu"].state is State.OK
    assert checks["cgroup memory"].state is State.OK


def test_a_cpu_that_is_slowed_down_now_fails(examined: Any, machine: Any) -> None:
    word = machine.sys / "devices/platform/soc/soc:firmware/get_throttled"
    machine.write(word, "50005")

    assert_mended_by(
        examined()["throttling"], State.FAIL, "undervoltage, throttled", "power supply"
    )


def test_undervoltage_since_boot_is_a_warning(examined: Any, machine: Any) -> None:
    word = machine.sys / "devices/platform/soc/soc:firmware/get_throttled"
    machine.write(word, "50000")

    assert_mended_by(examined()["throttling"], State.WARN, "since boot", "power supply")


def test_a_raspberry_pi_whose_firmware_may_not_be_asked_is_found(
    examined: Any, machine: Any
) -> None:
    machine.write(machine.proc / "device-tree/model", "Raspberry Pi 4 Model B Rev 1.2")

    assert_mended_by(examined()["firmware"], State.WARN, "sudo usermod -aG video")


@pytest.mark.parametrize(("hertz", "state"), [(600_000_000, State.WARN), (1.5e9, State.OK)])
def test_a_clock_that_stays_low_under_work_is_found(
    examined: Any, machine: Any, hertz: float, state: State
) -> None:
    class Firmware(Mailbox):
        def get_throttled(self) -> int:
            return 0

        def measure_clock_hertz(self) -> int:
            return int(hertz)

    machine.write(machine.proc / "device-tree/model", "Raspberry Pi 4 Model B Rev 1.2")
    machine.write(machine.sys / "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "1500000")

    checks = examined(around=machine.surroundings(mailbox=Firmware()))

    assert checks["firmware"].state is State.OK
    assert checks["clock"].state is state
    assert checks["clock"].found == f"{hertz / 1e6:.0f} of 1500 MHz"


@pytest.mark.parametrize(
    ("cpuinfo", "words"),
    [
        ("vendor_id : GenuineIntel", "sudo modprobe coretemp"),
        ("vendor_id : AuthenticAMD", "sudo modprobe k10temp"),
        ("vendor_id : GenuineIntel\nflags : fpu hypervisor sse", "virtual machine"),
        ("Hardware : BCM2835", "thermal driver"),
    ],
)
def test_a_missing_thermometer_is_mended_by_the_driver_of_this_cpu(
    examined: Any, machine: Any, cpuinfo: str, words: str
) -> None:
    machine.write(machine.proc / "cpuinfo", cpuinfo)

    assert_mended_by(examined()["temperature"], State.WARN, words)


def test_a_hot_cpu_is_found(examined: Any, machine: Any) -> None:
    machine.set_celsius(83.0)

    assert_mended_by(examined()["temperature"], State.WARN, "83.0 °C", "fan")


def test_counters_of_energy_that_are_kept_for_root_are_opened_by_a_line_for_udev(
    examined: Any,
) -> None:
    closed = PowerSourceFacts("rapl", works=False, why_not="no permission to read energy_uj")

    checks = examined(power_sources=(closed,))

    assert_mended_by(checks["power rapl"], State.WARN, "udevadm", 'SUBSYSTEM=="powercap"')
    assert_mended_by(checks["power"], State.WARN, "genba device meter")


def test_sources_that_work_are_named_and_those_that_do_not_exist_are_not(examined: Any) -> None:
    absent = PowerSourceFacts("battery", works=False, why_not="this machine has no battery")

    checks = examined(power_sources=(RAPL, absent))

    assert checks["power rapl"].state is State.OK
    assert not any("battery" in name for name in checks)


def test_a_damaged_configuration_fails(examined: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.json").write_text('{"power": {"shunt_ohm": 3}}')

    assert_mended_by(examined()["configuration"], State.FAIL, "config.json")


def test_without_proc_the_doctor_says_what_cannot_be_known(examined: Any, machine: Any) -> None:
    machine.hide("stat", "meminfo")

    checks = examined()

    assert checks["other programs"].state is State.FAIL
    assert checks["free memory"].state is State.FAIL


@pytest.mark.parametrize("name", ["pc", "raspberry-pi-4", "raspberry-pi-2"])
def test_recorded_machines_are_examined_whole(name: str, tmp_path: Path) -> None:
    folder = MACHINES / name
    around = Surroundings(
        roots=Roots(folder / "proc", folder / "sys", folder / "etc"),
        mailbox=Mailbox(tmp_path / "no-vcio"),
        sleep=lambda _seconds: None,
        clock=iter(range(10**9)).__next__,
    )

    checks = examine(Patient(Home(tmp_path), (WORKS,), (), around=around))

    assert len(checks) >= 15


def test_every_wall_around_a_worker_is_named_with_how_it_is_built(examined: Any) -> None:
    checks = examined()

    assert [checks[f"guard {name}"].found for name in GUARDS] == ["so"] * 4


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("network", "user_namespaces"),
        ("files", "LANDLOCK"),
        ("system-calls", "SECCOMP"),
        ("memory", "ulimit"),
    ],
)
def test_a_missing_wall_says_what_a_model_could_do_and_what_mends_it(
    examined: Any, name: str, word: str
) -> None:
    guard = GuardFacts(name, works=False, how="", why_not="refused by the kernel")

    check = examined(guards=(guard,))[f"guard {name}"]

    assert_mended_by(check, State.WARN, word, "refused by the kernel")
    assert "hostile model" in check.meaning
