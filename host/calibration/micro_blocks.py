"""Blocks that synthetic networks are made of."""

from host.calibration.model_writer import ModelWriter, Tensor


def transformer_block(w: ModelWriter, x: Tensor, heads: int) -> Tensor:
    """Self-attention and an MLP on (1, length, width), each after a normalisation and added to
    what comes in.
    """
    x = w.add(x, _self_attention(w, w.layer_norm(x), heads))
    inside = w.gelu(w.dense(w.layer_norm(x), 4 * x.shape[2], activation=None))
    return w.add(x, w.dense(inside, x.shape[2], activation=None))


def _self_attention(w: ModelWriter, x: Tensor, heads: int) -> Tensor:
    _, length, width = x.shape
    each = width // heads

    def projected() -> Tensor:
        split = w.reshape(w.dense(x, width, activation=None), 1, length, heads, each)
        return w.transpose(split, 0, 2, 1, 3)

    query, key, value = projected(), projected(), projected()
    scores = w.product(query, w.transpose(key, 0, 1, 3, 2))
    mixed = w.product(w.softmax(w.arithmetic("divide", scores, each**0.5)), value)
    joined = w.reshape(w.transpose(mixed, 0, 2, 1, 3), 1, length, width)
    return w.dense(joined, width, activation=None)


def inverted_residual(w: ModelWriter, x: Tensor, kernel: int) -> Tensor:
    """The block of MobileNetV2: widen, filter each channel, narrow, add."""
    channels = w.channels(x)
    inside = w.depthwise(w.conv(x, 4 * channels, 1), kernel)
    return w.add(x, w.conv(inside, channels, 1, activation=None))


def residual_block(w: ModelWriter, x: Tensor) -> Tensor:
    """The basic block of ResNet."""
    channels = w.channels(x)
    inside = w.conv(w.conv(x, channels), channels, activation=None)
    return w.add(x, inside, "relu")


def gated_block(w: ModelWriter, x: Tensor) -> Tensor:
    """A pointwise convolution whose channels are scaled by squeeze and excitation."""
    channels = w.channels(x)
    inside = w.conv(x, channels, 1, activation="hard_swish")
    narrow = w.conv(w.global_pool(inside), max(8, channels // 4), 1)
    return w.arithmetic("multiply", inside, w.conv(narrow, channels, 1, activation="sigmoid"))


def wide_block(w: ModelWriter, x: Tensor) -> Tensor:
    """The block of ConvNeXt: a large depthwise window, then an MLP on each pixel."""
    channels = w.channels(x)
    pixels = w.pixels(w.depthwise(x, w.largest_depthwise))
    inside = w.gelu(w.dense(w.layer_norm(pixels), 4 * channels, activation=None))
    return w.add(x, w.image_of(w.dense(inside, channels, activation=None)))
