"""What a synthetic network is written with, whatever the format of its file.

A recipe says what a network does, in the words below; a writer says how its format has that: ONNX
keeps the channels of an image before its rows, TFLite after its columns, and what is one operator
in one of them may be ten in the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

Activation = Literal["relu", "sigmoid", "hard_swish"]
Function = Literal["relu", "sigmoid", "hard_swish", "tanh", "exp", "erf", "negative"]
Arithmetic = Literal["add", "subtract", "multiply", "divide"]
PoolKind = Literal["maximum", "average"]
Enlargement = Literal["nearest", "linear"]
Recurrence = Literal["LSTM", "GRU"]
ImageAxis = Literal["channels", "height", "width"]


class NotInFormatError(ValueError):
    """The format has nothing that computes this."""


@dataclass(frozen=True)
class Tensor:
    """An activation of the network; its shape is that of the file, batch included."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """A convolution with "same" padding and a bias, and the activation after it."""

    channels: int
    kernel: int | tuple[int, int] = 3
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    activation: Activation | None = "relu"


class ModelWriter(ABC):
    """One model in the making. Each method adds operators and returns what the last one writes.

    Weights are random, scaled so that a chain of any length stays finite. A signal is an image of
    one dimension. Rows are tensors of any shape whose last axis holds the features.
    """

    largest_depthwise: ClassVar[int]
    """The largest window of a depthwise convolution in whole networks."""

    @abstractmethod
    def image(self, channels: int, height: int, width: int) -> Tensor:
        """The model's input: an image."""

    @abstractmethod
    def signal(self, channels: int, length: int) -> Tensor:
        """The model's input: a signal."""

    @abstractmethod
    def sequence(self, steps: int, features: int) -> Tensor:
        """The model's input: what recurrent layers read."""

    @abstractmethod
    def rows(self, *shape: int) -> Tensor:
        """The model's input: rows, batch included."""

    @abstractmethod
    def finish(self, output: Tensor) -> bytes:
        """The file of the model with that output."""

    @abstractmethod
    def channels(self, x: Tensor) -> int:
        """The channels of an image or a signal."""

    @abstractmethod
    def convolve(self, x: Tensor, layer: Convolution) -> Tensor:
        """A convolution of an image or a signal, on which windows have one length."""

    @abstractmethod
    def patches(self, x: Tensor, channels: int, size: int) -> Tensor:
        """Convolution of an image in squares that do not overlap."""

    @abstractmethod
    def dense(self, x: Tensor, width: int, *, activation: Activation | None = "relu") -> Tensor:
        """Product of rows with a matrix, a bias, and an activation."""

    @abstractmethod
    def product(self, x: Tensor, y: Tensor) -> Tensor:
        """Product of the matrices in the last two axes."""

    @abstractmethod
    def recurrent(self, x: Tensor, kind: Recurrence, hidden: int) -> Tensor:
        """A recurrent layer; raises NotInFormatError."""

    @abstractmethod
    def arithmetic(
        self, kind: Arithmetic, x: Tensor, y: Tensor | float, activation: Activation | None = None
    ) -> Tensor:
        """Element by element, of the shape of `x`; `y` may have axes of one element."""

    @abstractmethod
    def apply(self, function: Function, x: Tensor) -> Tensor:
        """A function of every element; raises NotInFormatError."""

    @abstractmethod
    def gelu(self, x: Tensor) -> Tensor:
        """GELU as exporters write it."""

    @abstractmethod
    def softmax(self, x: Tensor) -> Tensor:
        """Over the last axis."""

    @abstractmethod
    def layer_norm(self, x: Tensor) -> Tensor:
        """Over the last axis, with a factor and a summand for each feature."""

    @abstractmethod
    def instance_norm(self, x: Tensor) -> Tensor:
        """Over each channel of an image, with a factor and a summand for each."""

    @abstractmethod
    def scale_channels(self, x: Tensor, factor: float) -> Tensor:
        """Each channel of an image times a constant, and ReLU."""

    @abstractmethod
    def pool(self, x: Tensor, kind: PoolKind = "maximum", size: int = 3, stride: int = 1) -> Tensor:
        """A window pooling with "same" padding."""

    @abstractmethod
    def global_pool(self, x: Tensor) -> Tensor:
        """The mean of each channel, as an image or signal of one element."""

    @abstractmethod
    def mean(self, x: Tensor) -> Tensor:
        """The mean over the last axis, which keeps one element."""

    @abstractmethod
    def concat(self, tensors: Sequence[Tensor]) -> Tensor:
        """The channels of images, one after another."""

    @abstractmethod
    def cut(self, x: Tensor, axis: ImageAxis, start: int, size: int) -> Tensor:
        """A part of an image."""

    @abstractmethod
    def pad(self, x: Tensor, border: int) -> Tensor:
        """An image with zeros on its four sides."""

    @abstractmethod
    def enlarge(self, x: Tensor, kind: Enlargement) -> Tensor:
        """An image, twice as high and wide."""

    @abstractmethod
    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        """The channels of the groups interleaved, as after a grouped convolution."""

    @abstractmethod
    def pixels(self, x: Tensor) -> Tensor:
        """An image as rows, (1, height, width, channels)."""

    @abstractmethod
    def image_of(self, pixels: Tensor) -> Tensor:
        """The image of what `pixels` made."""

    @abstractmethod
    def tokens(self, x: Tensor) -> Tensor:
        """An image as rows, (1, height x width, channels)."""

    @abstractmethod
    def flatten(self, x: Tensor) -> Tensor:
        """All elements as one row."""

    @abstractmethod
    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        """Rows in another shape."""

    @abstractmethod
    def transpose(self, x: Tensor, *order: int) -> Tensor:
        """Rows with their axes in another order."""

    @abstractmethod
    def quantise(self, x: Tensor) -> Tensor:
        """As 8-bit integers, which the three methods of integers read and write."""

    @abstractmethod
    def integer_conv(self, x: Tensor, kernel: int, groups: int) -> Tensor:
        """Convolution of 8-bit integers into as many channels, and ReLU."""

    @abstractmethod
    def integer_dense(self, x: Tensor) -> Tensor:
        """Product of rows of 8-bit integers with a square matrix."""

    def add(self, x: Tensor, y: Tensor, activation: Activation | None = None) -> Tensor:
        """The sum, and an activation."""
        return self.arithmetic("add", x, y, activation)

    def conv(
        self,
        x: Tensor,
        channels: int,
        kernel: int | tuple[int, int] = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = "relu",
    ) -> Tensor:
        """Such a convolution by its parts."""
        layer = Convolution(channels, kernel, stride, groups, activation=activation)
        return self.convolve(x, layer)

    def depthwise(self, x: Tensor, kernel: int = 3, *, stride: int = 1) -> Tensor:
        """One filter a channel, and ReLU."""
        channels = self.channels(x)
        return self.conv(x, channels, kernel, stride=stride, groups=channels)

    def classify(self, x: Tensor, classes: int = 10) -> Tensor:
        """Global pooling and a dense layer: how most image networks end."""
        return self.dense(self.flatten(self.global_pool(x)), classes, activation=None)
