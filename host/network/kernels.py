"""The kernels that a runtime executes for a `Network`, without writing the ONNX file.

The same list as `cost_models.onnx_graph.kernels_from_onnx` reads from the exported file, in a
fraction of the time.
"""

from functools import lru_cache

from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from host.network.graph import (
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Conv,
    GlobalPool,
    Layer,
    Linear,
    Network,
    Pool,
    Scale,
    Shape,
    flat,
    output_shape,
    weight_elements,
)

FLOAT_BYTES = 4
ACTIVATION_OPS: dict[ActivationKind, str] = {
    "relu": "Relu",
    "relu6": "Clip",
    "hard_swish": "HardSwish",
    "sigmoid": "Sigmoid",
    "hard_sigmoid": "HardSigmoid",
}
_ELEMENTWISE_OPS: dict[type, str] = {
    BatchNorm: "BatchNormalization",
    Add: "Add",
    Scale: "Mul",
}
_FUSED_INTO_CONV = frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid"})
"""Activations that onnxruntime computes inside the convolution before them."""


def kernels_of(network: Network) -> KernelGraph:
    """What is executed, in order: an activation goes into the convolution that it alone reads."""
    nodes = network.nodes
    kernels: list[Kernel] = []
    written_by = [NETWORK_INPUT] * len(nodes)
    index = 1
    while index < len(nodes):
        node = nodes[index]
        activation = _activation_after(network, index)
        last = index if activation is None else index + 1
        written_by[index] = written_by[last] = len(kernels)
        kernels.append(
            Kernel(
                *_costs(node.layer, activation, tuple([nodes[i].shape for i in node.inputs])),
                tuple([written_by[i] for i in node.inputs]),
                node.shape,
            )
        )
        index = last + 1
    return KernelGraph(tuple(kernels), FLOAT_BYTES * flat(network.input_shape))


def _activation_after(network: Network, index: int) -> Activation | None:
    """The activation that the convolution of that index computes along, if there is one."""
    if type(network.nodes[index].layer) is not Conv or network.consumers[index] != 1:
        return None
    following = network.nodes[index + 1]
    layer = following.layer
    if type(layer) is not Activation or layer.kind not in _FUSED_INTO_CONV:
        return None
    return layer if following.inputs == (index,) else None


@lru_cache(maxsize=1 << 14)
def _costs(
    layer: Layer, activation: Activation | None, reads: tuple[Shape, ...]
) -> tuple[KernelClass, tuple[str, ...], int, int, int, int]:
    """Class, operators, MACs, and bytes read, written and of weights."""
    shape = output_shape(layer, reads)
    kind, op = _class_and_operator(layer, reads[0])
    ops = (op,) if activation is None else (op, ACTIVATION_OPS[activation.kind])
    weights = weight_elements(layer, reads[0])
    macs = weights
    if isinstance(layer, Conv):
        macs *= shape[1] * shape[2]
    biases = shape[0] if weights else 4 * shape[0] * isinstance(layer, BatchNorm)
    return (
        kind,
        ops,
        macs,
        FLOAT_BYTES * sum(flat(read) for read in reads),
        FLOAT_BYTES * flat(shape),
        FLOAT_BYTES * (weights + biases),
    )


def _class_and_operator(layer: Layer, reads: Shape) -> tuple[KernelClass, str]:
    match layer:
        case Conv(kernel=1, groups=1):
            return "pointwise", "Conv"
        case Conv():
            return ("depthwise" if layer.groups == reads[0] > 1 else "conv"), "Conv"
        case Linear():
            return "gemm", "Gemm"
        case Pool():
            return "pool", "AveragePool" if layer.kind == "average" else "MaxPool"
        case GlobalPool():
            return "reduce", "GlobalAveragePool"
        case Activation():
            return "elementwise", ACTIVATION_OPS[layer.kind]
        case BatchNorm() | Add() | Scale():
            return "elementwise", _ELEMENTWISE_OPS[type(layer)]
        case _:
            raise TypeError(f"{layer} is not executed")
