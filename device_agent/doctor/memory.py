"""Room for a model: memory, swap, limits and disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from device_agent.doctor.checkup import (
    MEBI,
    Check,
    Look,
    Patient,
    State,
    cgroup_folders,
    meminfo,
    text_of,
)
from device_agent.errors import NotReadyError
from device_agent.preflight import free_ram_bytes

_GIBI = 1 << 30
# The limit at which the host's presets refuse a device.
_LEAST_RAM_BYTES = 64_000_000
_SCARCE_RAM_BYTES = 200 * MEBI
_LEAST_DISK_BYTES = 50 * MEBI
_SCARCE_DISK_BYTES = 500 * MEBI
_PRESSED_PERCENT = 5.0


def _cgroup_memory(patient: Patient) -> Iterator[Check]:
    numbers = [
        int(text)
        for folder in cgroup_folders(patient, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := text_of(folder / name)).isdigit()
    ]
    limit, ram = min(numbers, default=None), meminfo(patient).get("MemTotal")
    if limit is None or (ram is not None and limit >= ram):
        yield Check("cgroup memory", State.OK, "no limit; workers limit themselves")
        return
    yield Check(
        "cgroup memory",
        State.WARN,
        f"at most {limit / MEBI:.0f} MiB for the agent and its workers",
        "a large model is killed although the device has the memory",
        "sudo systemctl set-property genba-agent.service MemoryMax=infinity"
        " (or docker run without --memory)",
    )


def _pressure(patient: Patient) -> Iterator[Check]:
    text = text_of(patient.around.roots.proc / "pressure/memory")
    match = re.search(r"^some avg10=([\d.]+)", text)
    if match is None:
        yield Check(
            "pressure",
            State.OK,
            "the kernel does not tell (PSI is off); nothing depends on it",
        )
        return
    percent = float(match.group(1))
    if percent < _PRESSED_PERCENT:
        yield Check("pressure", State.OK, f"programs wait for memory {percent:g} % of the time")
        return
    yield Check(
        "pressure",
        State.WARN,
        f"programs wait for memory {percent:g} % of the time",
        "a model would wait for it too",
        "stop programs that hold memory (ps aux --sort=-rss | head)",
    )


def _swap(patient: Patient) -> Iterator[Check]:
    numbers = meminfo(patient)
    total, free = numbers.get("SwapTotal", 0), numbers.get("SwapFree", 0)
    used = max(0, total - free)
    if used == 0:
        yield Check("swap", State.OK, "not in use" if total else "none")
        return
    yield Check(
        "swap",
        State.WARN,
        f"{used / MEBI:.0f} MiB in use",
        "pages that come back from it while a model runs make samples many times slower",
        "sudo swapoff -a",
    )


def _memory(patient: Patient) -> Iterator[Check]:
    try:
        free = free_ram_bytes(patient.around.roots.proc)
    except NotReadyError as error:
        yield Check("free memory", State.FAIL, str(error), "no measurement is taken")
        return
    found = f"{free / MEBI:.0f} MiB"
    if free >= _SCARCE_RAM_BYTES:
        yield Check("free memory", State.OK, found)
        return
    yield Check(
        "free memory",
        State.FAIL if free < _LEAST_RAM_BYTES else State.WARN,
        found,
        "a worker takes 60 MiB and the model on top of it",
        "stop programs that hold memory (ps aux --sort=-rss | head)",
    )


def _disk(patient: Patient) -> Iterator[Check]:
    folder = patient.home.path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    found = f"{free / _GIBI:.1f} GiB free at {folder}"
    if free >= _SCARCE_DISK_BYTES:
        yield Check("disk", State.OK, found)
        return
    yield Check(
        "disk",
        State.FAIL if free < _LEAST_DISK_BYTES else State.WARN,
        found,
        "models and outputs are kept there",
        f"rm -r {patient.home.cache} (models are fetched again), or remove other files",
    )


LOOKS: tuple[Look, ...] = (_cgroup_memory, _pressure, _swap, _memory, _disk)
