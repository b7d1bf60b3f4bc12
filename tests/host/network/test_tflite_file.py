"""TFLite files operator by operator: what is written is read back and runs."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from host.network.tflite_file import OMITTED, TfliteFile
from host.network.tflite_tables import Quantisation


def run(data: bytes, x):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    (found,) = interpreter.get_output_details()
    return interpreter.get_tensor(found["index"])


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40))
def test_constants_come_back_as_they_were_written(values):
    file = TfliteFile()
    x = file.input(1, 4)
    constant = file.constant(np.array(values, np.int32))
    data = file.finish(file.operator("ABS", [x], (1, 4)))

    interpreter = Interpreter(model_content=data)

    assert interpreter.get_tensor(constant).tolist() == values
    assert file.shape(constant) == (len(values),)


def test_weights_lie_where_vectors_can_read_them():
    file = TfliteFile()
    x = file.input(1, 64)
    weights = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    made = file.connect(x, file.constant(weights), OMITTED)

    data = file.finish(made)

    assert data.find(weights.tobytes()) % 16 == 0


def test_integers_carry_their_scale():
    file = TfliteFile()
    x = file.operator("QUANTIZE", [file.input(1, 4)], (1, 4), Quantisation((0.5,)))
    data = file.finish(file.operator("DEQUANTIZE", [x], (1, 4)))

    found = run(data, np.array([[0.2, 0.3, -1.4, 900.0]], np.float32))

    assert found.tolist() == [[0.0, 0.5, -1.5, 63.5]]


@given(
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.sampled_from([0.0, -7.5]),
)
def test_a_border_lies_around_the_image(rows, columns, value):
    file = TfliteFile()
    x = np.arange(1, 13, dtype=np.float32).reshape(1, 2, 3, 2)
    padded = file.pad(file.input(*x.shape), rows, columns, value)

    found = run(file.finish(padded), x)

    wanted = np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=value)
    assert file.shape(padded) == wanted.shape
    assert found.tolist() == wanted.tolist()


def test_a_signature_names_what_goes_in_and_out():
    file = TfliteFile()
    x = file.input(1, 4)
    file.rename(x, "image")
    made = file.operator("ABS", [x], (1, 4))
    file.rename(made, "sizes")
    data = file.finish(made, signature="main")

    runner = Interpreter(model_content=data).get_signature_runner("main")

    assert runner(image=np.full((1, 4), -2, np.float32))["sizes"].tolist() == [[2, 2, 2, 2]]


def test_tensors_without_a_name_are_numbered():
    file = TfliteFile()
    data = file.finish(file.operator("ABS", [file.input(1, 4)], (1, 4)))

    interpreter = Interpreter(model_content=data)

    assert [entry["name"] for entry in interpreter.get_tensor_details()] == ["t0", "t1"]
    assert interpreter.get_signature_list() == {}
