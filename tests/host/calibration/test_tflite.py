"""Candidates that calibrate a device as TFLite."""

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from cost_models.tflite_graph import kernels_from_tflite
from host.calibration.specimens import mobile_candidates


def run(data: bytes, x):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    (found,) = interpreter.get_output_details()
    return interpreter.get_tensor(found["index"])


def test_a_candidate_does_the_same_work_in_either_format():
    for of_tflite in mobile_candidates(20, 3, "tflite"):
        of_onnx = replace(of_tflite, form="onnx")
        assert of_onnx.kernels.macs == of_tflite.kernels.macs
        assert of_tflite.kernels.weight_bytes == pytest.approx(
            of_onnx.kernels.weight_bytes, rel=0.01
        )


def test_kernels_of_a_candidate_are_those_of_the_file_that_is_sent():
    (candidate,) = mobile_candidates(1, 3, "tflite")

    data = candidate.model_bytes()

    assert data[4:8] == b"TFL3"
    assert candidate.kernels == kernels_from_tflite(data)
    assert candidate.model_bytes() == data
    channels, height, width = candidate.network.input_shape
    assert np.isfinite(run(data, np.zeros((1, height, width, channels), np.float32))).all()
