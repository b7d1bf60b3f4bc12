"""What an exported ONNX file answers, as onnxruntime on this machine computes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from host.export.errors import ExportError, first_line

Floats = npt.NDArray[np.float32]

LARGEST_DIFFERENCE = 1e-3
"""Between the logits of two float32 forms of a network, relative to the largest logit."""


@dataclass(frozen=True)
class LogitComparison:
    """How two ways of computing logits differ over n inputs."""

    max_abs_difference: float
    same_answer_fraction: float
    n: int


@dataclass(frozen=True)
class Feed:
    """What to give a file, and the name of what it gives back; examples lie along axis 0."""

    input_name: str
    inputs: Floats
    output_name: str


def logits_of_onnx(model: bytes, inputs: Floats, *, threads: int = 1) -> Floats:
    """The logits (N, classes) of normalised images (N, C, H, W) or signals (N, C, L), one at a
    time.

    Raises ExportError where the file does not load, the inputs do not fit, or a logit is not
    finite.
    """
    session = load(model, threads=threads)
    feed = _feed(session, inputs)
    try:
        rows = [session.run(None, {feed.input_name: row[np.newaxis]})[0] for row in feed.inputs]
    except Exception as error:  # onnxruntime's errors have no common class but this one
        raise ExportError(f"onnxruntime cannot run the model: {first_line(error)}") from error
    return joined(rows)


def feed_of_onnx(model: bytes, inputs: Floats) -> Feed:
    """Normalised images (N, C, H, W) or signals (N, C, L) as an ONNX file reads them.

    Raises ExportError as `logits_of_onnx` does.
    """
    return _feed(load(model), inputs)


def fitted(inputs: Floats, shape: Sequence[int]) -> Floats:
    """Inputs for a model that reads examples of that shape, channels first: a signal is an image
    of height 1.

    Raises ExportError where they do not fit.
    """
    wanted = tuple(shape)
    if len(inputs) and _without_height_1(inputs.shape[1:]) == _without_height_1(wanted):
        return np.ascontiguousarray(inputs, np.float32).reshape(len(inputs), *wanted)
    raise ExportError(f"the model reads images of {list(shape)}, it got {inputs.shape}")


def examples(array: Floats, shape: Sequence[int]) -> Floats:
    """One example of that shape, or a batch of them, as a batch. Raises ExportError."""
    one = _without_height_1(array.shape) == _without_height_1(shape)
    return fitted(array[np.newaxis] if one else array, shape)


def joined(answers: Sequence[Any]) -> Floats:
    """What a runtime gave for one example after another, as a batch.

    Raises ExportError where they are no rows of numbers, or a number is not finite.
    """
    for answer in answers:
        if not isinstance(answer, np.ndarray) or not answer.ndim or answer.dtype.kind not in "biuf":
            raise ExportError("the exported model answers with something else than rows of numbers")
    batch: Floats = np.concatenate(answers)
    if not bool(np.isfinite(batch).all()):
        raise ExportError("the exported model answers with numbers that are not finite")
    return batch


def compare_logits(left: Floats, right: Floats) -> LogitComparison:
    """Largest difference, and how often the answer is the same.

    Raises ExportError where the shapes differ or there is no image.
    """
    if left.shape != right.shape or len(left) == 0:
        raise ExportError(f"logits of {left.shape} and of {right.shape} cannot be compared")
    same = left.argmax(axis=1) == right.argmax(axis=1)
    return LogitComparison(float(np.abs(left - right).max()), float(same.mean()), len(left))


def relative_difference(logits: Floats, expected: Floats) -> float:
    """The largest difference, as a share of the largest expected logit.

    Raises ExportError as `compare_logits` does.
    """
    largest = float(np.abs(expected).max(initial=0.0))
    difference = compare_logits(logits, expected).max_abs_difference
    return difference / max(largest, float(np.finfo(np.float32).tiny))


def load(model: bytes, *, threads: int = 1) -> Any:
    """An onnxruntime session of the file's bytes on the CPU.

    Raises ExportError where onnxruntime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised too
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class but this one
        raise ExportError(
            f"onnxruntime cannot load the exported model: {first_line(error)}"
        ) from error


def _feed(session: Any, inputs: Floats) -> Feed:
    (read, *_), (written, *_) = session.get_inputs(), session.get_outputs()
    return Feed(read.name, fitted(inputs, read.shape[1:]), written.name)


def _without_height_1(shape: Sequence[int]) -> tuple[int, ...]:
    """(C, L) of a signal however it is written."""
    if len(shape) == 3 and shape[1] == 1:
        return shape[0], shape[2]
    return tuple(shape)
