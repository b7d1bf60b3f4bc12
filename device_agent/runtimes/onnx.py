"""ONNX files on the CPU through onnxruntime."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from device_agent.errors import ModelRejectedError, NoRuntimeError, ResourceError

# y = x . [[1, 2], [3, 4]] for x of 1x2, opset 13, IR version 7: every onnxruntime since 1.8.
_TINY_MODEL = bytes.fromhex(
    "080712003a5d0a110a01780a017712017922064d61744d756c1201672a1b08020802100122100000803f000000"
    "4000004040000080404201775a130a0178120e0a0c080112080a0208010a02080262130a0179120e0a0c080112"
    "080a0208010a02080242040a00100d"
)
_TINY_INPUT, _TINY_OUTPUT = [[1.0, 1.0]], [[4.0, 6.0]]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "out of memory")
_CONFIG = (
    # The scan understands ONNX only, so the file must not be read as anything else.
    ("session.load_model_format", "ONNX"),
    # Spinning threads steal the very cores that are measured and burn energy between runs.
    ("session.intra_op.allow_spinning", "0"),
    ("session.inter_op.allow_spinning", "0"),
)
_LOG_ERRORS_ONLY = 3


class OnnxRuntime:
    """onnxruntime with its CPU provider."""

    name = "onnx"
    library = "onnxruntime"

    def __init__(self) -> None:
        """Raises NoRuntimeError where onnxruntime is missing or does not load."""
        try:
            import numpy as np
            import onnxruntime as ort
        except ModuleNotFoundError as error:
            raise NoRuntimeError(
                f"{error.name} is not installed: install the extra genba[onnx] on this device"
            ) from error
        except Exception as error:  # a clash of binary modules raises whatever it likes
            raise NoRuntimeError(f"onnxruntime does not load here: {_brief(error)}") from error
        self._np: Any = np
        self._ort: Any = ort
        self.version = str(ort.__version__)

    def load(self, path: Path, threads: int) -> OnnxModel:
        return OnnxModel(self._np, self._session(str(path), threads), _option_names(threads))

    def self_test(self) -> None:
        try:
            session = self._session(_TINY_MODEL, 1)
            (output,) = session.run(None, {"x": self._np.array(_TINY_INPUT, self._np.float32)})
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise NoRuntimeError(f"onnxruntime fails on a tiny model: {_brief(error)}") from error
        if output.tolist() != _TINY_OUTPUT:
            raise NoRuntimeError(
                f"onnxruntime computes wrong numbers here: {output.tolist()} for {_TINY_OUTPUT}"
            )

    def _session(self, model: str | bytes, threads: int) -> Any:
        ort = self._ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.enable_cpu_mem_arena = True
        options.enable_mem_pattern = True
        options.log_severity_level = _LOG_ERRORS_ONLY
        for key, value in _CONFIG:
            options.add_session_config_entry(key, value)
        try:
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise _refusal("onnxruntime refuses the model", error) from error


class OnnxModel:
    """One session and the inputs that it runs on."""

    def __init__(self, np: Any, session: Any, options: tuple[str, ...]) -> None:
        self._np = np
        self._session = session
        self._inputs: dict[str, Any] = {}
        self.options = options

    def make_inputs(self, seed: int) -> None:
        random = self._np.random.default_rng(seed)
        for entry in self._session.get_inputs():
            shape = _fixed_shape(entry.name, entry.shape)
            try:
                self._inputs[entry.name] = self._values(random, entry.name, entry.type, shape)
            except (MemoryError, ValueError) as error:
                raise ResourceError(
                    f"input {entry.name} of shape {list(shape)} does not fit in memory"
                ) from error

    def run(self) -> None:
        try:
            self._session.run(None, self._inputs)
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise _refusal("onnxruntime fails while it runs the model", error) from error

    def _values(self, random: Any, name: str, kind: str, shape: tuple[int, ...]) -> Any:
        dtype = _DTYPES.get(kind)
        if dtype is None:
            raise ModelRejectedError(f"input {name} has a type that cannot be made up: {kind}")
        if dtype.startswith("float"):
            return random.standard_normal(shape, dtype="float32").astype(dtype)
        if dtype in ("uint8", "int8"):
            return random.integers(0, 128, shape, dtype="int64").astype(dtype)
        # Wider integers are mostly indices: 0 and 1 lie inside every table worth the name.
        return random.integers(0, 2, shape, dtype="int64").astype(dtype)


def _option_names(threads: int) -> tuple[str, ...]:
    return (
        "providers=CPUExecutionProvider",
        f"intra_op_num_threads={threads}",
        "inter_op_num_threads=1",
        "execution_mode=ORT_SEQUENTIAL",
        "graph_optimization_level=ORT_ENABLE_ALL",
        "enable_cpu_mem_arena=1",
        "enable_mem_pattern=1",
        *(f"{key}={value}" for key, value in _CONFIG),
    )


def _fixed_shape(name: str, shape: list[Any]) -> tuple[int, ...]:
    fixed = []
    for axis, size in enumerate(shape):
        if isinstance(size, int) and size >= 0:
            fixed.append(size)
        elif axis == 0:
            fixed.append(1)
        else:
            raise ModelRejectedError(
                f"input {name} has a size that is not fixed at axis {axis} ({size or 'unnamed'}):"
                " export the model with fixed shapes"
            )
    if math.prod(fixed) == 0:
        raise ModelRejectedError(f"input {name} is empty: its shape is {fixed}")
    return tuple(fixed)


def _refusal(what: str, error: Exception) -> ModelRejectedError | ResourceError:
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
        return ResourceError(f"the model needs more memory than it may have: {_brief(error)}")
    return ModelRejectedError(f"{what}: {_brief(error)}")


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:400]
