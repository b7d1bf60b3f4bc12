"""Fusions of transformers, quantised and dynamic graphs, against onnxruntime's own graphs."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from cost_models.onnx_graph import kernels_from_onnx

SEQUENCE = (1, 16, 8)
IMAGE = (1, 8, 8, 8)


def relu(b):
    return b.op("Relu", "x")


def gelu(b, source, *, halved_first=False):
    wave = b.op("Erf", b.op("Div", source, b.bound(math.sqrt(2))))
    wave = b.op("Add", wave, b.bound(1))
    if halved_first:
        return b.op("Mul", b.op("Mul", source, b.bound(0.5)), wave)
    return b.op("Mul", b.op("Mul", source, wave), b.bound(0.5))


def centred_norm(b, source):
    centred = b.op("Sub", source, b.op("ReduceMean", source, axes=[-1]))
    return b.op("Add", scaled_by_root(b, centred), b.weights(8))


def scaled_by_root(b, source):
    variance = b.op("ReduceMean", b.op("Pow", source, b.bound(2)), axes=[-1])
    root = b.op("Sqrt", b.op("Add", variance, b.bound(1e-5)))
    return b.op("Mul", b.op("Div", source, root), b.weights(8))


def norm(b, source):
    return b.op("LayerNormalization", source, b.weights(8), b.weights(8))


def linear(b, source, inputs=8, outputs=8):
    return b.op("Add", b.op("MatMul", source, b.weights(inputs, outputs)), b.weights(outputs))


def turned(b, source):
    return b.op("Transpose", source, perm=[0, 2, 1])


def between_layouts(b, operator, *others):
    return turned(b, b.op(operator, turned(b, relu(b)), *others))


def attention(b):
    def heads(source):
        split = b.op("Reshape", source, b.constant(np.array([0, -1, 2, 4])))
        return b.op("Transpose", split, perm=[0, 2, 1, 3])

    queries, keys, values = (heads(linear(b, "x")) for _ in range(3))
    scores = b.op("MatMul", queries, b.op("Transpose", keys, perm=[0, 1, 3, 2]))
    weights = b.op("Softmax", b.op("Div", scores, b.bound(2)), axis=-1)
    joined = b.op("Transpose", b.op("MatMul", weights, values), perm=[0, 2, 1, 3])
    return linear(b, b.op("Reshape", joined, b.constant(np.array([0, -1, 8]))))


def block_of_convnext(b):
    rows = b.op("Transpose", b.conv("x", 8, 8, groups=8), perm=[0, 2, 3, 1])
    wide = b.op("Gelu", linear(b, norm(b, rows), 8, 32))
    scaled = b.op("Mul", linear(b, wide, 32, 8), b.weights(8))
    return b.op("Add", b.op("Transpose", scaled, perm=[0, 3, 1, 2]), "x")


def channels_last_between_convolutions(b):
    first = b.op("Transpose", b.conv("x", 8, 8), perm=[0, 2, 3, 1])
    shifted = b.op("Add", first, b.weights(8))
    return b.conv(b.op("Transpose", shifted, perm=[0, 3, 1, 2]), 8, 8)


def taken_apart(b):
    parts = [b.op("Gather", "x", b.constant(np.array(i)), axis=0) for i in range(3)]
    return b.op("Sum", *parts)


def gemm_and_sum(b):
    product = b.op("MatMul", "x", b.weights(8, 4))
    return b.op("Sum", b.op("Gemm", "x", b.weights(8, 4)), product)


def product_read_twice(b):
    scaled = b.op("Mul", relu(b), b.bound(0.3))
    return b.op("Add", b.op("MatMul", scaled, b.weights(8, 8)), scaled)


def twice_skipped(b):
    added = b.op("Add", "x", relu(b))
    return b.op("Add", added, b.op("Relu", norm(b, added)))


FLOAT_GRAPHS = {
    "gelu": (SEQUENCE, lambda b: gelu(b, "x")),
    "gelu halved first": (SEQUENCE, lambda b: gelu(b, "x", halved_first=True)),
    "gelu after a bias": (SEQUENCE, lambda b: gelu(b, b.op("Add", "x", b.weights(8)))),
    "gelu after a layer": (SEQUENCE, lambda b: gelu(b, linear(b, "x"))),
    "gelu operator after a bias": (
        SEQUENCE,
        lambda b: b.op("Gelu", b.op("Add", "x", b.weights(8))),
    ),
    "layer normalisation": (SEQUENCE, lambda b: centred_norm(b, "x")),
    "root mean square": (SEQUENCE, lambda b: scaled_by_root(b, "x")),
    "skip": (SEQUENCE, lambda b: norm(b, b.op("Add", "x", relu(b)))),
    "skip of primitives": (SEQUENCE, lambda b: centred_norm(b, b.op("Add", "x", relu(b)))),
    "skip with a bias": (
        SEQUENCE,
        lambda b: norm(b, b.op("Add", b.op("Add", relu(b), b.weights(8)), b.op("Tanh", "x"))),
    ),
    "skip after a layer": (
        SEQUENCE,
        lambda b: norm(b, b.op("Add", linear(b, "x"), b.op("Tanh", "x"))),
    ),
    "skip that others read": (SEQUENCE, twice_skipped),
    "skip of rank 2": ((4, 8), lambda b: norm(b, b.op("Add", "x", relu(b)))),
    "skip of rank 4": ((1, 4, 4, 8), lambda b: norm(b, b.op("Add", "x", relu(b)))),
    "attention": (SEQUENCE, attention),
    "block of ConvNeXt": (IMAGE, block_of_convnext),
    "scaled product": (
        SEQUENCE,
        lambda b: b.op("Div", b.op("MatMul", relu(b), b.weights(8, 8)), b.bound(3)),
    ),
    "scaled operand": (
        SEQUENCE,
        lambda b: b.op("MatMul", b.op("Mul", relu(b), b.bound(0.3)), b.weights(8, 8)),
    ),
    "scaled operand that others read": (SEQUENCE, product_read_twice),
    "scaled by a row": (
        SEQUENCE,
        lambda b: b.op("Mul", b.op("MatMul", relu(b), b.weights(8, 4)), b.weights(4)),
    ),
    "transposed operand": (
        SEQUENCE,
        lambda b: b.op("MatMul", relu(b), turned(b, b.op("Tanh", "x"))),
    ),
    "transposed operand of a layer": (
        (8, 1),
        lambda b: b.op("Gemm", b.op("Transpose", "x"), b.weights(8, 4)),
    ),
    "gemm and sum": ((1, 8), gemm_and_sum),
    "layer with a column": (
        SEQUENCE,
        lambda b: b.op("Add", b.op("MatMul", relu(b), b.weights(8, 8)), b.weights(1, 8)),
    ),
    "two transposes": (SEQUENCE, lambda b: b.op("Relu", turned(b, turned(b, relu(b))))),
    "transposes around relu": (SEQUENCE, lambda b: between_layouts(b, "Relu")),
    "transposes around a sum": (SEQUENCE, lambda b: between_layouts(b, "Add", b.bound(2))),
    "transposes around a norm": (
        SEQUENCE,
        lambda b: between_layouts(b, "LayerNormalization", b.weights(16), b.weights(16)),
    ),
    "transposes of all operands": (
        SEQUENCE,
        lambda b: turned(b, b.op("Add", turned(b, relu(b)), turned(b, b.op("Tanh", "x")))),
    ),
    "transposes that do not cancel": (
        SEQUENCE,
        lambda b: b.op("Transpose", b.op("Transpose", relu(b), perm=[2, 0, 1]), perm=[2, 0, 1]),
    ),
    "channels last": (IMAGE, channels_last_between_convolutions),
    "sum with zero": (SEQUENCE, lambda b: b.op("Tanh", b.op("Add", relu(b), b.bound(0)))),
    "zero first": (SEQUENCE, lambda b: b.op("Tanh", b.op("Add", b.bound(0), relu(b)))),
    "zero minus": (SEQUENCE, lambda b: b.op("Tanh", b.op("Sub", b.bound(0), relu(b)))),
    "product with one": (SEQUENCE, lambda b: b.op("Tanh", b.op("Mul", relu(b), b.bound(1)))),
    "divided by one": (SEQUENCE, lambda b: b.op("Tanh", b.op("Div", relu(b), b.bound(1)))),
    "sum with zero of the input": (SEQUENCE, lambda b: b.op("Tanh", b.op("Add", "x", b.bound(0)))),
    "sum with zero as output": (SEQUENCE, lambda b: b.op("Add", relu(b), b.bound(0))),
    "sum with a row of zeros": (
        SEQUENCE,
        lambda b: b.op("Tanh", b.op("Add", relu(b), b.constant(np.zeros(8, np.float32)))),
    ),
    "reciprocal": (
        SEQUENCE,
        lambda b: b.op("Mul", b.op("Div", b.bound(1), "x"), relu(b)),
    ),
    "not before where": (
        SEQUENCE,
        lambda b: b.op("Where", b.op("Not", b.op("Greater", "x", b.bound(0))), "x", b.bound(1)),
    ),
    "cast and back": (
        SEQUENCE,
        lambda b: b.op(
            "Tanh",
            b.op("Cast", b.op("Cast", relu(b), to=TensorProto.DOUBLE), to=TensorProto.FLOAT),
        ),
    ),
    "cast to integers and back": (
        SEQUENCE,
        lambda b: b.op(
            "Tanh",
            b.op("Cast", b.op("Cast", relu(b), to=TensorProto.INT32), to=TensorProto.FLOAT),
        ),
    ),
    "sums with equal constants": (
        SEQUENCE,
        lambda b: b.op("Mul", b.op("Add", "x", b.bound(2)), b.op("Add", "x", b.bound(2))),
    ),
    "sums with other constants": (
        SEQUENCE,
        lambda b: b.op("Mul", b.op("Add", "x", b.bound(2)), b.op("Add", "x", b.bound(3))),
    ),
    "taken apart": ((3, 2, 8), taken_apart),
    "swish with a factor": (
        SEQUENCE,
        lambda b: b.op("Mul", b.op("Sigmoid", b.op("Mul", "x", b.bound(1.702))), "x"),
    ),
    "convolution in one dimension": (
        (1, 8, 16),
        lambda b: b.op("Relu", b.op("Conv", "x", b.weights(4, 8, 3))),
    ),
    "convolution in three dimensions": (
        (1, 8, 4, 4, 4),
        lambda b: b.op("Relu", b.op("Conv", "x", b.weights(4, 8, 3, 3, 3))),
    ),
    "transposed convolution with a norm": (
        IMAGE,
        lambda b: b.norm(b.op("ConvTranspose", "x", b.weights(8, 4, 2, 2)), 4),
    ),
}


@pytest.mark.parametrize("name", FLOAT_GRAPHS)
def test_the_steps_of_a_float_graph_are_those_of_onnxruntime(builder, executed, name):
    shape, build = FLOAT_GRAPHS[name]
    opset = 20 if name in {"gelu operator after a bias", "block of ConvNeXt"} else 17
    model = builder.model(build(builder), shape=shape, opset=opset)

    found = Counter(kernel.ops for kernel in kernels_from_onnx(model).kernels)

    assert found == executed(model)


def quantised(b, source, kind=np.uint8, scale=0.1):
    zero = b.constant(kind(0))
    stored = b.op("QuantizeLinear", source, b.bound(scale), zero)
    return b.op("DequantizeLinear", stored, b.bound(scale), zero)


def stored(b, *shape):
    values = b.constant(np.ones(shape, np.int8))
    return b.op("DequantizeLinear", values, b.bound(0.1), b.constant(np.int8(0)))


def bias(b, size):
    values = b.constant(np.ones(size, np.int32))
    return b.op("DequantizeLinear", values, b.bound(0.01), b.constant(np.int32(0)))


def bare_conv(b, source, kernel=1):
    return b.op("Conv", source, stored(b, 8, 8, kernel, kernel), bias(b, 8))


def conv(b, source, kind=np.uint8):
    return quantised(b, bare_conv(b, source), kind)


def start(b, kind=np.uint8):
    return conv(b, quantised(b, "x", kind), kind)


def between_pairs(operator, *inputs, **attributes):
    def build(b):
        others = [b.constant(np.array(value)) for value in inputs]
        return quantised(b, b.op(operator, start(b), *others, **attributes))

    return build


def two_branches(operator, **attributes):
    def build(b):
        image = quantised(b, "x")
        return quantised(b, b.op(operator, conv(b, image), conv(b, image), **attributes))

    return build


def conv_and_its_input(b):
    source = start(b)
    return b.op("Concat", bare_conv(b, source), source, axis=1)


def dynamic(b, *, scales=(0.1,), shifted=False):
    quantised_input = b.op("DynamicQuantizeLinear", "x")
    b.nodes[-1].output.extend(["scale", "zero"])
    products = []
    for scale in scales:
        weights = b.constant(np.ones((8, 8), np.int8))
        zero = b.constant(np.int8(0))
        whole = b.op("MatMulInteger", quantised_input, weights, "zero", zero)
        factor = b.op("Mul", "scale", b.bound(scale))
        product = b.op("Mul", b.op("Cast", whole, to=TensorProto.FLOAT), factor)
        products.append(b.op("Add", product, b.weights(8)) if shifted else product)
    return products[0] if len(products) == 1 else b.op("Sum", *products)


def dynamic_conv(b):
    quantised_input = b.op("DynamicQuantizeLinear", "x")
    b.nodes[-1].output.extend(["scale", "zero"])
    whole = b.op("ConvInteger", quantised_input, b.constant(np.ones((8, 8, 3, 3), np.int8)), "zero")
    factor = b.op("Mul", "scale", b.bound(0.1))
    return b.op("Mul", b.op("Cast", whole, to=TensorProto.FLOAT), factor)


QUANTISED_GRAPHS = {
    "conv": (IMAGE, start),
    "conv of signed": (IMAGE, lambda b: start(b, np.int8)),
    "conv twice": (IMAGE, lambda b: conv(b, start(b))),
    "conv without a result quantised": (IMAGE, lambda b: bare_conv(b, quantised(b, "x"))),
    "relu cut off by the range": (
        IMAGE,
        lambda b: quantised(b, b.op("Relu", bare_conv(b, quantised(b, "x")))),
    ),
    "relu within the range": (
        IMAGE,
        lambda b: quantised(b, b.op("Relu", bare_conv(b, quantised(b, "x", np.int8))), np.int8),
    ),
    "clip within the range": (
        IMAGE,
        lambda b: quantised(b, b.relu6(bare_conv(b, quantised(b, "x")))),
    ),
    "clip cut off by the range": (
        IMAGE,
        lambda b: quantised(b, b.relu6(bare_conv(b, quantised(b, "x"))), np.uint8, 6 / 255),
    ),
    "relu alone": (IMAGE, between_pairs("Relu")),
    "sum": (IMAGE, two_branches("Add")),
    "product": (IMAGE, two_branches("Mul")),
    "concatenation": (IMAGE, two_branches("Concat", axis=1)),
    "sum with floats": (IMAGE, lambda b: quantised(b, b.op("Add", start(b), b.weights(8, 1, 1)))),
    "average": (IMAGE, between_pairs("AveragePool", kernel_shape=[2, 2])),
    "maximum": (IMAGE, between_pairs("MaxPool", kernel_shape=[2, 2])),
    "maximum on one side": (
        IMAGE,
        lambda b: conv(b, b.op("MaxPool", start(b), kernel_shape=[2, 2])),
    ),
    "maximum before the pair": (
        IMAGE,
        lambda b: conv(b, quantised(b, b.op("MaxPool", "x", kernel_shape=[2, 2]))),
    ),
    "global average": (IMAGE, between_pairs("GlobalAveragePool")),
    "sigmoid": (IMAGE, between_pairs("Sigmoid")),
    "softmax": (IMAGE, between_pairs("Softmax")),
    "leaky": (IMAGE, between_pairs("LeakyRelu")),
    "tanh": (IMAGE, between_pairs("Tanh")),
    "transpose": (IMAGE, between_pairs("Transpose", perm=[0, 2, 3, 1])),
    "mean": (IMAGE, between_pairs("ReduceMean", axes=[2, 3])),
    "reshape": (IMAGE, between_pairs("Reshape", [1, -1])),
    "pad": (IMAGE, between_pairs("Pad", [0, 0, 1, 1, 0, 0, 1, 1])),
    "pair twice": (IMAGE, lambda b: quantised(b, quantised(b, "x"))),
    "pairs of equal scale": (
        IMAGE,
        lambda b: quantised(b, b.op("Sub", quantised(b, "x"), conv(b, quantised(b, "x")))),
    ),
    "shared": (IMAGE, conv_and_its_input),
    "gemm": (
        (1, 8),
        lambda b: quantised(b, b.op("Gemm", quantised(b, "x"), stored(b, 8, 4), bias(b, 4))),
    ),
    "gemm without a result quantised": (
        (1, 8),
        lambda b: b.op("Gemm", quantised(b, "x"), stored(b, 8, 4), bias(b, 4)),
    ),
    "matmul": (
        SEQUENCE,
        lambda b: quantised(b, b.op("MatMul", quantised(b, "x"), stored(b, 8, 4))),
    ),
    "matmul without a result quantised": (
        SEQUENCE,
        lambda b: b.op("MatMul", quantised(b, "x"), stored(b, 8, 4)),
    ),
    "matmul of two activations": (
        (8, 8),
        lambda b: quantised(b, b.op("MatMul", quantised(b, "x"), quantised(b, b.op("Tanh", "x")))),
    ),
    "only weights": (SEQUENCE, lambda b: b.op("MatMul", "x", stored(b, 8, 4))),
    "only weights of a conv": (IMAGE, lambda b: b.op("Conv", "x", stored(b, 8, 8, 3, 3))),
    "dynamic": (SEQUENCE, dynamic),
    "dynamic with a bias": (SEQUENCE, lambda b: dynamic(b, shifted=True)),
    "dynamic shared": (SEQUENCE, lambda b: dynamic(b, scales=(0.1, 0.2))),
    "dynamic conv": (IMAGE, dynamic_conv),
}


@pytest.mark.parametrize("name", QUANTISED_GRAPHS)
def test_the_steps_of_a_quantised_graph_are_those_of_onnxruntime(builder, executed, name):
    shape, build = QUANTISED_GRAPHS[name]
    model = builder.model(build(builder), shape=shape)

    found = Counter(kernel.ops for kernel in kernels_from_onnx(model).kernels)

    assert found == executed(model)


def sizes_of(b, source, *indices):
    shape = b.op("Shape", source)
    return [b.op("Gather", shape, b.constant(np.array([index]))) for index in indices]


def reshaped_by_sizes(b, source, *indices):
    parts = [*sizes_of(b, source, *indices), b.constant(np.array([-1]))]
    return b.op("Reshape", source, b.op("Concat", *parts, axis=0))


def reshaped_by_own_size(b):
    size = b.op("Gather", b.op("Shape", "x"), b.constant(np.array(0)))
    lifted = b.op("Unsqueeze", size, b.constant(np.array([0])))
    return b.op("Reshape", "x", b.op("Concat", lifted, b.constant(np.array([-1])), axis=0))


DYNAMIC_GRAPHS = {
    "layer": lambda b: linear(b, relu(b)),
    "gelu after a layer": lambda b: gelu(b, linear(b, relu(b))),
    "skip": lambda b: norm(b, b.op("Add", b.op("Tanh", "x"), relu(b))),
    "scaled": lambda b: b.op("Mul", b.op("MatMul", relu(b), b.weights(8, 8)), b.bound(0.3)),
    "transposed operand": lambda b: b.op("MatMul", relu(b), turned(b, b.op("Tanh", "x"))),
    "transposes around relu": lambda b: between_layouts(b, "Relu"),
    "reshaped by sizes": lambda b: reshaped_by_sizes(b, relu(b), 0),
    "reshaped by a fixed size": lambda b: reshaped_by_sizes(b, relu(b), 2),
    "reshaped by its own size": reshaped_by_own_size,
    "expanded": lambda b: b.op("Tanh", b.op("Expand", relu(b), b.op("Shape", "x"))),
}


@pytest.mark.parametrize("shape", [("batch", 16, 8), ("batch", "length", 8)], ids=str)
@pytest.mark.parametrize("name", DYNAMIC_GRAPHS)
def test_sizes_that_the_file_leaves_open_are_computed_in_every_run(builder, executed, name, shape):
    model = builder.model(DYNAMIC_GRAPHS[name](builder), shape=shape)

    graph = kernels_from_onnx(model, input_shapes={"x": SEQUENCE})

    assert Counter(kernel.ops for kernel in graph.kernels) == executed(model)
    assert all(kernel.kind != "unknown" for kernel in graph.kernels)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1"])
def test_the_steps_of_a_published_network_are_those_of_onnxruntime(executed, name):
    model = (LIGHT / f"light_{name}.onnx").read_bytes()

    graph = kernels_from_onnx(model)

    assert Counter(kernel.ops for kernel in graph.kernels) == executed(model)
    assert all(kernel.kind != "unknown" for kernel in graph.kernels)
