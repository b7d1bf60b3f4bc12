"""What a device can be calibrated with: synthetic networks, and candidates of a search space."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, get_args

import numpy as np

from cost_models.kernels import KernelGraph
from host.device import CalibratedRuntime
from host.network.graph import Network
from host.spaces.base import Task, sample
from host.spaces.mobile import Mobile

SpecimenKind = Literal["micro-graph", "network", "candidate", "file"]
Form = CalibratedRuntime
"""The format of a file, called as the runtime that takes it."""
FORMS: tuple[Form, ...] = get_args(Form)

LARGEST_DEPTHWISE: Mapping[Form, int] = {"onnx": 7, "tflite": 5}
"""The largest window of a depthwise convolution in whole networks. TFLite runs larger ones some
ten times slower than what its networks are made of: they would drown that.
"""

_TASK = Task(channels=3, classes=10)
_MOST_WEIGHT_BYTES = 32_000_000  # so that the slowest link brings it within a minute


class Specimen(Protocol):
    """A network to measure, in one format, the same bytes each time."""

    @property
    def name(self) -> str:
        """Unique among all specimens of its format."""
        ...

    @property
    def kind(self) -> SpecimenKind:
        """Where it comes from."""
        ...

    @property
    def form(self) -> Form:
        """The format of its file."""
        ...

    @property
    def kernels(self) -> KernelGraph:
        """What a device will execute."""
        ...

    def model_bytes(self) -> bytes:
        """The file to measure."""
        ...


@dataclass(frozen=True, eq=False)
class MobileCandidate:
    """A candidate of the space 'mobile' with random weights."""

    name: str
    network: Network
    form: Form = "onnx"

    @property
    def kind(self) -> SpecimenKind:
        """As opposed to synthetic networks."""
        return "candidate"

    @cached_property
    def kernels(self) -> KernelGraph:
        """What a device will execute."""
        if self.form == "tflite":
            from host.network.tflite_kernels import tflite_kernels_of

            return tflite_kernels_of(self.network)
        from host.network.kernels import kernels_of

        return kernels_of(self.network)

    def model_bytes(self) -> bytes:
        """The file to measure."""
        from host.network.weights import random_weights

        weights = random_weights(self.network, seed=int(self.network.key[:8], 16))
        if self.form == "tflite":
            from host.network.tflite_model import tflite_bytes

            return tflite_bytes(self.network, weights)
        from host.network.onnx_model import onnx_bytes

        return onnx_bytes(self.network, weights)


def mobile_candidates(count: int, seed: int, form: Form = "onnx") -> tuple[MobileCandidate, ...]:
    """So many different candidates drawn at random, of at most 32 MB of weights, with windows that
    the format is made for.
    """
    kernels = tuple(size for size in (3, 5, 7) if size <= LARGEST_DEPTHWISE[form])
    space, rng = Mobile({"kernel": kernels}), np.random.default_rng(seed)
    found: dict[str, MobileCandidate] = {}
    while len(found) < count:
        candidate = sample(space, rng)
        network = space.build(candidate, _TASK)
        if 4 * network.parameters <= _MOST_WEIGHT_BYTES:
            made = MobileCandidate(f"mobile {space.text(candidate)}", network, form)
            found.setdefault(network.key, made)
    return tuple(found.values())
