"""TFLite files on the CPU through whichever library is installed: ai-edge-litert or
tflite-runtime.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from device_agent import tflite_scan
from device_agent.errors import ModelRejectedError, NoRuntimeError
from device_agent.reference import REFERENCE_FOLDER
from device_agent.runtimes.base import ModelInput
from device_agent.runtimes.inputs import Shape, check_arrays, make_up, resolve_shapes
from device_agent.runtimes.options import read_options
from device_agent.runtimes.refusals import brief, refusal, refuse_numpy_clash
from device_agent.runtimes.tflite_library import TFLITE_RUNTIME, TfliteLibrary, choose_library
from device_agent.runtimes.tiny import check_tiny
from device_agent.scan_limits import ScanLimits
from device_agent.work import InputShape, ModelRun, OperatorTime

_OPTIONS = {"xnnpack": ("1", "0")}
_RESOLVERS = {"1": "BUILTIN", "0": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}
_FIRST_FOR_NUMPY_2 = (2, 15)
_DELEGATE = "DELEGATE"


class TfliteRuntime:
    """The TFLite interpreter, with XNNPACK unless a job says otherwise."""

    name = "tflite"

    def __init__(self) -> None:
        """Raises NoRuntimeError where no library is installed or it does not load."""
        found = choose_library()
        if found is None:
            raise NoRuntimeError(
                "neither ai-edge-litert nor tflite-runtime is installed:"
                " install the extra genba[tflite] on this device"
            )
        self.library = found.name
        if found is TFLITE_RUNTIME:
            refuse_numpy_clash(found.name, _FIRST_FOR_NUMPY_2)
        self._np, self._interpreter = _import(found)
        self.version = _version(found)
        # Imported now, for numpy is lazy and inputs need it: it is no memory of the model's.
        self._np.random.default_rng(0)

    @property
    def reference_path(self) -> Path:
        return REFERENCE_FOLDER / "reference.tflite"

    def scan(self, path: Path, limits: ScanLimits) -> None:
        tflite_scan.scan_file(path, limits)

    def load(self, path: Path, run: ModelRun) -> TfliteModel:
        xnnpack = read_options(self.name, run.options, _OPTIONS)["xnnpack"]
        module = self._interpreter
        try:
            interpreter = module.Interpreter(
                model_path=str(path),
                num_threads=run.threads,
                experimental_op_resolver_type=getattr(module.OpResolverType, _RESOLVERS[xnnpack]),
            )
        except Exception as error:  # the library raises what C++ gave it
            raise refusal(f"{self.library} refuses the model", error) from error
        options = (f"num_threads={run.threads}", f"xnnpack={xnnpack}")
        return TfliteModel(self._np, interpreter, self.library, options, run.input_shapes)

    def load_tiny(self) -> TfliteModel:
        path = REFERENCE_FOLDER / "tiny.tflite"
        return self.load(path, ModelRun("", path.stat().st_size, self.name, threads=1))

    def profile(
        self,
        path: Path,  # noqa: ARG002 - as the other runtimes take them
        run: ModelRun,  # noqa: ARG002
        *,
        runs: int,  # noqa: ARG002
        scratch: Path,  # noqa: ARG002
    ) -> tuple[float, tuple[OperatorTime, ...]]:
        raise NoRuntimeError(
            f"{self.library} {self.version} does not tell the time of single operators in Python:"
            " profile the model as ONNX, or use TFLite's own benchmark_model on the device"
        )

    def self_test(self) -> None:
        check_tiny(self, self._np)


class TfliteModel:
    """One interpreter; its inputs are copied into it once and stay there over all runs."""

    def __init__(
        self,
        np: Any,
        interpreter: Any,
        library: str,
        options: tuple[str, ...],
        shapes: Sequence[InputShape],
    ) -> None:
        """Allocates the tensors where the model and `shapes` say how large they are."""
        self._np = np
        self._interpreter = interpreter
        self._invoke = interpreter.invoke
        self._library = library
        self._set_options = options
        details = interpreter.get_input_details()
        self._indexes = {str(each["name"]): int(each["index"]) for each in details}
        if len(self._indexes) != len(details):
            raise ModelRejectedError("two inputs of the model have the same name: rename one")
        self.inputs = tuple(_model_input(np, each) for each in details)
        # What the interpreter takes an open axis to be, until it is told a size.
        self._shapes = {str(each["name"]): _ints(each["shape"]) for each in details}
        self._allocated = False
        if shapes or not any(_is_open(each) for each in self.inputs):
            self._allocate(resolve_shapes(self.inputs, shapes))

    @property
    def options(self) -> tuple[str, ...]:
        return (*self._set_options, *self._delegate())

    def make_inputs(self, seed: int, shapes: Sequence[InputShape] = ()) -> None:
        resolved = resolve_shapes(self.inputs, shapes)
        random = self._np.random.default_rng(seed)
        arrays = {
            each.name: make_up(self._np, each, resolved[each.name], random) for each in self.inputs
        }
        self._fill(arrays)

    def set_inputs(self, arrays: Mapping[str, Any]) -> None:
        check_arrays(self.inputs, arrays)
        self._fill(
            {
                each.name: self._np.asarray(arrays[each.name], dtype=each.dtype, order="C")
                for each in self.inputs
            }
        )

    def run(self) -> None:
        try:
            self._invoke()
        except Exception as error:  # the library raises what C++ gave it
            raise refusal(f"{self._library} fails while it runs the model", error) from error

    def outputs(self) -> Mapping[str, Any]:
        details = self._interpreter.get_output_details()
        outputs = {
            str(each["name"]): self._interpreter.get_tensor(each["index"]) for each in details
        }
        if len(outputs) != len(details):
            raise ModelRejectedError("two outputs of the model have the same name: rename one")
        return outputs

    def _fill(self, arrays: Mapping[str, Any]) -> None:
        self._allocate({name: array.shape for name, array in arrays.items()})
        try:
            for name, array in arrays.items():
                self._interpreter.set_tensor(self._indexes[name], array)
        except Exception as error:  # the library raises what C++ gave it
            raise refusal(f"{self._library} refuses its inputs", error) from error

    def _allocate(self, shapes: Mapping[str, Shape]) -> None:
        changed = {name: size for name, size in shapes.items() if size != self._shapes[name]}
        if self._allocated and not changed:
            return
        try:
            for name, shape in changed.items():
                self._interpreter.resize_tensor_input(self._indexes[name], shape)
            self._interpreter.allocate_tensors()
        except Exception as error:  # the library raises what C++ gave it
            raise refusal(f"{self._library} refuses the model", error) from error
        self._shapes.update(changed)
        self._allocated = True

    def _delegate(self) -> tuple[str, ...]:
        """What was really put in place of operators; nothing where the library cannot tell."""
        details = getattr(self._interpreter, "_get_ops_details", None)
        if details is None or not self._allocated:
            return ()
        applied = any(operator["op_name"] == _DELEGATE for operator in details())
        return (f"delegate={'XNNPACK' if applied else 'none'}",)


def _import(library: TfliteLibrary) -> tuple[Any, Any]:
    try:
        import numpy as np

        return np, importlib.import_module(library.module)
    except ModuleNotFoundError as error:
        raise NoRuntimeError(
            f"{error.name} is not installed: install the extra genba[tflite] on this device"
        ) from error
    except Exception as error:  # a clash of binary modules raises whatever it likes
        raise NoRuntimeError(f"{library.name} does not load here: {brief(error)}") from error


def _version(library: TfliteLibrary) -> str:
    try:
        return metadata.version(library.name)
    except metadata.PackageNotFoundError:
        # Built from source and put on the path: it may still say so itself.
        return str(getattr(importlib.import_module(library.package), "__version__", ""))


def _model_input(np: Any, details: Mapping[str, Any]) -> ModelInput:
    signature = details.get("shape_signature")
    shape = _ints(details["shape"])
    # Files of older converters have no signature: their shapes are what they are.
    sizes = _ints(signature) if signature is not None and len(signature) == len(shape) else shape
    return ModelInput(
        str(details["name"]),
        np.dtype(details["dtype"]).name,
        tuple(size if size >= 0 else None for size in sizes),
    )


def _is_open(model_input: ModelInput) -> bool:
    return None in model_input.sizes


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
