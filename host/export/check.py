"""What an exported file answers, as onnxruntime on this machine computes it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from host.export.errors import ExportError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LogitComparison:
    """How two ways of computing logits differ over n images."""

    max_abs_difference: float
    same_answer_fraction: float
    n: int


def logits_of_onnx(model: bytes, images: Floats, *, threads: int = 1) -> Floats:
    """The logits (N, classes) of normalised images (N, C, H, W), one image at a time.

    Raises ExportError where the file does not load, the images do not fit, or a logit is not
    finite.
    """
    session = load(model, threads=threads)
    name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    if images.ndim != 4 or len(images) == 0 or list(images.shape[1:]) != shape[1:]:
        raise ExportError(f"the model reads images of {shape[1:]}, it got {images.shape}")
    rows = [
        session.run(None, {name: np.ascontiguousarray(image[np.newaxis], np.float32)})[0]
        for image in images
    ]
    logits: Floats = np.concatenate(rows)
    if not bool(np.isfinite(logits).all()):
        raise ExportError("the exported model answers with numbers that are not finite")
    return logits


def compare_logits(left: Floats, right: Floats) -> LogitComparison:
    """Largest difference, and how often the answer is the same.

    Raises ExportError where the shapes differ or there is no image.
    """
    if left.shape != right.shape or len(left) == 0:
        raise ExportError(f"logits of {left.shape} and of {right.shape} cannot be compared")
    same = left.argmax(axis=1) == right.argmax(axis=1)
    return LogitComparison(float(np.abs(left - right).max()), float(same.mean()), len(left))


def load(model: bytes, *, threads: int = 1) -> Any:
    """An onnxruntime session of the file's bytes on the CPU.

    Raises ExportError where onnxruntime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class but this one
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(f"onnxruntime cannot load the exported model: {first_line}") from error
