"""What this machine is, read from /proc and /sys; both roots are arguments."""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import DamagedStateError
from device_agent.runtimes.base import RuntimeFacts
from device_agent.sensors.base import PowerSourceFacts
from device_agent.sensors.thermal import cpu_temperature_celsius

EMULATED_VARIABLE = "GENBA_EMULATED"
"""Set to 1 in an agent's environment, it says that the device is emulated."""

# Names of the cores that old boards carry (MIDR_EL1 part numbers of implementer 0x41, Arm).
_ARM_PARTS = {
    "0xb76": "ARM1176",
    "0xc05": "Cortex-A5",
    "0xc07": "Cortex-A7",
    "0xc08": "Cortex-A8",
    "0xc09": "Cortex-A9",
    "0xc0f": "Cortex-A15",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
}


@dataclass(frozen=True)
class Roots:
    """Where the kernel and the distribution describe the machine."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")


LIVE = Roots()


@dataclass(frozen=True)
class GuardFacts:
    """One of the walls around a worker: how it is built here, or the reason why it is not."""

    name: str
    works: bool
    how: str
    why_not: str


@dataclass(frozen=True)
class DeviceFacts:
    """What a device is. Absent is None."""

    hostname: str
    machine: str
    pointer_bits: int
    cpu_model: str
    cpu_flags: tuple[str, ...]
    cpu_cores_physical: int | None
    cpu_cores_logical: int
    ram_bytes: int
    os_name: str
    kernel: str
    python_version: str
    governor: str | None
    temperature_celsius: float | None
    cpu_max_hertz: float | None
    emulated: bool
    runtimes: tuple[RuntimeFacts, ...] = ()
    power_sources: tuple[PowerSourceFacts, ...] = ()
    guards: tuple[GuardFacts, ...] = ()


def read_facts(
    roots: Roots = LIVE,
    *,
    runtimes: tuple[RuntimeFacts, ...] = (),
    power_sources: tuple[PowerSourceFacts, ...] = (),
    guards: tuple[GuardFacts, ...] = (),
) -> DeviceFacts:
    """The machine as it is now, together with what was probed before.

    Raises DamagedStateError where /proc does not say how much memory there is.
    """
    cpuinfo = _text(roots.proc / "cpuinfo")
    return DeviceFacts(
        hostname=_text(roots.proc / "sys/kernel/hostname") or os.uname().nodename,
        machine=os.uname().machine,
        # A 32-bit system often runs under a 64-bit kernel: only the pointer tells.
        pointer_bits=struct.calcsize("P") * 8,
        cpu_model=_cpu_model(cpuinfo, roots),
        cpu_flags=_cpu_flags(cpuinfo),
        cpu_cores_physical=_physical_cores(roots),
        cpu_cores_logical=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE))
        or os.cpu_count()
        or 1,
        ram_bytes=_ram_bytes(roots),
        os_name=_os_name(roots),
        kernel=_text(roots.proc / "sys/kernel/osrelease") or os.uname().release,
        python_version=".".join(str(part) for part in sys.version_info[:3]),
        governor=read_governor(roots),
        temperature_celsius=cpu_temperature_celsius(roots.sys),
        cpu_max_hertz=_max_hertz(roots),
        emulated=is_emulated(roots),
        runtimes=runtimes,
        power_sources=power_sources,
        guards=guards,
    )


def read_cpu_flags(roots: Roots = LIVE) -> tuple[str, ...]:
    """What the first core can do, in the kernel's words; empty where it does not tell."""
    return _cpu_flags(_text(roots.proc / "cpuinfo"))


def is_emulated(roots: Roots = LIVE, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a program plays the CPU, so that times measured here are no machine's.

    A virtual machine, whose programs run on the CPU itself, is not emulated.
    """
    # qemu answers for the usual spelling of this link itself, but not for this one.
    program = _program(roots.proc / "thread-self/exe")
    return (
        environment.get(EMULATED_VARIABLE, "") not in ("", "0")
        or program.startswith("qemu-")
        or "QEMU TCG CPU" in _text(roots.proc / "cpuinfo")
    )


def read_governor(roots: Roots = LIVE) -> str | None:
    """The frequency governor of the first core, or None where the kernel scales no frequency."""
    return _text(roots.sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def read_load_average(roots: Roots = LIVE) -> float:
    """Mean number of runnable processes over the last minute."""
    words = _text(roots.proc / "loadavg").split()
    return float(words[0]) if words else os.getloadavg()[0]


def read_boot_id(roots: Roots = LIVE) -> str:
    """The name of this boot (random(4)); empty where the kernel has none."""
    return _text(roots.proc / "sys/kernel/random/boot_id")


def total_ram_bytes() -> int:
    """Memory of this machine."""
    return _ram_bytes(LIVE)


def _program(link: Path) -> str:
    """The name of the program that the link leads to; empty where there is none."""
    try:
        return link.readlink().name
    except OSError:
        return ""


def _text(path: Path) -> str:
    """The file's text; empty where the kernel has no such file, which counts as not known."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""


def _cpuinfo_value(cpuinfo: str, names: str) -> str:
    match = re.search(rf"^(?:{names})\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match.group(1).strip() if match else ""


def _cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    return tuple(_cpuinfo_value(cpuinfo, "flags|Features").split())


def _cpu_model(cpuinfo: str, roots: Roots) -> str:
    board = _cpuinfo_value(cpuinfo, "Model") or _text(roots.proc / "device-tree/model")
    part = _cpuinfo_value(cpuinfo, "CPU part")
    core = _ARM_PARTS.get(part.lower(), "") or _cpuinfo_value(cpuinfo, "model name")
    if board and core:
        return f"{board} ({core})"
    return board or core or os.uname().machine


def _physical_cores(roots: Roots) -> int | None:
    cores = {
        (_text(folder / "physical_package_id"), _text(folder / "core_id"))
        for folder in (roots.sys / "devices/system/cpu").glob("cpu[0-9]*/topology")
        if (folder / "core_id").exists()
    }
    if cores:
        return len(cores)
    if roots != LIVE:
        return None
    import psutil  # costs memory, so only where the kernel shows no topology

    return psutil.cpu_count(logical=False)


def _ram_bytes(roots: Roots) -> int:
    meminfo = roots.proc / "meminfo"
    match = re.search(r"^MemTotal:\s*(\d+) kB$", _text(meminfo), re.MULTILINE)
    if match is None:
        raise DamagedStateError(str(meminfo), "it has no line MemTotal")
    return int(match.group(1)) * 1024


def _os_name(roots: Roots) -> str:
    release = _text(roots.etc / "os-release")
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', release, re.MULTILINE)
    return match.group(1) if match else os.uname().sysname


def _max_hertz(roots: Roots) -> float | None:
    kilohertz = _text(roots.sys / "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    return int(kilohertz) * 1000.0 if kilohertz.isdigit() else None
