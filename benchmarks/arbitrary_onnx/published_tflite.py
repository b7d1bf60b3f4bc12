"""Published architectures with random weights that are written as .tflite."""

from collections.abc import Callable, Mapping, Sequence

from host.network.graph import (
    Activation,
    ActivationKind,
    Conv,
    GlobalPool,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
    Scale,
)


def _classifier(builder: NetworkBuilder, index: int, classes: int) -> Network:
    index = builder.add(GlobalPool(), index)
    return builder.build(builder.add(Linear(classes), index))


def _mobilenet_v1(side: int, width: float) -> Network:
    """Howard et al. 2017, table 1."""
    b = NetworkBuilder((3, side, side))
    index = b.conv(0, Conv(int(32 * width), 3, 2), "relu6")
    for channels, stride in (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
        *[(512, 1)] * 5, (1024, 2), (1024, 1),
    ):  # fmt: skip
        before = b.shape(index)[0]
        index = b.conv(index, Conv(before, 3, stride, groups=before), "relu6")
        index = b.conv(index, Conv(int(channels * width), 1), "relu6")
    return _classifier(b, index, 1000)


Stage = tuple[int, int, int, int, int]
"""Expansion, channels, blocks, stride, window."""

_V2: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3), (6, 160, 3, 2, 3), (6, 320, 1, 1, 3),
)  # fmt: skip
_MNAS: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3), (3, 24, 3, 2, 3), (3, 40, 3, 2, 5), (6, 80, 3, 2, 5),
    (6, 96, 2, 1, 3), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
_EFFICIENT: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip


def _inverted(
    side: int,
    stages: Sequence[Stage],
    *,
    width: float = 1.0,
    activation: ActivationKind = "relu6",
    squeeze: bool = False,
) -> Network:
    """MobileNetV2 (Sandler et al. 2018), MnasNet (Tan et al. 2019), EfficientNet (Tan, Le 2019)."""
    b = NetworkBuilder((3, side, side))
    index = b.conv(0, Conv(_rounded(32 * width), 3, 2), activation)
    for expansion, channels, blocks, stride, window in stages:
        for block in range(blocks):
            before, source = b.shape(index)[0], index
            hidden = expansion * before
            if expansion > 1:
                index = b.conv(index, Conv(hidden, 1), activation)
            step = stride if block == 0 else 1
            index = b.conv(index, Conv(hidden, window, step, groups=hidden), activation)
            if squeeze:
                index = _squeezed(b, index, before // 4)
            index = b.conv(index, Conv(_rounded(channels * width), 1))
            if step == 1 and b.shape(index) == b.shape(source):
                index = b.sum([source, index])
    index = b.conv(index, Conv(1280, 1), activation)
    return _classifier(b, index, 1000)


def _squeezed(b: NetworkBuilder, index: int, few: int) -> int:
    channels = b.shape(index)[0]
    gate = b.add(GlobalPool(), index)
    gate = b.conv(gate, Conv(max(4, few), 1, norm=False, bias=True), "relu")
    gate = b.conv(gate, Conv(channels, 1, norm=False, bias=True), "hard_sigmoid")
    return b.add(Scale(), index, gate)


def _rounded(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


def _resnet(side: int, depths: Sequence[int], *, bottleneck: bool = False) -> Network:
    """He et al. 2015, for large images."""
    b = NetworkBuilder((3, side, side))
    index = b.add(Pool("maximum", 3, 2, 1), b.conv(0, Conv(64, 7, 2), "relu"))
    for stage, blocks in enumerate(depths):
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            if bottleneck:
                index = _bottleneck(b, index, 64 << stage, stride)
            else:
                index = _basic(b, index, 64 << stage, stride)
    return _classifier(b, index, 1000)


def _basic(b: NetworkBuilder, source: int, channels: int, stride: int) -> int:
    index = b.conv(source, Conv(channels, 3, stride), "relu")
    return _joined(b, source, b.conv(index, Conv(channels, 3)), stride)


def _bottleneck(b: NetworkBuilder, source: int, channels: int, stride: int) -> int:
    index = b.conv(source, Conv(channels, 1), "relu")
    index = b.conv(index, Conv(channels, 3, stride), "relu")
    return _joined(b, source, b.conv(index, Conv(4 * channels, 1)), stride)


def _joined(b: NetworkBuilder, source: int, index: int, stride: int) -> int:
    channels = b.shape(index)[0]
    if b.shape(source) != b.shape(index):
        source = b.conv(source, Conv(channels, 1, stride))
    return b.add(Activation("relu"), b.sum([source, index]))


def _small_resnet(blocks: int, width: int) -> Network:
    """He et al. 2015, for 32x32 images; the wide ones: Zagoruyko, Komodakis 2016."""
    b = NetworkBuilder((3, 32, 32))
    index = b.conv(0, Conv(16, 3), "relu")
    for stage in range(3):
        for block in range(blocks):
            index = _basic(b, index, (16 * width) << stage, 2 if stage and block == 0 else 1)
    return _classifier(b, index, 10)


def _vgg(side: int, plan: Sequence[int], hidden: int) -> Network:
    """Simonyan, Zisserman 2014; 0 is a pooling."""
    b = NetworkBuilder((3, side, side))
    index = 0
    for channels in plan:
        if channels:
            index = b.conv(index, Conv(channels, 3), "relu")
        else:
            index = b.add(Pool("maximum", 2, 2), index)
    for features in (hidden, hidden):
        index = b.add(Activation("relu"), b.add(Linear(features), index))
    return b.build(b.add(Linear(1000), index))


def _plain(side: int, widths: Sequence[int], window: int, classes: int) -> Network:
    b = NetworkBuilder((3, side, side))
    index = 0
    for position, channels in enumerate(widths):
        index = b.conv(index, Conv(channels, window, 2 if position % 2 else 1), "relu")
    return _classifier(b, index, classes)


def _all_cnn() -> Network:
    """Springenberg et al. 2015, All-CNN-C."""
    b = NetworkBuilder((3, 32, 32))
    index = 0
    for channels, window, stride in (
        (96, 3, 1), (96, 3, 1), (96, 3, 2), (192, 3, 1), (192, 3, 1), (192, 3, 2),
        (192, 3, 1), (192, 1, 1), (10, 1, 1),
    ):  # fmt: skip
        index = b.conv(index, Conv(channels, window, stride), "relu")
    return b.build(b.add(GlobalPool(), index))


def _keywords() -> Network:
    """Zhang et al. 2017, "Hello Edge"."""
    b = NetworkBuilder((1, 49, 10))
    index = b.conv(0, Conv(64, 5, 2), "relu")
    for _ in range(4):
        index = b.conv(index, Conv(64, 3, groups=64), "relu")
        index = b.conv(index, Conv(64, 1), "relu")
    return _classifier(b, index, 12)


def _products(*sizes: int) -> Network:
    b = NetworkBuilder((sizes[0], 1, 1))
    index = 0
    for features in sizes[1:-1]:
        index = b.add(Activation("relu"), b.add(Linear(features), index))
    return b.build(b.add(Linear(sizes[-1]), index))


_VGG11 = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
_VGG16 = (64, 64, 0, 128, 128, 0, *[256] * 3, 0, *[512] * 3, 0, *[512] * 3, 0)

PUBLISHED: Mapping[str, Callable[[], Network]] = {
    "mobilenet-v1-224": lambda: _mobilenet_v1(224, 1.0),
    "mobilenet-v1-0.5-128": lambda: _mobilenet_v1(128, 0.5),
    "mobilenet-v1-0.25-96": lambda: _mobilenet_v1(96, 0.25),
    "mobilenet-v2-224": lambda: _inverted(224, _V2),
    "mobilenet-v2-0.5-160": lambda: _inverted(160, _V2, width=0.5),
    "mobilenet-v3-like-224": lambda: _inverted(224, _MNAS, activation="hard_swish", squeeze=True),
    "efficientnet-lite0-224": lambda: _inverted(224, _EFFICIENT),
    "efficientnet-b0-160": lambda: _inverted(
        160, _EFFICIENT, activation="hard_swish", squeeze=True
    ),
    "mnasnet-192": lambda: _inverted(192, _MNAS, activation="relu"),
    "resnet8-32": lambda: _small_resnet(1, 1),
    "resnet20-32": lambda: _small_resnet(3, 1),
    "wide-resnet-16-4-32": lambda: _small_resnet(2, 4),
    "resnet18-224": lambda: _resnet(224, (2, 2, 2, 2)),
    "resnet34-128": lambda: _resnet(128, (3, 4, 6, 3)),
    "resnet50-160": lambda: _resnet(160, (3, 4, 6, 3), bottleneck=True),
    "vgg11-96": lambda: _vgg(96, _VGG11, 1024),
    "vgg16-128": lambda: _vgg(128, _VGG16, 2048),
    "allcnn-32": _all_cnn,
    "dscnn-keywords": _keywords,
    "autoencoder-mlp": lambda: _products(640, 128, 128, 128, 8, 128, 128, 128, 640),
    "mlp-wide": lambda: _products(2048, 4096, 2048, 1000),
    "plain-net-64": lambda: _plain(64, (16, 32, 32, 64, 64, 128, 128), 5, 10),
}
"""What builds the network, by name."""
