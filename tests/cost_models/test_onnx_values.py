"""Small constants, against what onnxruntime computes."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.defs import get_schema

from cost_models.onnx_values import MOST_ELEMENTS, value_of

INTEGERS = np.array([[7, -7, 0], [5, 2, -3]])
FLOATS = np.array([[1.5, -2.5], [0.25, 4.0]], np.float32)

CASES = [
    ("Abs", [INTEGERS], {}),
    ("Add", [INTEGERS, np.array([1, 2, 3])], {}),
    ("Ceil", [FLOATS], {}),
    ("Concat", [INTEGERS, INTEGERS], {"axis": 1}),
    ("Div", [INTEGERS, np.array(2)], {}),
    ("Div", [INTEGERS, np.array(-2)], {}),
    ("Div", [FLOATS, np.float32(4)], {}),
    ("Equal", [INTEGERS, np.array(7)], {}),
    ("Expand", [np.array([[1], [2]]), np.array([2, 3])], {}),
    ("Floor", [FLOATS], {}),
    ("Gather", [INTEGERS, np.array([1, -1])], {"axis": 1}),
    ("Gather", [INTEGERS, np.array(0)], {}),
    ("Greater", [INTEGERS, np.array(1)], {}),
    ("Identity", [INTEGERS], {}),
    ("Less", [INTEGERS, np.array(1)], {}),
    ("Max", [INTEGERS, np.array(1), np.array(2)], {}),
    ("Min", [INTEGERS, np.array(1)], {}),
    ("Mod", [INTEGERS, np.array(4)], {}),
    ("Mod", [INTEGERS, np.array(4)], {"fmod": 1}),
    ("Mul", [INTEGERS, np.array(3)], {}),
    ("Neg", [INTEGERS], {}),
    ("Not", [np.array([True, False])], {}),
    ("Pow", [np.array([4.0], np.float32), np.array(0.5, np.float32)], {}),
    ("Range", [np.array(2), np.array(11), np.array(3)], {}),
    ("ReduceMax", [INTEGERS], {"axes": [1]}),
    ("ReduceProd", [INTEGERS], {"axes": [0], "keepdims": 0}),
    ("ReduceSum", [INTEGERS, np.array([0])], {}),
    ("Reshape", [INTEGERS, np.array([0, -1])], {}),
    ("Round", [FLOATS], {}),
    ("Slice", [INTEGERS, np.array([1]), np.array([2**62]), np.array([1])], {}),
    (
        "Slice",
        [INTEGERS, np.array([-1]), np.array([-(2**62)]), np.array([1]), np.array([-1])],
        {},
    ),
    ("Sqrt", [np.array(16, np.float32)], {}),
    ("Squeeze", [INTEGERS[None], np.array([0])], {}),
    ("Sub", [INTEGERS, np.array(3)], {}),
    ("Transpose", [INTEGERS], {}),
    ("Transpose", [INTEGERS[None]], {"perm": [2, 0, 1]}),
    ("Unsqueeze", [INTEGERS, np.array([0, 3])], {}),
    ("Where", [INTEGERS > 0, INTEGERS, np.array(1)], {}),
]


def computed(op, inputs, attributes):
    names = [f"i{index}" for index in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], **attributes)
    kinds = [helper.np_dtype_to_tensor_dtype(value.dtype) for value in inputs]
    logical = op in {"Equal", "Greater", "Less", "Not"}
    made = kinds[1] if op == "Where" else 9 if logical else kinds[0]
    graph = helper.make_graph(
        [node],
        "g",
        [],
        [helper.make_tensor_value_info("y", made, None)],
        [numpy_helper.from_array(value, name) for value, name in zip(inputs, names, strict=True)],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {})[0]


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=lambda part: str(part)[:20])
def test_a_small_constant_is_what_onnxruntime_computes(op, inputs, attributes):
    arrays = [np.asarray(value) for value in inputs]
    wanted = computed(op, arrays, attributes)

    found = value_of(op, arrays, attributes, wanted.shape)

    assert found is not None
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_what_is_large_is_not_computed():
    size = MOST_ELEMENTS + 1
    huge = [np.array(0), np.array(size), np.array(1)]

    assert value_of("Range", huge, {}, (size,)) is None
    assert value_of("Range", [np.array(0), np.array(2**62), np.array(1)], {}, (3,)) is None
    assert value_of("Expand", [np.array([1]), np.array([2**40])], {}, (2**40,)) is None


def test_a_result_of_another_shape_than_inferred_is_no_result():
    assert value_of("Add", [np.array([1]), np.array([2])], {}, (2,)) is None


def test_what_cannot_be_computed_is_not_known():
    assert value_of("Div", [np.array(1), np.array([1, 2, 3])], {}, (2,)) is None
    assert value_of("Gather", [np.array([1]), np.array(9)], {}, ()) is None
    assert value_of("Conv", [np.array([1])], {}, (1,)) is None


def test_every_case_is_a_standard_operator():
    assert all(get_schema(op, 17) is not None for op, _, _ in CASES)
