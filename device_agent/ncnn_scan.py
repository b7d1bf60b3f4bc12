"""What an ncnn file holds, read from its bytes before the library sees it.

ncnn trusts its files: a layer whose weights are too few reads past them, and a blob that was not
declared is written past its table. So the agent follows every shape through the model by itself,
and what it accepts needs exactly the weights that are there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import ModelRejectedError
from device_agent.mapped_file import mapped
from device_agent.ncnn_file import WEIGHTS, Buffer, Layer, NcnnFile, read_container
from device_agent.ncnn_layers import Made, Shape, Weight, infer, refused
from device_agent.scan_limits import ScanLimits, beyond_limit

_FLOAT_BYTES = _MARK_BYTES = 4
_FLOAT32_MARK = bytes(_MARK_BYTES)
# What the four bytes before weights say in ModelBinFromDataReader::load.
_OTHER_MARKS = {
    0x01306B47.to_bytes(4, "little"): "float16",
    0x000D4B38.to_bytes(4, "little"): "int8",
}


@dataclass(frozen=True)
class NcnnScan:
    """Inputs and outputs with their shapes as ncnn has them, without a batch axis."""

    layers: int
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    weights: int


def scan_file(path: Path, limits: ScanLimits) -> NcnnScan:
    """Scan the file at `path` without holding it in memory.

    Raises ModelRejectedError as `scan_bytes` does.
    """
    with mapped(path) as data:
        return scan_bytes(data, limits)


def scan_bytes(data: Buffer, limits: ScanLimits) -> NcnnScan:
    """Follow the layers of an ncnn model from its inputs to its outputs.

    Raises ModelRejectedError for another format, an unknown type of layer (by its name), blobs
    that are read before they are made, twice or never made, values and shapes that do not fit
    together, more of anything than `limits` allow (`max_graph_depth`, `control_flow` and `domains`
    are of other formats), and weights that are not float32 or not as many as the layers need.
    """
    if len(data) > limits.max_bytes:
        raise beyond_limit(
            f"the model file has {len(data)} bytes, and this device takes {limits.max_bytes}",
            "use a smaller model",
            "max_bytes",
        )
    file = read_container(data)
    if len(file.layers) > limits.max_nodes:
        raise beyond_limit(
            f"the model has {len(file.layers)} layers, and this device takes {limits.max_nodes}",
            "use a smaller model",
            "max_nodes",
        )
    return _Walk(limits).follow(data, file)


class _Walk:
    """The layers one after the other, as ncnn loads them."""

    def __init__(self, limits: ScanLimits) -> None:
        self._limits = limits
        self._made: dict[str, Shape] = {}
        self._unread: dict[str, Shape] = {}
        self._chains: dict[str, int] = {}
        self._weights: list[Weight] = []

    def follow(self, data: Buffer, file: NcnnFile) -> NcnnScan:
        inputs = {}
        for layer in file.layers:
            made = infer(layer, self._read(layer))
            self._check_sizes(layer, made)
            self._check_chain(layer)
            self._write(layer, made.shapes)
            self._weights += made.weights
            if not layer.reads:
                inputs[layer.writes[0]] = made.shapes[0]
        if not inputs:
            raise ModelRejectedError("the model has no input: export it again")
        _check_weights(data, file, self._weights)
        count = sum(weight.elements for weight in self._weights)
        return NcnnScan(len(file.layers), inputs, self._unread, count)

    def _read(self, layer: Layer) -> list[Shape]:
        shapes = []
        for blob in layer.reads:
            if blob not in self._unread:
                # In light mode a blob is gone once it is read.
                why = "that another layer has read" if blob in self._made else "that nothing made"
                raise refused(layer, f"reads {blob[:80]!a}, {why}")
            shapes.append(self._unread.pop(blob))
        return shapes

    def _write(self, layer: Layer, shapes: Sequence[Shape]) -> None:
        for blob, shape in zip(layer.writes, shapes):
            if blob in self._made:
                raise refused(layer, f"writes {blob[:80]!a}, which another layer made")
            self._made[blob] = self._unread[blob] = shape

    def _check_chain(self, layer: Layer) -> None:
        """ncnn goes from an output to its inputs by calling itself, and its stack is finite."""
        chain = 1 + max((self._chains[blob] for blob in layer.reads), default=0)
        if chain > self._limits.max_chain:
            raise beyond_limit(
                f"the model has more than {self._limits.max_chain} layers in a row",
                "use a shallower model",
                "max_chain",
            )
        self._chains.update(dict.fromkeys(layer.writes, chain))

    def _check_sizes(self, layer: Layer, made: Made) -> None:
        sizes = [math.prod(shape) for shape in made.shapes]
        largest = max([*sizes, made.working_elements])
        if largest > self._limits.max_elements:
            raise beyond_limit(
                f"the layer {layer.kind} {layer.name[:80]!a} of the model needs an array of"
                f" {_count(largest)} elements, and this device takes {self._limits.max_elements}",
                "use a smaller model or a smaller input",
                "max_elements",
            )


def _check_weights(data: Buffer, file: NcnnFile, weights: Sequence[Weight]) -> None:
    needed = sum(_size(weight) for weight in weights)
    if needed != file.weights.size:
        raise ModelRejectedError(
            f"{WEIGHTS} of the model has {file.weights.size} bytes, and its layers need"
            f" {_count(needed)}: export it again"
        )
    at = file.weights.first
    for weight in weights:
        if weight.marked:
            _check_mark(bytes(data[at : at + _MARK_BYTES]))
        at += _size(weight)


def _check_mark(mark: bytes) -> None:
    if mark != _FLOAT32_MARK:
        form = _OTHER_MARKS.get(mark, "of an unknown form")
        raise ModelRejectedError(
            f"{WEIGHTS} of the model has weights that are {form}, and only float32 is known to be"
            " safe: export it as float32"
        )


def _size(weight: Weight) -> int:
    return weight.elements * _FLOAT_BYTES + (_MARK_BYTES if weight.marked else 0)


def _count(elements: int) -> str:
    return str(elements) if elements < 1e15 else f"{elements:.1e}"
