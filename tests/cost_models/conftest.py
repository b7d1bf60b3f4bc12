"""ONNX graphs written operator by operator, and what onnxruntime makes of them."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cost_models.kernels import KernelGraph
from cost_models.onnx_graph import kernels_from_onnx

VIEWS = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
IMAGE: tuple[int | str, ...] = (1, 8, 8, 8)


class Builder:
    """Writes an ONNX graph operator by operator."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def constant(self, value: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self.random.standard_normal(shape).astype(np.float32))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def conv(
        self,
        source: str,
        channels: int,
        out: int,
        *,
        kernel: int = 3,
        groups: int = 1,
        bias: bool = True,
        **attributes: Any,
    ) -> str:
        inputs = [source, self.weights(out, channels // groups, kernel, kernel)]
        inputs += [self.weights(out)] if bias else []
        pads = [kernel // 2] * 4
        return self.op("Conv", *inputs, group=groups, pads=pads, **attributes)

    def norm(self, source: str, channels: int) -> str:
        variance = self.constant(np.ones(channels, np.float32))
        rest = [self.weights(channels) for _ in range(3)]
        return self.op("BatchNormalization", source, *rest, variance)

    def bound(self, value: float) -> str:
        return self.constant(np.float32(value))

    def relu6(self, source: str) -> str:
        return self.op("Clip", source, self.bound(0), self.bound(6))

    def gemm(self, source: str, inputs: int = 8, outputs: int = 10) -> str:
        weights = self.weights(outputs, inputs)
        return self.op("Gemm", source, weights, self.weights(outputs), transB=1)

    def model(
        self,
        *outputs: str,
        shape: tuple[int | str, ...] = IMAGE,
        opset: int = 17,
        domains: tuple[str, ...] = (),
    ) -> bytes:
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.fixture
def builder() -> Builder:
    return Builder()


@pytest.fixture
def kernels() -> Callable[[Callable[[Builder], str]], KernelGraph]:
    """Reads the kernels of the graph that a function builds."""

    def read(build: Callable[[Builder], str]) -> KernelGraph:
        builder = Builder()
        return kernels_from_onnx(builder.model(build(builder)))

    return read


@pytest.fixture
def executed(tmp_path) -> Callable[[bytes], Counter[tuple[str, ...]]]:
    """Operators of the graph that onnxruntime runs, views left out, with their activations."""

    def run(model: bytes) -> Counter[tuple[str, ...]]:
        options = onnxruntime.SessionOptions()
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        steps: Counter[tuple[str, ...]] = Counter()
        for node in onnx.load(tmp_path / "optimised.onnx").graph.node:
            activation = [a.s.decode() for a in node.attribute if a.name == "activation"]
            name = node.op_type
            if name == "QuickGelu":
                steps["Sigmoid", "Mul"] += 1
            elif name not in VIEWS:
                short = name if name == "FusedMatMul" else name.removeprefix("Fused")
                steps[(short, *activation)] += 1
        return steps

    return run
