"""One piece of work for a device, and the lease under which an agent works on it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, get_args

from host.device import Device
from host.measurement import ProbeSpec, Spec

LEASE_SECONDS = 60.0
"""How long a device keeps a job without renewing its lease."""
MAX_LOST_ATTEMPTS = 3
"""How many attempts may end without any report before the job fails."""
NOT_READY_SECONDS = 15.0
"""How long a job waits after its device was not ready for the first time; each time twice as
long."""
NOT_READY_MAX_SECONDS = 300.0
"""The longest that a job waits after its device was not ready."""
MAX_REFUSALS = 10
"""How often a device may not be ready before the job fails."""

JobState = Literal["queued", "leased", "done", "failed", "cancelled"]
OPEN_STATES: tuple[JobState, ...] = ("queued", "leased")
"""Of jobs that have no outcome yet."""
ALL_STATES: tuple[JobState, ...] = get_args(JobState)


@dataclass(frozen=True)
class Job:
    """One thing to do on a device. `id` is for ever; `attempt` counts the leases so far.

    `label` is what people call the model, such as the name of its file.
    """

    id: str
    key: str
    device_id: str
    spec: Spec
    state: JobState
    attempt: int
    study_id: int | None
    purpose: str
    created_at: datetime
    label: str = ""


@dataclass(frozen=True)
class Lease:
    """The right to work on a job until `lease_seconds` pass without a renewal."""

    lease_id: str
    job: Job
    attempt: int
    lease_seconds: float


def job_key(device: Device, spec: Spec, purpose: str) -> str:
    """The SHA-256 of all that makes two jobs the same work.

    The device's version of the runtime is part of it: an updated runtime is measured anew. A
    probe looks at every runtime and so at none.
    """
    runtime = None
    if device.facts is not None and not isinstance(spec, ProbeSpec):
        runtime = device.facts.runtime(spec.run.runtime)
    parts = {
        "kind": spec.kind,
        "device_id": device.id,
        "spec": asdict(spec),
        "library": runtime.library if runtime else None,
        "version": runtime.version if runtime else None,
        "purpose": purpose,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def refusal_delay_seconds(refusals: int) -> float:
    """How long a job waits after its device was not ready for the `refusals`th time."""
    return min(NOT_READY_SECONDS * 2.0 ** (refusals - 1), NOT_READY_MAX_SECONDS)
