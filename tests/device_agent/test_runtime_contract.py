"""What every runtime must do, shown on real libraries: one suite for all of them."""

from __future__ import annotations

import functools
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest

from device_agent.errors import ModelRejectedError, NoRuntimeError, ResourceError
from device_agent.reference.encoding import flatbuffer
from device_agent.reference.generate import TFLITE_IDENTIFIER, TfliteGraph, ncnn_model
from device_agent.runtimes.catalogue import LIBRARIES, RUNTIMES, open_runtime
from device_agent.runtimes.verifying import verify
from device_agent.scan_limits import ScanLimits
from device_agent.work import InputShape, ModelRun

np = pytest.importorskip("numpy")

TFLITE_KINDS = {
    "float32": 0,
    "float16": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "bool": 6,
    "int16": 7,
    "complex64": 8,
    "int8": 9,
    "float64": 10,
}
ADD, RESHAPE = 0, 22
ADD_OPTIONS, RESHAPE_OPTIONS = 11, 17


def onnx_model(node: Any, dtype: str, x: Any, y: Any, *constants: Any) -> bytes:
    onnx = pytest.importorskip("onnx")
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    open_x = [size or f"axis{axis}" for axis, size in enumerate(x)]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(*node)],
        "small",
        [onnx.helper.make_tensor_value_info("x", kind, open_x)],
        [onnx.helper.make_tensor_value_info("y", kind, y)],
        [onnx.numpy_helper.from_array(np.array(value), name) for name, value in constants],
    )
    opsets = [onnx.helper.make_opsetid("", 13)]
    return bytes(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString()
    )


class OnnxFiles:
    """Models as ONNX."""

    def doubled(self, *x: Any) -> bytes:
        y = [size or f"axis{axis}" for axis, size in enumerate(x)]
        return onnx_model(("Add", ["x", "x"], ["y"]), "float32", x, y)

    def reshaped(self, dtype: str, x: Any, y: Any) -> bytes:
        node = ("Reshape", ["x", "shape"], ["y"])
        return onnx_model(node, dtype, x, y, ("shape", list(y)))


class TfliteFiles:
    """Models as TFLite."""

    def doubled(self, *x: Any) -> bytes:
        sizes = tuple(size or 1 for size in x)
        graph = TfliteGraph(sizes)
        out = graph.tensor("y", sizes)
        graph.operator(ADD, (0, 0), out, (ADD_OPTIONS, {}))
        tree = graph.tree(out)
        for tensor in tree[2][0][0]:
            tensor[7] = tuple(size or -1 for size in x)
        return flatbuffer(tree, TFLITE_IDENTIFIER)

    def reshaped(self, dtype: str, x: Any, y: Any) -> bytes:
        kind = TFLITE_KINDS[dtype]
        graph = TfliteGraph(x, kind)
        out = graph.tensor("y", y, kind=kind)
        graph.operator(RESHAPE, (0,), out, (RESHAPE_OPTIONS, {0: tuple(y)}))
        return flatbuffer(graph.tree(out), TFLITE_IDENTIFIER)


class NcnnFiles:
    """Models as ncnn, which has neither open axes nor a batch, and float32 alone: what none can be
    made for is skipped with that reason.
    """

    def doubled(self, *x: Any) -> bytes:
        if None in x:
            pytest.skip("ncnn has no open axes: the text of a model states every size")
        if x[0] != 1:
            pytest.skip("ncnn has no batch: its models take one example")
        layers = [
            ncnn_input("x", x),
            "Split split 1 2 x left right",
            "BinaryOp y 2 1 left right y 0=0",
        ]
        return ncnn_model(layers, b"")

    def reshaped(self, dtype: str, x: Any, y: Any) -> bytes:
        if dtype != "float32":
            pytest.skip("ncnn's models take float32 alone")
        if (x[0], y[0]) != (1, 1):
            pytest.skip("ncnn has no batch: its models take and give one example")
        sizes = " ".join(f"{axis}={size}" for axis, size in enumerate(reversed(y[1:])))
        return ncnn_model([ncnn_input("x", x), f"Reshape y 1 1 x y {sizes}"], b"")


def ncnn_input(name: str, shape: Any) -> str:
    sizes = " ".join(f"{axis}={size}" for axis, size in enumerate(reversed(shape[1:])))
    return f"Input {name} 0 1 {name} {sizes}"


FILES = {"onnx": OnnxFiles(), "tflite": TfliteFiles(), "ncnn": NcnnFiles()}


@functools.cache
def opened(name: str) -> Any:
    return open_runtime(name)


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> Any:
    try:
        return opened(request.param)
    except NoRuntimeError as error:
        return pytest.skip(str(error))


@pytest.fixture
def files(runtime: Any) -> Any:
    return FILES[runtime.name]


@pytest.fixture
def load(runtime: Any, tmp_path: Path) -> Callable[..., Any]:
    def write_and_load(data: bytes, *options: str, shapes: Any = (), threads: int = 1) -> Any:
        path = tmp_path / "model"
        path.write_bytes(data)
        shapes = tuple(InputShape(name, sizes) for name, sizes in shapes)
        return runtime.load(path, ModelRun("", 0, runtime.name, threads, shapes, options))

    return write_and_load


def as_shapes(*shapes: Any) -> Any:
    return tuple(InputShape(name, sizes) for name, sizes in shapes)


def answer(model: Any) -> Any:
    model.run()
    return model.outputs()["y"]


# ---- the library ------------------------------------------------------------------------------


def test_every_runtime_knows_its_library_and_version(runtime: Any) -> None:
    assert runtime.library == LIBRARIES[runtime.name]
    assert runtime.version[0].isdigit()


def test_every_runtime_passes_its_own_test(runtime: Any) -> None:
    runtime.self_test()


def test_wrong_numbers_fail_the_runtime_s_own_test(runtime: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("device_agent.runtimes.tiny.TINY_OUTPUT", [[4.0, 7.0]])

    with pytest.raises(NoRuntimeError, match=r"wrong numbers.*4\.0, 6\.0"):
        runtime.self_test()


def test_a_tiny_model_that_cannot_be_read_fails_the_runtime_s_own_test(
    runtime: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    (tmp_path / f"tiny.{runtime.name}").write_bytes(b"not a model at all")
    monkeypatch.setattr(sys.modules[type(runtime).__module__], "REFERENCE_FOLDER", tmp_path)

    with pytest.raises(NoRuntimeError, match="fails on a tiny model"):
        runtime.self_test()


def test_the_reference_model_passes_the_scan_and_runs(runtime: Any) -> None:
    runtime.scan(runtime.reference_path, ScanLimits())
    run = ModelRun("", runtime.reference_path.stat().st_size, runtime.name, threads=1)
    model = runtime.load(runtime.reference_path, run)
    model.make_inputs(1)

    output = answer(model)

    assert output.size == 16
    assert np.isfinite(output).all()


def test_the_tiny_model_runs(runtime: Any) -> None:
    model = runtime.load_tiny()
    model.set_inputs({"x": np.array([[2, 1]], np.float32)})

    output = answer(model)

    assert output.tolist() == [[5.0, 8.0]]


# ---- loading and options ----------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"not a model at all", b"\x08", b"TFL3TFL3TFL3TFL3"])
def test_a_file_that_is_no_model_does_not_pass_the_scan(
    runtime: Any, tmp_path: Path, data: Any
) -> None:
    (tmp_path / "model").write_bytes(data)

    with pytest.raises(ModelRejectedError):
        runtime.scan(tmp_path / "model", ScanLimits())


# Not with TFLite's identifier in front: tflite-runtime dies of it.
def test_a_file_that_is_no_model_is_refused_by_the_library(load: Any) -> None:
    with pytest.raises(ModelRejectedError, match="refuses the model"):
        load(b"not a model at all")


def test_threads_are_stated_among_the_options(load: Any, files: Any) -> None:
    model = load(files.doubled(1, 4), threads=2)

    assert any(option.endswith("num_threads=2") for option in model.options)


@pytest.mark.parametrize("option", ["no_such_option=1", "spin", "xnnpack=2", "=", ""])
def test_an_unknown_option_is_refused_with_those_that_are_known(
    load: Any, files: Any, option: Any
) -> None:
    with pytest.raises(ModelRejectedError, match=r"has no option .*: it knows .*=\w+\|\w+"):
        load(files.doubled(1, 4), option)


# ---- made-up inputs ---------------------------------------------------------------------------


def test_the_model_s_inputs_are_told(load: Any, files: Any) -> None:
    (model_input,) = load(files.doubled(None, 3, None)).inputs

    assert (model_input.name, model_input.dtype) == ("x", "float32")
    assert model_input.sizes == (None, 3, None)


def test_one_seed_makes_one_input(load: Any, files: Any) -> None:
    model = load(files.doubled(1, 4))

    model.make_inputs(7)
    first = answer(model)
    model.make_inputs(8)
    other = answer(model)
    model.make_inputs(7)

    assert answer(model).tolist() == first.tolist() != other.tolist()


def test_an_open_batch_is_one(load: Any, files: Any) -> None:
    model = load(files.doubled(None, 4))

    model.make_inputs(1)

    assert answer(model).shape == (1, 4)


def test_another_open_axis_asks_for_a_shape(load: Any, files: Any) -> None:
    model = load(files.doubled(1, None, 3))

    with pytest.raises(ModelRejectedError, match=r"input x is open.*1,\?,3"):
        model.make_inputs(1)


@pytest.mark.parametrize("given_to_load", [True, False])
def test_a_shape_fills_open_axes(load: Any, files: Any, given_to_load: Any) -> None:
    shapes = (("x", (2, 5, 3)),)
    model = load(files.doubled(None, None, 3), shapes=shapes if given_to_load else ())

    model.make_inputs(1, as_shapes(*shapes))

    assert answer(model).shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ([("x", (1, 4, 5))], "does not fit"),
        ([("x", (1, 3))], "does not fit"),
        ([("x", (1, 3, 0))], "is empty"),
        ([("x", (1, 3, 5)), ("x", (1, 3, 5))], "two shapes"),
        ([("z", (1, 3, 5))], r"no input 'z'.*x=\?,3,\? \(float32\)"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    load: Any, files: Any, shapes: Any, problem: Any
) -> None:
    model = load(files.doubled(None, 3, None))

    with pytest.raises(ModelRejectedError, match=problem):
        model.make_inputs(1, as_shapes(*shapes))


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"],
)
def test_inputs_of_every_usual_type_are_made_up_within_it(
    load: Any, files: Any, dtype: Any
) -> None:
    model = load(files.reshaped(dtype, (4, 64), (64, 4)))

    model.make_inputs(1)
    output = answer(model)

    assert output.dtype == dtype
    assert output.shape == (64, 4)
    spread = {"int8": (-128, 127), "uint8": (0, 255), "bool": (0, 1)}
    if dtype in spread:
        low, high = spread[dtype]
        assert low <= output.min() < low + (high - low) / 4 + 1
        assert high - (high - low) / 4 - 1 < output.max() <= high
    elif not dtype.startswith("float"):
        assert set(output.ravel().tolist()) == {0, 1}


def test_an_input_larger_than_memory_is_a_matter_of_resources(load: Any, files: Any) -> None:
    model = load(files.doubled(1, None))

    with pytest.raises(ResourceError, match="does not fit in memory"):
        model.make_inputs(1, as_shapes(("x", (1, 1 << 40))))


# ---- real inputs and outputs ------------------------------------------------------------------


def test_given_inputs_are_the_ones_that_run(load: Any, files: Any) -> None:
    model = load(files.doubled(None, 2))
    given = np.array([[1, 2]], np.float32)
    model.set_inputs({"x": given})
    given[:] = 0

    first = answer(model)
    model.set_inputs({"x": np.array([[3, 4], [5, 6]], np.float32)})
    second = answer(model)

    assert first.tolist() == [[2, 4]]
    assert second.tolist() == [[6, 8], [10, 12]]


def test_outputs_are_copies(load: Any, files: Any) -> None:
    model = load(files.doubled(1, 2))
    model.set_inputs({"x": np.array([[1, 2]], np.float32)})
    kept = answer(model)
    kept[:] = 7
    model.set_inputs({"x": np.array([[3, 4]], np.float32)})

    later = answer(model)

    assert kept.tolist() == [[7, 7]]
    assert later.tolist() == [[6, 8]]


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1, 9, 2, 9]], np.float32)[:, ::2],
        np.array([[1, 2]], ">f4"),
        np.asfortranarray(np.array([[1, 2]], np.float32)),
    ],
    ids=["strided", "big-endian", "column order"],
)
def test_the_memory_order_of_an_input_does_not_matter(load: Any, files: Any, array: Any) -> None:
    model = load(files.doubled(1, 2))

    model.set_inputs({"x": array})

    assert answer(model).tolist() == [[2, 4]]


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({}, "given nothing"),
        ({"z": np.zeros((1, 2), np.float32)}, r"needs x=1,2 \(float32\).*given z"),
        ({"x": np.zeros((1, 2), np.float64)}, "holds float32.*given float64"),
        ({"x": np.zeros((1, 3), np.float32)}, r"1,2, which \[1, 3\] does not fit"),
        ({"x": np.zeros((2,), np.float32)}, "does not fit"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    load: Any, files: Any, arrays: Any, problem: Any
) -> None:
    model = load(files.doubled(1, 2))

    with pytest.raises(ModelRejectedError, match=problem):
        model.set_inputs(arrays)


# ---- verify jobs ------------------------------------------------------------------------------


@pytest.fixture
def verified(load: Any, tmp_path: Path) -> Callable[..., Any]:
    def run(data: bytes, **arrays: Any) -> Any:
        np.savez(tmp_path / "in.npz", **arrays)
        count = verify(load(data), tmp_path / "in.npz", tmp_path / "out.npz")
        with np.load(tmp_path / "out.npz", allow_pickle=False) as archive:
            return count, dict(archive.items())

    return run


@pytest.mark.parametrize("batch", [None, 1, 2, 3])
def test_every_example_is_run_in_its_place(verified: Any, files: Any, batch: Any) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)

    count, outputs = verified(files.doubled(batch, 2), x=x)

    assert count == 6
    assert outputs["y"].tolist() == (2 * x).tolist()


def test_an_output_without_a_batch_is_stacked(verified: Any, files: Any) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)

    _, outputs = verified(files.reshaped("float32", (1, 4), (4,)), x=x)

    assert outputs["y"].tolist() == x.tolist()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"z": np.zeros((2, 2), np.float32)}, "the file has z"),
        ({}, "no array"),
        ({"x": np.zeros((3, 2), np.float32)}, "takes 2 examples at a time, and 3"),
        ({"x": np.zeros((0, 2), np.float32)}, "and 0 are no multiple"),
        ({"x": np.float32(1)}, "no axis along which"),
        ({"x": np.zeros((2, 5), np.float32)}, "does not fit"),
        ({"x": np.zeros((2, 2), np.int8)}, "given int8"),
        ({"x": np.array([[{}, 1], [2, 3]], object)}, "cannot be read"),
    ],
)
def test_examples_that_do_not_fit_are_refused(
    verified: Any, files: Any, arrays: Any, problem: Any
) -> None:
    with pytest.raises(ModelRejectedError, match=problem):
        verified(files.doubled(2, 2), **arrays)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 nothing", b"text", None])
def test_a_file_that_is_no_npz_is_refused(load: Any, files: Any, tmp_path: Path, data: Any) -> None:
    path = tmp_path / "in.npz"
    if data is None:  # a lone array
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(data)

    with pytest.raises(ModelRejectedError, match="cannot be read"):
        verify(load(files.doubled(1, 2)), path, tmp_path / "out.npz")


def test_a_damaged_archive_is_refused(load: Any, files: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    np.savez_compressed(path, x=np.arange(2000, dtype=np.float32).reshape(1000, 2))
    data = bytearray(path.read_bytes())
    data[100:130] = bytes(30)
    path.write_bytes(data)

    with pytest.raises(ModelRejectedError, match="cannot be read"):
        verify(load(files.doubled(1, 2)), path, tmp_path / "out.npz")


def test_a_member_that_is_no_array_is_refused(load: Any, files: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "1, 2")

    with pytest.raises(ModelRejectedError):
        verify(load(files.doubled(1, 2)), path, tmp_path / "out.npz")


LIMITED = """
import resource, sys
from pathlib import Path
from device_agent.errors import ResourceError
from device_agent.runtimes.catalogue import open_runtime
from device_agent.runtimes.verifying import verify
from device_agent.work import ModelRun
name, folder, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
model = open_runtime(name).load(folder / "model", ModelRun("", 0, name, 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    print(verify(model, folder / "in.npz", folder / "out.npz"))
except ResourceError as error:
    print(error)
"""


# The arrays alone are 800 bytes: the first limit is passed by them, the second by their headers.
@pytest.mark.parametrize(("limit", "said"), [(700, "700 bytes"), (900, "900 bytes"), (4000, "100")])
def test_outputs_are_bounded_by_the_largest_file(
    runtime: Any, load: Any, files: Any, tmp_path: Path, limit: Any, said: Any
) -> None:
    load(files.doubled(1, 2))
    np.savez(tmp_path / "in.npz", x=np.zeros((100, 2), np.float32))

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, runtime.name, str(tmp_path), str(limit)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert said in done.stdout
    assert ("larger than" in done.stdout) == (limit < 4000)


class Drifting:
    """A model whose output grows from run to run."""

    def __init__(self) -> None:
        from device_agent.runtimes.base import ModelInput

        self.inputs = (ModelInput("x", "float32", (None, 2)),)
        self.options = ()
        self.runs = 0

    def make_inputs(self, seed: Any, shapes: Any = ()) -> None:
        pass

    def set_inputs(self, arrays: Any) -> None:
        pass

    def run(self) -> None:
        self.runs += 1

    def outputs(self) -> Any:
        return {"y": np.zeros((self.runs, 2), np.float32)}


def test_outputs_that_change_their_shape_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((3, 2), np.float32))

    with pytest.raises(ModelRejectedError, match=r"changes its shape.*\[1, 2\] and \[2, 2\]"):
        verify(Drifting(), tmp_path / "in.npz", tmp_path / "out.npz")


def test_outputs_that_cannot_be_written_are_a_matter_of_resources(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 2), np.float32))

    with pytest.raises(ResourceError, match="cannot be written"):
        verify(Drifting(), tmp_path / "in.npz", tmp_path / "nowhere" / "out.npz")


# ---- profiles ---------------------------------------------------------------------------------


PROFILING = ("onnx",)


def test_a_profile_tells_the_time_of_operators(runtime: Any, tmp_path: Path) -> None:
    if runtime.name not in PROFILING:
        pytest.skip(f"{runtime.name} cannot tell")
    run = ModelRun("", 0, runtime.name, threads=1)

    run_seconds, operators = runtime.profile(runtime.reference_path, run, runs=5, scratch=tmp_path)

    assert 0 < sum(operator.seconds for operator in operators) <= run_seconds
    seconds = [operator.seconds for operator in operators]
    assert seconds == sorted(seconds, reverse=True)
    assert all(operator.name and operator.kind for operator in operators)
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_cannot_tell_the_time_of_operators_says_so(
    runtime: Any, tmp_path: Path
) -> None:
    if runtime.name in PROFILING:
        pytest.skip(f"{runtime.name} can tell")
    run = ModelRun("", 0, runtime.name, threads=1)

    with pytest.raises(NoRuntimeError, match="does not tell the time of single operators"):
        runtime.profile(runtime.reference_path, run, runs=5, scratch=tmp_path)
