"""Machines other than this one, as their kernels describe them in machines/."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from device_agent.errors import DamagedStateError
from device_agent.system import (
    LIVE,
    Roots,
    is_emulated,
    read_boot_id,
    read_facts,
    read_governor,
    read_load_average,
)

MACHINES = Path(__file__).parent / "machines"


def roots_of(name: str) -> Roots:
    folder = MACHINES / name
    return Roots(folder / "proc", folder / "sys", folder / "etc")


def test_a_plant_pc_is_read_whole() -> None:
    facts = read_facts(roots_of("pc"))

    assert facts.hostname == "line-7-pc"
    assert facts.cpu_model == "Intel(R) Core(TM) i5-4590T CPU @ 2.00GHz"
    assert {"avx2", "fma", "sse4_1"} <= set(facts.cpu_flags)
    assert (facts.cpu_cores_physical, facts.cpu_cores_logical) == (2, 2)
    assert facts.ram_bytes == 8_043_284 * 1024
    assert facts.os_name == "Debian GNU/Linux 11 (bullseye)"
    assert facts.kernel == "5.10.0-28-amd64"
    assert facts.governor == "powersave"
    assert facts.temperature_celsius == pytest.approx(49.0)
    assert facts.cpu_max_hertz == pytest.approx(3.0e9)


def test_a_raspberry_pi_names_its_board_and_its_cores() -> None:
    facts = read_facts(roots_of("raspberry-pi-4"))

    assert facts.cpu_model == "Raspberry Pi 4 Model B Rev 1.2 (Cortex-A72)"
    assert "asimd" in facts.cpu_flags
    assert (facts.cpu_cores_physical, facts.cpu_cores_logical) == (4, 4)
    assert facts.governor == "ondemand"
    assert facts.temperature_celsius == pytest.approx(51.608)
    assert facts.cpu_max_hertz == pytest.approx(1.5e9)


def test_what_a_kernel_does_not_say_is_absent_and_not_zero() -> None:
    facts = read_facts(roots_of("raspberry-pi-2"))

    assert facts.cpu_model == "Raspberry Pi 2 Model B Rev 1.1 (Cortex-A7)"
    assert "neon" in facts.cpu_flags
    assert facts.cpu_cores_physical is None
    assert facts.governor is None
    assert facts.temperature_celsius is None
    assert facts.cpu_max_hertz is None


def test_the_width_of_the_system_is_that_of_its_pointers() -> None:
    assert read_facts(roots_of("pc")).pointer_bits == 8 * struct.calcsize("P")


def test_two_threads_of_one_core_are_one_physical_core(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000 kB\n")
    for cpu in range(4):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "core_id").write_text(f"{cpu // 2}\n")
        (topology / "physical_package_id").write_text("0\n")

    facts = read_facts(Roots(tmp_path / "proc", tmp_path / "sys", tmp_path / "etc"))

    assert facts.cpu_cores_physical == 2


def test_a_kernel_that_hides_its_memory_is_an_error_and_not_zero_bytes(tmp_path: Path) -> None:
    with pytest.raises(DamagedStateError, match="MemTotal"):
        read_facts(Roots(tmp_path, tmp_path, tmp_path))


def test_governor_and_load_are_read_alone() -> None:
    assert read_governor(roots_of("pc")) == "powersave"
    assert read_load_average(roots_of("pc")) == pytest.approx(0.31)


def test_a_boot_has_a_name_that_stays_and_a_kernel_without_one_has_none(tmp_path: Path) -> None:
    assert len(read_boot_id()) == 36
    assert read_boot_id() == read_boot_id()
    assert read_boot_id(Roots(tmp_path, tmp_path, tmp_path)) == ""


def test_this_machine_is_read_too() -> None:
    facts = read_facts(LIVE)

    assert facts.cpu_cores_logical >= 1
    assert facts.cpu_cores_physical is None or facts.cpu_cores_physical >= 1
    assert facts.ram_bytes > 1 << 26
    assert facts.cpu_model
    assert facts.hostname


def test_an_emulator_is_seen_behind_the_process_and_by_the_name_of_its_cpu(tmp_path: Path) -> None:
    plain, played, virtual = (tmp_path / name for name in ("plain", "played", "virtual"))
    for proc, program in ((plain, "/usr/bin/python3.9"), (played, "/opt/qemu-arm")):
        (proc / "thread-self").mkdir(parents=True)
        (proc / "thread-self/exe").symlink_to(program)
    virtual.mkdir()
    (virtual / "cpuinfo").write_text("model name\t: QEMU TCG CPU version 2.5+\n")

    assert [is_emulated(Roots(proc), {}) for proc in (plain, played, virtual)] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(("value", "emulated"), [("1", True), ("0", False), ("", False)])
def test_whoever_starts_the_agent_may_say_that_it_is_emulated(
    tmp_path: Path, value: str, emulated: bool
) -> None:
    assert is_emulated(Roots(tmp_path), {"GENBA_EMULATED": value}) is emulated
