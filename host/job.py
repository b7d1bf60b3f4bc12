"""One piece of work for a device, and the lease under which an agent works on it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from host.device import Device
from host.measurement import MeasureSpec

LEASE_SECONDS = 60.0
"""How long a device keeps a job without renewing its lease."""
MAX_LOST_ATTEMPTS = 3
"""How many attempts may end without any report before the job fails."""

JobState = Literal["queued", "leased", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """One measurement to make. `id` is for ever; `attempt` counts the leases so far."""

    id: str
    key: str
    device_id: str
    spec: MeasureSpec
    state: JobState
    attempt: int
    study_id: int | None
    purpose: str
    created_at: datetime


@dataclass(frozen=True)
class Lease:
    """The right to work on a job until `lease_seconds` pass without a renewal."""

    lease_id: str
    job: Job
    attempt: int
    lease_seconds: float


def job_key(device: Device, spec: MeasureSpec, purpose: str) -> str:
    """The SHA-256 of all that makes two jobs the same measurement.

    The device's version of the runtime is part of it: an updated runtime is measured anew.
    """
    runtime = device.facts.runtime(spec.runtime) if device.facts else None
    parts = {
        "device_id": device.id,
        "spec": asdict(spec),
        "library": runtime.library if runtime else None,
        "version": runtime.version if runtime else None,
        "purpose": purpose,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
