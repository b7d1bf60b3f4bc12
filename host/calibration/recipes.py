"""Recipes of synthetic networks, and what many of them have in common."""

from collections.abc import Callable
from dataclasses import dataclass

from host.calibration.model_writer import Activation, Convolution, ModelWriter, Tensor
from host.calibration.specimens import FORMS, Form

Build = Callable[[ModelWriter], Tensor]
Step = Callable[[ModelWriter, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a network is written, by its name; `forms` are the formats that have it."""

    name: str
    build: Build
    forms: tuple[Form, ...] = FORMS


def chain(start: Build, count: int, step: Step) -> Build:
    """So many equal steps on an input."""

    def build(w: ModelWriter) -> Tensor:
        x = start(w)
        for _ in range(count):
            x = step(w, x)
        return x

    return build


def image(channels: int, size: int) -> Build:
    """A square image as the input."""
    return lambda w: w.image(channels, size, size)


def signal(channels: int, length: int) -> Build:
    """A signal as the input."""
    return lambda w: w.signal(channels, length)


def rows(*shape: int) -> Build:
    """Rows as the input."""
    return lambda w: w.rows(*shape)


def conv(
    channels: int,
    kernel: int | tuple[int, int] = 3,
    *,
    groups: int = 1,
    dilation: int = 1,
    activation: Activation | None = "relu",
) -> Step:
    """A convolution as a step."""
    layer = Convolution(channels, kernel, 1, groups, dilation, activation)
    return lambda w, x: w.convolve(x, layer)


def depthwise(kernel: int = 3, *, stride: int = 1) -> Step:
    """A depthwise convolution as a step."""
    return lambda w, x: w.depthwise(x, kernel, stride=stride)


def in_turn(*steps: Step) -> Step:
    """Several steps as one."""

    def step(w: ModelWriter, x: Tensor) -> Tensor:
        for one in steps:
            x = one(w, x)
        return x

    return step
