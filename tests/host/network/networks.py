"""Networks of all kinds, and modules of them as training leaves them."""

from collections.abc import Iterator

import numpy as np
import torch
from hypothesis import strategies as st

from host.network.graph import (
    Activation,
    BatchNorm,
    Conv,
    GlobalPool,
    InvalidNetworkError,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
    Scale,
)
from host.network.torch_module import NetworkModule, build_module
from host.spaces.base import Choices, Task, sample
from host.spaces.catalogue import space_by_name

SPACES: dict[str, dict[str, Choices]] = {
    "nasbench201": {},
    "mobile": {"resolution": (32, 48), "width": (0.25, 0.5), "depth": (1, 2)},
    "resnet-lite": {"resolution": (32, 48), "width": (16,), "growth": (1.5,)},
    "conv1d": {},
}
MOBILE_TEXTS = [
    "r32 w0.5 hard_swish stem2 head320 | k5e3d1se | k7e3d2 | k3e4d1se | k5e3d1 | k3e3d1se",
    "r48 w0.25 relu6 stem4 head0 | k7e1d1 | k5e3d1se | k3e3d1 | k3e3d2 | k5e6d1",
]
"""Gates, hard-swish, large windows."""


def settled(network: Network, seed: int) -> NetworkModule:
    """A module whose normalisations, biases and classifier are no longer the identity or zero."""
    module = build_module(network, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.3, generator=generator)
                layer.running_var.uniform_(0.5, 2.0, generator=generator)
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0, 0.3, generator=generator)
            elif isinstance(layer, torch.nn.Linear):
                layer.weight.normal_(0, 0.2, generator=generator)
    return module.eval()


def answer_of(module: NetworkModule, seed: int):
    """An example (1, C, H, W), and what the module answers."""
    shape = (1, *module.network.input_shape)
    x = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    with torch.no_grad():
        return x, module(torch.from_numpy(x)).numpy()


def candidates(name: str, count: int) -> Iterator[Network]:
    """Small networks of a space."""
    resolution = 16 if name == "nasbench201" else None
    space = space_by_name(name, restrict=SPACES[name], resolution=resolution)
    rng = np.random.default_rng(5)
    while count:
        try:
            yield space.build(sample(space, rng), Task(channels=3, classes=4))
        except InvalidNetworkError:
            continue
        count -= 1


def mobile(text: str) -> Network:
    """A candidate of the space 'mobile' for grey images and three classes."""
    space = space_by_name("mobile")
    return space.build(space.parse(text), Task(channels=1, classes=3))


@st.composite
def windows(draw):
    """A layer with any window, stride and padding, for four channels."""
    window = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    kind = draw(st.sampled_from(["conv", "depthwise", "grouped", "average", "maximum"]))
    match kind:
        case "conv" | "depthwise" | "grouped":
            groups = {"conv": 1, "depthwise": 4, "grouped": 2}[kind]
            return Conv(4, window, stride, groups=groups)
        case _:
            padding = tuple(draw(st.integers(0, size // 2)) for size in window)
            return Pool(kind, window, stride, padding)


def with_window(layer, height, width, activation) -> Network:
    """A network around such a layer."""
    b = NetworkBuilder((2, height, width))
    index = b.conv(0, Conv(4, 1), activation)
    index = b.add(layer, index)
    return b.build(b.add(Activation("relu"), index))


def with_every_layer(channels: int, classes: int, *, gated: bool) -> Network:
    """A network that has each layer, and nodes that several others read."""
    b = NetworkBuilder((3, 9, 8))
    stem = b.conv(0, Conv(channels, 5, 2), "relu")
    normed = b.add(Activation("relu6"), b.add(BatchNorm(), b.add(Conv(channels, 3), stem)))
    narrow = b.conv(normed, Conv(channels, 1, norm=False, bias=True), "hard_swish")
    if gated:
        gate = b.conv(b.add(GlobalPool(), narrow), Conv(channels, 1), "hard_sigmoid")
        narrow = b.add(Scale(), narrow, gate)
    joined = b.add(Activation("relu"), b.sum([stem, narrow]))
    pooled = b.add(Pool("average", 3, 1, 1), b.add(Pool("maximum", 3, 1, 1), joined))
    return b.build(b.add(Activation("sigmoid"), b.add(Linear(classes), pooled)))
