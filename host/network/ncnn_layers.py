"""The layers of ncnn that genba sends to a device, and the weights that each takes from the file.

The agent refuses others by name: it reads a file before ncnn does, and can vouch only for layers
whose weights it can count.
"""

from collections.abc import Callable, Iterable, Mapping

from host.network.ncnn_file import NcnnLayer, NcnnModel, NotNcnnError

_FLOAT_BYTES = 4
_MARK_BYTES = 4  # before weights that may be stored in several ways


def _of_convolution(layer: NcnnLayer) -> int:
    """Weights of number 6, and one bias for each of the outputs of number 0."""
    biases = _whole(layer, 0) if _whole(layer, 5) else 0
    return _MARK_BYTES + _FLOAT_BYTES * (_whole(layer, 6) + biases)


def _of_product(layer: NcnnLayer) -> int:
    biases = _whole(layer, 0) if _whole(layer, 1) else 0
    return _MARK_BYTES + _FLOAT_BYTES * (_whole(layer, 2) + biases)


def _of_norm(layer: NcnnLayer) -> int:
    """Slope, mean, variance and bias of each channel."""
    return 4 * _FLOAT_BYTES * _whole(layer, 0)


def _none(_layer: NcnnLayer) -> int:
    return 0


WEIGHT_BYTES: Mapping[str, Callable[[NcnnLayer], int]] = {
    "BatchNorm": _of_norm,
    "Convolution": _of_convolution,
    "ConvolutionDepthWise": _of_convolution,
    "InnerProduct": _of_product,
    **dict.fromkeys(
        (
            "AbsVal",
            "BinaryOp",
            "Clip",
            "Concat",
            "Dropout",
            "ELU",
            "Eltwise",
            "ExpandDims",
            "Flatten",
            "GELU",
            "HardSigmoid",
            "HardSwish",
            "Input",
            "Mish",
            "Noop",
            "Padding",
            "Permute",
            "Pooling",
            "ReLU",
            "Reshape",
            "SELU",
            "ShuffleChannel",
            "Sigmoid",
            "Softmax",
            "Split",
            "Squeeze",
            "Swish",
            "TanH",
            "UnaryOp",
        ),
        _none,
    ),
}
"""By type, how many bytes of `model.bin` a layer reads."""


def unknown_layers(layers: Iterable[NcnnLayer]) -> tuple[str, ...]:
    """The types that are not among these, each once, in order."""
    return tuple(dict.fromkeys(one.type for one in layers if one.type not in WEIGHT_BYTES))


def check_weights(model: NcnnModel, layers: Iterable[NcnnLayer]) -> None:
    """See that the file has as many weights as its layers read, where all of them are known.

    Raises NotNcnnError where it has more or fewer.
    """
    known = tuple(layers)
    if unknown_layers(known):
        return
    wanted = sum(WEIGHT_BYTES[layer.type](layer) for layer in known)
    if wanted != len(model.weights):
        raise NotNcnnError(
            f"the weights of this .ncnn file are {len(model.weights)} bytes and its layers read "
            f"{wanted}: export it again"
        )


def _whole(layer: NcnnLayer, number: int) -> int:
    value = layer.params.get(number, 0)
    if not isinstance(value, int) or value < 0:
        raise NotNcnnError(f"{layer.type} {layer.name} of this .ncnn file has {number}={value}")
    return value
