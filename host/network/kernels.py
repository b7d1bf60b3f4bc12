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
_NOTHING: frozenset[ActivationKind] = frozenset()
_FUSED_INTO: dict[type, frozenset[ActivationKind]] = {
    Conv: frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid"}),
    Linear: frozenset({"relu", "sigmoid", "hard_sigmoid"}),
}
"""Activations that onnxruntime computes inside the step before them."""
_HARD_SWISH = Activation("hard_swish")
_HARD_SIGMOID = Activation("hard_sigmoid")
_GATE = Scale()


def kernels_of(network: Network) -> KernelGraph:
    """What is executed, in order, as `cost_models.fusion` describes it.

    A step that leads takes in the normalisation and the activation that it alone feeds, and
    hard-swish is two steps.
    """
    nodes = network.nodes
    kernels: list[Kernel] = []
    written_by = [NETWORK_INPUT] * len(nodes)
    leaders, activations = _leaders(network)
    for index, node in enumerate(nodes):
        if index == 0 or leaders[index] != index:
            written_by[index] = written_by[leaders[index]]
            continue
        reads = tuple(dict.fromkeys([written_by[i] for i in node.inputs]))
        shapes = tuple([nodes[i].shape for i in node.inputs[: len(reads)]])
        if node.layer == _HARD_SWISH:
            kernels.append(Kernel(*_costs(_HARD_SIGMOID, None, shapes), reads, node.shape))
            shapes, reads = shapes * 2, (*reads, len(kernels) - 1)
            kernels.append(Kernel(*_costs(_GATE, None, shapes), reads, node.shape))
        else:
            costs = _costs(node.layer, activations.get(index), shapes)
            kernels.append(Kernel(*costs, reads, node.shape))
        written_by[index] = len(kernels) - 1
    return KernelGraph(tuple(kernels), FLOAT_BYTES * flat(network.input_shape))


def _leaders(network: Network) -> tuple[list[int], dict[int, Activation]]:
    """The node in whose step each node is computed, and the activation that a step takes in."""
    leaders = list(range(len(network.nodes)))
    activations: dict[int, Activation] = {}
    for index, node in enumerate(network.nodes):
        layer = node.layer
        if not isinstance(layer, Activation | BatchNorm):
            continue
        source = node.inputs[0]
        leader = leaders[source]
        if network.consumers[source] != 1 or leader in activations:
            continue
        leading = type(network.nodes[leader].layer)
        if isinstance(layer, BatchNorm):
            if leading is Conv:
                leaders[index] = leader
        elif layer.kind in _FUSED_INTO.get(leading, _NOTHING):
            leaders[index] = leader
            activations[leader] = layer
    return leaders, activations


@lru_cache(maxsize=1 << 14)
def _costs(
    layer: Layer, activation: Activation | None, reads: tuple[Shape, ...]
) -> tuple[KernelClass, tuple[str, ...], int, int, int, int]:
    """Class, operators, MACs, and bytes read, written and of weights."""
    shape = reads[0] if isinstance(layer, Add | Scale) else output_shape(layer, reads)
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
            return _grouped_kind(layer.groups, reads[0]), "Conv"
        case Linear():
            return "gemm", "Gemm"
        case Pool():
            return "pool", "AveragePool" if layer.kind == "average" else "MaxPool"
        case GlobalPool():
            return "reduce", "GlobalAveragePool"
        case Activation(kind="sigmoid"):
            return "transcendental", ACTIVATION_OPS[layer.kind]
        case Activation():
            return "elementwise", ACTIVATION_OPS[layer.kind]
        case BatchNorm() | Add() | Scale():
            return "elementwise", _ELEMENTWISE_OPS[type(layer)]
        case _:
            raise TypeError(f"{layer} is not executed")


def _grouped_kind(groups: int, channels: int) -> KernelClass:
    if groups == 1:
        return "conv"
    return "depthwise" if groups == channels else "grouped"
