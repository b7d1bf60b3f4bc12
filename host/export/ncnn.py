"""ncnn models: their answers as ncnn computes them on this machine.

Needs the extra genba[ncnn]. There is no int8 form: it is not offered.
"""

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from host.errors import UsageError
from host.export.check import Feed, Floats, fitted, joined
from host.export.errors import ExportError
from host.network.ncnn_file import (
    NotNcnnError,
    input_shapes_of,
    layers_of,
    outputs_of,
    read_ncnn_file,
)
from host.network.ncnn_layers import check_weights

MISSING = "ncnn models need a package that is not installed: pip install 'genba[ncnn]'"


class NcnnProgram:
    """A loaded model. ncnn has no batch: `inputs` are the shapes of one example, by name.

    Raises UsageError where ncnn is not installed, ExportError where the file does not load.
    """

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        try:
            model = read_ncnn_file(content)
            layers = layers_of(model.param)
            check_weights(model, layers)
            self.inputs = input_shapes_of(layers)
        except NotNcnnError as error:
            raise ExportError(str(error)) from error
        self.outputs = outputs_of(layers)
        self._package = _ncnn()
        self.version: str = self._package.__version__
        self._net = self._package.Net()
        _set_up(self._net.opt, threads)
        # From files: where one is too short, ncnn says so; from memory it would read on.
        with tempfile.TemporaryDirectory() as folder:
            param, weights = Path(folder, "model.param"), Path(folder, "model.bin")
            param.write_text(model.param, encoding="utf-8")
            weights.write_bytes(model.weights)
            if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
                raise ExportError(f"ncnn {self.version} cannot load the model: export it again")

    def run(self, example: Mapping[str, Floats]) -> dict[str, Floats]:
        """What the model writes for an example of each input.

        Raises ExportError where a shape is not that of the input, or ncnn cannot run it.
        """
        extractor = self._net.create_extractor()
        for name, shape in self.inputs.items():
            if example[name].shape != shape:
                raise ExportError(f"{name} is {list(shape)}, it got {list(example[name].shape)}")
            # In memory of ncnn's own, which reads past the end of an array of numpy's.
            read = self._package.Mat(shape[::-1])
            read.numpy()[...] = example[name]
            self._check(extractor.input(name, read))
        found = {}
        for name in self.outputs:
            failed, written = extractor.extract(name)
            self._check(failed)
            found[name] = np.array(written, np.float32)
        return found

    def _check(self, failed: int) -> None:
        if failed:
            raise ExportError(f"ncnn {self.version} cannot run the model: export it again")


def logits_of_ncnn(model: bytes, inputs: Floats, *, threads: int = 1) -> Floats:
    """The logits (N, classes) of normalised images (N, C, H, W) or signals (N, C, L), one at a
    time.

    Raises UsageError where ncnn is not installed, and ExportError where the file does not load
    or run, the inputs do not fit, or a logit is not finite.
    """
    program = NcnnProgram(model, threads=threads)
    feed = _feed(program, inputs)
    rows = [program.run({feed.input_name: one})[feed.output_name] for one in feed.inputs]
    return joined([row[np.newaxis] for row in rows])


def feed_of_ncnn(model: bytes, inputs: Floats) -> Feed:
    """Normalised images (N, C, H, W) or signals (N, C, L) as an ncnn model reads them, one by one.

    Raises UsageError and ExportError as `logits_of_ncnn` does.
    """
    return _feed(NcnnProgram(model), inputs)


def _feed(program: NcnnProgram, inputs: Floats) -> Feed:
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise ExportError("the ncnn model has more than one input or output")
    ((name, shape),) = program.inputs.items()
    return Feed(name, fitted(inputs, shape), program.outputs[0])


def _set_up(options: Any, threads: int) -> None:
    """On the CPU and in float32, which ncnn leaves for float16 where a CPU has it."""
    options.num_threads = threads
    options.use_vulkan_compute = False
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        if hasattr(options, f"use_{name}"):  # which there are depends on the version
            setattr(options, f"use_{name}", False)


def _ncnn() -> ModuleType:
    """ncnn's Python package. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module("ncnn")
    except ImportError as error:
        raise UsageError(MISSING) from error
