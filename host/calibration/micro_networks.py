"""Small whole networks of the kinds that are published, each in a few sizes.

Chains of equal steps keep their tensors in the caches; a network does not: its images shrink, its
channels grow, and its weights come from memory anew in every inference. What that adds to a
multiply-accumulate or a byte is learned from these.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from host.calibration.micro_blocks import (
    gated_block,
    inverted_residual,
    residual_block,
    transformer_block,
    wide_block,
)
from host.calibration.model_writer import ModelWriter, Tensor
from host.calibration.recipes import Recipe, Step


def networks() -> Iterator[Recipe]:
    """Every network."""
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
            yield Recipe(
                f"network {kind} {what}",
                partial(_stages, size=size, channels=channels, step=block),
            )
        for kind, build in (
            ("plain", _plain),
            ("branched", _branched),
            ("densely joined", _joined),
            ("shuffled", _shuffle_network),
            ("hourglass", _hourglass),
        ):
            yield Recipe(f"network {kind} {what}", partial(build, size=size, channels=channels))
    for size, patch, width, heads in ((96, 16, 128, 4), (160, 16, 192, 3), (224, 16, 96, 3)):
        yield Recipe(
            f"network vision transformer {width} wide at {size}",
            partial(_vision_transformer, size=size, patch=patch, width=width, heads=heads),
        )
    for length, width, heads, depth in ((32, 128, 2, 3), (128, 192, 4, 2), (64, 256, 8, 2)):
        yield Recipe(
            f"network transformer {width} wide on {length}, {depth} deep",
            partial(_text_transformer, length=length, width=width, heads=heads, depth=depth),
        )
    for widths in ((64, 256, 128, 10), (784, 512, 512, 512, 10), (1024, 1024, 1024, 10)):
        yield Recipe(f"network dense {' '.join(map(str, widths))}", partial(_dense, widths=widths))
    for length, channels in ((512, (16, 32, 64)), (2048, (24, 48, 96))):
        what = f"{channels[0]} to {channels[-1]} channels at {length}"
        yield Recipe(
            f"network 1-D {what}", partial(_one_dimensional, length=length, channels=channels)
        )


def _stem(w: ModelWriter, size: int, channels: int) -> Tensor:
    return w.pool(w.conv(w.image(3, size, size), channels, 7, stride=2), stride=2)


def _stages(w: ModelWriter, size: int, channels: Sequence[int], step: Step) -> Tensor:
    """Two blocks a stage, the image halved and the channels widened between stages."""
    x = _stem(w, size, channels[0])
    for place, wide in enumerate(channels):
        if place:
            x = w.conv(x, wide, 3, stride=2)
        x = step(w, step(w, x))
    return w.classify(x)


def _bottleneck(w: ModelWriter, x: Tensor, groups: int = 1) -> Tensor:
    channels = w.channels(x)
    narrow = max(groups, channels // 2)
    inside = w.conv(w.conv(x, narrow, 1), narrow, 3, groups=groups)
    return w.add(x, w.conv(inside, channels, 1, activation=None), "relu")


def _plain(w: ModelWriter, size: int, channels: Sequence[int]) -> Tensor:
    x = w.conv(w.image(3, size, size), channels[0], stride=2)
    for wide in channels:
        x = w.pool(w.conv(w.conv(x, wide), wide), stride=2)
    return w.dense(w.dense(w.flatten(x), 128), 10, activation=None)


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
        x = w.pool(w.conv(x, wide, 1), "average", 3, 2)
    return w.classify(x)


def _shuffle_network(w: ModelWriter, size: int, channels: Sequence[int]) -> Tensor:
    x = _stem(w, size, channels[0])
    for place, wide in enumerate(channels):
        if place:
            x = w.conv(x, wide, 1)
            x = w.depthwise(x, stride=2)
        for _ in range(2):
            inside = w.shuffle(w.conv(x, wide, 1, groups=4), 4)
            back = w.conv(w.depthwise(inside), wide, 1, groups=4, activation=None)
            x = w.add(x, back, "relu")
    return w.classify(x)


def _hourglass(w: ModelWriter, size: int, channels: Sequence[int]) -> Tensor:
    first = w.conv(w.image(3, size, size), channels[0], stride=2)
    kept = [first]
    for wide in channels[1:]:
        kept.append(w.conv(w.pool(kept[-1], stride=2), wide))
    x = kept.pop()
    for skip in reversed(kept):
        x = w.conv(w.concat([w.enlarge(x, "nearest"), skip]), w.channels(skip))
    return w.conv(x, 1, 1, activation="sigmoid")


def _vision_transformer(w: ModelWriter, size: int, patch: int, width: int, heads: int) -> Tensor:
    x = w.tokens(w.patches(w.image(3, size, size), width, patch))
    for _ in range(3):
        x = transformer_block(w, x, heads)
    return w.dense(w.layer_norm(x), 10, activation=None)


def _text_transformer(w: ModelWriter, length: int, width: int, heads: int, depth: int) -> Tensor:
    x = w.rows(1, length, width)
    for _ in range(depth):
        x = transformer_block(w, x, heads)
    return w.dense(w.layer_norm(x), 64, activation=None)


def _dense(w: ModelWriter, widths: Sequence[int]) -> Tensor:
    x = w.rows(1, widths[0])
    for width in widths[1:]:
        x = w.dense(x, width)
    return x


def _one_dimensional(w: ModelWriter, length: int, channels: Sequence[int]) -> Tensor:
    x = w.signal(4, length)
    for wide in channels:
        x = w.conv(x, wide, 7, stride=2)
        x = w.add(x, w.conv(w.conv(x, wide, 5), wide, 5, activation=None), "relu")
    return w.classify(x)
