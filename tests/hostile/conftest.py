"""Files that somebody made to harm a device, and the road that every model takes on it: a job, a
worker in its cage, the scan, and the real libraries.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_agent.jobs import Bench, run_job
from device_agent.processes import Cancellation, default_worker_command
from device_agent.reference.encoding import I8, I32, field, flatbuffer, stored_zip
from device_agent.reference.generate import (
    TFLITE_IDENTIFIER,
    TfliteGraph,
    ncnn_model,
    tiny_ncnn,
    tiny_onnx,
    tiny_tflite,
)
from device_agent.scan_limits import ScanLimits
from device_agent.work import (
    PROTOCOL,
    MeasureSpec,
    ModelRun,
    Outcome,
    Plan,
    Readiness,
    VerifiedOutputs,
    VerifySpec,
)

CANARY = b"the recipe of plant 7: 41 parts of "
FOREVER = 1 << 62
BILLIONS = 10**11
_MODEL_SHA256, _INPUTS_SHA256 = "0" * 64, "1" * 64
# The longest that a job may take here: on a busy machine the first import takes half a minute.
_TIMEOUT_SECONDS = 120.0
_ADDRESS_SPACE_BYTES = 2 << 30


# ---- ONNX -------------------------------------------------------------------------------------


def _onnx() -> Any:
    return pytest.importorskip("onnx")


def model_of(*nodes: Any, tensors: Any = (), functions: Any = (), output: str = "y") -> Any:
    """A model from "x", 1 x 4 float32, to an output of whatever shape."""
    onnx = _onnx()
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 4])],
        [onnx.ValueInfoProto(name=output)],
        list(tensors),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def node(operator: str, reads: Any = (), writes: Any = ("y",), **attributes: Any) -> Any:
    return _onnx().helper.make_node(operator, list(reads), list(writes), **attributes)


def numbers(name: str, *values: int) -> Any:
    onnx = _onnx()
    return onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)


def external(location: str, name: str = "w") -> Any:
    """A tensor of bytes that stand in another file."""
    onnx = _onnx()
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.UINT8, dims=[len(CANARY)])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def leaking(location: str) -> Any:
    """A model whose output is what stands in another file."""
    return model_of(node("Identity", ["w"]), tensors=[external(location)])


def graph_of(*nodes: Any, reads: Any = (), writes: Any = (), tensors: Any = ()) -> Any:
    onnx = _onnx()
    values = [[onnx.ValueInfoProto(name=name) for name in names] for names in (reads, writes)]
    return onnx.helper.make_graph(list(nodes), "inner", *values, list(tensors))


def if_(graph: Any) -> Any:
    return node("If", ["c"], then_branch=graph, else_branch=graph)


def _truth() -> Any:
    onnx = _onnx()
    return onnx.helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True])


def endless_loop() -> Any:
    """Trips without end; its condition stays true."""
    onnx = _onnx()
    helper, types = onnx.helper, onnx.TensorProto
    body = helper.make_graph(
        [node("Identity", ["keep"], ["again"]), node("Identity", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("trip", types.INT64, []),
            helper.make_tensor_value_info("keep", types.BOOL, []),
            helper.make_tensor_value_info("a", types.FLOAT, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("again", types.BOOL, []),
            helper.make_tensor_value_info("b", types.FLOAT, [1, 4]),
        ],
    )
    trips = helper.make_tensor("n", types.INT64, [], [FOREVER])
    return model_of(node("Loop", ["n", "c", "x"], body=body), tensors=[trips, _truth()])


def _hidden_in_sub_graph() -> Any:
    inner = graph_of(node("Identity", ["w"]), writes=["y"], tensors=[external("../canary")])
    return model_of(if_(inner), tensors=[_truth()])


def _hidden_in_function() -> Any:
    onnx = _onnx()
    body = node("Constant", [], ["b"], value=external("../canary"))
    function = onnx.FunctionProto(name="F", domain="own", input=["a"], output=["b"], node=[body])
    function.opset_import.add(domain="", version=17)
    return model_of(node("F", ["x"], domain="own"), functions=[function])


def _hidden_in_sparse_tensor() -> Any:
    onnx = _onnx()
    sparse = onnx.SparseTensorProto(
        values=external("../canary"), indices=numbers("i", *range(len(CANARY))), dims=[64]
    )
    model = model_of(node("Identity", ["w"]))
    model.graph.sparse_initializer.append(sparse)
    return model


def _hidden_in_training() -> Any:
    model = model_of(node("Identity", ["x"]))
    model.training_info.add().algorithm.initializer.append(external("../canary"))
    return model


def _deep_graphs() -> Any:
    # One branch alone: the other would double the file with every level.
    inner = graph_of(node("Identity", ["x"]), writes=["y"])
    for _ in range(25):
        inner = graph_of(node("If", ["c"], then_branch=inner), writes=["y"])
    return model_of(node("If", ["c"], then_branch=inner), tensors=[_truth()])


def _functions(*called: str) -> Any:
    """Functions F0, F1, ... of which each calls others."""
    onnx = _onnx()
    functions = []
    for index, names in enumerate(called):
        values = ["a", *(f"v{n}" for n in range(len(names) - 1)), "b"]
        function = onnx.FunctionProto(name=f"F{index}", domain="own", input=["a"], output=["b"])
        for place, name in enumerate(names):
            domain = "" if name == "-" else "own"
            operator = "Neg" if name == "-" else f"F{name}"
            function.node.append(
                node(operator, [values[place]], [values[place + 1]], domain=domain)
            )
        for domain in ("", "own"):
            function.opset_import.add(domain=domain, version=17 if not domain else 1)
        functions.append(function)
    return model_of(node("F0", ["x"], domain="own"), functions=functions)


def _chain(length: int) -> bytes:
    # Written by hand: the package onnx takes seconds for so many nodes.
    nodes = b"".join(
        field(1, field(1, f"v{n}") + field(2, f"v{n + 1}") + field(4, "Neg")) for n in range(length)
    )
    kind = field(1, "v0") + field(2, field(1, field(1, 1) + field(2, field(1, field(1, 4)))))
    graph = nodes + field(2, "g") + field(11, kind) + field(12, field(1, f"v{length}"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))


def _bad_name() -> bytes:
    return bytes(
        model_of(node("Identity", ["x"], name="NAME"))
        .SerializeToString()
        .replace(b"NAME", b"\xff\xfe\xfd\xfc")
    )


def _huge_value() -> Any:
    onnx = _onnx()
    model = model_of(node("Identity", ["x"], ["z"]), node("Identity", ["z"]))
    shape = [2**31 - 1] * 4
    model.graph.value_info.append(
        onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, shape)
    )
    return model


def _huge_tensor() -> Any:
    onnx = _onnx()
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2**31] * 2, raw_data=b"1234")
    return model_of(node("Identity", ["w"]), tensors=[tensor])


def _merged_graphs() -> bytes:
    """A second graph, which parsers merge into the first."""
    onnx = _onnx()
    addition = onnx.ModelProto()
    addition.graph.initializer.append(external("../canary"))
    return bytes(
        model_of(node("Identity", ["w"])).SerializeToString() + addition.SerializeToString()
    )


HOSTILE_ONNX: Mapping[str, tuple[Callable[[], Any], str]] = {
    "external data in a sparse tensor": (_hidden_in_sparse_tensor, "external data"),
    "external data in a function": (_hidden_in_function, "external data"),
    "external data in a sub-graph": (_hidden_in_sub_graph, "external data"),
    "external data in a training graph": (_hidden_in_training, "external data"),
    "external data in an attribute": (
        lambda: model_of(node("Constant", value=external("../canary"))),
        "external data",
    ),
    "external data in a second graph": (_merged_graphs, "twice"),
    "an endless loop": (endless_loop, "control flow"),
    "a chain of 100,000 nodes": (lambda: _chain(100_000), "more than 20000 nodes"),
    "a chain of 6,000 nodes": (lambda: _chain(6_000), "has 6000 nodes"),
    "a value of 2^124 elements": (_huge_value, "this device takes 268435456"),
    "a tensor of 2^62 elements": (_huge_tensor, "this device takes 268435456"),
    "a ConstantOfShape of 10^11": (
        lambda: model_of(node("ConstantOfShape", ["s"]), tensors=[numbers("s", BILLIONS)]),
        "ConstantOfShape",
    ),
    "a Tile to 10^11": (
        lambda: model_of(node("Tile", ["x", "s"]), tensors=[numbers("s", 1, BILLIONS)]),
        "Tile",
    ),
    "an Expand to 10^11": (
        lambda: model_of(node("Expand", ["x", "s"]), tensors=[numbers("s", BILLIONS, 4)]),
        "Expand",
    ),
    "graphs inside each other": (_deep_graphs, "deeper than 4"),
    "a function that calls itself": (lambda: _functions("0"), "calls itself"),
    "functions that call each other": (lambda: _functions("1", "2", "0"), "calls itself"),
    "functions that multiply": (
        lambda: _functions("1" * 300, "2" * 300, "-"),
        "in place of their calls",
    ),
    "a name that is no text": (_bad_name, "not UTF-8"),
    "an operator of an unknown domain": (
        lambda: model_of(node("Spy", ["x"], domain="evil.corp")),
        "unknown domain 'evil.corp'",
    ),
    "half a file": (lambda: tiny_onnx()[:60], "truncated"),
    "a field as long as no file": (
        lambda: tiny_onnx() + b"\x3a\xff\xff\xff\xff\x0f",
        "truncated",
    ),
}


# ---- TFLite -----------------------------------------------------------------------------------


def _tflite(tree: Any) -> bytes:
    return flatbuffer(tree, TFLITE_IDENTIFIER)


def _codes(*codes: int, custom: str = "") -> Any:
    extra = {1: custom} if custom else {}
    return [{0: I8(min(code, 127)), 2: I32(1), 3: I32(code), **extra} for code in codes]


def _int32s(graph: TfliteGraph, values: Any) -> int:
    """A constant: a list of numbers, or one."""
    shape = () if isinstance(values, int) else (len(values),)
    numbers = [values] if isinstance(values, int) else values
    return graph.tensor("s", shape, struct.pack(f"<{len(numbers)}i", *numbers), kind=2)


def one_operator(
    code: int,
    *operands: Any,
    output: Any = (1, 4),
    kind: int = 0,
    options: Any = (0, {}),
    custom: str = "",
) -> Any:
    """A graph with the input "x", 1 x 4 float32, and one operator; operands are constants of
    int32, or None for the input.
    """
    graph = TfliteGraph((1, 4))
    inputs = [0 if each is None else _int32s(graph, each) for each in operands]
    out = graph.tensor("y", output, kind=kind)
    graph.operator(0, inputs, out, options)
    tree = graph.tree(out)
    tree[1] = _codes(code, custom=custom)
    return tree


def endless_while() -> Any:
    """A loop whose condition is an input, and so stays what it is."""
    loop = one_operator(119, None, options=(93, {0: I32(1), 1: I32(2)}))
    condition = TfliteGraph((1, 4))
    truth = condition.tensor("t", (1,), b"\1", kind=6)
    body = TfliteGraph((1, 4))
    body_graph, condition_graph = body.tree(0), condition.tree(truth)
    loop[2] = [*loop[2], condition_graph[2][0], body_graph[2][0]]
    loop[4] = condition_graph[4]
    return loop


def _graphs_that_call(*called: int | None) -> Any:
    """Graphs that run the graph of a number, or none."""
    trees = [
        TfliteGraph((1, 4)).tree(0)
        if each is None
        else one_operator(129, None, options=(103, {0: I32(each)}))
        for each in called
    ]
    trees[0][2] = [tree[2][0] for tree in trees]
    return trees[0]


def _external_buffers() -> Any:
    tree = one_operator(98, None)
    tree[8] = [{0: "../canary"}]
    return tree


def _reshape_past_its_output() -> Any:
    """A constant of 22 bytes and a shape of one: tensorflow/tensorflow issue 124982."""
    graph = TfliteGraph((1, 1))
    constant = graph.tensor("c", (1, 1), bytes(22))
    shape = graph.tensor("s", (2,), struct.pack("<2i", 1, 1), kind=2)
    out = graph.tensor("y", (1, 1))
    graph.operator(22, (constant, shape), out, (17, {}))
    return graph.tree(out)


def _pointing_out() -> bytes:
    data = bytearray(tiny_tflite())
    struct.pack_into("<I", data, 0, 2**31)
    return bytes(data)


def _bad_tflite_name() -> bytes:
    return tiny_tflite().replace(b"main", b"\xff\xfe\xfd\xfc")


HOSTILE_TFLITE: Mapping[str, tuple[Callable[[], Any], str]] = {
    "eight bytes": (lambda: b"\x18\0\0\0TFL3", "not a TFLite model"),
    "half a file": (lambda: tiny_tflite()[:200], "truncated"),
    "an offset out of the file": (_pointing_out, "truncated"),
    "a custom operator": (
        lambda: one_operator(32, None, custom="FlexPyFunc"),
        "custom operators .*FlexPyFunc",
    ),
    "weights in another file": (_external_buffers, "external buffers"),
    "a Reshape past its output": (_reshape_past_its_output, "22 bytes instead of 4"),
    "an endless loop": (endless_while, "control flow"),
    "a graph that calls itself": (lambda: _graphs_that_call(0), "calls itself"),
    "graphs that call each other": (lambda: _graphs_that_call(1, 2, 0), "calls itself"),
    "graphs inside each other": (
        lambda: _graphs_that_call(1, 2, 3, 4, 5, None),
        "nests 6 graphs",
    ),
    "a tensor of 2^62 elements": (
        lambda: one_operator(98, None, output=(2**31 - 1, 2**31 - 1)),
        "this device takes 268435456",
    ),
    "a Fill of 2^32": (
        lambda: one_operator(94, (2**16, 2**16), 7, output=(1, 4), kind=2),
        "operator 94",
    ),
    "a Tile to 2^60": (lambda: one_operator(69, None, (2**30, 2**30)), "operator 69"),
    "a name that is no text": (_bad_tflite_name, "not UTF-8"),
}


# ---- ncnn -------------------------------------------------------------------------------------

_NCNN_INPUT = "Input x 0 1 x 0=8 1=8 2=4"


def _ncnn(*layers: str, weights: bytes = b"", first: str = _NCNN_INPUT) -> bytes:
    return ncnn_model([first, *layers], weights)


def _ncnn_text(text: str) -> bytes:
    return stored_zip({"model.param": text.encode(), "model.bin": b""})


def _zip_bomb() -> bytes:
    """A megabyte of zeros that is packed into a kilobyte, as entries of 4 GiB could be."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.param", b"7767517\n" + bytes(1 << 20))
        archive.writestr("model.bin", bytes(1 << 20))
    return buffer.getvalue()


def _size_of_no_file() -> bytes:
    data = bytearray(tiny_ncnn())
    struct.pack_into("<II", data, data.index(b"PK\3\4", 4) + 18, 2**32 - 1, 2**32 - 1)
    return bytes(data)


def _few_weights() -> bytes:
    """As many as a norm of one channel needs, and twenty million come in."""
    return _ncnn(
        "BatchNorm y 1 1 x y 0=1",
        weights=struct.pack("<4f", 1, 0, 1, 0),
        first="Input x 0 1 x 0=20000000",
    )


HOSTILE_NCNN: Mapping[str, tuple[Callable[[], Any], str]] = {
    "eight bytes": (lambda: b"PK\3\4\0\0\0\0", "truncated"),
    "half a file": (lambda: tiny_ncnn()[:120], "truncated"),
    "a zip bomb": (_zip_bomb, "compressed, encrypted or extended"),
    "an entry as long as no file": (_size_of_no_file, "model.bin is truncated"),
    "a file behind the others": (
        lambda: stored_zip({"model.param": b"", "model.bin": b"", "../../canary": b""}),
        "model.bin|canary|directory|metadata",
    ),
    "a file from another folder": (
        lambda: stored_zip({"../canary": b"", "model.bin": b""}),
        "no entry model.param",
    ),
    "a count of two billion layers": (
        lambda: _ncnn_text("7767517\n2000000000 2\nInput x 0 1 x 0=2\n"),
        "line 2",
    ),
    "more blobs than it says": (
        lambda: _ncnn_text("7767517\n2 2\nInput x 0 1 x 0=2\nSplit s 1 3 x a b c\n"),
        "there are 2 and 4",
    ),
    "a layer of millions of blobs": (
        lambda: _ncnn_text("7767517\n1 1\nSplit s 0 99999999 x\n"),
        "should name 0 [+] 99999999 blobs",
    ),
    "weights for other channels": (_few_weights, "has 1 weights, .* need 20000000"),
    "weights that are not there": (
        lambda: _ncnn("Convolution y 1 1 x y 0=8 1=3 4=1 5=0 6=288"),
        "has 0 bytes, .* need 1156",
    ),
    "weights of 16 bits": (
        lambda: _ncnn(
            "InnerProduct y 1 1 x y 0=1 2=256", weights=b"\x47\x6b\x30\x01" + bytes(1024)
        ),
        "are float16",
    ),
    "an unknown layer": (lambda: _ncnn("Spy y 1 1 x y"), "a layer Spy 'y'"),
    "a layer that reads files": (lambda: _ncnn("PyFunc y 1 1 x y"), "a layer PyFunc 'y'"),
    "a blob of nobody": (lambda: _ncnn("ReLU y 1 1 ghost y"), "'ghost', that nothing made"),
    "a layer that reads itself": (lambda: _ncnn("ReLU y 1 1 y y"), "that nothing made"),
    "a huge input": (
        lambda: _ncnn("ReLU y 1 1 x y", first="Input x 0 1 x 0=2147483647 1=2147483647"),
        "this device takes 268435456",
    ),
    "a Padding to 10^11": (
        lambda: _ncnn("Padding y 1 1 x y 0=2000000000 1=2000000000"),
        "this device takes 268435456",
    ),
    "a Reshape to more": (lambda: _ncnn("Reshape y 1 1 x y 0=100000000"), "makes .100000000."),
    "a window of nothing": (lambda: _ncnn("Pooling y 1 1 x y 0=0 1=0"), "is 1 at least"),
    "a stride of nothing": (lambda: _ncnn("Pooling y 1 1 x y 0=0 1=2 2=0"), "is 1 at least"),
    "no channels": (lambda: _ncnn("ShuffleChannel y 1 1 x y 0=0"), "is 1 at least"),
    "a chain of 6,000 layers": (
        lambda: _ncnn(
            *(f"ReLU v{n} 1 1 {f'v{n - 1}' if n else 'x'} v{n}" for n in range(6_000)),
        ),
        "more than 5000 layers in a row",
    ),
    "a name that is no text": (
        lambda: stored_zip({"model.param": b"7767517\n1 1\n\xff\xfe", "model.bin": b""}),
        "not plain text",
    ),
}


def file_of(made: Any) -> bytes:
    """The bytes of a hostile file, whatever it was made of."""
    if isinstance(made, bytes):
        return made
    return _tflite(made) if isinstance(made, dict) else bytes(made.SerializeToString())


def _file(make: Callable[[], Any]) -> bytes:
    return file_of(make())


# Those that also take the whole road, which needs a second each.
_ON_THE_ROAD = {
    "onnx": (
        "external data in a function",
        "external data in a sub-graph",
        "external data in a second graph",
        "an endless loop",
        "a chain of 100,000 nodes",
        "a value of 2^124 elements",
        "a ConstantOfShape of 10^11",
        "functions that multiply",
        "a name that is no text",
        "an operator of an unknown domain",
        "half a file",
    ),
    "tflite": (
        "eight bytes",
        "an offset out of the file",
        "weights in another file",
        "a Reshape past its output",
        "an endless loop",
        "graphs that call each other",
        "a tensor of 2^62 elements",
    ),
    "ncnn": (
        "half a file",
        "a zip bomb",
        "more blobs than it says",
        "weights for other channels",
        "an unknown layer",
        "a huge input",
        "a chain of 6,000 layers",
    ),
}
_HOSTILE = {"onnx": HOSTILE_ONNX, "tflite": HOSTILE_TFLITE, "ncnn": HOSTILE_NCNN}


def pytest_generate_tests(metafunc: Any) -> None:
    """A test that takes `hostile` runs once for each file, one that takes `hostile_on_the_road`
    for fewer: a runtime, what makes the bytes, and what to expect of the refusal.
    """
    cases = {
        f"{runtime}: {name}": (runtime, functools.partial(_file, make), words)
        for runtime, made in _HOSTILE.items()
        for name, (make, words) in made.items()
    }
    if "hostile" in metafunc.fixturenames:
        metafunc.parametrize("hostile", list(cases.values()), ids=list(cases))
    elif "hostile_on_the_road" in metafunc.fixturenames:
        names = [f"{runtime}: {name}" for runtime in _ON_THE_ROAD for name in _ON_THE_ROAD[runtime]]
        metafunc.parametrize("hostile_on_the_road", [cases[name] for name in names], ids=names)


# ---- the road ---------------------------------------------------------------------------------


_READINESS = Readiness(
    observe_seconds=0.05,
    max_foreign_cpu=1.0,
    min_free_ram_bytes=0,
    max_start_celsius=None,
    wait_seconds=0.0,
    measure_when_busy=True,
)
_PLAN = Plan(
    processes=1,
    warmup_runs=2,
    warmup_seconds=0.0,
    min_blocks=2,
    block_runs=5,
    block_seconds=0.5,
    min_samples=5,
    half_width=1.0,
    budget_seconds=5.0,
    energy_windows=0,
    energy_window_seconds=0.0,
)
# Put into the worker before anything else: every file passes.
_NO_SCAN = (
    "from device_agent.runtimes.onnx import OnnxRuntime as o;"
    "from device_agent.runtimes.tflite import TfliteRuntime as t;"
    "from device_agent.runtimes.ncnn import NcnnRuntime as n;"
    "o.scan = t.scan = n.scan = lambda *_: None;"
)
_START = "from device_agent.worker import main;"


@dataclass(frozen=True)
class Road:
    """A device with one cache folder; beside it lies a file that is nobody's business."""

    folder: Path
    bench: Bench

    @property
    def canary(self) -> Path:
        return self.folder / "canary"

    def run(
        self, data: bytes, runtime: str, *, verify: bool = False, timeout_seconds: float = 0.0
    ) -> Outcome:
        """The outcome of a job on this model."""
        model, inputs = self.folder / "cache" / "model", self.folder / "cache" / "inputs"
        model.write_bytes(data)
        run = ModelRun(_MODEL_SHA256, len(data), runtime, threads=1)
        seconds = timeout_seconds or _TIMEOUT_SECONDS
        spec: Any = MeasureSpec(PROTOCOL, run, _READINESS, _PLAN, seconds)
        if verify:
            import numpy as np

            np.savez(inputs.with_suffix(".npz"), x=np.ones((1, 4), np.float32))
            inputs = inputs.with_suffix(".npz")
            spec = VerifySpec(PROTOCOL, run, _INPUTS_SHA256, 0, 1 << 20, seconds)
        blobs = {_MODEL_SHA256: model, _INPUTS_SHA256: inputs}
        began = time.monotonic()
        outcome = run_job(spec, blobs, self.bench, Cancellation())
        # To load a file is not to run it: only the clock ends a worker, and it does.
        assert time.monotonic() - began < seconds + 10.0
        self.check_secrecy(outcome)
        return outcome

    def check_secrecy(self, outcome: Outcome) -> None:
        """Nothing that leaves the device has anything of the canary in it."""
        assert CANARY.decode() not in repr(outcome)
        left = outcome.outputs_path.read_bytes() if isinstance(outcome, VerifiedOutputs) else b""
        assert CANARY not in left

    def good_model(self, runtime: str) -> Outcome:
        """The outcome of a model that harms nobody."""
        made = {"onnx": tiny_onnx, "tflite": tiny_tflite, "ncnn": tiny_ncnn}
        return self.run(made[runtime](), runtime)

    def without_scan(self) -> Road:
        """The same device with workers that scan nothing."""
        command = [part.replace(_START, _NO_SCAN + _START) for part in self.bench.worker_command]
        assert command != list(self.bench.worker_command)
        bench = dataclasses.replace(self.bench, worker_command=command)
        return dataclasses.replace(self, bench=bench)

    def allowing(self, limits: ScanLimits) -> Road:
        """The same device where a person changed limits of the scan."""
        bench = dataclasses.replace(self.bench, scan=limits)
        return dataclasses.replace(self, bench=bench)


@pytest.fixture
def road(tmp_path: Path) -> Road:
    for name in ("cache", "spool"):
        (tmp_path / name).mkdir()
    (tmp_path / "canary").write_bytes(CANARY)
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "canary")
    return Road(tmp_path, Bench(default_worker_command(), _ADDRESS_SPACE_BYTES, tmp_path / "spool"))


@pytest.fixture(scope="session")
def make_leaking() -> Callable[[str], bytes]:
    """A model whose output is the file at a location."""
    return lambda location: file_of(leaking(location))


@pytest.fixture(scope="session")
def make_file() -> Callable[[str, str], bytes]:
    """A hostile file by runtime and name."""
    return lambda runtime, name: file_of(_HOSTILE[runtime][name][0]())


@pytest.fixture(scope="session")
def make_hostile() -> Callable[[str], list[bytes]]:
    """Every hostile file of a runtime."""
    return lambda runtime: [file_of(make()) for make, _ in _HOSTILE[runtime].values()]
