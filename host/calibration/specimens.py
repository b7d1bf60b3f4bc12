"""What a device can be calibrated with: synthetic networks, and candidates of a search space."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from cost_models.kernels import KernelGraph
from host.network.graph import Network
from host.network.kernels import kernels_of
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.spaces.base import Task, sample
from host.spaces.mobile import Mobile

SpecimenKind = Literal["micro-graph", "network", "candidate", "file"]

_TASK = Task(channels=3, classes=10)
_MOST_WEIGHT_BYTES = 32_000_000  # so that the slowest link brings it within a minute


class Specimen(Protocol):
    """A network to measure, the same bytes each time."""

    @property
    def name(self) -> str:
        """Unique among all specimens."""
        ...

    @property
    def kind(self) -> SpecimenKind:
        """Where it comes from."""
        ...

    @property
    def kernels(self) -> KernelGraph:
        """What a device will execute."""
        ...

    def onnx(self) -> bytes:
        """The file to measure."""
        ...


@dataclass(frozen=True, eq=False)
class MobileCandidate:
    """A candidate of the space 'mobile' with random weights."""

    name: str
    network: Network

    @property
    def kind(self) -> SpecimenKind:
        """As opposed to synthetic networks."""
        return "candidate"

    @cached_property
    def kernels(self) -> KernelGraph:
        """What a device will execute."""
        return kernels_of(self.network)

    def onnx(self) -> bytes:
        """The file to measure."""
        seed = int(self.network.key[:8], 16)
        return onnx_bytes(self.network, random_weights(self.network, seed=seed))


def mobile_candidates(count: int, seed: int) -> tuple[MobileCandidate, ...]:
    """So many different candidates drawn at random, of at most 32 MB of weights."""
    space, rng = Mobile(), np.random.default_rng(seed)
    found: dict[str, MobileCandidate] = {}
    while len(found) < count:
        candidate = sample(space, rng)
        network = space.build(candidate, _TASK)
        if 4 * network.parameters <= _MOST_WEIGHT_BYTES:
            made = MobileCandidate(f"mobile {space.text(candidate)}", network)
            found.setdefault(network.key, made)
    return tuple(found.values())
