"""Small whole networks of the kinds that are published, each in a few sizes.

Chains of equal steps keep their tensors in the caches; a network does not: its images shrink, its
channels grow, and its weights come from memory anew in every inference. What that adds to a
multiply-accumulate or a byte is learned from these.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from host.calibration.micro_blocks import (
    gated_block,
    inverted_residual,
    residual_block,
    resized,
    shuffled,
    transformer_block,
    wide_block,
)
from host.calibration.onnx_writer import ModelWriter, Tensor

Named = tuple[str, Callable[[ModelWriter], Tensor]]
_Block = Callable[[ModelWriter, Tensor], Tensor]


def networks() -> Iterator[Named]:
    """Name and recipe of every network."""
    for size, channels in ((96, (16, 32, 64, 128)), (160, (32, 48, 96, 192)), (224, (32, 48, 80))):
        what = f"{channels[0]} to {channels[-1]} channels at {size}"
        for kind, block in (
            ("residual", residual_block),
            ("bottleneck", _bottleneck),
            ("grouped bottleneck", partial(_bottleneck, groups=8)),
            ("inverted residual", partial(inverted_residual, kernel=3)),
            ("gated", gated_block),
            ("wide depthwise", wide_block),
        ):
            yield (
                f"network {kind} {what}",
                partial(_stages, size=size, channels=channels, step=block),
            )
        yield f"network plain {what}", partial(_plain, size=size, channels=channels)
        yield f"network branched {what}", partial(_branched, size=size, channels=channels)
        yield f"network densely joined {what}", partial(_joined, size=size, channels=channels)
        yield f"network shuffled {what}", partial(_shuffle_network, size=size, channels=channels)
        yield f"network hourglass {what}", partial(_hourglass, size=size, channels=channels)
    for size, patch, width, heads in ((96, 16, 128, 4), (160, 16, 192, 3), (224, 16, 96, 3)):
        yield (
            f"network vision transformer {width} wide at {size}",
            partial(_vision_transformer, size=size, patch=patch, width=width, heads=heads),
        )
    for length, width, heads, depth in ((32, 128, 2, 3), (128, 192, 4, 2), (64, 256, 8, 2)):
        yield (
            f"network transformer {width} wide on {length}, {depth} deep",
            partial(_text_transformer, length=length, width=width, heads=heads, depth=depth),
        )
    for widths in ((64, 256, 128, 10), (784, 512, 512, 512, 10), (1024, 1024, 1024, 10)):
        yield f"network dense {' '.join(map(str, widths))}", partial(_dense, widths=widths)
    for length, channels in ((512, (16, 32, 64)), (2048, (24, 48, 96))):
        what = f"{channels[0]} to {channels[-1]} channels at {length}"
        yield f"network 1-D {what}", partial(_one_dimensional, length=length, channels=channels)


def _stem(w: ModelWriter, size: int, channels: int) -> Tensor:
    return w.pool(w.conv(w.input(1, 3, size, size), channels, 7, stride=2), stride=2)


def _stages(w: ModelWriter, size: int, channels: Sequence[int], step: _Block) -> Tensor:
    """Two blocks a stage, the image halved and the channels widened between stages."""
    x = _stem(w, size, channels[0])
    for place, wide in enumerate(channels):
        if place:
            x = w.conv(x, wide, 3, stride=2)
        x = step(w, step(w, x))
    return w.classify(x)


def _bottleneck(w: ModelWriter, x: Tensor, groups: int = 1) -> Tensor:
    channels = x.shape[1]
    inside = w.conv(x, max(groups, channels // 2), 1)
    inside = w.conv(inside, inside.shape[1], 3, groups=groups)
    back = w.conv(inside, channels, 1, activation=None)
    return w.op("Relu", [w.op("Add", [x, back])])


def _plain(w: ModelWriter, size: int, channels: Sequence[int]) -> Tensor:
    x = w.conv(w.input(1, 3, size, size), channels[0], stride=2)
    for wide in channels:
        x = w.pool(w.conv(w.conv(x, wide), wide), kernel=3, stride=2)
    width = x.shape[1] * x.shape[2] * x.shape[3]
    x = w.op("Flatten", [x], (1, width))
    return w.dense(w.dense(x, 128), 10, activation=None)


def _branched(w: ModelWriter, size: int, channels: Sequence[int]) -> Tensor:
    x = _stem(w, size, channels[0])
    for wide in channels:
        quarter = wide // 4
        branches = [
            w.conv(x, quarter, 1),
            w.conv(w.conv(x, quarter, 1), quarter, 3),
            w.conv(w.conv(x, quarter, 1), quarter, 5),
            w.conv(w.pool(x), quarter, 1),
        ]
        x = w.pool(w.concat(branches), stride=2)
    return w.classify(x)


def _joined(w: ModelWriter, size: int, channels: Sequence[int]) -> Tensor:
    x = _stem(w, size, channels[0])
    for wide in channels[1:]:
        for _ in range(4):
            x = w.concat([x, w.conv(w.conv(x, wide, 1), wide // 4, 3)])
        x = w.pool(w.conv(x, wide, 1), "AveragePool", 3, 2)
    return w.classify(x)


def _shuffle_network(w: ModelWriter, size: int, channels: Sequence[int]) -> Tensor:
    x = _stem(w, size, channels[0])
    for place, wide in enumerate(channels):
        if place:
            x = w.conv(x, wide, 1)
            x = w.depthwise(x, stride=2)
        for _ in range(2):
            inside = shuffled(w, w.conv(x, wide, 1, groups=4), 4)
            back = w.conv(w.depthwise(inside), wide, 1, groups=4, activation=None)
            x = w.op("Relu", [w.op("Add", [x, back])])
    return w.classify(x)


def _hourglass(w: ModelWriter, size: int, channels: Sequence[int]) -> Tensor:
    first = w.conv(w.input(1, 3, size, size), channels[0], stride=2)
    kept = [first]
    for wide in channels[1:]:
        kept.append(w.conv(w.pool(kept[-1], stride=2), wide))
    x = kept.pop()
    for skip in reversed(kept):
        x = w.conv(w.concat([resized(w, x, "nearest"), skip]), skip.shape[1])
    return w.conv(x, 1, 1, activation="Sigmoid")


def _vision_transformer(w: ModelWriter, size: int, patch: int, width: int, heads: int) -> Tensor:
    side = size // patch
    patches = _patches(w, size, patch, width)
    x = w.transpose(w.reshape(patches, 1, width, side * side), 0, 2, 1)
    for _ in range(3):
        x = transformer_block(w, x, heads)
    return w.dense(w.layer_norm(x), 10, activation=None)


def _patches(w: ModelWriter, size: int, patch: int, width: int) -> Tensor:
    weights = w.weights(width, 3, patch, patch, fan_in=3 * patch * patch)
    return w.op(
        "Conv",
        [w.input(1, 3, size, size), weights, w.weights(width)],
        (1, width, size // patch, size // patch),
        kernel_shape=[patch, patch],
        strides=[patch, patch],
    )


def _text_transformer(w: ModelWriter, length: int, width: int, heads: int, depth: int) -> Tensor:
    x = w.input(1, length, width)
    for _ in range(depth):
        x = transformer_block(w, x, heads)
    return w.dense(w.layer_norm(x), 64, activation=None)


def _dense(w: ModelWriter, widths: Sequence[int]) -> Tensor:
    x = w.input(1, widths[0])
    for width in widths[1:]:
        x = w.dense(x, width)
    return x


def _one_dimensional(w: ModelWriter, length: int, channels: Sequence[int]) -> Tensor:
    x = w.input(1, 4, length)
    for wide in channels:
        x = w.conv(x, wide, 7, stride=2)
        inside = w.conv(w.conv(x, wide, 5), wide, 5, activation=None)
        x = w.op("Relu", [w.op("Add", [x, inside])])
    return w.classify(x)
