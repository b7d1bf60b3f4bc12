"""Kernels of a model file, whichever kind it is."""

from collections.abc import Mapping
from pathlib import Path

from cost_models.kernels import KernelGraph
from cost_models.program import UnreadableModelError


def read_kernels(
    path: Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> KernelGraph:
    """The kernels of an .onnx or .tflite file at batch 1.

    `input_shapes`, by the input's name and batch included, fix the sizes that the file leaves
    open. Raises GraphError where the file is of no known kind or cannot be turned into kernels
    (see `onnx_graph` and `tflite_graph`), OSError where it cannot be read.
    """
    match path.suffix.lower():
        case ".onnx":
            from cost_models.onnx_graph import kernels_from_onnx

            return kernels_from_onnx(path, input_shapes=input_shapes)
        case ".tflite":
            from cost_models.tflite_graph import kernels_from_tflite

            return kernels_from_tflite(path, input_shapes=input_shapes)
        case _:
            raise UnreadableModelError(f"{path} is neither an .onnx nor a .tflite file")
