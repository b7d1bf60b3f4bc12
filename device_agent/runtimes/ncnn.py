"""ncnn models on the CPU, from the container that device_agent.ncnn_file reads.

ncnn has no batch: a model's inputs and outputs have one of size 1 here, as in other runtimes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from device_agent import ncnn_scan
from device_agent.errors import ModelRejectedError, NoRuntimeError, ResourceError
from device_agent.ncnn_file import Layer, read_file
from device_agent.ncnn_layers import infer
from device_agent.reference import REFERENCE_FOLDER
from device_agent.runtimes.base import ModelInput
from device_agent.runtimes.inputs import check_arrays, make_up, resolve_shapes
from device_agent.runtimes.options import read_options
from device_agent.runtimes.refusals import brief
from device_agent.runtimes.tiny import check_tiny
from device_agent.scan_limits import ScanLimits
from device_agent.work import InputShape, ModelRun, OperatorTime

# Half precision changes answers, so only a job asks for it. Without Winograd's way layers of 3x3
# windows are slower and need a quarter of the memory.
_OPTIONS = {"fp16": ("0", "1"), "winograd": ("1", "0")}
_WAIT_POLICY = "OMP_WAIT_POLICY"
_INPUT = "Input"
# What ncnn's layers return where memory does not suffice.
_NO_MEMORY = -100


class NcnnRuntime:
    """ncnn without a GPU."""

    name = "ncnn"
    library = "ncnn"

    def __init__(self) -> None:
        """Raises NoRuntimeError where ncnn is missing or does not load."""
        # Spinning threads steal the very cores that are measured; OpenMP reads this once.
        os.environ.setdefault(_WAIT_POLICY, "passive")
        try:
            import ctypes

            import ncnn
            import numpy as np
        except ModuleNotFoundError as error:
            raise NoRuntimeError(
                f"{error.name} is not installed: install the extra genba[ncnn] on this device, or"
                " run `pip install --no-deps ncnn` where it asks for opencv-python, which the agent"
                " does not need"
            ) from error
        except Exception as error:  # a clash of binary modules raises whatever it likes
            raise NoRuntimeError(f"ncnn does not load here: {brief(error)}") from error
        self._np: Any = np
        self._ncnn: Any = ncnn
        self._ctypes: Any = ctypes
        self.version = str(ncnn.__version__)
        # Imported now, for numpy is lazy and inputs need it: it is no memory of the model's.
        np.random.default_rng(0)

    @property
    def reference_path(self) -> Path:
        return REFERENCE_FOLDER / "reference.ncnn"

    def scan(self, path: Path, limits: ScanLimits) -> None:
        ncnn_scan.scan_file(path, limits)

    def load(self, path: Path, run: ModelRun) -> NcnnModel:
        settings = _settings(run)
        try:
            file = read_file(path)
            inputs = tuple(_input(layer) for layer in file.layers if layer.kind == _INPUT)
        except ModelRejectedError as error:
            raise ModelRejectedError(f"the runtime ncnn refuses the model: {error}") from error
        net = self._net(settings)
        if net.load_param_mem(file.text) != 0:
            raise ModelRejectedError("ncnn refuses the model: it cannot read its layers")
        with path.open("rb") as weights:
            weights.seek(file.weights.first)
            reader = _weights_reader(self._ncnn, self._ctypes, weights, file.weights.size)
            if net.load_model(reader) != 0:
                raise ModelRejectedError(
                    "ncnn refuses the model: its weights are not those of its layers"
                )
        return NcnnModel(self._np, self._ncnn, net, inputs, _as_options(settings))

    def load_tiny(self) -> NcnnModel:
        path = REFERENCE_FOLDER / "tiny.ncnn"
        return self.load(path, ModelRun("", 0, self.name, threads=1))

    def profile(
        self,
        path: Path,  # noqa: ARG002 - as the other runtimes take them
        run: ModelRun,  # noqa: ARG002
        *,
        runs: int,  # noqa: ARG002
        scratch: Path,  # noqa: ARG002
    ) -> tuple[float, tuple[OperatorTime, ...]]:
        raise NoRuntimeError(
            f"ncnn {self.version} does not tell the time of single operators in Python:"
            " profile the model as ONNX, or use ncnn's own benchncnn on the device"
        )

    def self_test(self) -> None:
        check_tiny(self, self._np)

    def _net(self, settings: Mapping[str, str]) -> Any:
        net = self._ncnn.Net()
        for name, value in settings.items():
            if name != _WAIT_POLICY:
                setattr(net.opt, name, int(value))
        return net


class NcnnModel:
    """One net. Every run takes an extractor of its own, as ncnn wants it."""

    def __init__(
        self,
        np: Any,
        ncnn: Any,
        net: Any,
        inputs: tuple[ModelInput, ...],
        options: tuple[str, ...],
    ) -> None:
        self._np = np
        self._ncnn = ncnn
        self._net = net
        self._create_extractor = net.create_extractor
        self._input_indexes = dict(zip(net.input_names(), net.input_indexes()))
        self._output_names = tuple(str(name) for name in net.output_names())
        self._output_indexes = tuple(net.output_indexes())
        self._filled: tuple[tuple[int, Any], ...] = ()
        self._results: list[Any] = []
        self.inputs = inputs
        self.options = options

    def make_inputs(self, seed: int, shapes: Sequence[InputShape] = ()) -> None:
        resolved = resolve_shapes(self.inputs, shapes)
        random = self._np.random.default_rng(seed)
        self._fill(
            {
                each.name: make_up(self._np, each, resolved[each.name], random)
                for each in self.inputs
            }
        )

    def set_inputs(self, arrays: Mapping[str, Any]) -> None:
        check_arrays(self.inputs, arrays)
        self._fill(arrays)

    def run(self) -> None:
        extractor = self._create_extractor()
        for index, values in self._filled:
            _check(extractor.input(index, values))
        results = []
        for index in self._output_indexes:
            status, values = extractor.extract(index)
            _check(status)
            results.append(values)
        self._results = results

    def outputs(self) -> Mapping[str, Any]:
        return {
            name: self._np.array(values.numpy())[None]
            for name, values in zip(self._output_names, self._results)
        }

    def _fill(self, arrays: Mapping[str, Any]) -> None:
        filled = []
        for each in self.inputs:
            array = arrays[each.name][0]
            # In memory of ncnn's own: it would look into the array's without keeping it, and read
            # past its end, since it takes every array to end at a multiple of 16 bytes.
            values = self._ncnn.Mat(array.shape[::-1])
            if values.empty():
                raise ResourceError(f"input {each.name} does not fit in memory")
            values.numpy()[...] = array
            filled.append((self._input_indexes[each.name], values))
        self._filled = tuple(filled)


def _settings(run: ModelRun) -> Mapping[str, str]:
    """Everything that is set, by ncnn's own names.

    Raises ModelRejectedError for an unknown option.
    """
    chosen = read_options("ncnn", run.options, _OPTIONS)
    return {
        "num_threads": str(run.threads),
        "lightmode": "1",
        "openmp_blocktime": "0",
        "use_vulkan_compute": "0",
        "use_packing_layout": "1",
        "use_winograd_convolution": chosen["winograd"],
        "use_sgemm_convolution": "1",
        "use_fp16_packed": chosen["fp16"],
        "use_fp16_storage": chosen["fp16"],
        "use_fp16_arithmetic": chosen["fp16"],
        "use_bf16_storage": "0",
        "use_int8_inference": "0",
        _WAIT_POLICY: os.environ[_WAIT_POLICY],
    }


def _as_options(settings: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in settings.items())


def _input(layer: Layer) -> ModelInput:
    (shape,) = infer(layer, ()).shapes
    return ModelInput(layer.writes[0], "float32", (1, *shape))


def _check(status: int) -> None:
    if status == _NO_MEMORY:
        raise ResourceError("the model needs more memory than it may have: ncnn gets none")
    if status != 0:
        raise ModelRejectedError(f"ncnn fails while it runs the model (status {status})")


def _weights_reader(ncnn: Any, ctypes: Any, file: BinaryIO, size: int) -> Any:
    """What ncnn asks for its weights: `size` bytes of `file` and not one more.

    They go from the file to ncnn's own memory, so that no copy of them stays here, and unlike
    ncnn's readers of memory it knows where they end.
    """
    address_of = ctypes.pythonapi.PyCapsule_GetPointer
    address_of.restype, address_of.argtypes = (
        ctypes.c_void_p,
        (ctypes.py_object, ctypes.c_char_p),
    )
    left = size

    class Reader(ncnn.DataReader):  # type: ignore[misc] # the library has no types
        def read(self, buffer: Any, wanted: int) -> int:
            nonlocal left
            # Nothing may be raised through ncnn, which is built without exceptions.
            try:
                place = (ctypes.c_ubyte * min(wanted, left)).from_address(address_of(buffer, None))
                taken = file.readinto(place)  # type: ignore[attr-defined] # a buffered file has it
            except (OSError, ValueError):
                return 0
            left -= taken
            return int(taken)

    return Reader()
