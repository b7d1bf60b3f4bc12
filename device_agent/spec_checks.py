"""What this agent does not do, whatever a host asks for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from device_agent.errors import NoRuntimeError, ResourceError
from device_agent.work import PROTOCOL, MeasureSpec, ProbeSpec, ProfileSpec, Spec

LONGEST_SECONDS = 86_400.0
"""No job takes longer than a day."""

_MAX_PROCESSES = 64
_MAX_WINDOWS = 100


def check_spec(spec: Spec) -> None:
    """Refuse what would not do. Raises NoRuntimeError and ResourceError."""
    if spec.protocol != PROTOCOL:
        raise NoRuntimeError(
            f"this agent measures by {PROTOCOL}, not by {spec.protocol}: update the older of agent"
            " and host"
        )
    for name, number in _floats(spec):
        lowest = -math.inf if name.endswith("_celsius") else 0.0
        if not (math.isfinite(number) and lowest <= number <= LONGEST_SECONDS):
            raise ResourceError(
                f"the job asks for {name} = {number:g}: this agent takes 0 to {LONGEST_SECONDS:g}"
            )
    if not isinstance(spec, ProbeSpec) and spec.run.threads < 1:
        raise ResourceError(f"a model runs on at least one thread, not on {spec.run.threads}")
    if isinstance(spec, ProfileSpec) and spec.runs < 1:
        raise ResourceError("a profile is of at least one run")
    if isinstance(spec, MeasureSpec):
        _check_counts(spec)


def _check_counts(spec: MeasureSpec) -> None:
    plan = spec.plan
    if not 1 <= plan.processes <= _MAX_PROCESSES:
        raise ResourceError(
            f"the job asks for {plan.processes} processes: this agent takes 1 to {_MAX_PROCESSES}"
        )
    if plan.paced_hertz is not None and plan.paced_hertz <= 0:
        raise ResourceError("the rate of a line must be above 0")
    if plan.energy_windows > _MAX_WINDOWS:
        raise ResourceError(
            f"the job asks for {plan.energy_windows} energy windows: this agent takes at most"
            f" {_MAX_WINDOWS}"
        )


def _floats(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if dataclasses.is_dataclass(content):
            yield from _floats(content, f"{prefix}{field.name}.")
        elif isinstance(content, float):
            yield f"{prefix}{field.name}", content
