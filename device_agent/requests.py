"""What the agent tells a worker process to do, and what a worker answers; both travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from device_agent.scan_limits import ScanLimits
from device_agent.system import GuardFacts
from device_agent.work import (
    Failure,
    ModelRun,
    Phase,
    Plan,
    ProcessRun,
    Profile,
    ReferenceRun,
)

NETWORK, FILES, SYSTEM_CALLS, MEMORY = "network", "files", "system-calls", "memory"
GUARDS = (NETWORK, FILES, SYSTEM_CALLS, MEMORY)
"""The walls around a worker, by name."""


@dataclass(frozen=True)
class Confinement:
    """The limits that a worker puts on itself. `max_file_bytes` bounds every file that it writes:
    0 where it writes none. It pins itself to `cpus`, or to nothing where there are none. `scan`
    bounds the model that it may hand to a runtime. `cpu_seconds` are of all its threads together.
    `scratch` is the one folder in which it may write, None where it writes nothing; what `hidden`
    names, it cannot read.
    """

    address_space_bytes: int
    parent_pid: int
    cpus: tuple[int, ...]
    max_file_bytes: int = 0
    scan: ScanLimits = field(default_factory=ScanLimits)
    cpu_seconds: int = 86_400
    scratch: Optional[Path] = None
    hidden: tuple[Path, ...] = ()


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
    """Run the model on the examples of an .npz and write another with the outputs, in the
    confinement's scratch folder.
    """

    confinement: Confinement
    model_path: Path
    run: ModelRun
    inputs_path: Path
    outputs_path: Path


@dataclass(frozen=True)
class ProfileRequest:
    """Time the operators of the model; the runtime's trace goes to the confinement's scratch
    folder.
    """

    confinement: Confinement
    model_path: Path
    run: ModelRun
    runs: int


@dataclass(frozen=True)
class ReferenceRequest:
    """Time the reference model that is shipped with the agent for a runtime."""

    confinement: Confinement
    runtime: str


@dataclass(frozen=True)
class GuardsRequest:
    """Build the cage and try to break out of it. `outside` is an empty file out of the scratch
    folder.
    """

    confinement: Confinement
    outside: Path


Request = Union[
    MeasureRequest, EnergyRequest, VerifyRequest, ProfileRequest, ReferenceRequest, GuardsRequest
]


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


@dataclass(frozen=True)
class Guards:
    """The answer to a GuardsRequest."""

    guards: tuple[GuardFacts, ...]


Answer = Union[MeasuredProcess, EnergyPhases, VerifiedFile, Profile, ReferenceRun, Guards, Failure]
