"""A `Network` as the kernels that TFLite executes of its file, without writing the file.

The same as `cost_models.tflite_graph.kernels_from_tflite` of `tflite_bytes`, which takes 6 to
20 times as long, for flatbuffers are read and written in Python.
"""

from cost_models.kernels import KernelGraph
from cost_models.tflite_file import FileOperator, FileTensor, TfliteFile
from cost_models.tflite_graph import kernels_of_tflite
from host.network.graph import Network
from host.network.tflite_file import FUSED
from host.network.tflite_model import tflite_graph
from host.network.tflite_tables import Graph, Operator

_ACTIVATIONS = {number: None if name is None else name.upper() for name, number in FUSED.items()}


def tflite_kernels_of(network: Network) -> KernelGraph:
    """The kernels with their costs at batch 1. Raises ValueError for a layer that TFLite's writer
    does not know.
    """
    return kernels_of_tflite(_as_file(tflite_graph(network)))


def _as_file(graph: Graph) -> TfliteFile:
    return TfliteFile(
        tensors=tuple(
            FileTensor(t.name, t.shape, t.element, stored=t.buffer != 0, variable=t.variable)
            for t in graph.tensors
        ),
        operators=tuple(_as_read(operator, graph) for operator in graph.operators),
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


def _as_read(operator: Operator, graph: Graph) -> FileOperator:
    """None of the layers of a network has an option that costs depend on but the activation."""
    return FileOperator(
        op=graph.codes[operator.code],
        inputs=operator.inputs,
        outputs=(operator.output,),
        activation=_ACTIVATIONS[operator.values.get("FusedActivationFunction", FUSED[None])],
        flags=frozenset(),
    )
