"""The limits of a study, by how much a candidate exceeds them, and what raising them would cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from host.config import BYTES_PER_MB, DeviceConfig, StudyConfig
from host.errors import GenbaError

Target = Literal[
    "latency_seconds",
    "latency_p90_seconds",
    "peak_rss_bytes",
    "energy_per_inference_joules",
    "power_watts",
]
"""What can be predicted and measured of a candidate on a device profile. Energy is gross; power is
the mean at the line's rate."""
LimitedQuantity = Target | Literal["model_bytes"]
Kind = Literal["measured", "derived", "predicted", "computed"]

ENERGY_TARGETS: frozenset[LimitedQuantity] = frozenset(
    {"energy_per_inference_joules", "power_watts"}
)

_KEYS: dict[LimitedQuantity, tuple[str, float, str]] = {
    "latency_seconds": ("max_latency_ms", 1e-3, "ms"),
    "latency_p90_seconds": ("max_latency_p90_ms", 1e-3, "ms"),
    "peak_rss_bytes": ("max_peak_memory_mb", BYTES_PER_MB, "MB"),
    "energy_per_inference_joules": ("max_energy_mj", 1e-3, "mJ"),
    "power_watts": ("max_power_w", 1.0, "W"),
    "model_bytes": ("max_model_mb", BYTES_PER_MB, "MB"),
}


class InfeasibleError(GenbaError):
    """No candidate that was looked at meets all limits."""


@dataclass(frozen=True)
class Limit:
    """The largest value that a quantity may have; on one device profile, or (None) of the file.

    `key` is the key of the study's file that sets it, where that is the inverse of the maximum: a
    rate.
    """

    quantity: LimitedQuantity
    device: str | None
    maximum: float
    key: str = ""

    def excess(self, value: float) -> float:
        """How far a value lies above the limit, as a share of it; zero or less is within."""
        return value / self.maximum - 1.0

    def __str__(self) -> str:
        key, scale, _ = _KEYS[self.quantity]
        where = "" if self.device is None else f" on {self.device}"
        if self.key:
            return f"{self.key} = {1 / self.maximum:g}{where}"
        return f"{key} = {self.maximum / scale:g}{where}"

    def show(self, value: float) -> str:
        """A value of this quantity as people read it."""
        _, scale, unit = _KEYS[self.quantity]
        shown = value / scale
        return f"{shown:.0f} {unit}" if abs(shown) >= 100 else f"{shown:.3g} {unit}"


@dataclass(frozen=True)
class Miss:
    """A candidate's value of a limited quantity against the limit."""

    limit: Limit
    value: float
    kind: Kind

    @property
    def excess(self) -> float:
        return self.limit.excess(self.value)

    def sentence(self) -> str:
        """By how much the limit is missed."""
        if math.isinf(self.value):
            return f"{self.limit}: it does not run there"
        times = f"{1 + self.excess:.3g} times the limit"
        return f"{self.limit}: {self.kind} {self.limit.show(self.value)}, {times}"


def limits_of(config: StudyConfig) -> list[Limit]:
    """Every limit of a study: those of the file, then profile by profile."""
    limits = []
    if config.limits.max_model_bytes is not None:
        limits.append(Limit("model_bytes", None, config.limits.max_model_bytes))
    for device in config.devices:
        limits += _limits_on(device, config.line.rate_hertz)
    return limits


def why_infeasible(candidates: Mapping[str, Sequence[Miss]]) -> str:
    """Which limits nothing meets, and what it takes to have a candidate, by each one's text.

    `candidates` holds of each all its limits. The cheapest relaxation is the one limit that lets a
    candidate in when it is raised by the smallest share; where no single one does, the limits of
    the candidate whose excesses add up to the least.
    """
    finite = {text: m for text, m in candidates.items() if not any(math.isinf(x.value) for x in m)}
    if not finite:
        return "no candidate was measured on every device"
    single = [
        (over[0].excess, text, over)
        for text, misses in finite.items()
        if len(over := _over(misses)) == 1
    ]
    every = [
        (sum(miss.excess for miss in over), text, over)
        for text, misses in finite.items()
        if (over := _over(misses))
    ]
    _, text, over = min(single or every, key=lambda found: (found[0], found[1]))
    ways = " and ".join(_way(miss) for miss in over)
    return (
        f"no candidate meets all limits; {_share_that_miss(finite.values())}. The cheapest way out:"
        f" {ways}, which lets in {text} ({'; '.join(miss.sentence() for miss in over)}), or allow"
        " smaller networks in [space]"
    )


def _limits_on(device: DeviceConfig, rate_hertz: float | None) -> Iterable[Limit]:
    values: dict[Target, float | None] = {
        "latency_seconds": _scaled(device.max_latency_ms, 1e-3),
        "latency_p90_seconds": _scaled(device.max_latency_p90_ms, 1e-3),
        "peak_rss_bytes": _scaled(device.max_peak_memory_mb, BYTES_PER_MB),
        "energy_per_inference_joules": _scaled(device.max_energy_mj, 1e-3),
        "power_watts": device.max_power_w,
    }
    for quantity, maximum in values.items():
        if maximum is not None:
            yield Limit(quantity, device.name, maximum)
    asked = device.max_latency_ms
    # A device that is slower than the line falls behind, whatever else is asked of it.
    if rate_hertz is not None and (asked is None or asked / 1000 > 1 / rate_hertz):
        yield Limit("latency_seconds", device.name, 1 / rate_hertz, key="rate_hertz")


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def _over(misses: Sequence[Miss]) -> list[Miss]:
    return [miss for miss in misses if miss.excess > 0]


def _way(miss: Miss) -> str:
    limit, value = miss.limit, _above(miss.value)
    where = "" if limit.device is None else f" on {limit.device}"
    if limit.key:
        return f"lower {limit.key} to {1 / value:.3g}{where}"
    key, scale, _ = _KEYS[limit.quantity]
    return f"raise {key} to {value / scale:.3g}{where}"


def _above(value: float) -> float:
    """The value with two digits, rounded up: a limit that people would write."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(round(value / scale, 6)) * scale


def _share_that_miss(candidates: Iterable[Sequence[Miss]]) -> str:
    """Which limit keeps out most of them."""
    everything = list(candidates)
    counts: dict[Limit, int] = {}
    for misses in everything:
        for miss in _over(misses):
            counts[miss.limit] = counts.get(miss.limit, 0) + 1
    limit = max(counts, key=lambda limit: counts[limit])
    return f"{counts[limit]} of {len(everything)} miss {limit}"
