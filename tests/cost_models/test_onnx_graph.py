"""Kernels read from ONNX files, against onnxruntime's own optimised graphs and by hand."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from cost_models.kernels import NETWORK_INPUT
from cost_models.onnx_graph import kernels_from_onnx
from cost_models.program import GraphError, UnknownShapeError, UnreadableModelError

if TYPE_CHECKING:
    from tests.cost_models.conftest import Builder


def conv_norm_relu_chain(b: "Builder") -> str:
    first = b.op("Relu", b.norm(b.conv("x", 8, 16, bias=False, strides=[2, 2]), 16))
    return b.op("Relu", b.norm(b.conv(first, 16, 8), 8))


def residual_block(b: "Builder") -> str:
    first = b.op("Relu", b.norm(b.conv("x", 8, 8), 8))
    return b.op("Relu", b.op("Add", b.norm(b.conv(first, 8, 8), 8), "x"))


def residual_of_convolutions(b: "Builder") -> str:
    return b.op("Relu", b.op("Add", b.conv("x", 8, 8), b.conv("x", 8, 8, kernel=1)))


def depthwise_separable(b: "Builder") -> str:
    wide = b.relu6(b.norm(b.conv("x", 8, 8, groups=8, bias=False), 8))
    return b.norm(b.conv(wide, 8, 16, kernel=1, bias=False), 16)


def squeeze_excite(b: "Builder") -> str:
    wide = b.op("HardSwish", b.conv("x", 8, 8))
    squeezed = b.op("Relu", b.conv(b.op("GlobalAveragePool", wide), 8, 2, kernel=1))
    gate = b.op("HardSigmoid", b.conv(squeezed, 2, 8, kernel=1), alpha=1 / 6, beta=0.5)
    return b.conv(b.op("Mul", wide, gate), 8, 8, kernel=1)


def swish(b: "Builder") -> str:
    wide = b.norm(b.conv("x", 8, 8), 8)
    return b.op("Mul", b.op("Sigmoid", wide), wide)


def head(b: "Builder") -> str:
    pooled = b.op("Flatten", b.op("GlobalAveragePool", b.op("Relu", b.conv("x", 8, 8))))
    return b.op("Softmax", b.gemm(b.op("Relu", b.gemm(pooled, 8, 8))))


def product_head(b: "Builder") -> str:
    flat = b.op("Squeeze", b.op("GlobalAveragePool", "x"), b.constant(np.array([2, 3])))
    hidden = b.op("Add", b.op("MatMul", flat, b.weights(8, 4)), b.weights(4))
    return b.op("MatMul", b.op("Tanh", hidden), b.weights(4, 2))


def reshape_by_shape(b: "Builder") -> str:
    pooled = b.op("GlobalAveragePool", b.conv("x", 8, 8))
    batch = b.op("Gather", b.op("Shape", pooled), b.constant(np.array([0])))
    target = b.op("Concat", batch, b.constant(np.array([-1])), axis=0)
    return b.gemm(b.op("Reshape", pooled, target))


def cell_of_nasbench201(b: "Builder") -> str:
    def edge(source: str, kernel: int) -> str:
        return b.norm(b.conv(b.op("Relu", source), 8, 8, kernel=kernel, bias=False), 8)

    def pool(source: str) -> str:
        return b.op("AveragePool", source, kernel_shape=[3, 3], pads=[1] * 4)

    start = b.conv("x", 8, 8)
    first = edge(start, 3)
    second = b.op("Add", pool(start), edge(first, 1))
    third = b.op("Add", b.op("Add", pool(start), edge(first, 3)), edge(second, 3))
    return b.op("Relu", b.norm(third, 8))


def constants_folded_into_weights(b: "Builder") -> str:
    padding = b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    padded = b.op("Pad", "x", padding, b.bound(0))
    scaled = b.op("Mul", b.op("Conv", padded, b.weights(8, 8, 3, 3)), b.weights(8, 1, 1))
    return b.op("LeakyRelu", b.op("Add", scaled, b.weights(1, 8, 1, 1)), alpha=0.1)


def no_operations(b: "Builder") -> str:
    kept = b.op("Dropout", b.op("Identity", b.conv("x", 8, 8)))
    return b.op("Identity", b.op("Relu", b.op("Cast", kept, to=TensorProto.FLOAT)))


def operator_that_nobody_reads(b: "Builder") -> str:
    b.conv("x", 8, 8)
    return b.op("Relu", b.conv("x", 8, 8))


def branch_times_zero(b: "Builder") -> str:
    zeroed = b.op("Mul", b.op("Sigmoid", "x"), b.bound(0))
    return b.op("Add", b.conv(zeroed, 8, 8), "x")


def two_readers(b: "Builder") -> str:
    shared = b.conv("x", 8, 8)
    return b.op("Concat", b.op("Relu", shared), shared, axis=1)


def what_does_not_fuse(b: "Builder") -> str:
    elu = b.op("Elu", b.conv("x", 8, 8))
    full = b.op("Mul", b.conv(elu, 8, 8), b.weights(1, 8, 8, 8))
    one = b.op("Add", b.conv(full, 8, 8), b.weights(1))
    swapped = b.op("Mul", b.weights(8, 1, 1), b.conv(one, 8, 8))
    return b.op("Relu", b.op("Relu", b.conv(swapped, 8, 8)))


def relu_and_bounds(b: "Builder") -> str:
    return b.relu6(b.op("Relu", b.conv(b.op("Relu", b.relu6("x")), 8, 8)))


def transposed_convolution(b: "Builder") -> str:
    return b.op("Relu", b.op("ConvTranspose", "x", b.weights(8, 4, 2, 2), strides=[2, 2]))


def one_branch_of_each_move(b: "Builder") -> str:
    scale = b.constant(np.array([1, 1, 2, 2], np.float32))
    larger = b.op("Resize", "x", "", scale)
    return b.op("MaxPool", b.op("Transpose", larger, perm=[0, 1, 3, 2]), kernel_shape=[2, 2])


GRAPHS: tuple[Callable[["Builder"], str], ...] = (
    conv_norm_relu_chain,
    residual_block,
    residual_of_convolutions,
    depthwise_separable,
    squeeze_excite,
    swish,
    head,
    product_head,
    reshape_by_shape,
    cell_of_nasbench201,
    constants_folded_into_weights,
    no_operations,
    operator_that_nobody_reads,
    branch_times_zero,
    two_readers,
    what_does_not_fuse,
    relu_and_bounds,
    transposed_convolution,
    one_branch_of_each_move,
)


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_the_kernels_are_the_steps_that_onnxruntime_executes(builder, executed, build):
    model = builder.model(build(builder))

    found = Counter(kernel.ops for kernel in kernels_from_onnx(model).kernels)

    assert found == executed(model)


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Mish"])
@pytest.mark.parametrize("leader", ["Conv", "Gemm"])
def test_activations_are_fused_where_onnxruntime_fuses_them(builder, executed, leader, activation):
    shape: tuple[int, ...]
    if leader == "Conv":
        shape, led = (1, 8, 8, 8), builder.conv("x", 8, 8)
    else:
        shape, led = (1, 8), builder.gemm("x")
    model = builder.model(builder.op(activation, led), shape=shape, opset=18)

    found = Counter(kernel.ops for kernel in kernels_from_onnx(model).kernels)

    assert found == executed(model)


def test_a_sum_after_a_convolution_is_a_kernel_of_its_own(kernels):
    found = Counter(kernel.ops for kernel in kernels(residual_of_convolutions).kernels)

    assert found == {("Conv",): 2, ("Add",): 1, ("Relu",): 1}


def test_a_folded_norm_leaves_a_bias_of_one_number_a_channel(kernels):
    graph = kernels(lambda b: b.op("Relu", b.norm(b.conv("x", 8, 16, bias=False), 16)))

    (kernel,) = graph.kernels
    assert kernel.kind == "conv"
    assert kernel.ops == ("Conv", "Relu")
    assert kernel.macs == 8 * 8 * 16 * 9 * 8
    assert kernel.weight_bytes == 4 * (16 * 8 * 9 + 16)
    assert kernel.input_bytes == graph.input_bytes == 4 * 8 * 8 * 8
    assert kernel.output_bytes == 4 * 16 * 8 * 8
    assert kernel.output_shape == (16, 8, 8)
    assert kernel.reads == (NETWORK_INPUT,)


def test_bounds_axes_and_shapes_are_no_weights(kernels):
    graph = kernels(lambda b: b.relu6(b.conv("x", 8, 8, bias=False)))

    assert graph.weight_bytes == 4 * 8 * 8 * 9


def test_kinds_follow_groups_and_window(kernels):
    def build(b):
        depthwise = b.conv("x", 8, 8, kernel=1, groups=8)
        grouped = b.conv(depthwise, 8, 8, groups=2)
        return b.conv(grouped, 8, 4, kernel=1)

    found = kernels(build).kernels

    assert [kernel.kind for kernel in found] == ["depthwise", "grouped", "pointwise"]
    assert [kernel.macs for kernel in found] == [64 * 8, 64 * 8 * 9 * 4, 64 * 4 * 8]


def test_a_transposed_convolution_multiplies_for_each_input_element(kernels):
    convolution = kernels(transposed_convolution).kernels[0]

    assert convolution.macs == 8 * 8 * 8 * 4 * 2 * 2
    assert convolution.output_shape == (4, 16, 16)


def test_reads_see_through_views_and_name_each_source_once(kernels):
    def build(b):
        flat = b.op("Flatten", b.op("GlobalAveragePool", "x"))
        return b.op("Add", b.gemm(flat, 8, 8), b.op("Mul", flat, flat))

    found = kernels(build).kernels

    assert [kernel.reads for kernel in found] == [(NETWORK_INPUT,), (0,), (0,), (1, 2)]
    assert found[2].input_bytes == 4 * 8
    assert found[1].macs == 8 * 8
    assert found[1].weight_bytes == 4 * (8 * 8 + 8)


def test_an_operator_of_another_domain_is_charged_by_bytes_and_unknown(builder):
    made = helper.make_node("Mystery", ["x"], ["y"], domain="plant.example")
    builder.nodes.append(made)
    model = onnx.load_from_string(builder.model("y", domains=("plant.example",)))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 8, 8])
    )

    (kernel,) = kernels_from_onnx(model.SerializeToString()).kernels

    assert kernel.kind == "unknown"
    assert kernel.input_bytes + kernel.output_bytes == 4 * 64 * (8 + 2)


def test_what_follows_an_unknown_shape_is_unknown_and_charged_by_known_bytes(builder):
    builder.nodes.append(helper.make_node("Mystery", ["x"], ["y"], domain="plant.example"))
    model = builder.model(builder.op("Add", "x", "y"), domains=("plant.example",))

    first, second = kernels_from_onnx(model).kernels

    assert (first.kind, second.kind) == ("unknown", "unknown")
    assert first.ops == ("plant.example:Mystery",)
    assert (first.input_bytes, first.output_bytes) == (4 * 512, 0)
    assert (second.input_bytes, second.output_bytes) == (4 * 512, 0)
    assert second.reads == (NETWORK_INPUT, 0)


def test_a_symbolic_batch_counts_as_one(builder):
    def build(b):
        return b.gemm(b.op("Flatten", b.op("GlobalAveragePool", b.conv("x", 8, 8))))

    output = build(builder)

    symbolic = kernels_from_onnx(builder.model(output, shape=("batch", 8, 8, 8)))

    assert symbolic == kernels_from_onnx(builder.model(output))


def test_a_symbolic_height_names_the_input_and_the_way_out(builder):
    model = builder.model(builder.conv("x", 8, 8), shape=("batch", 8, "height", 8))

    with pytest.raises(UnknownShapeError, match=r"input 'x' .* dimension 2 \(height\)"):
        kernels_from_onnx(model)

    assert kernels_from_onnx(model, input_shapes={"x": (1, 8, 4, 4)}).macs == 4 * 4 * 8 * 9 * 8


def test_a_shape_given_for_an_input_that_is_not_there_names_those_that_are(builder):
    model = builder.model(builder.conv("x", 8, 8))

    with pytest.raises(GraphError, match="no input 'image'; its inputs are 'x'"):
        kernels_from_onnx(model, input_shapes={"image": (1, 8, 4, 4)})


def test_a_given_size_below_one_is_refused(builder):
    model = builder.model(builder.conv("x", 8, 8))

    with pytest.raises(GraphError, match="size below 1"):
        kernels_from_onnx(model, input_shapes={"x": (1, 8, 0, 4)})


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 8, 8, 8, 8)], ids=str)
def test_a_given_shape_of_another_rank_is_refused(builder, shape):
    model = builder.model(builder.conv("x", 8, 8))

    with pytest.raises(GraphError, match="has 4 dimensions"):
        kernels_from_onnx(model, input_shapes={"x": shape})


def test_a_given_shape_that_contradicts_the_weights_is_refused(builder):
    model = builder.model(builder.gemm("x"), shape=(1, 8))

    with pytest.raises(GraphError):
        kernels_from_onnx(model, input_shapes={"x": (1, 9)})


@pytest.mark.parametrize(
    "data",
    [b"", b"not a model", b"\x08\x08" * 7, bytes(range(256))],
    ids=["empty", "text", "x", "b"],
)
def test_bytes_that_are_no_model_are_refused(data):
    with pytest.raises(UnreadableModelError, match="the model is not an ONNX file"):
        kernels_from_onnx(data)


def test_a_truncated_file_is_refused_by_name(builder, tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(builder.model(head(builder))[:-100])

    with pytest.raises(UnreadableModelError, match=r"cut\.onnx"):
        kernels_from_onnx(path)


def test_a_tensor_that_nobody_writes_is_named(builder):
    model = builder.model(builder.op("Relu", "ghost"))

    with pytest.raises(GraphError, match="ghost"):
        kernels_from_onnx(model)


def test_an_operator_without_its_inputs_is_named(builder):
    model = builder.model(builder.op("Conv", "x"))

    with pytest.raises(UnreadableModelError, match="Conv"):
        kernels_from_onnx(model)


def test_weights_that_no_integer_kernel_takes_in_are_dequantised_in_every_run(kernels):
    def build(b):
        stored = b.constant(np.ones((8, 8, 3, 3), np.int8))
        scale, zero = b.constant(np.float32(0.1)), b.constant(np.int8(0))
        weights = b.op("DequantizeLinear", stored, scale, zero)
        return b.op("Conv", "x", weights, pads=[1] * 4)

    dequantise, convolution = kernels(build).kernels

    assert (dequantise.weight_bytes, dequantise.reads) == (8 * 8 * 9, ())
    assert (convolution.weight_bytes, set(convolution.reads)) == (0, {0, NETWORK_INPUT})
    assert not convolution.integer


def test_weights_outside_the_file_need_not_be_there(builder, tmp_path):
    model = onnx.load_from_string(builder.model(builder.conv("x", 8, 8)))
    wanted = kernels_from_onnx(model.SerializeToString())
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    for path in tmp_path.iterdir():
        if path.suffix != ".onnx":
            path.unlink()

    assert kernels_from_onnx(tmp_path / "m.onnx") == wanted


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(builder, data):
    builder.nodes.clear()
    builder.constants.clear()
    damaged = bytearray(builder.model(reshape_by_shape(builder)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))

    try:
        graph = kernels_from_onnx(bytes(damaged))
    except GraphError:
        return
    assert all(kernel.input_bytes >= 0 for kernel in graph.kernels)
