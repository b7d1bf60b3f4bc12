"""Runs a TFLite file; becomes part of the `run.py` of a bundle."""

from pathlib import Path
from typing import Any

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter


def logits_of(model: Path, values: Any) -> Any:  # a number a class
    interpreter = Interpreter(model_path=str(model))
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], np.moveaxis(values, 1, -1).reshape(entry["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
