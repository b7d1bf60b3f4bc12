"""What single runtimes do beyond the contract, and how a library is chosen and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Callable

import pytest

from device_agent.errors import ModelRejectedError, NoRuntimeError, ResourceError
from device_agent.reference import REFERENCE_FOLDER
from device_agent.reference.generate import FILES
from device_agent.runtimes import tflite
from device_agent.runtimes.catalogue import LIBRARIES, RUNTIMES, open_runtime
from device_agent.runtimes.onnx_trace import operator_times
from device_agent.runtimes.tflite_library import (
    AI_EDGE_LITERT,
    TFLITE_RUNTIME,
    TfliteLibrary,
    choose_library,
)
from device_agent.work import ModelRun


def usable(name: str) -> Any:
    try:
        return open_runtime(name)
    except NoRuntimeError as error:
        return pytest.skip(str(error))


# ---- catalogue and shipped models -------------------------------------------------------------


def test_an_unknown_runtime_is_named_with_those_that_are_known() -> None:
    with pytest.raises(NoRuntimeError, match=r"'caffe'.*onnx, tflite"):
        open_runtime("caffe")


def test_every_runtime_has_a_library_to_be_probed_by() -> None:
    assert set(LIBRARIES) == set(RUNTIMES)


def test_the_catalogue_imports_no_library() -> None:
    code = (
        "import sys; from device_agent.runtimes.catalogue import LIBRARIES;"
        "print(sorted({'numpy', 'onnxruntime', 'ai_edge_litert', 'tflite_runtime', 'ncnn'}"
        " & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_shipped_model_is_what_its_generator_makes(name: Any) -> None:
    data = (REFERENCE_FOLDER / name).read_bytes()

    assert data == FILES[name]()
    assert len(data) < 40_000


@pytest.mark.parametrize(("name", "axes"), [("tflite", (0, 2, 3, 1)), ("ncnn", (0, 1, 2, 3))])
def test_the_reference_models_do_the_same_arithmetic(name: Any, axes: Any) -> None:
    np = pytest.importorskip("numpy")
    onnx, other = usable("onnx"), usable(name)
    x = np.random.default_rng(1).standard_normal((1, 3, 96, 96), dtype="float32")
    answers = []
    for runtime, value in ((onnx, x), (other, x.transpose(axes))):
        model = runtime.load(runtime.reference_path, ModelRun("", 0, runtime.name, 1))
        model.set_inputs({"x": value})
        model.run()
        answers.append(model.outputs()["y"].ravel())

    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)
    assert np.abs(answers[0]).min() > 1e-3


def test_the_reference_model_is_an_old_enough_onnx_file() -> None:
    onnx = pytest.importorskip("onnx")

    model = onnx.load(REFERENCE_FOLDER / "reference.onnx")

    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 7
    assert [opset.version for opset in model.opset_import] == [13]


# ---- which TFLite library ---------------------------------------------------------------------

OLD_X86 = "processor\t: 0\nflags\t\t: fpu sse2 ssse3\n"
NEW_X86 = "processor\t: 0\nflags\t\t: fpu sse2 ssse3 sse4_1 sse4_2\n"
ARM = "processor\t: 0\nFeatures\t: half thumb neon vfpv4\n"


@pytest.mark.parametrize(
    ("cpuinfo", "installed", "chosen"),
    [
        (NEW_X86, {"ai_edge_litert", "tflite_runtime"}, AI_EDGE_LITERT),
        (NEW_X86, {"tflite_runtime"}, TFLITE_RUNTIME),
        (NEW_X86, set(), None),
        (OLD_X86, {"ai_edge_litert", "tflite_runtime"}, TFLITE_RUNTIME),
        (OLD_X86, {"ai_edge_litert"}, AI_EDGE_LITERT),
        (ARM, {"ai_edge_litert", "tflite_runtime"}, AI_EDGE_LITERT),
        (None, {"ai_edge_litert", "tflite_runtime"}, AI_EDGE_LITERT),
    ],
)
def test_the_faster_library_that_this_cpu_can_run_is_chosen(
    tmp_path: Path, cpuinfo: Any, installed: Any, chosen: Any
) -> None:
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)

    assert choose_library(installed.__contains__, path) == chosen


def test_a_device_without_a_tflite_library_is_told_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setattr(tflite, "choose_library", lambda: None)

    with pytest.raises(NoRuntimeError, match=r"neither .* installed.*genba\[tflite\]"):
        open_runtime("tflite")


def test_a_library_that_raises_when_it_is_imported_is_refused_with_its_words(
    monkeypatch: Any, tmp_path: Path
) -> None:
    pytest.importorskip("numpy")
    package = tmp_path / "broken_lite"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text("raise ImportError('GLIBC_2.34 not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = TfliteLibrary("broken-lite", "broken_lite")
    monkeypatch.setattr(tflite, "choose_library", lambda: broken)

    with pytest.raises(NoRuntimeError, match=r"broken-lite does not load here: GLIBC_2\.34"):
        open_runtime("tflite")


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_a_missing_module_is_named(monkeypatch: Any, name: Any) -> None:
    monkeypatch.setattr(tflite, "choose_library", lambda: AI_EDGE_LITERT)
    monkeypatch.setitem(sys.modules, "numpy", None)

    with pytest.raises(NoRuntimeError, match=rf"not installed: install the extra genba\[{name}\]"):
        open_runtime(name)


@pytest.mark.parametrize(
    ("runtime", "package", "version", "numpy", "clashes"),
    [
        ("tflite", "tflite-runtime", "2.14.0", "2.3.5", True),
        ("tflite", "tflite-runtime", "2.14.0", "1.26.4", False),
        ("onnx", "onnxruntime", "1.15.1", "2.0.2", True),
        ("onnx", "onnxruntime", "1.16.3", "1.24.4", False),
        ("onnx", "onnxruntime", "1.19.2", "2.0.2", False),
        ("onnx", "onnxruntime", "1.32.0", "2.3.5", False),
    ],
)
def test_a_clash_with_numpy_2_is_told_before_anything_is_imported(
    monkeypatch: Any, runtime: Any, package: Any, version: Any, numpy: Any, clashes: Any
) -> None:
    versions = {package: version, "numpy": numpy}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    monkeypatch.setattr(tflite, "choose_library", lambda: TFLITE_RUNTIME)
    monkeypatch.setitem(sys.modules, "numpy", None)

    with pytest.raises(NoRuntimeError) as raised:
        open_runtime(runtime)

    wanted = f"{package} {version} needs numpy < 2, and numpy {numpy} is installed"
    assert (wanted in str(raised.value)) == clashes


# ---- tflite -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "stated"),
    [
        ((), ("num_threads=1", "xnnpack=1", "delegate=XNNPACK")),
        (("xnnpack=1",), ("num_threads=1", "xnnpack=1", "delegate=XNNPACK")),
        (("xnnpack=0",), ("num_threads=1", "xnnpack=0", "delegate=none")),
    ],
)
def test_xnnpack_is_switched_and_stated(given: Any, stated: Any) -> None:
    runtime = usable("tflite")
    run = ModelRun("", 0, "tflite", 1, options=given)

    model = runtime.load(runtime.reference_path, run)

    assert model.options == stated


def test_the_answer_does_not_depend_on_xnnpack() -> None:
    np = pytest.importorskip("numpy")
    runtime = usable("tflite")
    answers = []
    for option in ("xnnpack=0", "xnnpack=1"):
        model = runtime.load(
            runtime.reference_path, ModelRun("", 0, "tflite", 1, options=(option,))
        )
        model.make_inputs(1)
        model.run()
        answers.append(model.outputs()["y"])

    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)


# ---- onnx -------------------------------------------------------------------------------------


@pytest.fixture
def load_onnx(tmp_path: Path) -> Callable[..., Any]:
    runtime = usable("onnx")

    def write_and_load(data: bytes, *options: str, threads: int = 1) -> Any:
        (tmp_path / "model").write_bytes(data)
        run = ModelRun("", 0, "onnx", threads, options=options)
        return runtime.load(tmp_path / "model", run)

    return write_and_load


def test_every_option_that_matters_is_stated(load_onnx: Any, conv_model: bytes) -> None:
    model = load_onnx(conv_model, threads=2)

    assert set(model.options) >= {
        "providers=CPUExecutionProvider",
        "intra_op_num_threads=2",
        "inter_op_num_threads=1",
        "graph_optimization_level=ORT_ENABLE_ALL",
        "session.intra_op.allow_spinning=0",
    }


@pytest.mark.parametrize(
    ("given", "stated"),
    [
        ("spin=1", "session.intra_op.allow_spinning=1"),
        ("graph_optimization_level=disable", "graph_optimization_level=ORT_DISABLE_ALL"),
        ("graph_optimization_level=basic", "graph_optimization_level=ORT_ENABLE_BASIC"),
        ("cpu_mem_arena=0", "enable_cpu_mem_arena=0"),
        ("x64quantprecision=1", "session.x64quantprecision=1"),
    ],
)
def test_an_option_is_set_and_stated(
    load_onnx: Any, conv_model: bytes, given: Any, stated: Any
) -> None:
    model = load_onnx(conv_model, given)
    model.make_inputs(1)
    model.run()

    assert stated in model.options


def test_an_option_that_is_set_twice_is_refused(load_onnx: Any, conv_model: bytes) -> None:
    with pytest.raises(ModelRejectedError, match="spin is set twice"):
        load_onnx(conv_model, "spin=0", "spin=1")


def test_inputs_of_a_type_that_cannot_be_made_up_are_refused(
    load_onnx: Any, make_model: Callable[..., bytes]
) -> None:
    onnx = pytest.importorskip("onnx")
    model = load_onnx(make_model((1, 4), input_type=onnx.TensorProto.STRING))

    with pytest.raises(ModelRejectedError, match="string"):
        model.make_inputs(1)


def test_a_failure_inside_a_run_rejects_the_model(load_onnx: Any) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Reshape", ["w", "s"], ["y"]),
        ],
        "fails when it runs",
        [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("y", kind, None)],
        [helper.make_tensor("w", kind, [3], [1.0, 2.0, 3.0])],
    )
    opsets = [helper.make_opsetid("", 13)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString()
    model = load_onnx(data)
    model.make_inputs(1)

    with pytest.raises(ModelRejectedError, match="fails while it runs"):
        model.run()


def test_a_model_without_inputs_runs(load_onnx: Any) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Neg", ["w"], ["y"])],
        "constant",
        [],
        [helper.make_tensor_value_info("y", kind, [1])],
        [helper.make_tensor("w", kind, [1], [2.0])],
    )
    opsets = [helper.make_opsetid("", 13)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString()
    model = load_onnx(data)
    model.make_inputs(1)
    model.run()

    assert model.outputs()["y"].tolist() == [-2.0]


def test_a_profile_names_every_operator_of_the_optimised_model(tmp_path: Path) -> None:
    runtime = usable("onnx")
    run = ModelRun("", 0, "onnx", 1, options=("graph_optimization_level=disable",))

    _, operators = runtime.profile(runtime.reference_path, run, runs=3, scratch=tmp_path)

    assert sorted(operator.kind for operator in operators) == [
        *["Conv"] * 3,
        "GlobalAveragePool",
        *["Relu"] * 3,
    ]


# ---- traces -----------------------------------------------------------------------------------


def event(category: str, name: str, microseconds: int, **arguments: str) -> str:
    entry = {"cat": category, "name": name, "dur": microseconds, "ts": 1, "args": arguments}
    return json.dumps(entry)


def run_events(conv: int, relu: int, whole: int) -> list[str]:
    return [
        event("Node", "a_kernel_time", conv, op_name="Conv"),
        event("Node", "b_kernel_time", relu, op_name="Relu"),
        event("Node", "b_fence_after", 900, op_name="Relu"),
        event("Session", "SequentialExecutor::Execute", whole),
        event("Session", "model_run", whole),
    ]


@pytest.fixture
def write_trace(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "trace.json"
        path.write_text(text)
        return path

    return write


def test_a_trace_gives_means_per_run_without_the_warm_up(write_trace: Any) -> None:
    events = [
        event("Session", "session_initialization", 10_000),
        *run_events(1000, 1000, 5000),
        *run_events(10, 30, 50),
        *run_events(20, 50, 70),
    ]
    trace = write_trace("[\n" + ",\n".join(events) + "\n]\n")

    run_seconds, operators = operator_times(trace, skip=1)

    assert run_seconds == pytest.approx(60e-6)
    assert [(operator.name, operator.kind) for operator in operators] == [
        ("b", "Relu"),
        ("a", "Conv"),
    ]
    assert [operator.seconds for operator in operators] == pytest.approx([40e-6, 15e-6])


@pytest.mark.parametrize("kept", [0, 1, 20, 200, -3])
def test_a_trace_that_was_cut_short_is_a_matter_of_resources(write_trace: Any, kept: Any) -> None:
    text = "[\n" + ",\n".join(run_events(10, 30, 50) * 3) + "\n]\n"

    with pytest.raises(ResourceError, match="trace is incomplete"):
        operator_times(write_trace(text[:kept]), skip=1)


def test_a_trace_without_a_counted_run_is_refused(write_trace: Any) -> None:
    text = "[\n" + ",\n".join(run_events(10, 30, 50)) + "\n]\n"

    with pytest.raises(ResourceError, match="trace is incomplete"):
        operator_times(write_trace(text), skip=1)


PROFILE_LIMITED = """
import resource, sys
from pathlib import Path
from device_agent.errors import ResourceError
from device_agent.runtimes.catalogue import open_runtime
from device_agent.work import ModelRun
runtime = open_runtime("onnx")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    runtime.profile(
        runtime.reference_path, ModelRun("", 0, "onnx", 1), runs=50, scratch=Path(sys.argv[1])
    )
except ResourceError as error:
    print(error)
"""


def test_a_trace_larger_than_a_worker_may_write_is_told(tmp_path: Path) -> None:
    usable("onnx")

    done = subprocess.run(
        [sys.executable, "-c", PROFILE_LIMITED, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert "ask for fewer runs" in done.stdout
    assert list(tmp_path.iterdir()) == []
