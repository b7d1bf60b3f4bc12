"""Inputs and expected outputs of a verification: .npz files, and what this machine computes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from host.device import RuntimeName
from host.errors import UsageError

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


class ArraysError(UsageError):
    """An .npz file cannot be used for this model."""


class HostRuntimeError(UsageError):
    """This machine cannot compute what the model should answer."""


@dataclass(frozen=True)
class Expected:
    """Outputs by name, examples along axis 0, and where they come from."""

    outputs: Arrays
    source: str


def read_arrays(path: Path) -> Arrays:
    """The arrays of an .npz file. Raises ArraysError."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ArraysError(f"{path} is a single array: write an .npz with np.savez")
        with loaded as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise ArraysError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, BadZipFile, EOFError) as error:
        raise ArraysError(
            f"{path} is not an .npz file of plain arrays: write one with np.savez"
        ) from error
    if not arrays:
        raise ArraysError(f"{path} holds no array: write one for each input with np.savez")
    return arrays


def expected_outputs(model: Path, runtime: RuntimeName, inputs: Mapping[str, Array]) -> Expected:
    """What this machine's own runtime answers, cut and joined as a device does it: an example is
    a batch of one, and a model with a fixed batch takes as many at a time.

    Raises ArraysError where the inputs do not fit, and HostRuntimeError.
    """
    load = {"onnx": _onnx, "tflite": _tflite, "ncnn": _ncnn}[runtime]
    loaded = load(model)
    runs = _count_runs(loaded.batches, inputs)
    rows: dict[str, list[Array]] = {}
    for run in range(runs):
        one = {
            name: np.ascontiguousarray(inputs[name][run * size : (run + 1) * size])
            for name, size in loaded.batches.items()
        }
        try:
            outputs = loaded.answer(one)
        except Exception as error:  # each runtime raises what its C++ gave it
            raise ArraysError(f"{model} refuses these inputs: {_first(error)}") from error
        for name, output in outputs.items():
            rows.setdefault(name, []).append(output)
    batch = next(iter(loaded.batches.values()))
    return Expected(
        {name: _joined(name, found, batch) for name, found in rows.items()}, loaded.source
    )


@dataclass(frozen=True)
class _Loaded:
    """A model on this machine; `batches` says how many examples of each input a run takes."""

    answer: Callable[[Arrays], Arrays]
    batches: dict[str, int]
    source: str


def _onnx(model: Path) -> _Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common class but this one
        raise HostRuntimeError(f"onnxruntime here cannot load {model}: {_first(error)}") from error
    names = [value.name for value in session.get_outputs()]

    def answer(one: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, one), strict=True))

    batches = {value.name: _batch(value.shape) for value in session.get_inputs()}
    return _Loaded(answer, batches, f"onnxruntime {onnxruntime.__version__}")


def _tflite(model: Path) -> _Loaded:
    from importlib.metadata import version

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise HostRuntimeError(
            "this machine cannot run TFLite models, so it does not know what to expect: install"
            " ai-edge-litert, or name the expected outputs with --expected"
        ) from error
    try:
        interpreter = Interpreter(model_path=str(model), num_threads=1)
    except (ValueError, RuntimeError) as error:
        raise HostRuntimeError(f"LiteRT here cannot load {model}: {_first(error)}") from error
    details = interpreter.get_input_details()
    indexes = {detail["name"]: detail["index"] for detail in details}

    def answer(one: Arrays) -> Arrays:
        for name, index in indexes.items():
            interpreter.resize_tensor_input(index, one[name].shape)
        interpreter.allocate_tensors()
        for name, index in indexes.items():
            interpreter.set_tensor(index, one[name])
        interpreter.invoke()
        return {
            detail["name"]: interpreter.get_tensor(detail["index"]).copy()
            for detail in interpreter.get_output_details()
        }

    batches = {detail["name"]: _batch(detail["shape_signature"]) for detail in details}
    return _Loaded(answer, batches, f"ai-edge-litert {version('ai-edge-litert')}")


def _ncnn(model: Path) -> _Loaded:
    """ncnn has no batch: a device gives it one example at a time too."""
    from host.export.errors import ExportError
    from host.export.ncnn import NcnnProgram

    try:
        program = NcnnProgram(model.read_bytes())
    except UsageError as error:
        raise HostRuntimeError(
            "this machine cannot run ncnn models, so it does not know what to expect: pip install"
            " 'genba[ncnn]', or name the expected outputs with --expected"
        ) from error
    except ExportError as error:
        raise HostRuntimeError(f"ncnn here cannot load {model}: {error}") from error

    def answer(one: Arrays) -> Arrays:
        found = program.run({name: array[0] for name, array in one.items()})
        return {name: array[np.newaxis] for name, array in found.items()}

    return _Loaded(answer, dict.fromkeys(program.inputs, 1), f"ncnn {program.version}")


def _batch(shape: Sequence[Any]) -> int:
    """The fixed size of axis 0, or 1 where it is open: a name, nothing or -1."""
    first = shape[0] if len(shape) else 1
    return int(first) if isinstance(first, int | np.integer) and first > 0 else 1


def _count_runs(batches: Mapping[str, int], inputs: Mapping[str, Array]) -> int:
    """How often the model runs, which is the same for every input and at least once."""
    if set(batches) != set(inputs):
        raise ArraysError(
            f"the model's inputs are {', '.join(batches)}, and the file of inputs has"
            f" {', '.join(inputs)}: name its arrays after the inputs"
        )
    if not batches:
        raise ArraysError("the model has no input, so there is nothing to verify it on")
    counts = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
    runs = {counts[name] / size for name, size in batches.items()}
    count = runs.pop()
    if runs or count < 1 or not count.is_integer():
        told = ", ".join(
            f"{name} {counts[name]} (in batches of {b})" for name, b in batches.items()
        )
        raise ArraysError(f"the inputs need the same number of whole batches along axis 0: {told}")
    return int(count)


def _joined(name: str, outputs: Sequence[Array], batch: int) -> Array:
    if len({output.shape for output in outputs}) > 1:
        raise HostRuntimeError(
            f"output {name} changes its shape from example to example: it cannot be compared"
        )
    if outputs[0].ndim and outputs[0].shape[0] == batch:
        return np.concatenate(outputs)
    return np.stack(outputs)


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
