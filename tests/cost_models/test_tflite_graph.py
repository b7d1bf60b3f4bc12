"""Kernels read from TFLite files; LiteRT itself must load what is written here."""

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.files import read_kernels
from cost_models.kernels import NETWORK_INPUT
from cost_models.program import GraphError, UnknownShapeError, UnreadableModelError
from cost_models.tflite_graph import kernels_from_tflite

FLOAT, HALF, INT32, UINT8, INT8 = 0, 1, 2, 3, 9
NUMPY = {FLOAT: np.float32, HALF: np.float16, INT32: np.int32, UINT8: np.uint8, INT8: np.int8}
RELU6 = schema.ActivationFunctionType.RELU6
BUILTIN = schema.BuiltinOperator


class File:
    """Writes a TFLite file operator by operator."""

    def __init__(self):
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.codes, self.buffers = [], [schema.BufferT()]

    def tensor(self, *shape, kind=FLOAT, data=None, signature=None, variable=False):
        tensor = schema.TensorT()
        tensor.name = f"t{len(self.graph.tensors)}".encode()
        tensor.shape, tensor.type, tensor.isVariable = list(shape), kind, variable
        tensor.shapeSignature = signature
        if kind in {INT8, UINT8} or (kind == INT32 and data is not None and data.ndim > 1):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [0.5], [0]
        tensor.buffer = 0
        if data is not None:
            tensor.buffer = len(self.buffers)
            self.buffers.append(schema.BufferT())
            self.buffers[-1].data = np.frombuffer(data.tobytes(), np.uint8)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def input(self, *shape, **attributes):
        self.graph.inputs.append(self.tensor(*shape, **attributes))
        return self.graph.inputs[-1]

    def weights(self, *shape, kind=FLOAT):
        return self.tensor(*shape, kind=kind, data=np.ones(shape, NUMPY[kind]))

    def numbers(self, *values):
        return self.tensor(len(values), kind=INT32, data=np.array(values, np.int32))

    def op(self, code, inputs, shape, kind=FLOAT, options=None, custom=None, **fields):
        output = self.tensor(*shape, kind=kind)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.codes)
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in fields.items():
                setattr(operator.builtinOptions, name, value)
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
        entry.customCode, entry.version = custom, 1
        self.codes.append(entry)
        self.graph.operators.append(operator)
        return output

    def conv(self, source, weights, bias, shape, kind=FLOAT, **fields):
        fields = {"strideH": 1, "strideW": 1, **fields}
        inputs = [source, weights, bias]
        return self.op(BUILTIN.CONV_2D, inputs, shape, kind, "Conv2DOptions", **fields)

    def data(self, *outputs):
        self.graph.outputs = list(outputs)
        model = schema.ModelT()
        model.version, model.operatorCodes = 3, self.codes
        model.subgraphs, model.buffers = [self.graph], self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def loads(data):
    """Have LiteRT plan the file, so that what the tests read is a real model."""
    Interpreter(model_content=data).allocate_tensors()
    return data


def small_network():
    file = File()
    image = file.input(1, 8, 8, 4)
    wide = file.conv(
        image,
        file.weights(8, 3, 3, 4),
        file.weights(8),
        (1, 8, 8, 8),
        fusedActivationFunction=RELU6,
    )
    depthwise = file.op(
        BUILTIN.DEPTHWISE_CONV_2D,
        [wide, file.weights(1, 3, 3, 8), file.weights(8)],
        (1, 8, 8, 8),
        options="DepthwiseConv2DOptions",
        strideH=1,
        strideW=1,
        depthMultiplier=1,
    )
    narrow = file.conv(depthwise, file.weights(4, 1, 1, 8), file.weights(4), (1, 8, 8, 4))
    added = file.op(BUILTIN.ADD, [narrow, image], (1, 8, 8, 4), options="AddOptions")
    pooled = file.op(BUILTIN.MEAN, [added, file.numbers(1, 2)], (1, 4), options="ReducerOptions")
    dense = file.op(
        BUILTIN.FULLY_CONNECTED,
        [pooled, file.weights(10, 4), file.weights(10)],
        (1, 10),
        options="FullyConnectedOptions",
    )
    return file.data(file.op(BUILTIN.SOFTMAX, [dense], (1, 10), options="SoftmaxOptions", beta=1.0))


def test_a_network_is_read_with_its_classes_macs_bytes_and_sources():
    graph = kernels_from_tflite(loads(small_network()))

    assert [kernel.ops for kernel in graph.kernels] == [
        ("CONV_2D", "RELU6"),
        ("DEPTHWISE_CONV_2D",),
        ("CONV_2D",),
        ("ADD",),
        ("MEAN",),
        ("FULLY_CONNECTED",),
        ("SOFTMAX",),
    ]
    kinds = [kernel.kind for kernel in graph.kernels]
    assert kinds[:4] == ["conv", "depthwise", "pointwise", "elementwise"]
    assert kinds[4:] == ["reduce", "gemm", "normalise"]
    macs = [kernel.macs for kernel in graph.kernels]
    assert macs == [64 * 8 * 36, 64 * 8 * 9, 64 * 4 * 8, 0, 0, 40, 0]
    assert [kernel.reads for kernel in graph.kernels] == [
        (NETWORK_INPUT,),
        (0,),
        (1,),
        (2, NETWORK_INPUT),
        (3,),
        (4,),
        (5,),
    ]
    assert graph.kernels[0].weight_bytes == 4 * (8 * 36 + 8)
    assert graph.kernels[4].weight_bytes == 0
    assert graph.kernels[0].output_shape == (8, 8, 8)
    assert graph.input_bytes == graph.kernels[0].input_bytes == 4 * 64 * 4
    assert not any(kernel.integer for kernel in graph.kernels)


def test_8_bit_convolutions_are_integer_and_count_their_32_bit_bias():
    file = File()
    image = file.input(1, 4, 4, 2, kind=INT8)
    weights, bias = file.weights(3, 1, 1, 2, kind=INT8), file.weights(3, kind=INT32)
    output = file.conv(image, weights, bias, (1, 4, 4, 3), INT8)
    table = file.op(BUILTIN.LOGISTIC, [output], (1, 4, 4, 3), INT8)

    convolution, sigmoid = kernels_from_tflite(file.data(table)).kernels

    assert (convolution.kind, convolution.integer) == ("pointwise", True)
    assert convolution.weight_bytes == 6 + 12
    assert (convolution.input_bytes, convolution.output_bytes) == (32, 48)
    assert sigmoid.kind == "elementwise"


def test_an_operator_that_no_output_needs_is_not_executed():
    file = File()
    image = file.input(1, 4, 4, 2)
    file.op(BUILTIN.TANH, [image], (1, 4, 4, 2))
    output = file.op(BUILTIN.LOGISTIC, [image], (1, 4, 4, 2))

    (kernel,) = kernels_from_tflite(loads(file.data(output))).kernels

    assert (kernel.ops, kernel.kind) == (("LOGISTIC",), "transcendental")


def test_half_precision_weights_are_unpacked_once_and_count_as_floats():
    file = File()
    image = file.input(1, 4, 4, 2)
    stored = file.weights(3, 1, 1, 2, kind=HALF)
    weights = file.op(BUILTIN.DEQUANTIZE, [stored], (3, 1, 1, 2), options="DequantizeOptions")
    output = file.conv(image, weights, file.weights(3), (1, 4, 4, 3))

    (kernel,) = kernels_from_tflite(loads(file.data(output))).kernels

    assert (kernel.ops, kernel.weight_bytes) == (("CONV_2D",), 4 * (6 + 3))


def test_a_reshape_is_seen_through():
    file = File()
    image = file.input(1, 4, 4, 2)
    flat = file.op(BUILTIN.RESHAPE, [image, file.numbers(1, 32)], (1, 32))
    output = file.op(BUILTIN.TANH, [flat], (1, 32))

    (kernel,) = kernels_from_tflite(loads(file.data(output))).kernels

    assert (kernel.ops, kernel.reads, kernel.input_bytes) == (("TANH",), (NETWORK_INPUT,), 128)


def test_a_transposed_convolution_multiplies_for_each_input_element():
    file = File()
    image = file.input(1, 4, 4, 2)
    output = file.op(
        BUILTIN.TRANSPOSE_CONV,
        [file.numbers(1, 8, 8, 3), file.weights(3, 2, 2, 2), image],
        (1, 8, 8, 3),
        options="TransposeConvOptions",
        strideH=2,
        strideW=2,
    )

    (kernel,) = kernels_from_tflite(loads(file.data(output))).kernels

    assert (kernel.kind, kernel.macs) == ("conv", 16 * 2 * 3 * 4)
    assert kernel.weight_bytes == 4 * 3 * 8


def test_a_product_of_activations_is_a_matmul():
    file = File()
    left = file.input(1, 4, 6)
    right = file.op(BUILTIN.TANH, [left], (1, 4, 6))
    output = file.op(
        BUILTIN.BATCH_MATMUL, [left, right], (1, 4, 4), options="BatchMatMulOptions", adjY=True
    )

    _, kernel = kernels_from_tflite(loads(file.data(output))).kernels

    assert (kernel.kind, kernel.macs, kernel.reads) == ("matmul", 4 * 4 * 6, (NETWORK_INPUT, 0))


def test_a_recurrent_operator_counts_its_gates_and_steps():
    file = File()
    sequence = file.input(1, 7, 3)
    gates = [file.weights(5, 3) for _ in range(4)] + [file.weights(5, 5) for _ in range(4)]
    biases = [file.weights(5) for _ in range(4)]
    states = [file.tensor(1, 5, variable=True) for _ in range(2)]
    inputs = [sequence, *gates, -1, -1, -1, *biases, -1, -1, *states]
    output = file.op(
        BUILTIN.UNIDIRECTIONAL_SEQUENCE_LSTM,
        inputs,
        (1, 7, 5),
        options="UnidirectionalSequenceLSTMOptions",
        fusedActivationFunction=schema.ActivationFunctionType.TANH,
    )

    (kernel,) = kernels_from_tflite(loads(file.data(output))).kernels

    assert (kernel.kind, kernel.steps) == ("recurrent", 7)
    assert kernel.macs == 7 * 4 * 5 * (3 + 5)
    assert kernel.reads == (NETWORK_INPUT,)
    assert kernel.weight_bytes == 4 * 4 * (5 * 3 + 5 * 5 + 5)


def test_a_custom_operator_is_unknown_and_named():
    file = File()
    image = file.input(1, 4)
    name = b"TFLite_Detection_PostProcess"
    output = file.op(BUILTIN.CUSTOM, [image], (1, 10), custom=name)

    (kernel,) = kernels_from_tflite(file.data(output)).kernels

    assert (kernel.kind, kernel.ops) == ("unknown", ("TFLite_Detection_PostProcess",))
    assert (kernel.input_bytes, kernel.output_bytes) == (16, 40)


def test_an_open_batch_counts_as_one():
    file = File()
    image = file.input(1, 4, signature=[-1, 4])
    output = file.op(BUILTIN.TANH, [image], (1, 4))

    assert kernels_from_tflite(file.data(output)).input_bytes == 16


def test_an_open_size_names_the_input_and_what_to_do():
    file = File()
    image = file.input(1, 1, 4, signature=[-1, -1, 4])
    data = file.data(file.op(BUILTIN.TANH, [image], (1, 1, 4)))

    with pytest.raises(UnknownShapeError, match="input 't0' leaves dimension 1 open"):
        kernels_from_tflite(data)


def test_given_shapes_can_only_confirm_the_file():
    data = small_network()

    assert kernels_from_tflite(data, input_shapes={"t0": (1, 8, 8, 4)}) == kernels_from_tflite(data)
    with pytest.raises(GraphError, match="convert the model anew"):
        kernels_from_tflite(data, input_shapes={"t0": (1, 16, 8, 4)})
    with pytest.raises(GraphError, match="no input 'image'"):
        kernels_from_tflite(data, input_shapes={"image": (1, 8, 8, 4)})


def test_a_tensor_that_nobody_writes_is_named():
    file = File()
    image = file.input(1, 4)
    output = file.op(BUILTIN.ADD, [image, file.tensor(1, 4)], (1, 4), options="AddOptions")

    with pytest.raises(GraphError, match="ADD reads tensor 't1' before"):
        kernels_from_tflite(file.data(output))


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x00" * 4 + b"TFL3", b"not a model"], ids=repr)
def test_bytes_that_are_no_model_are_refused(data):
    with pytest.raises(UnreadableModelError):
        kernels_from_tflite(data)


NETWORK = small_network()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(data):
    damaged = bytearray(NETWORK)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(8, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(8, len(damaged)))

    for content in (bytes(damaged), bytes(damaged[:cut])):
        try:
            graph = kernels_from_tflite(content)
        except GraphError:
            continue
        assert all(kernel.input_bytes >= 0 for kernel in graph.kernels)


def test_a_file_is_read_by_its_suffix(tmp_path):
    path = tmp_path / "network.TFLITE"
    path.write_bytes(NETWORK)
    other = tmp_path / "network.pt"
    other.write_bytes(NETWORK)

    assert read_kernels(path) == kernels_from_tflite(NETWORK)
    with pytest.raises(UnreadableModelError, match=r"neither an \.onnx nor a \.tflite file"):
        read_kernels(other)
    with pytest.raises(FileNotFoundError):
        read_kernels(tmp_path / "absent.tflite")
