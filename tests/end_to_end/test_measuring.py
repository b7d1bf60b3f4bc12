"""Measuring with everything real: commands as processes, gateway, agent, workers, runtimes."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.spaces.base import Candidate, Task
from host.spaces.mobile import Mobile

BUSY = ("--on-busy", "flag", "--wait-quiet", "0")


@pytest.fixture
def plant(make_plant):
    made: Any = make_plant("plant")
    made.start_real_agent()
    return made


@pytest.fixture
def model(plant) -> Path:
    space = Mobile({"resolution": (32,)})
    network = space.build(Candidate((0,) * len(space.decisions)), Task(channels=1, classes=2))
    path: Path = plant.root / "small.onnx"
    path.write_bytes(onnx_bytes(network, random_weights(network, seed=0)))
    return path


def measured(plant, *arguments):
    ran = plant.genba("measure", *map(str, arguments), "--device", "panel", *BUSY)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_measurement_carries_all_that_it_rests_on(plant, model):
    found = json.loads(measured(plant, model, "--preset", "quick", "--json"))

    assert found["protocol"] == "genba-measure/2"
    assert found["latency_low_seconds"] <= found["latency_seconds"]
    assert found["latency_kind"] in {"measured", "derived"}
    assert found["verdict"]["level"] in {"OK", "WARN", "REJECT"}
    assert found["peak_rss_bytes"] >= found["base_rss_bytes"]
    assert "intra_op_num_threads=1" in found["runtime_options"]


@pytest.mark.slow
def test_the_device_itself_says_where_int8_answers_differ(plant, model):
    (entry,) = onnx.load(model).graph.input
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    inputs = np.random.default_rng(0).standard_normal((4, *shape[1:]), dtype=np.float32)
    np.savez(plant.root / "inputs.npz", allow_pickle=False, **{entry.name: inputs})

    same = plant.genba(
        "verify", str(model), "--device", "panel", "--inputs", "inputs.npz", "--json"
    )
    (output,) = [o.name for o in onnx.load(model).graph.output]
    wrong = np.zeros((4, 2), dtype=np.float32)
    np.savez(plant.root / "wrong.npz", allow_pickle=False, **{output: wrong})
    other = plant.genba(
        *("verify", str(model), "--device", "panel", "--inputs", "inputs.npz"),
        *("--expected", "wrong.npz"),
    )

    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)["passed"] is True
    assert other.returncode == 1


@pytest.mark.slow
def test_a_candidate_for_ncnn_is_exported_measured_and_answers_as_here(plant):
    pytest.importorskip("ncnn")
    text = "r32 w0.25 hard_swish stem2 head0 | k3e3d1 | k5e3d1se | k3e3d1 | k3e1d1 | k3e1d1"
    inputs = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    np.savez(plant.root / "inputs.npz", allow_pickle=False, input=inputs)

    made = plant.genba(
        *("export", "--space", "mobile", "--candidate", text, "--for", "panel"),
        *("--runtime", "ncnn", "--output", "net.ncnn"),
    )
    found = json.loads(measured(plant, "net.ncnn", "--preset", "quick", "--json"))
    verified = plant.genba(
        "verify", "net.ncnn", "--device", "panel", "--inputs", "inputs.npz", "--json"
    )

    assert made.returncode == 0, made.stderr
    assert found["runtime"] == "ncnn"
    assert found["latency_seconds"] > 0
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["passed"] is True


@pytest.mark.slow
def test_a_list_a_comparison_and_a_profile_follow_from_measurements(plant, model):
    header, *rows = csv.reader(
        io.StringIO(measured(plant, model, "--preset", "quick", "--csv", "--again"))
    )
    measured(plant, model, "--preset", "quick", "--again")
    listed = json.loads(plant.genba("measurements", "list", "--json").stdout)
    numbers = [str(entry["number"]) for entry in listed]
    compared = plant.genba("measurements", "compare", *numbers[:2], "--json")
    profiled = plant.genba(
        *("measure", str(model), "--device", "panel", "--preset", "quick", "--profile"),
        *("--output", "profile.png", *BUSY),
    )

    assert "latency_seconds" in header
    assert len(rows) == 1
    assert len(numbers) == 2
    assert compared.returncode in {0, 1}, compared.stderr
    assert profiled.returncode == 0, profiled.stderr
    assert "Conv" in profiled.stdout
    assert (plant.root / "profile.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_probe_sets_the_baseline_of_the_device(plant):
    ran = plant.genba("device", "probe", "panel", "--json", *BUSY)

    assert ran.returncode == 0, ran.stderr
    runtimes = {reference["runtime"] for reference in json.loads(ran.stdout)["references"]}
    assert "onnx" in runtimes


def endless() -> bytes:
    """A loop of 2^62 trips in 205 bytes: only the clock stops it."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond"], ["go_on"]),
            helper.make_node("Identity", ["x"], ["y"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["trips", "true", "a"], ["b"], body=body)],
        "endless",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])],
        [
            helper.make_tensor("trips", TensorProto.INT64, [], [1 << 62]),
            helper.make_tensor("true", TensorProto.BOOL, [], [True]),
        ],
    )
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.mark.slow
def test_a_hostile_model_is_refused_and_the_next_one_is_measured(plant, model):
    hostile = plant.root / "endless.onnx"
    hostile.write_bytes(endless())

    refused = plant.genba("measure", str(hostile), "--device", "panel", *BUSY)
    after = json.loads(measured(plant, model, "--preset", "quick", "--json"))

    assert refused.returncode == 1
    assert "control_flow" in refused.stdout + refused.stderr
    assert after["kind"] == "measurement"
