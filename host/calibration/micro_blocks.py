"""Blocks that synthetic networks are made of."""

import numpy as np

from host.calibration.onnx_writer import ModelWriter, Tensor


def shuffled(w: ModelWriter, x: Tensor, groups: int) -> Tensor:
    """The channels of the groups interleaved, as after a grouped convolution."""
    batch, channels, height, width = x.shape
    split = w.reshape(x, batch, groups, channels // groups, height, width)
    return w.reshape(w.transpose(split, 0, 2, 1, 3, 4), *x.shape)


def transformer_block(w: ModelWriter, x: Tensor, heads: int) -> Tensor:
    """Self-attention and an MLP, each after a normalisation and added to what comes in."""
    x = w.op("Add", [x, _self_attention(w, w.layer_norm(x), heads)])
    inside = w.gelu(w.dense(w.layer_norm(x), 4 * x.shape[2], activation=None))
    return w.op("Add", [x, w.dense(inside, x.shape[2], activation=None)])


def _self_attention(w: ModelWriter, x: Tensor, heads: int) -> Tensor:
    _, length, width = x.shape
    each = width // heads

    def projected() -> Tensor:
        split = w.reshape(w.dense(x, width, activation=None), 1, length, heads, each)
        return w.transpose(split, 0, 2, 1, 3)

    query, key, value = projected(), projected(), projected()
    across = w.transpose(key, 0, 1, 3, 2)
    scores = w.op("MatMul", [query, across], (1, heads, length, length))
    scaled = w.op("Div", [scores, w.scalar(each**0.5)])
    mixed = w.op("MatMul", [w.op("Softmax", [scaled], axis=-1), value], (1, heads, length, each))
    joined = w.reshape(w.transpose(mixed, 0, 2, 1, 3), 1, length, width)
    return w.dense(joined, width, activation=None)


def resized(w: ModelWriter, x: Tensor, kind: str) -> Tensor:
    """Twice as high and wide, by the mode "nearest" or "linear"."""
    batch, channels, height, width = x.shape
    scales = w.constant(np.array([1, 1, 2, 2], np.float32))
    return w.op(
        "Resize",
        [x, "", scales],
        (batch, channels, 2 * height, 2 * width),
        mode=kind,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def inverted_residual(w: ModelWriter, x: Tensor, kernel: int) -> Tensor:
    """The block of MobileNetV2: widen, filter each channel, narrow, add."""
    inside = w.depthwise(w.conv(x, 4 * x.shape[1], 1), kernel)
    return w.op("Add", [x, w.conv(inside, x.shape[1], 1, activation=None)])


def residual_block(w: ModelWriter, x: Tensor) -> Tensor:
    """The basic block of ResNet."""
    inside = w.conv(w.conv(x, x.shape[1]), x.shape[1], activation=None)
    return w.op("Relu", [w.op("Add", [x, inside])])


def gated_block(w: ModelWriter, x: Tensor) -> Tensor:
    """A pointwise convolution whose channels are scaled by squeeze and excitation."""
    channels = x.shape[1]
    inside = w.conv(x, channels, 1, activation="HardSwish")
    narrow = w.conv(w.global_pool(inside), max(8, channels // 4), 1)
    return w.op("Mul", [inside, w.conv(narrow, channels, 1, activation="Sigmoid")])


def wide_block(w: ModelWriter, x: Tensor) -> Tensor:
    """The block of ConvNeXt: depthwise 7x7, then an MLP on each pixel."""
    channels = x.shape[1]
    pixels = w.transpose(w.depthwise(x, 7), 0, 2, 3, 1)
    inside = w.gelu(w.dense(w.layer_norm(pixels), 4 * channels, activation=None))
    back = w.transpose(w.dense(inside, channels, activation=None), 0, 3, 1, 2)
    return w.op("Add", [x, back])
