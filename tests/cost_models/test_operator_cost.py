"""Classes, multiply-accumulates, steps and bytes of single operators, by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cost_models.kernels import NETWORK_INPUT
from cost_models.onnx_graph import kernels_from_onnx
from cost_models.program import UnknownShapeError


def kernel_of(builder, output, shape, opset=17):
    (kernel,) = kernels_from_onnx(builder.model(output, shape=shape, opset=opset)).kernels
    return kernel


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("Relu", "elementwise"),
        ("HardSigmoid", "elementwise"),
        ("LeakyRelu", "elementwise"),
        ("Sqrt", "elementwise"),
        ("Sigmoid", "transcendental"),
        ("Tanh", "transcendental"),
        ("Erf", "transcendental"),
        ("Exp", "transcendental"),
        ("Log", "transcendental"),
        ("Softplus", "transcendental"),
        ("Elu", "transcendental"),
        ("Softmax", "normalise"),
        ("LogSoftmax", "normalise"),
        ("LpNormalization", "normalise"),
        ("MeanVarianceNormalization", "normalise"),
        ("GlobalAveragePool", "reduce"),
        ("ReduceMax", "reduce"),
        ("ArgMax", "reduce"),
        ("Transpose", "move"),
    ],
)
def test_each_operator_has_its_class_and_reads_and_writes_its_bytes(builder, op, kind):
    kernel = kernel_of(builder, builder.op(op, "x"), (1, 4, 6, 6))

    assert kernel.kind == kind
    assert kernel.macs == 0
    assert kernel.input_bytes == 4 * 4 * 36
    assert kernel.reads == (NETWORK_INPUT,)


@pytest.mark.parametrize(
    ("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)], ids=["lstm", "gru", "rnn"]
)
@pytest.mark.parametrize("directions", [1, 2])
def test_a_recurrent_operator_multiplies_in_every_step(builder, op, gates, directions):
    weights = builder.weights(directions, gates * 5, 3)
    recurrence = builder.weights(directions, gates * 5, 5)
    direction = "bidirectional" if directions == 2 else "forward"
    output = builder.op(op, "x", weights, recurrence, hidden_size=5, direction=direction)

    kernel = kernel_of(builder, output, (7, 1, 3))

    assert kernel.kind == "recurrent"
    assert kernel.steps == 7 * directions
    assert kernel.macs == 7 * directions * gates * 5 * (3 + 5)
    assert kernel.weight_bytes == 4 * directions * gates * 5 * (3 + 5)
    assert kernel.output_shape == (directions, 1, 5)


def test_a_product_of_activations_is_no_product_with_weights(builder):
    output = builder.op("MatMul", "x", builder.op("Relu", "x"))

    _, product = kernels_from_onnx(builder.model(output, shape=(1, 6, 6))).kernels

    assert (product.kind, product.macs, product.weight_bytes) == ("matmul", 6**3, 0)


def test_a_product_with_weights_counts_its_columns_and_rows(builder):
    kernel = kernel_of(builder, builder.op("MatMul", "x", builder.weights(6, 9)), (1, 5, 6))

    assert (kernel.kind, kernel.macs, kernel.weight_bytes) == ("gemm", 5 * 6 * 9, 4 * 6 * 9)


@pytest.mark.parametrize(
    ("equation", "macs"),
    [
        ("bij,bkj->bik", 4 * 4 * 6),
        ("bij, bkj -> bik", 4 * 4 * 6),
        ("...ij,...kj->...ik", 4 * 4 * 6),
        ("bij,bij->b", 4 * 6),
    ],
)
def test_an_einsum_multiplies_the_sizes_of_its_indices(builder, equation, macs):
    output = builder.op("Einsum", "x", "x", equation=equation)

    kernel = kernel_of(builder, output, (1, 4, 6))

    assert (kernel.kind, kernel.macs) == ("matmul", macs)


def test_convolutions_of_one_and_three_dimensions_multiply_their_windows(builder):
    line = kernel_of(builder, builder.op("Conv", "x", builder.weights(4, 8, 3)), (1, 8, 16))

    assert (line.kind, line.macs, line.output_shape) == ("conv", 14 * 4 * 3 * 8, (4, 14))

    builder.nodes.clear()
    volume = builder.op("Conv", "x", builder.weights(4, 8, 3, 3, 3))

    assert kernel_of(builder, volume, (1, 8, 4, 4, 4)).macs == 8 * 4 * 27 * 8


def test_attention_multiplies_queries_by_keys_and_weights_by_values(builder):
    kernel = kernel_of(builder, builder.op("Attention", "x", "x", "x"), (1, 2, 5, 4), opset=23)

    assert (kernel.kind, kernel.macs) == ("matmul", 2 * (2 * 5 * 5 * 4))


def test_a_lookup_counts_its_whole_table_and_only_the_rows_it_writes(builder):
    rows = builder.constant(np.array([1, 2]))
    output = builder.op("Add", builder.op("Gather", builder.weights(100, 8), "i"), "x")
    del rows
    model = onnx.load_from_string(builder.model(output, shape=(1, 2, 8)))
    model.graph.input.append(helper.make_tensor_value_info("i", TensorProto.INT64, (1, 2)))

    lookup, _ = kernels_from_onnx(model.SerializeToString()).kernels

    assert (lookup.kind, lookup.weight_bytes) == ("move", 4 * 800)
    assert (lookup.input_bytes, lookup.output_bytes) == (16, 4 * 16)


def test_an_integer_convolution_says_so(builder):
    image = builder.op("Cast", "x", to=TensorProto.UINT8)
    output = builder.op("ConvInteger", image, builder.constant(np.ones((4, 8, 3, 3), np.uint8)))

    _, kernel = kernels_from_onnx(builder.model(output, shape=(1, 8, 4, 4))).kernels

    assert (kernel.integer, kernel.macs, kernel.weight_bytes) == (True, 4 * 4 * 72, 4 * 72)
    assert (kernel.input_bytes, kernel.output_bytes) == (8 * 16, 4 * 16)


def branch(name, output):
    return helper.make_graph(
        [helper.make_node(name, ["x"], [output])],
        name,
        [],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
    )


def test_a_branch_that_depends_on_data_is_unknown_and_charged_with_what_it_reads(builder):
    builder.nodes.append(helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0))
    builder.nodes.append(helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL))
    output = builder.op("If", "c", then_branch=branch("Relu", "t"), else_branch=branch("Abs", "e"))

    *_, kernel = kernels_from_onnx(builder.model(output, shape=(1, 8))).kernels

    assert kernel.kind == "unknown"
    assert (kernel.input_bytes, kernel.output_bytes) == (1 + 32, 32)


def test_a_branch_whose_condition_is_constant_is_the_operators_in_it(builder):
    condition = builder.constant(np.array(1, bool))
    chosen = builder.op(
        "If", condition, then_branch=branch("Relu", "t"), else_branch=branch("Abs", "e")
    )

    kernel = kernel_of(builder, builder.op("Identity", chosen), (1, 8))

    assert (kernel.ops, kernel.kind) == (("Relu",), "elementwise")


def test_sizes_that_depend_on_data_are_unknown_and_no_error(builder):
    output = builder.op("Cast", builder.op("NonZero", "x"), to=TensorProto.FLOAT)

    first, second = kernels_from_onnx(builder.model(output, shape=(1, 8))).kernels

    assert (first.kind, first.input_bytes, first.output_bytes) == ("unknown", 32, 0)
    assert (second.kind, second.reads) == ("unknown", (0,))


def test_a_shape_computed_from_the_input_is_folded(builder):
    """The chain that exporters write: sizes times a constant, half of it, and a Reshape."""
    shape = builder.op("Shape", "x")
    sizes = [builder.op("Gather", shape, builder.constant(np.array(i))) for i in range(3)]
    half = builder.op("Div", sizes[2], builder.constant(np.array(2)))
    axes = builder.constant(np.array([0]))
    parts = [sizes[0], sizes[1], half]
    lifted = [builder.op("Unsqueeze", part, axes) for part in parts]
    target = builder.op("Concat", *lifted, builder.constant(np.array([2])), axis=0)
    output = builder.op("Softmax", builder.op("Reshape", "x", target))

    kernel = kernel_of(builder, output, (1, 4, 6))

    assert kernel.ops == ("Softmax",)
    assert kernel.output_shape == (4, 3, 2)


def test_half_bytes_are_counted_together(builder):
    values = helper.make_tensor("w", TensorProto.INT4, (3, 3), [1] * 9)
    builder.constants.append(values)
    weights = builder.op("DequantizeLinear", "w", builder.bound(0.1))
    model = builder.model(
        builder.op(
            "Conv", "x", builder.op("Reshape", weights, builder.constant(np.array([1, 1, 3, 3])))
        ),
        shape=(1, 1, 4, 4),
        opset=21,
    )

    dequantise, _ = kernels_from_onnx(model).kernels

    assert dequantise.weight_bytes == 5


def test_an_input_without_a_rank_asks_for_its_shape(builder):
    model = onnx.load_from_string(builder.model(builder.op("Relu", "x")))
    model.graph.input[0].type.tensor_type.ClearField("shape")

    with pytest.raises(UnknownShapeError, match="'x' has no shape"):
        kernels_from_onnx(model.SerializeToString())

    (kernel,) = kernels_from_onnx(model.SerializeToString(), input_shapes={"x": (1, 3)}).kernels
    assert kernel.output_bytes == 12


def test_files_that_onnxruntime_optimised_are_read_with_their_operators(builder, tmp_path):
    """A float network, as onnxruntime itself writes it after fusion."""
    import onnxruntime

    wide = builder.op("Relu", builder.op("Conv", "x", builder.weights(8, 8, 3, 3)))
    rows = builder.op("Flatten", builder.op("GlobalAveragePool", wide))
    model = builder.model(builder.op("Relu", builder.gemm(rows)))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.graph_optimization_level = level
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    before = kernels_from_onnx(model)
    after = kernels_from_onnx(tmp_path / "optimised.onnx")

    assert [k.ops for k in after.kernels] == [k.ops for k in before.kernels]
    assert (after.macs, after.weight_bytes) == (before.macs, before.weight_bytes)


def test_a_named_size_that_is_known_for_one_input_holds_for_the_others(builder):
    model = onnx.load_from_string(builder.model(builder.op("Add", "x", "s"), shape=("b", "n", 4)))
    state = helper.make_tensor_value_info("s", TensorProto.FLOAT, ("b", "n", 4))
    model.graph.input.append(state)
    data = model.SerializeToString()

    (kernel,) = kernels_from_onnx(data, input_shapes={"x": (3, 5, 4)}).kernels

    assert kernel.input_bytes == 2 * 4 * 3 * 5 * 4
