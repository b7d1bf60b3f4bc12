"""ONNX files on the CPU through onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device_agent.errors import NoRuntimeError
from device_agent.model_scan import scan_file
from device_agent.reference import REFERENCE_FOLDER
from device_agent.runtimes.base import ModelInput
from device_agent.runtimes.inputs import check_arrays, make_up, resolve_shapes
from device_agent.runtimes.onnx_trace import operator_times
from device_agent.runtimes.options import read_options
from device_agent.runtimes.refusals import brief, refusal, refuse_numpy_clash
from device_agent.runtimes.tiny import check_tiny
from device_agent.scan_limits import ScanLimits
from device_agent.work import InputShape, ModelRun, OperatorTime

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
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disable": "ORT_DISABLE_ALL",
}
_OPTIONS = {
    # Spinning threads steal the very cores that are measured and burn energy between runs.
    "spin": ("0", "1"),
    "graph_optimization_level": tuple(_LEVELS),
    "cpu_mem_arena": ("1", "0"),
    # Exact int8 on CPUs with AVX2 and without VNNI, where signed weights saturate.
    "x64quantprecision": ("0", "1"),
}
_PROVIDER = "CPUExecutionProvider"
_LOG_ERRORS_ONLY = 3
_FIRST_FOR_NUMPY_2 = (1, 19)
_TRACE = "onnxruntime-trace"
_PROFILE_SEED, _PROFILE_WARMUP_RUNS = 1, 3


class OnnxRuntime:
    """onnxruntime with its CPU provider."""

    name = "onnx"
    library = "onnxruntime"

    def __init__(self) -> None:
        """Raises NoRuntimeError where onnxruntime is missing or does not load."""
        refuse_numpy_clash(self.library, _FIRST_FOR_NUMPY_2)
        try:
            import numpy as np
            import onnxruntime as ort
        except ModuleNotFoundError as error:
            raise NoRuntimeError(
                f"{error.name} is not installed: install the extra genba[onnx] on this device"
            ) from error
        except Exception as error:  # a clash of binary modules raises whatever it likes
            raise NoRuntimeError(f"onnxruntime does not load here: {brief(error)}") from error
        self._np: Any = np
        self._ort: Any = ort
        self.version = str(ort.__version__)
        # Imported now, for numpy is lazy and inputs need it: it is no memory of the model's.
        np.random.default_rng(0)

    @property
    def reference_path(self) -> Path:
        return REFERENCE_FOLDER / "reference.onnx"

    def scan(self, path: Path, limits: ScanLimits) -> None:
        scan_file(path, limits)

    def load(self, path: Path, run: ModelRun) -> OnnxModel:
        settings = _settings(run)
        return OnnxModel(self._np, self._session(path, settings), _as_options(settings))

    def load_tiny(self) -> OnnxModel:
        path = REFERENCE_FOLDER / "tiny.onnx"
        return self.load(path, ModelRun("", path.stat().st_size, self.name, threads=1))

    def profile(
        self, path: Path, run: ModelRun, *, runs: int, scratch: Path
    ) -> tuple[float, tuple[OperatorTime, ...]]:
        """Times are those of onnxruntime's own profiler, which counts whole microseconds; what a
        control-flow operator takes includes the operators inside it.
        """
        session = self._session(path, _settings(run), trace_prefix=scratch / _TRACE)
        model = OnnxModel(self._np, session, ())
        model.make_inputs(_PROFILE_SEED, run.input_shapes)
        try:
            for _ in range(_PROFILE_WARMUP_RUNS + runs):
                model.run()
            return operator_times(Path(session.end_profiling()), skip=_PROFILE_WARMUP_RUNS)
        finally:
            for trace in scratch.glob(f"{_TRACE}*"):
                trace.unlink()

    def self_test(self) -> None:
        check_tiny(self, self._np)

    def _session(
        self, path: Path, settings: Mapping[str, str], trace_prefix: Path | None = None
    ) -> Any:
        ort = self._ort
        options = ort.SessionOptions()
        for name in ("intra_op_num_threads", "inter_op_num_threads"):
            setattr(options, name, int(settings[name]))
        for name in ("enable_cpu_mem_arena", "enable_mem_pattern"):
            setattr(options, name, settings[name] == "1")
        options.execution_mode = getattr(ort.ExecutionMode, settings["execution_mode"])
        level = settings["graph_optimization_level"]
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.log_severity_level = _LOG_ERRORS_ONLY
        for name, value in settings.items():
            if name.startswith("session."):
                options.add_session_config_entry(name, value)
        if trace_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(trace_prefix)
        try:
            return ort.InferenceSession(str(path), options, providers=[settings["providers"]])
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise refusal("onnxruntime refuses the model", error) from error


class OnnxModel:
    """One session, and its inputs and outputs bound to memory once: a call then costs the least."""

    def __init__(self, np: Any, session: Any, options: tuple[str, ...]) -> None:
        self._np = np
        self._session = session
        self._run = session.run_with_iobinding
        self._binding = session.io_binding()
        self._bound: dict[str, Any] = {}
        self.options = options
        self.inputs = tuple(
            ModelInput(each.name, _DTYPES.get(each.type, each.type), _sizes(each.shape))
            for each in session.get_inputs()
        )
        self._output_names = [each.name for each in session.get_outputs()]

    def make_inputs(self, seed: int, shapes: Sequence[InputShape] = ()) -> None:
        resolved = resolve_shapes(self.inputs, shapes)
        random = self._np.random.default_rng(seed)
        self._bind(
            {
                each.name: make_up(self._np, each, resolved[each.name], random)
                for each in self.inputs
            }
        )

    def set_inputs(self, arrays: Mapping[str, Any]) -> None:
        check_arrays(self.inputs, arrays)
        # Native byte order and no gaps, and a copy: the caller may change its array.
        self._bind(
            {
                each.name: self._np.array(arrays[each.name], dtype=each.dtype, order="C")
                for each in self.inputs
            }
        )

    def run(self) -> None:
        try:
            self._run(self._binding)
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise refusal("onnxruntime fails while it runs the model", error) from error

    def outputs(self) -> Mapping[str, Any]:
        try:
            values = self._binding.copy_outputs_to_cpu()
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise refusal("onnxruntime gives outputs that are no arrays", error) from error
        return dict(zip(self._output_names, values))

    def _bind(self, arrays: dict[str, Any]) -> None:
        # The binding refers to the arrays' memory, so they must live as long.
        self._bound = arrays
        for name, array in arrays.items():
            self._binding.bind_cpu_input(name, array)
        # A run keeps the memory of its outputs for the next one, whose shapes may be others.
        self._binding.clear_binding_outputs()
        for name in self._output_names:
            self._binding.bind_output(name, "cpu")


def _settings(run: ModelRun) -> Mapping[str, str]:
    """Everything that is set on a session, by onnxruntime's own names.

    Raises ModelRejectedError for an unknown option.
    """
    chosen = read_options("onnx", run.options, _OPTIONS)
    return {
        "providers": _PROVIDER,
        "intra_op_num_threads": str(run.threads),
        "inter_op_num_threads": "1",
        "execution_mode": "ORT_SEQUENTIAL",
        "graph_optimization_level": _LEVELS[chosen["graph_optimization_level"]],
        "enable_cpu_mem_arena": chosen["cpu_mem_arena"],
        "enable_mem_pattern": "1",
        # The scan understands ONNX only, so the file must not be read as anything else.
        "session.load_model_format": "ONNX",
        "session.intra_op.allow_spinning": chosen["spin"],
        "session.inter_op.allow_spinning": chosen["spin"],
        "session.x64quantprecision": chosen["x64quantprecision"],
    }


def _as_options(settings: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in settings.items())


def _sizes(shape: Sequence[Any]) -> tuple[Any, ...]:
    """Sizes of axes; onnxruntime says a name, None or -1 where one is open."""
    return tuple(size if isinstance(size, int) and size >= 0 else None for size in shape)
