"""Whether devices answer as the host: a real queue, and the agent's own runtimes behind it."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from device_agent.runtimes.ncnn import NcnnRuntime
from device_agent.runtimes.onnx import OnnxRuntime
from device_agent.runtimes.tflite import TfliteRuntime
from device_agent.runtimes.verifying import verify
from device_agent.work import ModelRun as AgentRun
from host.config import DeviceConfig
from host.export.forms import FORMS, Runtime, runtime_of
from host.export.quantize import quantize_int8
from host.export.tflite import quantize_tflite_int8
from host.measurement import MeasurementFailure, VerifiedOutputs
from host.network.ncnn_model import ncnn_bytes
from host.network.onnx_model import onnx_bytes
from host.network.tflite_model import tflite_bytes
from host.network.weights import random_weights
from host.spaces.base import SearchSpace, Task
from host.spaces.conv1d import Conv1d
from host.spaces.mobile import Mobile
from host.study.answers import MOST_IMAGES, agreement_by_device
from host.study.ledger import StudyDevice

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNTIMES: dict[str, Any] = {"onnx": OnnxRuntime, "tflite": TfliteRuntime, "ncnn": NcnnRuntime}


def network_and_inputs(kind: str):
    rng = np.random.default_rng(0)
    if kind == "image":
        space: SearchSpace = Mobile()
        text = "r32 w0.25 relu stem2 head0 | k3e3d1 | k3e1d1se | k3e1d1 | k3e1d1 | k3e1d1"
        inputs = rng.standard_normal((12, 3, 32, 32))
        task = Task(channels=3, classes=4)
    else:
        space = Conv1d()
        text = "l512 c16 k63 s16 pool head0 | plain k3 d1 | plain k3 d1 | plain k3 d1 | plain k3 d1"
        inputs = rng.standard_normal((12, 2, 512))
        task = Task(channels=2, classes=4)
    return space.build(space.parse(text), task), inputs.astype(np.float32)


def files(kind: str):
    network, inputs = network_and_inputs(kind)
    weights = random_weights(network, seed=0)
    onnx, tflite = onnx_bytes(network, weights), tflite_bytes(network, weights, {"study": "s"})
    made = {
        "onnx-fp32": onnx,
        "onnx-int8": quantize_int8(onnx, [inputs]),
        "tflite-fp32": tflite,
        "tflite-int8": quantize_tflite_int8(tflite, [inputs]),
        "ncnn-fp32": ncnn_bytes(network, weights, {"study": "s"}),
    }
    return made, inputs


class Agents:
    """Do the jobs that wait, when the host waits, with what an agent's worker does."""

    def __init__(self, store, folder):
        self.store, self.folder = store, folder
        self.runs = []
        self.examples = []
        self.negate = False
        self.fail = False
        self.devices = {}

    def profile(self, enrol, name: str, machine: str, runtime: Runtime, threads: int = 1):
        if machine not in self.devices:
            self.devices[machine] = enrol(machine)
        config = DeviceConfig(name=name, device=machine, runtime=runtime, threads=threads)
        return StudyDevice(self.devices[machine], config)

    def work(self, _waiting) -> None:
        for device in self.devices.values():
            self.store.devices.seen(device.id)
            while (lease := self.store.jobs.claim(device.id, "session", 60.0)) is not None:
                outcome = self._failed(lease) if self.fail else self._answered(lease)
                key = f"{lease.job.id}:{lease.attempt}"
                self.store.jobs.report(device.id, lease.job.id, lease.attempt, key, outcome)

    def _failed(self, lease):
        run = lease.job.spec.run
        return MeasurementFailure(
            lease.job.device_id, run.model_sha256, "worker_crashed", "SIGILL", NOW
        )

    def _answered(self, lease):
        spec = lease.job.spec
        self.runs.append(spec.run)
        model = self.store.blobs.path(spec.run.model_sha256)
        asked = AgentRun(
            spec.run.model_sha256,
            spec.run.model_size_bytes,
            spec.run.runtime,
            threads=spec.run.threads,
        )
        loaded = RUNTIMES[spec.run.runtime]().load(model, asked)
        outputs = self.folder / "outputs.npz"
        examples = verify(loaded, self.store.blobs.path(spec.inputs_sha256), outputs)
        self.examples.append(examples)
        if self.negate:
            with np.load(outputs) as arrays:
                turned = {name: -arrays[name] for name in arrays.files}
            np.savez(outputs, **turned)
        blob = self.store.blobs.put(outputs.read_bytes())
        return VerifiedOutputs(
            device_id=lease.job.device_id,
            run=spec.run,
            inputs_sha256=spec.inputs_sha256,
            runtime_library="made up",
            runtime_version="1",
            runtime_options=(),
            outputs_sha256=blob.sha256,
            outputs_size_bytes=blob.size_bytes,
            examples=examples,
            verified_at=NOW,
        )


@pytest.fixture
def agents(store, tmp_path):
    return Agents(store, tmp_path)


@pytest.fixture
def enrol_here(store, made_up_device):
    return lambda name: made_up_device(name, start=False).device


def ask(store, agents, devices, form, model, inputs):
    return agreement_by_device(store, 1, devices, form, model, inputs, on_wait=agents.work)


@pytest.fixture
def study(store):
    """A study to ask for; its number is 1."""
    study = store.studies.create("s", "{}", seed=0)
    assert study.id == 1
    return study


@pytest.mark.parametrize("kind", ["image", "signal"])
def test_the_agents_runtimes_give_the_hosts_answers_in_every_form(
    store, study, agents, enrol_here, kind
):
    made, inputs = files(kind)
    devices = [
        agents.profile(enrol_here, "a1", "panel", "onnx"),
        agents.profile(enrol_here, "a2", "panel", "onnx", threads=2),
        agents.profile(enrol_here, "b1", "panel", "tflite"),
        agents.profile(enrol_here, "c1", "other", "tflite"),
        agents.profile(enrol_here, "d1", "other", "ncnn"),
    ]

    for form in FORMS:
        found = ask(store, agents, devices, form, made[form], inputs)
        runtime = runtime_of(form)
        wanted = {"onnx": {"a1", "a2"}, "tflite": {"b1", "c1"}, "ncnn": {"d1"}}[runtime]
        assert found == dict.fromkeys(wanted, 1.0)
    assert {(run.runtime, run.threads) for run in agents.runs} == {
        ("onnx", 1),
        ("onnx", 2),
        ("tflite", 1),
        ("ncnn", 1),
    }


def test_a_device_that_answers_otherwise_agrees_on_nothing(store, study, agents, enrol_here):
    made, inputs = files("image")
    device = agents.profile(enrol_here, "b1", "panel", "tflite")
    agents.negate = True

    found = ask(store, agents, [device], "tflite-int8", made["tflite-int8"], inputs)

    assert found["b1"] < 0.5


def test_a_device_that_cannot_run_it_has_no_figure(store, study, agents, enrol_here):
    made, inputs = files("image")
    device = agents.profile(enrol_here, "b1", "panel", "tflite")
    agents.fail = True

    found = ask(store, agents, [device], "tflite-fp32", made["tflite-fp32"], inputs)

    assert found == {"b1": None}


def test_profiles_that_run_alike_on_one_device_are_asked_once_and_both_answered(
    store, study, agents, enrol_here
):
    made, inputs = files("image")
    devices = [agents.profile(enrol_here, name, "panel", "onnx") for name in ("day", "night")]

    found = ask(store, agents, devices, "onnx-fp32", made["onnx-fp32"], inputs)

    assert found == {"day": 1.0, "night": 1.0}
    assert len(agents.runs) == 1


def test_a_few_samples_are_sent_and_the_same_ones_each_time(store, study, agents, enrol_here):
    made, inputs = files("image")
    many = np.tile(inputs, (8, 1, 1, 1))
    device = agents.profile(enrol_here, "b1", "panel", "tflite")

    for _ in range(2):
        ask(store, agents, [device], "tflite-fp32", made["tflite-fp32"], many)

    assert len(agents.runs) == 1
    assert agents.examples == [MOST_IMAGES]
    assert len(many) > MOST_IMAGES
