"""How long a measurement takes, and the energy windows that a device's meter needs."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

from host.device import Device, MeterBinding
from host.measurement import MeasureSpec, Plan, Readiness, Spec
from host.meters import MeterError, open_meter
from host.store.store import Store

_PROCESS_SECONDS = 3.0  # to start a worker, import the runtime, load and run once
_LEAST_TIMEOUT_SECONDS = 120.0
_WINDOW_READINGS = 30  # of a meter, in an energy window


def planned_seconds(plan: Plan, observe_seconds: float) -> float:
    """How long a measurement takes at most on a device that is ready."""
    idle_and_busy = 2 * plan.energy_windows + 1
    paced = 2 if plan.paced_hertz is not None else 0
    energy = 0.0
    if plan.energy_windows:
        energy = (idle_and_busy + paced) * plan.energy_window_seconds + _PROCESS_SECONDS
    return observe_seconds + plan.budget_seconds + plan.processes * _PROCESS_SECONDS + energy


def enough_seconds(plan: Plan, ready: Readiness) -> float:
    """Twice what the plan takes at most, and the time for which the device may wait."""
    planned = planned_seconds(plan, ready.observe_seconds)
    return max(_LEAST_TIMEOUT_SECONDS, math.ceil(2 * planned + ready.wait_seconds))


def metered(
    store: Store, device: Device, spec: Spec, purpose: str, say: Callable[[str], None]
) -> tuple[Spec, str]:
    """The spec with windows long enough for the device's meter, and a purpose that tells an energy
    run with one meter from the same run with another, or none.
    """
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


def _interval_seconds(binding: MeterBinding, say: Callable[[str], None]) -> float:
    """How often the meter is read; one that does not answer now may do so when it is needed."""
    try:
        meter = open_meter(binding)
    except MeterError as error:
        say(f"the meter cannot be read now: {error}")
        return 0.0
    meter.close()
    return meter.interval_seconds
