"""A store with devices that answer at once: the queue is real, only the hardware is made up."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from cost_models.tflite_graph import kernels_from_tflite
from host.config import StudyConfig
from host.device import Device, DeviceFacts, Runtime
from host.export.check import load
from host.export.ncnn import logits_of_ncnn
from host.job import Job, Lease
from host.measurement import (
    Block,
    Energy,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    Memory,
    Outcome,
    ProcessRun,
    Reason,
    Thermal,
    Verdict,
    VerifiedOutputs,
    VerifySpec,
)
from host.network.ncnn_file import layers_of, read_ncnn_file
from host.store.store import Store

START = datetime(2026, 1, 1, tzinfo=UTC)
BASE_RSS_BYTES = 40_000_000


def facts(*, works: bool = True) -> DeviceFacts:
    why_not = "" if works else "no wheel fits"
    runtimes = (
        Runtime("onnx", "onnxruntime", "1.23.2", works, why_not),
        Runtime("tflite", "ai-edge-litert", "2.3.0", works, why_not),
        Runtime("ncnn", "ncnn", "1.0.20260526", works, why_not),
    )
    return DeviceFacts(
        hostname="panel",
        machine="x86_64",
        pointer_bits=64,
        cpu_model="made up",
        cpu_flags=("sse2",),
        cpu_cores_physical=2,
        cpu_cores_logical=2,
        ram_bytes=2_000_000_000,
        os_name="Debian 12",
        kernel="6.1",
        python_version="3.11.7",
        governor=None,
        temperature_celsius=None,
        cpu_max_hertz=None,
        runtimes=runtimes,
    )


def enrol(store: Store, name: str) -> Device:
    secret = hashlib.sha256(name.encode()).hexdigest()
    store.devices.add_token(name, secret, store.now() + timedelta(hours=1))
    return store.devices.enrol(secret, hashlib.sha256(b"key" + name.encode()).hexdigest(), facts())


def operators_and_weights(model: bytes, runtime: str) -> tuple[int, int]:
    if runtime == "onnx":
        graph = onnx.load_from_string(model).graph
        return len(graph.node), sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    if runtime == "ncnn":
        held = read_ncnn_file(model)
        return len(layers_of(held.param)), len(held.weights) // 4
    kernels = kernels_from_tflite(model).kernels
    return len(kernels), sum(kernel.weight_bytes for kernel in kernels) // 4


OK = Verdict("OK")
REJECTED = Verdict("REJECT", (Reason("CONTENDED", "REJECT", "other programs were busy"),))


IDLE_WATTS = 2.0


def made_up_energy(latency: float, watts: float, source: str = "a meter") -> Energy:
    gross, net = watts * latency, (watts - IDLE_WATTS) * latency
    return Energy(
        source=source,
        scope="board",
        kind="measured",
        gross_joules=gross,
        gross_interval_joules=(0.99 * gross, 1.01 * gross),
        net_joules=net,
        net_interval_joules=(0.98 * net, 1.02 * net),
        power_watts=watts,
        idle_watts=IDLE_WATTS,
        windows=5,
        inferences=1000,
        readings=500,
        reading_hertz=10.0,
        lag_seconds=0.0,
    )


def made_up_outcome(
    store: Store,
    lease: Lease,
    *,
    speed: float,
    verdict: Verdict = OK,
    samples: int = 30,
    watts: float | None = None,
) -> Measurement:
    """Latency grows with operators and weights, memory with weights; the same file, the same."""
    spec = lease.job.spec
    assert isinstance(spec, MeasureSpec)
    content = store.blobs.get(spec.run.model_sha256)
    operators, weights = operators_and_weights(content, spec.run.runtime)
    latency = (1e-4 + 2e-5 * operators + 2e-9 * weights) / speed / spec.run.threads**0.5
    block = Block(
        started_monotonic_seconds=0.0,
        lasted_seconds=samples * latency,
        canary_seconds=0.003,
        reference_seconds=(0.001,) * 5,
        reference_cpu_seconds=(0.001,) * 5,
        latency_seconds=(latency,) * samples,
        cpu_seconds=(latency,) * samples,
        run_delay_seconds=(0.0,) * samples,
    )
    is_asked = spec.plan.energy_windows > 0
    energies = (made_up_energy(latency, watts),) if is_asked and watts is not None else ()
    memory = Memory(BASE_RSS_BYTES, BASE_RSS_BYTES + 4 * weights, BASE_RSS_BYTES + 8 * weights)
    run = ProcessRun(
        memory=memory,
        load_seconds=0.1,
        first_inference_seconds=latency,
        warmup_runs=5,
        steady=True,
        runs_per_sample=1,
        call_overhead_seconds=5e-6,
        blocks=(block,),
    )
    return Measurement(
        device_id=lease.job.device_id,
        run=spec.run,
        plan=spec.plan,
        protocol=spec.protocol,
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        runtime_options=(),
        cpus=(0,),
        preflight=None,
        processes=(run,),
        thermal=Thermal(),
        governor=None,
        load_average_start=0.0,
        energy_run=None,
        energies=energies,
        energy_absent_because="" if energies else "this device has no power source",
        verdict=verdict,
        measured_at=START,
    )


def answers_of(model: bytes, runtime: str, samples: np.ndarray) -> tuple[str, np.ndarray]:
    """The name and the values of the output, as the host's own runtime computes them."""
    if runtime == "onnx":
        session = load(model)
        (entry,), (output,) = session.get_inputs(), session.get_outputs()
        rows = [session.run(None, {entry.name: sample[np.newaxis]})[0] for sample in samples]
        return output.name, np.concatenate(rows)
    if runtime == "ncnn":
        return "logits", logits_of_ncnn(model, samples)
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (read,), (written,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for sample in samples:
        interpreter.set_tensor(read["index"], sample[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(written["index"]))
    (signature,) = interpreter.get_signature_list().values()
    return signature["outputs"][0], np.concatenate(rows)


class MadeUpDevice:
    """Claims jobs from the store and reports made-up outcomes, in a thread."""

    def __init__(self, store: Store, device: Device, *, speed: float = 1.0) -> None:
        self.device = device
        self.measured: list[str] = []
        self.jobs: list[Job] = []
        """What it measured, in order."""
        self.refuse: Callable[[Lease], str | None] = lambda _lease: None
        self.saturates = False
        self.reject: Callable[[Lease], bool] = lambda _lease: False
        self.speed = speed
        self.samples = 30
        self.watts: float | None = None
        """What it draws while a model runs, where something measures that."""
        self.session: str | None = None
        """That of its agent; None is one that never said anything."""
        self.stamps_time = False
        """Whether what it measures has a time of its own, or always that of START."""
        self._store = store
        self._told: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def facts_without_runtime(self) -> DeviceFacts:
        return facts(works=False)

    def start(self) -> None:
        self._thread.start()

    def stop_soon(self) -> None:
        """As a power cut: what it works on is not reported."""
        self._stop.set()

    def come_back(self) -> None:
        """Work again after `stop_soon`."""
        self._thread.join(timeout=30)
        self._stop.clear()
        self.reject = lambda _lease: False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _answer(self, lease: Lease, spec: VerifySpec) -> None:
        """The outputs that the host's own runtime gives, or zeros where the test wants them."""
        with np.load(self._store.blobs.path(spec.inputs_sha256)) as arrays:
            ((_, images),) = arrays.items()
        model = self._store.blobs.get(spec.run.model_sha256)
        name, outputs = answers_of(model, spec.run.runtime, images)
        stream = io.BytesIO()
        arrays = {name: -outputs if self.saturates else outputs}
        np.savez(stream, allow_pickle=False, **arrays)
        blob = self._store.blobs.put(stream.getvalue())
        job = lease.job
        outcome = VerifiedOutputs(
            device_id=job.device_id,
            run=spec.run,
            inputs_sha256=spec.inputs_sha256,
            runtime_library="onnxruntime",
            runtime_version="1.23.2",
            runtime_options=(),
            outputs_sha256=blob.sha256,
            outputs_size_bytes=blob.size_bytes,
            examples=len(images),
            verified_at=START,
        )
        key = f"{job.id}:{lease.attempt}"
        self._store.jobs.report(job.device_id, job.id, lease.attempt, key, outcome)

    def _work(self) -> None:
        while not self._stop.is_set():
            self._store.devices.seen(self.device.id)
            if self.session != self._told:
                self._told = self.session
                self._store.devices.open_session(
                    self.device.id, self._told or "session", agent_version="0.1", facts=facts()
                )
            lease = self._store.jobs.claim(self.device.id, self._told or "session", 60.0)
            if lease is None:
                self._stop.wait(0.02)
                continue
            job = lease.job
            if isinstance(job.spec, VerifySpec):
                self._answer(lease, job.spec)
                continue
            assert isinstance(job.spec, MeasureSpec)
            refusal = self.refuse(lease)
            outcome: Outcome
            if refusal is None:
                verdict = REJECTED if self.reject(lease) else OK
                outcome = made_up_outcome(
                    self._store,
                    lease,
                    speed=self.speed,
                    verdict=verdict,
                    samples=self.samples,
                    watts=self.watts,
                )
                if self.stamps_time:
                    outcome = replace(outcome, measured_at=self._store.now())
            else:
                outcome = MeasurementFailure(
                    job.device_id, job.spec.run.model_sha256, "worker_crashed", refusal, START
                )
            if self._stop.is_set():
                break
            self.measured.append(job.spec.run.model_sha256)
            self.jobs.append(job)
            self._store.jobs.report(
                job.device_id, job.id, lease.attempt, f"{job.id}:{lease.attempt}", outcome
            )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "genba.db", blobs_folder=tmp_path / "blobs") as opened:
        yield opened


@pytest.fixture
def made_up_device(store: Store) -> Iterator[Callable[..., MadeUpDevice]]:
    """Makes and starts devices; all of them stop at the end of the test."""
    running: list[MadeUpDevice] = []

    def make(name: str = "panel", *, speed: float = 1.0, start: bool = True) -> MadeUpDevice:
        device = MadeUpDevice(store, enrol(store, name), speed=speed)
        running.append(device)
        if start:
            device.start()
        return device

    yield make
    for device in running:
        device.stop()


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of small grey images: bright stripes are defects."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("good", "striped"):
        (root / name).mkdir()
        for number in range(30):
            pixels = rng.integers(60, 120, (40, 40), dtype=np.uint8)
            if name == "striped":
                pixels[:, rng.integers(5, 35) :: 7] = 230
            Image.fromarray(pixels).save(root / name / f"{number:03}.png")
    return root


@pytest.fixture
def study_table(image_folder: Path) -> dict[str, object]:
    """A study small enough for a test, as the table of its file."""
    return {
        "name": "stripes",
        "seed": 3,
        "data": {"folder": str(image_folder)},
        "devices": [{"name": "panel", "max_latency_ms": 2.0, "max_peak_memory_mb": 45.0}],
        "space": {
            "name": "mobile",
            "restrict": {"resolution": [32], "width": [0.25, 0.35, 0.5], "kernel": [3]},
        },
        "search": {"proxies": ["flops", "jacob_cov"], "batch_size": 8, "population": 12},
        "budget": {"candidates": 40, "measurements": 20, "calibration": 11},
        "finalists": {"count": 2, "epochs": 2, "batch_size": 16},
    }


@pytest.fixture
def study_config(study_table: dict[str, object]) -> StudyConfig:
    return StudyConfig.model_validate(study_table)


class Recorder:
    """Keeps all that a study says."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.said: list[str] = []
        self.facts: list[tuple[str, Mapping[str, object], str]] = []
        self.events = 0

    def stage(self, name: str) -> None:
        self.events += 1
        self.stages.append(name)

    def progress(self, what: str, done: int, total: int) -> None:
        self.events += 1

    def say(self, text: str) -> None:
        self.events += 1
        self.said.append(text)

    def found(self, kind: str, facts: Mapping[str, object], text: str) -> None:
        self.events += 1
        self.facts.append((kind, facts, text))


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
