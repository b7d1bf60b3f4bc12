"""A candidate as a small frozen graph of typed layers with shapes.

One `Network` is the source of the torch module, of the ONNX file and of the kernels: each is a pure
function of it. Only what lies on a path from the input to the output is kept (the live graph), so
two candidates that compute the same thing have the same key.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from host.errors import GenbaError

Shape = tuple[int, ...]
"""Without the batch: (channels, height, width), or (features,). Signals of L samples from C sensors
are images of height 1, (C, 1, L), under windows of height 1: every runtime has fast kernels for
that, and TFLite no others."""

Window = int | tuple[int, int]
"""A length along height and along width; one number where they are equal."""

ActivationKind = Literal["relu", "relu6", "hard_swish", "sigmoid", "hard_sigmoid"]
PoolKind = Literal["average", "maximum"]


class InvalidNetworkError(GenbaError):
    """What a candidate describes is no network that could run."""


class ShapeError(InvalidNetworkError):
    """A layer cannot follow the layers that it is given."""


class DeadNetworkError(InvalidNetworkError):
    """No path leads from the input to the output: there is nothing to run."""


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with "same" padding: half the kernel, rounded down, on each side.

    A batch normalisation follows unless `norm` is off; then `bias` says whether it has a bias.
    """

    out_channels: int
    kernel: Window
    stride: Window = 1
    groups: int = 1
    norm: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        _simplify(self, "kernel", "stride")

    @property
    def padding(self) -> tuple[int, int]:
        """Above and below, left and right."""
        height, width = pair(self.kernel)
        return height // 2, width // 2


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """A batch normalisation that follows no convolution."""


@dataclass(frozen=True, slots=True)
class Activation:
    kind: ActivationKind


@dataclass(frozen=True, slots=True)
class Pool:
    """A window pooling; averages leave the padding out of the count."""

    kind: PoolKind
    kernel: Window
    stride: Window
    padding: Window = 0

    def __post_init__(self) -> None:
        _simplify(self, "kernel", "stride", "padding")


@dataclass(frozen=True, slots=True)
class GlobalPool:
    """The mean over height and width; keeps them as 1 by 1."""


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of two inputs of one shape."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The first input times the second, a 1 by 1 map per channel (squeeze-and-excite)."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A product with a matrix plus a bias, on a flattened input."""

    out_features: int


@dataclass(frozen=True, slots=True)
class Input:
    """The image."""


Layer = Input | Conv | BatchNorm | Activation | Pool | GlobalPool | Add | Scale | Linear


@dataclass(frozen=True, slots=True)
class Node:
    """A layer, the indices of the nodes that it reads, and the shape that it writes."""

    layer: Layer
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True)
class Network:
    """Nodes in an order in which they can run; the first is the input, the last the output.

    `blocks` are the indices, ascending, of the nodes that end a block (a stem, a cell, a residual
    block), where the space marks them. They say how a network is told, not what it computes: they
    count neither for equality nor for the key.
    """

    nodes: tuple[Node, ...]
    blocks: tuple[int, ...] = field(default=(), compare=False)

    @property
    def input_shape(self) -> Shape:
        return self.nodes[0].shape

    @property
    def output_shape(self) -> Shape:
        return self.nodes[-1].shape

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """The shapes of what a node reads."""
        return tuple(self.nodes[i].shape for i in node.inputs)

    @cached_property
    def consumers(self) -> tuple[int, ...]:
        """How many nodes read each node."""
        counts = [0] * len(self.nodes)
        for node in self.nodes:
            for source in node.inputs:
                counts[source] += 1
        return tuple(counts)

    @cached_property
    def parameters(self) -> int:
        """Trainable numbers: weights, biases, and scale and shift of each normalisation."""
        return sum(_parameters(node, self) for node in self.nodes)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products, one image."""
        return sum(_macs(node, self) for node in self.nodes)

    @cached_property
    def key(self) -> str:
        """A hash of the graph: equal for networks that differ only in the order of their nodes.

        Each node's hash covers its layer and its inputs' hashes, sorted where order has no meaning;
        the key covers the multiset of all of them, which tells a shared node from a copy of it.
        """
        hashes: list[str] = []
        for node in self.nodes:
            sources = [hashes[i] for i in node.inputs]
            if isinstance(node.layer, Add):
                sources.sort()
            hashes.append(_digest(_layer_text(node.layer), str(node.shape), *sources))
        return _digest(hashes[-1], *sorted(hashes))


class NetworkBuilder:
    """Adds layer by layer, computing shapes; `build` keeps the live graph only.

    A layer without weights that reads what an equal one reads is the same node: it would compute
    the same, and runtimes compute it once.
    """

    def __init__(self, input_shape: Shape) -> None:
        self._nodes = [Node(Input(), (), input_shape)]
        self._weightless: dict[tuple[Layer, tuple[int, ...]], int] = {}
        self._blocks: set[int] = set()

    def shape(self, index: int) -> Shape:
        """What the node of that index writes."""
        return self._nodes[index].shape

    def add(self, layer: Layer, *inputs: int) -> int:
        """The index of a node with that layer, reading those nodes.

        Raises ShapeError where the shapes do not fit.
        """
        if not isinstance(layer, Conv | BatchNorm | Linear):
            known = self._weightless.setdefault((layer, inputs), len(self._nodes))
            if known < len(self._nodes):
                return known
        shape = output_shape(layer, tuple(self._nodes[i].shape for i in inputs))
        self._nodes.append(Node(layer, inputs, shape))
        return len(self._nodes) - 1

    def conv(self, source: int, layer: Conv, activation: ActivationKind | None = None) -> int:
        """A convolution and, if named, the activation after it."""
        index = self.add(layer, source)
        return index if activation is None else self.add(Activation(activation), index)

    def sum(self, sources: Sequence[int]) -> int:
        """The sum of one node or more, added from left to right."""
        total = sources[0]
        for source in sources[1:]:
            total = self.add(Add(), total, source)
        return total

    def block(self, index: int) -> int:
        """Mark a node as the end of a block; returns its index.

        A block that adds nothing (a cell that hands its input on) leaves the mark before it.
        """
        self._blocks.add(index)
        return index

    def build(self, output: int) -> Network:
        """The network that ends in that node, without the nodes that it does not need."""
        live = [False] * (output + 1)
        live[output] = live[0] = True
        for index in range(output, 0, -1):
            if live[index]:
                for source in self._nodes[index].inputs:
                    live[source] = True
        blocks = sorted(index for index in self._blocks if index <= output and live[index])
        if all(live):
            return Network(tuple(self._nodes[: output + 1]), tuple(blocks))
        place: dict[int, int] = {}
        nodes: list[Node] = []
        for index, alive in enumerate(live):
            if alive:
                place[index] = len(nodes)
                node = self._nodes[index]
                nodes.append(Node(node.layer, tuple(place[i] for i in node.inputs), node.shape))
        return Network(tuple(nodes), tuple(place[index] for index in blocks))


def pair(window: Window) -> tuple[int, int]:
    """A length along height and along width."""
    return window if isinstance(window, tuple) else (window, window)


def output_shape(layer: Layer, inputs: tuple[Shape, ...]) -> Shape:
    """The shape that a layer writes for the shapes that it reads.

    Raises ShapeError where they do not fit.
    """
    first = inputs[0]
    match layer:
        case Conv() | Pool():
            return _windowed(layer, first)
        case GlobalPool():
            return (first[0], 1, 1)
        case Linear():
            return (layer.out_features,)
        case Add():
            if len(inputs) != 2 or inputs[0] != inputs[1]:
                raise ShapeError(f"an addition needs two inputs of one shape, it got {inputs}")
            return first
        case Scale():
            if len(inputs) != 2 or inputs[1] != (first[0], 1, 1):
                raise ShapeError(f"a scale needs a 1x1 map of {first[0]} channels, got {inputs}")
            return first
        case BatchNorm() | Activation() | Input():
            return first


def _windowed(layer: Conv | Pool, shape: Shape) -> Shape:
    channels, height, width = shape
    if isinstance(layer, Conv):
        if channels % layer.groups or layer.out_channels % layer.groups:
            raise ShapeError(f"{layer.groups} groups do not divide {channels} channels")
        channels = layer.out_channels
    kernel, stride, padding = pair(layer.kernel), pair(layer.stride), pair(layer.padding)
    rows = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
    columns = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
    if rows < 1 or columns < 1:
        window = f"{kernel[0]}x{kernel[1]}"
        raise ShapeError(f"a window of {window} does not fit into {height}x{width}")
    return channels, rows, columns


def _simplify(layer: Conv | Pool, *names: str) -> None:
    """Windows of equal sides as one number, so that layers that do the same are equal."""
    for name in names:
        window = getattr(layer, name)
        if isinstance(window, tuple) and window[0] == window[1]:
            object.__setattr__(layer, name, window[0])


def weight_elements(layer: Layer, reads: Shape) -> int:
    """Elements of the weight tensor, without bias or normalisation."""
    if isinstance(layer, Conv):
        height, width = pair(layer.kernel)
        return layer.out_channels * (reads[0] // layer.groups) * height * width
    if isinstance(layer, Linear):
        return layer.out_features * flat(reads)
    return 0


def flat(shape: Shape) -> int:
    """Elements of a tensor of that shape."""
    elements = 1
    for side in shape:
        elements *= side
    return elements


def _parameters(node: Node, network: Network) -> int:
    layer = node.layer
    if isinstance(layer, Conv):
        weights = weight_elements(layer, network.nodes[node.inputs[0]].shape)
        return weights + layer.out_channels * (2 * layer.norm + layer.bias)
    if isinstance(layer, Linear):
        return weight_elements(layer, network.nodes[node.inputs[0]].shape) + layer.out_features
    if isinstance(layer, BatchNorm):
        return 2 * node.shape[0]
    return 0


def _macs(node: Node, network: Network) -> int:
    layer = node.layer
    if isinstance(layer, Conv):
        per_position = weight_elements(layer, network.nodes[node.inputs[0]].shape)
        return per_position * node.shape[1] * node.shape[2]
    if isinstance(layer, Linear):
        return weight_elements(layer, network.nodes[node.inputs[0]].shape)
    return 0


@lru_cache(maxsize=4096)
def _layer_text(layer: Layer) -> str:
    return repr(layer)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("|".join(parts).encode(), digest_size=16).hexdigest()
