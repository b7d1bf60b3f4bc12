"""Whether the device is a fit place for a measurement now, why not, and which cores are free.

Sources: proc(5) for /proc/vmstat and /proc/meminfo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import NotReadyError
from device_agent.occupancy import Usage, take_snapshot, usage_between
from device_agent.surroundings import Deadline, Surroundings
from device_agent.work import Preflight, Readiness

_RETRY_SECONDS = 1.0
_MEBI = 1 << 20
_MOST_NAMES = 3
# Cores whose loads differ by less are equally free, so that the choice is the same every time.
_LOAD_STEP = 0.05
_BUSY = "busy"


@dataclass(frozen=True)
class Observation:
    """The device over some seconds."""

    usage: Usage
    swapped_in_pages: int | None
    free_ram_bytes: int
    temperature_celsius: float | None
    throttled: tuple[str, ...]


@dataclass(frozen=True)
class Ready:
    """The preflight that was passed, and the cores that are to be used."""

    preflight: Preflight
    cpus: tuple[int, ...]


def become_ready(
    readiness: Readiness, threads: int, surroundings: Surroundings, deadline: Deadline
) -> Ready:
    """Wait until the device is ready and choose `threads` cores for the work.

    Raises NotReadyError with every reason where it does not become ready in time, and what
    `deadline` raises.
    """
    started = surroundings.clock()
    while True:
        began = surroundings.clock()
        observation = observe(readiness.observe_seconds, surroundings, deadline)
        refusals = _objections(observation, readiness)
        problems: tuple[str, ...] = ()
        if readiness.measure_when_busy:
            problems = tuple(text for text in refusals if text.startswith(f"{_BUSY}:"))
            refusals = tuple(text for text in refusals if text not in problems)
        if not refusals:
            break
        if surroundings.clock() - started >= readiness.wait_seconds:
            raise NotReadyError("; ".join(refusals))
        deadline.pause(_RETRY_SECONDS)
    cpus = choose_cpus(
        surroundings.allowed_cpus(), observation.usage.core_loads, threads, surroundings.roots.sys
    )
    return Ready(
        Preflight(
            foreign_cpu=observation.usage.foreign_cpu,
            swapped_in_pages=observation.swapped_in_pages,
            free_ram_bytes=observation.free_ram_bytes,
            temperature_celsius=observation.temperature_celsius,
            throttled=observation.throttled,
            canary_seconds=surroundings.canary(cpus[0]),
            waited_seconds=began - started,
            problems=problems,
        ),
        cpus,
    )


def observe(seconds: float, surroundings: Surroundings, deadline: Deadline) -> Observation:
    """Look at the device for some seconds.

    Raises NotReadyError where the kernel does not tell what must be known, and what `deadline`
    raises.
    """
    proc = surroundings.roots.proc
    throttle = surroundings.throttle_watch()
    pages_before, before = swapped_in_pages(proc), take_snapshot(proc)
    deadline.pause(seconds)
    after, pages_after = take_snapshot(proc), swapped_in_pages(proc)
    known = pages_before is not None and pages_after is not None
    return Observation(
        usage=usage_between(before, after, surroundings.pid),
        swapped_in_pages=max(0, (pages_after or 0) - (pages_before or 0)) if known else None,
        free_ram_bytes=free_ram_bytes(proc),
        temperature_celsius=surroundings.temperature_celsius(),
        throttled=throttle.now(),
    )


def choose_cpus(
    allowed: frozenset[int], loads: Mapping[int, float], threads: int, sys: Path
) -> tuple[int, ...]:
    """The least busy of the allowed cores, `threads` of them where there are so many.

    Where a chip has fast and slow cores the fast ones come first, and a second thread of a core
    comes last. Among equals the highest number wins: interrupts mostly go to core 0.
    """
    folder = sys / "devices/system/cpu"
    chosen: list[int] = []
    taken: set[str] = set()
    waiting = set(allowed)
    while waiting and len(chosen) < max(1, threads):
        best = min(
            waiting,
            key=lambda cpu: (
                _core_of(folder, cpu) in taken,
                -_capacity(folder, cpu),
                round(loads.get(cpu, 0.0) / _LOAD_STEP),
                -cpu,
            ),
        )
        waiting.remove(best)
        taken.add(_core_of(folder, best))
        chosen.append(best)
    return tuple(sorted(chosen))


def free_ram_bytes(proc: Path) -> int:
    """Memory that can be had without swapping. Raises NotReadyError where /proc does not tell."""
    text = _text(proc / "meminfo")
    numbers = {
        name: int(value) for name, value in re.findall(r"^(\w+):\s*(\d+)", text, re.MULTILINE)
    }
    if "MemAvailable" in numbers:
        return numbers["MemAvailable"] * 1024
    # Kernels before 3.14 leave the sum to the reader.
    if "MemFree" in numbers:
        return sum(numbers.get(name, 0) for name in ("MemFree", "Buffers", "Cached")) * 1024
    raise NotReadyError(f"{proc / 'meminfo'} does not tell how much memory is free")


def swapped_in_pages(proc: Path) -> int | None:
    """Pages read back from swap since boot, or None where the kernel counts none."""
    match = re.search(r"^pswpin (\d+)$", _text(proc / "vmstat"), re.MULTILINE)
    return int(match.group(1)) if match else None


def _objections(observation: Observation, readiness: Readiness) -> tuple[str, ...]:
    """Everything that speaks against measuring now, as "code: sentence"."""
    texts = [
        _busy(observation.usage, readiness.max_foreign_cpu),
        _swapping(observation),
        _low_memory(observation, readiness.min_free_ram_bytes),
        _hot(observation, readiness.max_start_celsius),
        _throttled(observation),
    ]
    return tuple(text for text in texts if text)


def _busy(usage: Usage, limit: float) -> str:
    if usage.foreign_cpu <= limit:
        return ""
    names = ", ".join(
        f"{c.name} (process {c.pid}) {c.cores / len(usage.core_loads):.0%}"
        for c in usage.consumers[:_MOST_NAMES]
    )
    most = f", most of it {names}" if names else ""
    return (
        f"{_BUSY}: other programs take {usage.foreign_cpu:.0%} of the CPU and the limit is"
        f" {limit:.0%}{most}: stop them, or measure at a quieter time"
    )


def _swapping(observation: Observation) -> str:
    if not observation.swapped_in_pages:
        return ""
    return (
        f"swapping: {observation.swapped_in_pages} pages came back from swap while the device was"
        " observed and the limit is 0: free memory by stopping programs, or switch swap off"
        " (sudo swapoff -a)"
    )


def _low_memory(observation: Observation, limit_bytes: int) -> str:
    if observation.free_ram_bytes >= limit_bytes:
        return ""
    return (
        f"low memory: {observation.free_ram_bytes / _MEBI:.0f} MiB are free and"
        f" {limit_bytes / _MEBI:.0f} MiB are needed: stop programs that hold memory"
    )


def _hot(observation: Observation, limit: float | None) -> str:
    celsius = observation.temperature_celsius
    if limit is None or celsius is None or celsius <= limit:
        return ""
    return (
        f"hot: the CPU is at {celsius:.1f} °C and the limit at the start is {limit:.1f} °C: let it"
        " cool down, or cool it better"
    )


def _throttled(observation: Observation) -> str:
    if not observation.throttled:
        return ""
    volts = "undervoltage" in observation.throttled
    mend = "use a stronger power supply and a shorter cable" if volts else "let it cool down"
    return f"throttled: the CPU is slowed down now ({', '.join(observation.throttled)}): {mend}"


def _capacity(folder: Path, cpu: int) -> int:
    """How fast a core is beside the others of a chip with several kinds (Linux
    Documentation/scheduler/sched-capacity.rst); 0 where all are the same.
    """
    text = _text(folder / f"cpu{cpu}" / "cpu_capacity")
    return int(text) if text.isdigit() else 0


def _core_of(folder: Path, cpu: int) -> str:
    topology = folder / f"cpu{cpu}" / "topology"
    core = _text(topology / "core_id")
    return f"{_text(topology / 'physical_package_id')}/{core}" if core else f"cpu{cpu}"


def _text(path: Path) -> str:
    """The file's text; empty where it is not there, which counts as not known."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
