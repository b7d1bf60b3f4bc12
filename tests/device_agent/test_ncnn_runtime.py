"""What the runtime ncnn does beyond the contract, and what the contract can only show of it with
shapes that ncnn can have.
"""

from __future__ import annotations

import gc
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from device_agent.errors import ModelRejectedError, NoRuntimeError
from device_agent.reference.generate import NCNN_FLOAT32, ncnn_model
from device_agent.runtimes.catalogue import open_runtime
from device_agent.runtimes.verifying import verify
from device_agent.work import InputShape, ModelRun

np = pytest.importorskip("numpy")

MAP = "Input x 0 1 x 0=5 1=4 2=3"
DOUBLED = ["Input x 0 1 x 0=2", "BinaryOp y 1 1 x y 0=2 1=1 2=2.0"]
CONVOLUTION = [
    "Input x 0 1 x 0=32 1=32 2=16",
    "Convolution y 1 1 x y 0=16 1=3 4=1 5=0 6=2304",
]
CONVOLUTION_WEIGHTS = NCNN_FLOAT32 + struct.pack("<2304f", *[0.01] * 2304)


@pytest.fixture
def runtime() -> Any:
    try:
        return open_runtime("ncnn")
    except NoRuntimeError as error:
        return pytest.skip(str(error))


@pytest.fixture
def load(runtime: Any, tmp_path: Path) -> Callable[..., Any]:
    def write_and_load(
        lines: list[str], weights: bytes = b"", options: Any = (), threads: int = 1
    ) -> Any:
        path = tmp_path / "model"
        path.write_bytes(ncnn_model(lines, weights))
        return runtime.load(path, ModelRun("", 0, "ncnn", threads, options=options))

    return write_and_load


def answer(model: Any, **inputs: Any) -> Any:
    model.set_inputs({name: np.asarray(value, np.float32) for name, value in inputs.items()})
    model.run()
    return model.outputs()


# ---- inputs and outputs -----------------------------------------------------------------------


def test_inputs_have_a_batch_of_one(load: Any) -> None:
    (model_input,) = load([MAP, "ReLU y 1 1 x y"]).inputs

    assert (model_input.name, model_input.dtype) == ("x", "float32")
    assert model_input.sizes == (1, 3, 4, 5)


@pytest.mark.parametrize("shape", [(7,), (5, 3), (3, 5, 7), (4, 1, 1)])
def test_values_keep_their_places_in_shapes_of_any_rank(load: Any, shape: Any) -> None:
    sizes = " ".join(f"{axis}={size}" for axis, size in enumerate(reversed(shape)))
    model = load([f"Input x 0 1 x {sizes}", "BinaryOp y 1 1 x y 0=0 1=1 2=1.0"])
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)

    np.testing.assert_array_equal(answer(model, x=x)["y"], x + 1)


def test_two_inputs_and_two_outputs_have_their_names(load: Any) -> None:
    lines = [
        "Input a 0 1 a 0=2",
        "Input b 0 1 b 0=2",
        "Split s 1 2 a a1 a2",
        "BinaryOp sum 2 1 a1 b sum 0=0",
        "BinaryOp twice 1 1 a2 twice 0=2 1=1 2=2.0",
    ]

    outputs = answer(load(lines), b=[[10, 20]], a=[[1, 2]])

    assert {name: value.tolist() for name, value in outputs.items()} == {
        "sum": [[11, 22]],
        "twice": [[2, 4]],
    }


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (("x", (1, 3)), r"has the shape 1,2, which \[1, 3\] does not fit"),
        (("x", (2, 2)), "does not fit"),
        (("x", (2,)), "does not fit"),
        (("z", (1, 2)), r"no input 'z'.*x=1,2 \(float32\)"),
    ],
)
def test_a_shape_other_than_the_model_s_is_refused(load: Any, shape: Any, problem: Any) -> None:
    with pytest.raises(ModelRejectedError, match=problem):
        load(DOUBLED).make_inputs(1, (InputShape(*shape),))


def test_given_inputs_stay_what_they_were_and_run_again_and_again(load: Any) -> None:
    """The first layer works in place, and the array that was given is gone."""
    model = load([MAP, "BinaryOp y 1 1 x y 0=0 1=1 2=1.0"])
    given = np.full((1, 3, 4, 5), 2, np.float32)
    model.set_inputs({"x": given})
    given[:] = 0
    del given
    gc.collect()

    for _ in range(3):
        model.run()
        assert (model.outputs()["y"] == 3).all()


def test_a_large_input_is_copied_before_its_array_is_gone(load: Any) -> None:
    """Memory of this size goes back to the system at once: to read it then would be a crash."""
    model = load(["Input x 0 1 x 0=512 1=512 2=8", "Pooling y 1 1 x y 0=1 4=1"])
    model.set_inputs({"x": np.ones((1, 8, 512, 512), np.float32)})
    gc.collect()

    model.run()

    np.testing.assert_allclose(model.outputs()["y"], np.ones((1, 8)), rtol=1e-3)


def test_an_output_that_is_kept_survives_its_model(load: Any) -> None:
    model = load(DOUBLED)
    kept = answer(model, x=[[1, 2]])["y"]
    del model
    gc.collect()

    assert kept.tolist() == [[2, 4]]


def test_every_example_of_a_verification_runs_by_itself(load: Any, tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.savez(tmp_path / "in.npz", x=x)

    count = verify(load(DOUBLED), tmp_path / "in.npz", tmp_path / "out.npz")

    assert count == 6
    assert np.load(tmp_path / "out.npz")["y"].tolist() == (2 * x).tolist()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"z": np.zeros((2, 2), np.float32)}, "the file has z"),
        ({"x": np.zeros((2, 5), np.float32)}, "does not fit"),
        ({"x": np.zeros((2, 2), np.int8)}, "given int8"),
    ],
)
def test_examples_that_do_not_fit_are_refused(
    load: Any, tmp_path: Path, arrays: Any, problem: Any
) -> None:
    np.savez(tmp_path / "in.npz", **arrays)

    with pytest.raises(ModelRejectedError, match=problem):
        verify(load(DOUBLED), tmp_path / "in.npz", tmp_path / "out.npz")


# ---- options ----------------------------------------------------------------------------------


def test_everything_that_is_set_is_stated(load: Any) -> None:
    assert set(load(DOUBLED, threads=2).options) >= {
        "num_threads=2",
        "use_vulkan_compute=0",
        "lightmode=1",
        "openmp_blocktime=0",
        "use_fp16_storage=0",
        "use_bf16_storage=0",
        "use_int8_inference=0",
        "use_winograd_convolution=1",
        "OMP_WAIT_POLICY=passive",
    }


@pytest.mark.parametrize(
    ("given", "stated"),
    [
        ("fp16=1", ("use_fp16_packed=1", "use_fp16_storage=1", "use_fp16_arithmetic=1")),
        ("winograd=0", ("use_winograd_convolution=0",)),
    ],
)
def test_an_option_is_set_and_stated_and_its_answer_is_near(
    load: Any, given: Any, stated: Any
) -> None:
    x = np.random.default_rng(1).standard_normal((1, 16, 32, 32), dtype=np.float32)
    plain = answer(load(CONVOLUTION, CONVOLUTION_WEIGHTS), x=x)["y"]

    model = load(CONVOLUTION, CONVOLUTION_WEIGHTS, options=(given,))

    assert set(stated) <= set(model.options)
    np.testing.assert_allclose(answer(model, x=x)["y"], plain, rtol=0.02, atol=0.01)


WITH_THREADS = """
import os, sys, threading
from pathlib import Path
from device_agent.runtimes.catalogue import open_runtime
from device_agent.work import ModelRun
model = open_runtime("ncnn").load(Path(sys.argv[1]), ModelRun("", 0, "ncnn", int(sys.argv[2])))
model.make_inputs(1)
model.run()
print(len(os.listdir("/proc/self/task")), "cv2" in sys.modules)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_threads_run_as_are_asked_for_and_no_other_package_is_imported(
    load: Any, tmp_path: Path, threads: int
) -> None:
    load(CONVOLUTION, CONVOLUTION_WEIGHTS)

    done = subprocess.run(
        [sys.executable, "-c", WITH_THREADS, str(tmp_path / "model"), str(threads)],
        check=True,
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)},
    )

    assert done.stdout == f"{threads} False\n"


# ---- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "weights", "problem"),
    [
        (CONVOLUTION, CONVOLUTION_WEIGHTS[:-4], "its weights are not those of its layers"),
        (CONVOLUTION, b"", "its weights are not those of its layers"),
        (["Input x 0 1 x", "ReLU y 1 1 x y"], b"", "does not state its sizes"),
    ],
)
def test_without_a_scan_weights_and_inputs_that_do_not_fit_are_refused(
    load: Any, lines: Any, weights: Any, problem: Any
) -> None:
    with pytest.raises(ModelRejectedError, match=problem):
        load(lines, weights)


def test_without_a_scan_ncnn_refuses_an_unknown_layer(runtime: Any, load: Any) -> None:
    if runtime.version < "1.0.2025":
        pytest.skip(f"ncnn {runtime.version} dies of it, and only the scan keeps it away")

    with pytest.raises(ModelRejectedError, match="ncnn refuses the model: it cannot read its"):
        load([MAP, "Spy y 1 1 x y"])


LIMITED = """
import resource, sys
from pathlib import Path
from device_agent.errors import ResourceError
from device_agent.runtimes.catalogue import open_runtime
from device_agent.work import ModelRun
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
model = open_runtime("ncnn").load(Path(sys.argv[1]), ModelRun("", 0, "ncnn", 1))
try:
    model.make_inputs(1)
    model.run()
except ResourceError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([MAP, "Padding y 1 1 x y 0=100000000"], "needs more memory than it may have"),
        (["Input x 0 1 x 0=65536 1=65536", "ReLU y 1 1 x y"], "does not fit in memory"),
    ],
)
def test_a_model_larger_than_memory_is_a_matter_of_resources(
    load: Any, tmp_path: Path, lines: Any, said: Any
) -> None:
    load(lines)

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "model")],
        check=True,
        capture_output=True,
        text=True,
    )

    assert said in done.stdout


def test_a_missing_library_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)

    with pytest.raises(NoRuntimeError) as raised:
        open_runtime("ncnn")

    assert "ncnn is not installed: install the extra genba[ncnn] on this device" in str(
        raised.value
    )


def test_a_library_that_clashes_says_why(monkeypatch: Any, tmp_path: Path) -> None:
    package = tmp_path / "ncnn"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('GLIBC_2.29 not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ncnn", raising=False)

    with pytest.raises(NoRuntimeError, match=r"ncnn does not load here: GLIBC_2\.29"):
        open_runtime("ncnn")
