"""What the agent tells a worker process to do, and what a worker answers; both travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from device_agent.work import (
    Failure,
    ModelRun,
    Phase,
    Plan,
    ProcessRun,
    Profile,
    ReferenceRun,
)


@dataclass(frozen=True)
class Confinement:
    """The limits that a worker puts on itself. `max_file_bytes` bounds every file that it writes:
    0 where it writes none. It pins itself to `cpus`, or to nothing where there are none.
    """

    address_space_bytes: int
    parent_pid: int
    cpus: tuple[int, ...]
    max_file_bytes: int = 0


@dataclass(frozen=True)
class MeasureRequest:
    """Time a model in this process. `min_samples` and `budget_seconds` are this process's share."""

    confinement: Confinement
    model_path: Path
    run: ModelRun
    plan: Plan
    min_samples: int
    budget_seconds: float


@dataclass(frozen=True)
class EnergyRequest:
    """Idle, load and run the model in phases while others read the meters."""

    confinement: Confinement
    model_path: Path
    run: ModelRun
    windows: int
    window_seconds: float
    paced_hertz: Optional[float]


@dataclass(frozen=True)
class VerifyRequest:
    """Run the model on the examples of an .npz and write another with the outputs."""

    confinement: Confinement
    model_path: Path
    run: ModelRun
    inputs_path: Path
    outputs_path: Path


@dataclass(frozen=True)
class ProfileRequest:
    """Time the operators of the model; the runtime's trace goes to `scratch_folder`."""

    confinement: Confinement
    model_path: Path
    run: ModelRun
    runs: int
    scratch_folder: Path


@dataclass(frozen=True)
class ReferenceRequest:
    """Time the reference model that is shipped with the agent for a runtime."""

    confinement: Confinement
    runtime: str


Request = Union[MeasureRequest, EnergyRequest, VerifyRequest, ProfileRequest, ReferenceRequest]


@dataclass(frozen=True)
class RuntimeSetup:
    """Which library ran the model, with every option that was set as "name=value"."""

    library: str
    version: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredProcess:
    """The answer to a MeasureRequest."""

    setup: RuntimeSetup
    run: ProcessRun


@dataclass(frozen=True)
class EnergyPhases:
    """The answer to an EnergyRequest."""

    phases: tuple[Phase, ...]
    cpu_utilisation: float


@dataclass(frozen=True)
class VerifiedFile:
    """The answer to a VerifyRequest: how many examples were run."""

    setup: RuntimeSetup
    examples: int


Answer = Union[MeasuredProcess, EnergyPhases, VerifiedFile, Profile, ReferenceRun, Failure]
