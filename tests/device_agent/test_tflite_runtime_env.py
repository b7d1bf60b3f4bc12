"""tflite-runtime 2.14, which needs numpy < 2, in an environment of its own: the wheel of this
repository is installed as on a device.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_agent.codec import from_tagged_json, to_json
from device_agent.reference import REFERENCE_FOLDER
from device_agent.requests import (
    Confinement,
    MeasuredProcess,
    MeasureRequest,
    ReferenceRequest,
    VerifiedFile,
    VerifyRequest,
)
from device_agent.work import Failure, FailureKind, ModelRun, Plan, ReferenceRun

HERE = Path(__file__).parent
WORKER = "import sys; from device_agent.worker import main; sys.exit(main())"
PLAN = Plan(
    processes=1,
    warmup_runs=5,
    warmup_seconds=0.1,
    min_blocks=2,
    block_runs=10,
    block_seconds=0.2,
    min_samples=20,
    half_width=0.5,
    budget_seconds=10.0,
    energy_windows=0,
    energy_window_seconds=1.0,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        sys.version_info >= (3, 12) or platform.machine() not in ("x86_64", "aarch64"),
        reason="tflite-runtime has no wheel for this Python or machine",
    ),
]


def run(*command: Any, said: str = "") -> str:
    done = subprocess.run(
        [str(part) for part in command],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("wheel")
    repository = HERE.parent.parent
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, repository)
    (path,) = folder.glob("genba-*.whl")
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Any) -> Any:
    """The interpreter of a device's environment."""
    folder = tmp_path_factory.mktemp("device") / "venv"
    run(sys.executable, "-m", "venv", folder)
    path = folder / "bin" / "python"
    run(path, "-m", "pip", "install", "-q", f"{wheel}[tflite]")
    return path


@pytest.fixture
def confinement(tmp_path: Path) -> Confinement:
    return Confinement(
        address_space_bytes=4 << 30,
        parent_pid=os.getpid(),
        cpus=(),
        max_file_bytes=1 << 20,
        scratch=tmp_path,
    )


def worker(python: Any, task: str, argument: str) -> str:
    """The worker's answer, which comes after the marks of its stages; it is never held up."""
    said = run(python, "-I", "-B", "-c", WORKER, task, argument, said="\n" * 1000)
    return said.splitlines()[-1]


def reference_run() -> ModelRun:
    return ModelRun("", 0, "tflite", threads=1)


def test_the_probe_names_the_library_and_its_version(python: Any) -> None:
    facts = json.loads(worker(python, "probe", "tflite"))

    assert facts == {
        "name": "tflite",
        "library": "tflite-runtime",
        "version": "2.14.0",
        "works": True,
        "why_not": "",
    }


def test_the_reference_model_is_timed(python: Any, confinement: Any) -> None:
    request = to_json(ReferenceRequest(confinement, "tflite"))

    answer = from_tagged_json((ReferenceRun, Failure), worker(python, "reference", request))

    assert isinstance(answer, ReferenceRun), answer
    assert answer.runtime_library == "tflite-runtime"
    assert min(answer.latency_seconds) > 0


def test_a_model_is_measured(python: Any, confinement: Any) -> None:
    request = MeasureRequest(
        confinement=confinement,
        model_path=REFERENCE_FOLDER / "reference.tflite",
        run=reference_run(),
        plan=PLAN,
        min_samples=20,
        budget_seconds=10.0,
    )

    text = worker(python, "measure", to_json(request))
    answer = from_tagged_json((MeasuredProcess, Failure), text)

    assert isinstance(answer, MeasuredProcess), answer
    assert answer.setup.version == "2.14.0"
    assert "delegate=XNNPACK" in answer.setup.options
    assert sum(len(block.latency_seconds) for block in answer.run.blocks) >= 20


def test_a_file_that_would_kill_the_library_does_not_reach_it(
    python: Any, confinement: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"TFL3" * 4)
    request = MeasureRequest(confinement, path, reference_run(), PLAN, 20, 10.0)
    load = (
        "import sys; from tflite_runtime.interpreter import Interpreter; Interpreter(sys.argv[1])"
    )

    text = worker(python, "measure", to_json(request))
    answer = from_tagged_json((MeasuredProcess, Failure), text)
    unseen = subprocess.run([python, "-c", load, path], capture_output=True, check=False)

    assert answer.kind is FailureKind.MODEL_REJECTED
    assert unseen.returncode == -signal.SIGSEGV


def test_outputs_are_those_of_the_library_on_the_host(
    python: Any, confinement: Any, tmp_path: Path
) -> None:
    np = pytest.importorskip("numpy")
    inputs, outputs = tmp_path / "in.npz", tmp_path / "out.npz"
    x = np.random.default_rng(1).standard_normal((3, 96, 96, 3), dtype="float32")
    np.savez(inputs, x=x)
    path = REFERENCE_FOLDER / "reference.tflite"
    request = VerifyRequest(confinement, path, reference_run(), inputs, outputs)

    text = worker(python, "verify", to_json(request))
    answer = from_tagged_json((VerifiedFile, Failure), text)

    assert answer.examples == 3
    expected = on_this_side(path, x)
    with np.load(outputs, allow_pickle=False) as archive:
        np.testing.assert_allclose(archive["y"], expected, rtol=1e-4, atol=1e-5)


def on_this_side(path: Path, x: Any) -> Any:
    from device_agent.runtimes.catalogue import open_runtime

    np = pytest.importorskip("numpy")
    pytest.importorskip("ai_edge_litert")
    model = open_runtime("tflite").load(path, reference_run())
    rows = []
    for example in x:
        model.set_inputs({"x": example[None]})
        model.run()
        rows.append(model.outputs()["y"])
    return np.concatenate(rows)


def test_the_contract_of_runtimes_holds(python: Any, tmp_path: Path) -> None:
    run(python, "-m", "pip", "install", "-q", "pytest>=8")
    for name in ("conftest.py", "test_runtime_contract.py"):
        shutil.copy(HERE / name, tmp_path / name)

    said = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "tflite", tmp_path)

    assert " passed" in said


def test_numpy_2_is_told_to_be_the_reason(python: Any) -> None:
    run(python, "-m", "pip", "install", "-q", "numpy>=2,<2.4")

    facts = json.loads(worker(python, "probe", "tflite"))

    assert facts["works"] is False
    assert "tflite-runtime 2.14.0 needs numpy < 2" in facts["why_not"]
