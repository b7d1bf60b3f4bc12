"""Asking devices to measure models: which jobs, with how much time, under what purpose."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from host.api.model_files import RuntimeName, require_runtime, runtime_of

if TYPE_CHECKING:
    from host.device import Device, MeterBinding
    from host.job import Job
    from host.measurement import (
        InputShape,
        ModelRun,
        Plan,
        PresetName,
        Readiness,
        Spec,
    )
    from host.store import Store

_PROCESS_SECONDS = 3.0  # to start a worker, import the runtime, load and run once
_LEAST_TIMEOUT_SECONDS = 120.0
_PROFILE_SECONDS = 30.0
_WINDOW_READINGS = 30  # of a meter, in an energy window


@dataclass(frozen=True)
class Asked:
    """One job, and what people call it. `seconds` is how long it takes at most, by its budget."""

    job: "Job"
    device: "Device"
    model: str
    doing: str
    seconds: float


@dataclass(frozen=True)
class Wish:
    """What to do with every model on every device.

    Without `timeout_seconds` a device has as long as the plan needs. The same wish under the same
    `purpose` is measured once in the life of a workspace.
    """

    plan: "Plan"
    readiness: "Readiness"
    runtime: RuntimeName | None = None
    threads: int = 1
    shapes: "tuple[InputShape, ...]" = ()
    options: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    purpose: str = "measure"
    profile: bool = False

    def spec(self, run: "ModelRun") -> "Spec":
        """How a model is measured."""
        from host.measurement import MeasureSpec

        enough = self.timeout_seconds or enough_seconds(self.plan, self.readiness)
        return MeasureSpec(run, self.plan, self.readiness, enough)


def plan_of(preset: "PresetName", rate_hertz: float | None, *, energy: bool) -> "Plan":
    """The preset's plan; with energy where that is asked for or a rate is given."""
    from host.measurement import PRESETS

    plan = PRESETS[preset]
    return plan.with_energy(paced_hertz=rate_hertz) if energy or rate_hertz is not None else plan


def planned_seconds(plan: "Plan", observe_seconds: float) -> float:
    """How long a measurement takes at most on a device that is ready."""
    idle_and_busy = 2 * plan.energy_windows + 1
    paced = 2 if plan.paced_hertz is not None else 0
    energy = 0.0
    if plan.energy_windows:
        energy = (idle_and_busy + paced) * plan.energy_window_seconds + _PROCESS_SECONDS
    return observe_seconds + plan.budget_seconds + plan.processes * _PROCESS_SECONDS + energy


def enough_seconds(plan: "Plan", ready: "Readiness") -> float:
    """Twice what the plan takes at most, and the time for which the device may wait."""
    planned = planned_seconds(plan, ready.observe_seconds)
    return max(_LEAST_TIMEOUT_SECONDS, math.ceil(2 * planned + ready.wait_seconds))


def metered(
    store: "Store", device: "Device", spec: "Spec", purpose: str, say: Callable[[str], None]
) -> "tuple[Spec, str]":
    """The spec with windows long enough for the device's meter, and a purpose that tells an energy
    run with one meter from the same run with another, or none.
    """
    from host.measurement import MeasureSpec

    if not isinstance(spec, MeasureSpec) or spec.plan.energy_windows == 0:
        return spec, purpose
    binding = store.meters.of_device(device.id)
    if binding is None:
        return spec, purpose
    readings_seconds = _WINDOW_READINGS * _interval_seconds(binding, say)
    seconds = max(spec.plan.energy_window_seconds, readings_seconds)
    plan = replace(spec.plan, energy_window_seconds=seconds)
    enough = max(spec.timeout_seconds, enough_seconds(plan, spec.readiness))
    longer = replace(spec, plan=plan, timeout_seconds=enough)
    told = f"{binding.url} {sorted(binding.options.items())}"
    return longer, f"{purpose} by meter {hashlib.sha256(told.encode()).hexdigest()[:12]}"


def ask(
    store: "Store",
    files: Sequence[Path],
    devices: Sequence["Device"],
    wish: Wish,
    say: Callable[[str], None],
) -> list[Asked]:
    """Submit the jobs, all devices of the first model first. Raises NoRuntimeError."""
    for device in devices:
        for file in files:
            require_runtime(device, runtime_of(file, wish.runtime))
    return [one for file in files for one in _ask_of(store, file, devices, wish, say)]


def _ask_of(
    store: "Store",
    file: Path,
    devices: Sequence["Device"],
    wish: Wish,
    say: Callable[[str], None],
) -> list[Asked]:
    from host.measurement import MeasureSpec, ModelRun, ProfileSpec

    blob = store.blobs.put_file(file)
    run = ModelRun(
        blob.sha256,
        blob.size_bytes,
        runtime_of(file, wish.runtime),
        wish.threads,
        wish.shapes,
        wish.options,
    )
    specs: list[tuple[Spec, str]] = [(wish.spec(run), f"measuring {file.name}")]
    if wish.profile:
        specs.append((ProfileSpec(run), f"profiling {file.name}"))
    asked = []
    for device in devices:
        for asked_spec, doing in specs:
            spec, purpose = metered(store, device, asked_spec, wish.purpose, say)
            at_most = _PROFILE_SECONDS
            if isinstance(spec, MeasureSpec):
                at_most = planned_seconds(spec.plan, spec.readiness.observe_seconds)
            job = store.jobs.submit(device.id, spec, purpose=purpose, priority=1, label=file.name)
            asked.append(Asked(job, device, file.name, doing, at_most))
    return asked


def _interval_seconds(binding: "MeterBinding", say: Callable[[str], None]) -> float:
    """How often the meter is read; one that does not answer now may do so when it is needed."""
    from host.meters import MeterError, open_meter

    try:
        meter = open_meter(binding)
    except MeterError as error:
        say(f"the meter cannot be read now: {error}")
        return 0.0
    meter.close()
    return meter.interval_seconds
