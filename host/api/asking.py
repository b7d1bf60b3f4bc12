"""Asking devices to measure models: which jobs, with how much time, under what purpose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from host.api.model_files import require_runtime, runtime_of
from host.device import RuntimeName

if TYPE_CHECKING:
    from host.device import Device
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

_PROFILE_SECONDS = 30.0


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
        from host.calibration.timing import enough_seconds
        from host.measurement import MeasureSpec

        enough = self.timeout_seconds or enough_seconds(self.plan, self.readiness)
        return MeasureSpec(run, self.plan, self.readiness, enough)


def purpose_of(purpose: str, *, again: bool) -> str:
    """The purpose itself, or what is done `again` under one that no later call finds."""
    return f"{purpose} {uuid4().hex}" if again else purpose


def plan_of(preset: "PresetName", rate_hertz: float | None, *, energy: bool) -> "Plan":
    """The preset's plan; with energy where that is asked for or a rate is given."""
    from host.measurement import PRESETS

    plan = PRESETS[preset]
    return plan.with_energy(paced_hertz=rate_hertz) if energy or rate_hertz is not None else plan


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
    from host.calibration.timing import metered, planned_seconds
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
