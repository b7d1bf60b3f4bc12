"""Small synthetic networks to calibrate a device with: each stresses few kinds of kernels.

A network of a plant mixes everything, so many of them are needed to tell what a convolution costs
from what a byte costs. These do not mix: chains of equal steps, long enough that their work is
more than the runtime's overhead, in the sizes that networks have. Which of them a device measures
is a matter of optimal design. What mixing adds, such as weights that no cache keeps, the small
networks tell.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

from cost_models.kernels import KernelGraph
from cost_models.onnx_graph import kernels_from_onnx
from host.calibration.micro_families import families
from host.calibration.micro_networks import networks
from host.calibration.onnx_writer import ModelWriter, Tensor
from host.calibration.specimens import SpecimenKind

Build = Callable[[ModelWriter], Tensor]


@dataclass(frozen=True, eq=False)
class MicroGraph:
    """A synthetic network by its name, the same bytes each time."""

    name: str
    build: Build
    kind: SpecimenKind = "micro-graph"

    def onnx(self) -> bytes:
        """The file to measure, at most about 10 MB."""
        return self._written(filled=True)

    @cached_property
    def kernels(self) -> KernelGraph:
        """What a device will execute."""
        return kernels_from_onnx(self._written(filled=False))

    def _written(self, *, filled: bool) -> bytes:
        seed = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")
        writer = ModelWriter(seed, filled=filled)
        return writer.finish(self.build(writer))


@cache
def micrographs() -> tuple[MicroGraph, ...]:
    """All chains; names are unique, also among the small networks."""
    return tuple(MicroGraph(name, build) for name, build in families())


@cache
def small_networks() -> tuple[MicroGraph, ...]:
    """All whole networks; names are unique."""
    return tuple(MicroGraph(name, build, "network") for name, build in networks())
