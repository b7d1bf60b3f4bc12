"""Architectures that no package ships, as torch modules with random weights, and their inputs."""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """The input plus what the layers make of it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y


class Branches(nn.Module):
    """The outputs of several layers, concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class LastStep(nn.Module):
    """A recurrent layer of (steps, features), its last step through a linear layer."""

    def __init__(self, layer: nn.LSTM | nn.GRU, width: int, classes: int = 10) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x)[0][:, -1])
        return y


class Transposed(nn.Module):
    """Layers over the other one of the last two axes."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x.transpose(1, 2))
        return y.transpose(1, 2)


class Ghost(nn.Module):
    """Half of the channels by a 1x1 convolution, half from them by cheap ones (GhostNet)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = after // 2
        self.first = _conv2(before, half, 1)
        self.cheap = _conv2(half, half, 3, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return torch.cat([first, self.cheap(first)], 1)


class UNet(nn.Module):
    """Ronneberger et al. 2015, three levels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(_conv2(a, b, 3), _conv2(b, b, 3))
            for a, b in zip([3, *sizes], sizes, strict=False)
        )
        self.middle = _conv2(sizes[-1], 2 * sizes[-1], 3)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * s, s, 2, 2) for s in reversed(sizes))
        self.merge = nn.ModuleList(_conv2(2 * s, s, 3) for s in reversed(sizes))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.middle(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), kept.pop()], 1))
        y: Tensor = self.head(x)
        return y


def _conv1(before: int, after: int, window: int) -> nn.Module:
    layer = nn.Conv1d(before, after, window, padding=window // 2)
    return nn.Sequential(layer, nn.BatchNorm1d(after), nn.ReLU())


def _conv2(before: int, after: int, window: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
    layer = nn.Conv2d(before, after, window, stride, padding=window // 2, groups=groups)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


def _head(width: int, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def _head1(width: int, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, classes))


def _fcn() -> nn.Module:
    """Wang, Yan, Oates 2017."""
    return nn.Sequential(_conv1(3, 128, 7), _conv1(128, 256, 5), _conv1(256, 128, 3), _head1(128))


def _resnet_1d() -> nn.Module:
    def block(width: int) -> nn.Module:
        return Residual(_conv1(width, width, 7), _conv1(width, width, 5), _conv1(width, width, 3))

    return nn.Sequential(
        _conv1(3, 64, 7), block(64), _conv1(64, 128, 3), block(128), block(128), _head1(128)
    )


def _tcn() -> nn.Module:
    layers = [_conv1(8, 64, 3)]
    for dilation in (1, 2, 4, 8, 16):
        conv = nn.Conv1d(64, 64, 3, padding=dilation, dilation=dilation)
        layers.append(Residual(conv, nn.ReLU(), nn.Conv1d(64, 64, 1), nn.ReLU()))
    return nn.Sequential(*layers, _head1(64))


def _vibration() -> nn.Module:
    """A wide first window and narrow ones after it (WDCNN, Zhang et al. 2017)."""
    sizes = (16, 32, 64, 64, 64)
    layers: list[nn.Module] = [nn.Conv1d(1, 16, 64, 16, padding=24), nn.ReLU(), nn.MaxPool1d(2)]
    for before, after in pairwise(sizes):
        layers += [_conv1(before, after, 3), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4, 100), nn.ReLU(), _linear(100, 10))


def _linear(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _cnn_lstm() -> nn.Module:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.transpose(1, 2)

    lstm = LastStep(nn.LSTM(64, 64, batch_first=True), 64)
    return nn.Sequential(_conv1(6, 64, 5), nn.MaxPool1d(2), _conv1(64, 64, 5), Steps(), lstm)


def _dscnn() -> nn.Module:
    """Zhang et al. 2017, "Hello Edge", small."""
    layers = [nn.Conv2d(1, 64, (10, 4), 2, padding=(5, 1)), nn.ReLU()]
    for _ in range(4):
        layers += [_conv2(64, 64, 3, groups=64), _conv2(64, 64, 1)]
    return nn.Sequential(*layers, _head(64, 12))


def _mixer() -> nn.Module:
    """Tolstikhin et al. 2021, small."""
    width, places = 192, 49

    def mix(size: int, hidden: int) -> nn.Module:
        return nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))

    layers: list[nn.Module] = [nn.Conv2d(3, width, 16, 16), nn.Flatten(2), _Swap()]
    for _ in range(6):
        layers.append(Residual(nn.LayerNorm(width), Transposed(mix(places, 96))))
        layers.append(Residual(nn.LayerNorm(width), mix(width, 768)))
    return nn.Sequential(*layers, _Swap(), _head1(width))


class _Swap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def _convmixer() -> nn.Module:
    """Trockman, Kolter 2022."""
    width = 128

    def norm(layer: nn.Module) -> nn.Module:
        return nn.Sequential(layer, nn.GELU(), nn.BatchNorm2d(width))

    layers = [norm(nn.Conv2d(3, width, 7, 7))]
    for _ in range(4):
        layers.append(Residual(norm(nn.Conv2d(width, width, 7, groups=width, padding=3))))
        layers.append(norm(nn.Conv2d(width, width, 1)))
    return nn.Sequential(*layers, _head(width))


def _squeezenet() -> nn.Module:
    """Iandola et al. 2016, version 1.1."""

    def fire(before: int, squeeze: int, expand: int) -> nn.Module:
        few = nn.Sequential(nn.Conv2d(before, squeeze, 1), nn.ReLU())
        one = nn.Sequential(nn.Conv2d(squeeze, expand, 1), nn.ReLU())
        three = nn.Sequential(nn.Conv2d(squeeze, expand, 3, padding=1), nn.ReLU())
        return nn.Sequential(few, Branches(one, three))

    pool = nn.MaxPool2d(3, 2)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, fire(64, 16, 64), fire(128, 16, 64), pool,
        fire(128, 32, 128), fire(256, 32, 128), pool, fire(256, 48, 192), fire(384, 48, 192),
        fire(384, 64, 256), fire(512, 64, 256), nn.Conv2d(512, 1000, 1), nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip


def _vgg11() -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for after in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        layers.append(_conv2(before, after, 3) if after else nn.MaxPool2d(2))
        before = after or before
    return nn.Sequential(*layers, nn.Flatten(), _linear(512 * 9, 1024, 1024, 100))


def _espcn() -> nn.Module:
    """Shi et al. 2016."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh(),
        nn.Conv2d(32, 9, 3, padding=1), nn.PixelShuffle(3),
    )  # fmt: skip


def _ghost() -> nn.Module:
    layers = [_conv2(3, 16, 3, stride=2)]
    for before, after in ((16, 24), (24, 48), (48, 80), (80, 160)):
        layers += [Ghost(before, after), nn.MaxPool2d(2), Residual(Ghost(after, after))]
    return nn.Sequential(*layers, _head(160))


Builder = Callable[[], nn.Module]
PUBLISHED: Mapping[str, tuple[Builder, tuple[int, ...]]] = {
    "fcn-1d": (_fcn, (1, 3, 512)),
    "resnet-1d": (_resnet_1d, (1, 3, 1024)),
    "tcn-1d": (_tcn, (1, 8, 2000)),
    "cnn-1d-vibration": (_vibration, (1, 1, 2048)),
    "lstm-two-layers": (
        lambda: LastStep(nn.LSTM(16, 128, num_layers=2, batch_first=True), 128),
        (1, 100, 16),
    ),
    "gru-bidirectional": (
        lambda: LastStep(nn.GRU(40, 96, bidirectional=True, batch_first=True), 192),
        (1, 200, 40),
    ),
    "cnn-lstm": (_cnn_lstm, (1, 6, 256)),
    "mlp": (lambda: _linear(64, 256, 256, 10), (1, 64)),
    "mlp-wide": (lambda: _linear(2048, 4096, 2048, 1000), (1, 2048)),
    "autoencoder-mlp": (lambda: _linear(640, 128, 128, 128, 8, 128, 128, 128, 640), (1, 640)),
    "dscnn-keywords": (_dscnn, (1, 1, 49, 10)),
    "unet-small": (UNet, (1, 3, 128, 128)),
    "mixer-small": (_mixer, (1, 3, 112, 112)),
    "convmixer": (_convmixer, (1, 3, 112, 112)),
    "squeezenet-128": (_squeezenet, (1, 3, 128, 128)),
    "vgg11-96": (_vgg11, (1, 3, 96, 96)),
    "espcn": (_espcn, (1, 1, 128, 128)),
    "ghost-like": (_ghost, (1, 3, 160, 160)),
}
"""By name: what builds the module, and the shape of its input."""
