"""The limits of a study, and by how much a candidate exceeds them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from host.config import BYTES_PER_MB, StudyConfig
from host.errors import GenbaError

Target = Literal["latency_seconds", "peak_rss_bytes"]
TARGETS: tuple[Target, ...] = ("latency_seconds", "peak_rss_bytes")
LimitedQuantity = Target | Literal["model_bytes"]

_KEYS: dict[LimitedQuantity, tuple[str, float, str]] = {
    "latency_seconds": ("max_latency_ms", 1e-3, "ms"),
    "peak_rss_bytes": ("max_peak_memory_mb", BYTES_PER_MB, "MB"),
    "model_bytes": ("max_model_mb", BYTES_PER_MB, "MB"),
}


class InfeasibleError(GenbaError):
    """No candidate that was looked at meets all limits."""


@dataclass(frozen=True)
class Limit:
    """The largest value that a quantity may have; on one device, or (None) of the file."""

    quantity: LimitedQuantity
    device: str | None
    maximum: float

    def excess(self, value: float) -> float:
        """How far a value lies above the limit, as a share of it; zero or less is within."""
        return value / self.maximum - 1.0

    def __str__(self) -> str:
        key, scale, _ = _KEYS[self.quantity]
        where = "" if self.device is None else f" on {self.device}"
        return f"{key} = {self.maximum / scale:g}{where}"

    def show(self, value: float) -> str:
        """A value of this quantity as people read it."""
        _, scale, unit = _KEYS[self.quantity]
        shown = value / scale
        return f"{shown:.0f} {unit}" if abs(shown) >= 100 else f"{shown:.3g} {unit}"


@dataclass(frozen=True)
class Miss:
    """The limit that a candidate misses by most."""

    text: str
    limit: Limit
    value: float
    kind: Literal["measured", "predicted", "computed"]

    @property
    def excess(self) -> float:
        return self.limit.excess(self.value)

    def sentence(self) -> str:
        """What cannot be met, and how close the best comes."""
        times = "" if math.isinf(self.value) else f", {1 + self.excess:.3g} times the limit"
        return (
            f"no candidate meets all limits; the closest, {self.text}, misses {self.limit}: "
            f"{self.kind} {self.limit.show(self.value)}{times}. Raise that limit, or allow smaller "
            "networks in [space]"
        )


def limits_of(config: StudyConfig) -> list[Limit]:
    """Every limit of a study: those of the file, then device by device."""
    limits = []
    if config.limits.max_model_bytes is not None:
        limits.append(Limit("model_bytes", None, config.limits.max_model_bytes))
    for device in config.devices:
        if device.max_latency_seconds is not None:
            limits.append(Limit("latency_seconds", device.name, device.max_latency_seconds))
        if device.max_peak_rss_bytes is not None:
            limits.append(Limit("peak_rss_bytes", device.name, device.max_peak_rss_bytes))
    return limits


def closest(misses: Sequence[Miss]) -> Miss:
    """Of each candidate's largest miss, the smallest."""
    return min(misses, key=lambda miss: miss.excess)
