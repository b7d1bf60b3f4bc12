"""Small synthetic networks to calibrate a device with: each stresses few kinds of kernels.

A network of a plant mixes everything, so many of them are needed to tell what a convolution costs
from what a byte costs. These do not mix: chains of equal steps, long enough that their work is
more than the runtime's overhead, in the sizes that networks have. Which of them a device measures
is a matter of optimal design. What mixing adds, such as weights that no cache keeps, the small
networks tell.
"""

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property

from cost_models.kernels import KernelGraph
from cost_models.onnx_graph import kernels_from_onnx
from cost_models.tflite_graph import kernels_from_tflite
from host.calibration.micro_families import families
from host.calibration.micro_networks import networks
from host.calibration.onnx_writer import OnnxWriter
from host.calibration.recipes import Build
from host.calibration.specimens import Form, SpecimenKind
from host.calibration.tflite_writer import TfliteWriter

_WRITERS = {"onnx": OnnxWriter, "tflite": TfliteWriter}
_READERS = {"onnx": kernels_from_onnx, "tflite": kernels_from_tflite}


@dataclass(frozen=True, eq=False)
class MicroGraph:
    """A synthetic network by its name, the same bytes each time."""

    name: str
    build: Build
    form: Form = "onnx"
    kind: SpecimenKind = "micro-graph"

    def model_bytes(self) -> bytes:
        """The file to measure, at most about 10 MB."""
        return self._written(filled=True)

    @cached_property
    def kernels(self) -> KernelGraph:
        """What a device will execute."""
        return _READERS[self.form](self._written(filled=False))

    def _written(self, *, filled: bool) -> bytes:
        seed = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")
        writer = _WRITERS[self.form](seed, filled=filled)
        return writer.finish(self.build(writer))


@cache
def micrographs(form: Form = "onnx") -> tuple[MicroGraph, ...]:
    """All chains; names are unique, also among the small networks of the format."""
    return tuple(MicroGraph(one.name, one.build, form) for one in families() if form in one.forms)


@cache
def small_networks(form: Form = "onnx") -> tuple[MicroGraph, ...]:
    """All whole networks; names are unique."""
    return tuple(
        MicroGraph(one.name, one.build, form, "network") for one in networks() if form in one.forms
    )
