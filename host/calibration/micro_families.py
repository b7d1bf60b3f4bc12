"""The families of synthetic networks, each in the sizes that real networks have."""

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

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


def families() -> Iterator[Named]:
    """Name and recipe of every network."""
    return chain(
        _convolutions(),
        _pointwise(),
        _depthwise(),
        _grouped(),
        _one_dimensional(),
        _dense(),
        _attention(),
        _normalisations(),
        _elementwise(),
        _pooling(),
        _moves(),
        _recurrent(),
        _integer(),
        _tiny(),
        _mixed(),
    )


def _repeat(
    shape: tuple[int, ...], count: int, step: Callable[[ModelWriter, Tensor], Tensor]
) -> Callable[[ModelWriter], Tensor]:
    """A chain of `count` equal steps on an input of that shape."""

    def build(writer: ModelWriter) -> Tensor:
        x = writer.input(*shape)
        for _ in range(count):
            x = step(writer, x)
        return x

    return build


def _convolutions() -> Iterator[Named]:
    for channels, size, kernel, count in (
        (8, 112, 3, 4),
        (16, 112, 3, 3),
        (24, 56, 3, 4),
        (32, 56, 3, 3),
        (64, 56, 3, 2),
        (64, 28, 3, 4),
        (128, 28, 3, 2),
        (128, 14, 3, 4),
        (256, 14, 3, 2),
        (256, 7, 3, 3),
        (16, 56, 5, 3),
        (32, 28, 5, 3),
        (64, 14, 5, 3),
        (128, 7, 5, 3),
        (8, 56, 7, 3),
        (24, 28, 7, 3),
    ):
        yield (
            f"conv {kernel}x{kernel} {channels} channels at {size}, {count} times",
            _repeat(
                (1, channels, size, size),
                count,
                lambda w, x, c=channels, k=kernel: w.conv(x, c, k),  # type: ignore[misc]
            ),
        )
    for channels, size, count in ((8, 112, 4), (16, 112, 4), (32, 56, 3), (64, 28, 2)):
        yield (
            f"conv strided from {channels} channels at {size}, {count} times",
            _repeat(
                (1, channels, size, size), count, lambda w, x: w.conv(x, 2 * x.shape[1], stride=2)
            ),
        )
    for size in (96, 224):
        yield f"conv stem at {size}", _stem(size)
    yield (
        "conv 1x7 and 7x1, 64 channels at 14",
        _repeat((1, 64, 14, 14), 2, lambda w, x: w.conv(w.conv(x, 64, (1, 7)), 64, (7, 1))),
    )
    yield (
        "conv dilated 32 channels at 28",
        _repeat((1, 32, 28, 28), 3, lambda w, x: w.conv(x, 32, dilation=2)),
    )


def _stem(size: int) -> Callable[[ModelWriter], Tensor]:
    def build(w: ModelWriter) -> Tensor:
        x = w.conv(w.input(1, 3, size, size), 32, 7, stride=2)
        return w.conv(w.pool(x, stride=2), 32, 3, stride=2)

    return build


def _pointwise() -> Iterator[Named]:
    for channels, size, count in (
        (16, 112, 4),
        (24, 56, 6),
        (48, 56, 4),
        (96, 28, 5),
        (192, 28, 3),
        (256, 14, 4),
        (512, 14, 2),
        (512, 7, 4),
        (1024, 7, 2),
        (1024, 1, 2),
    ):
        yield (
            f"pointwise {channels} channels at {size}, {count} times",
            _repeat(
                (1, channels, size, size),
                count,
                lambda w, x, c=channels: w.conv(x, c, 1),  # type: ignore[misc]
            ),
        )
    for channels, size, count in ((16, 56, 3), (32, 28, 3), (96, 14, 3), (160, 7, 3)):
        yield (
            f"pointwise from {channels} to six times as many at {size}, {count} times",
            _repeat(
                (1, channels, size, size),
                count,
                lambda w, x: w.conv(
                    w.conv(x, 6 * x.shape[1], 1, activation=None), x.shape[1], 1, activation=None
                ),
            ),
        )


def _depthwise() -> Iterator[Named]:
    for channels, size, kernel, count in (
        (16, 112, 3, 5),
        (32, 112, 3, 4),
        (96, 56, 3, 4),
        (192, 28, 3, 5),
        (384, 14, 3, 6),
        (960, 7, 3, 6),
        (48, 56, 5, 4),
        (120, 28, 5, 4),
        (480, 14, 5, 4),
        (672, 7, 5, 4),
        (96, 28, 7, 3),
        (384, 14, 7, 3),
    ):
        yield (
            f"depthwise {kernel}x{kernel} {channels} channels at {size}, {count} times",
            _repeat(
                (1, channels, size, size),
                count,
                lambda w, x, k=kernel: w.depthwise(x, k),  # type: ignore[misc]
            ),
        )
    yield (
        "depthwise strided 96 channels at 112",
        _repeat((1, 96, 112, 112), 4, lambda w, x: w.depthwise(x, 3, stride=2)),
    )


def _grouped() -> Iterator[Named]:
    for channels, size, groups, count in (
        (32, 56, 2, 3),
        (64, 56, 4, 3),
        (128, 28, 8, 3),
        (128, 28, 32, 4),
        (256, 14, 16, 4),
        (256, 14, 32, 4),
        (512, 7, 32, 4),
    ):
        yield (
            f"grouped 3x3 {channels} channels in {groups} groups at {size}, {count} times",
            _repeat(
                (1, channels, size, size),
                count,
                lambda w, x, g=groups: w.conv(x, x.shape[1], groups=g),  # type: ignore[misc]
            ),
        )
    yield (
        "grouped 1x1 240 channels in 3 groups, shuffled, at 28",
        _repeat(
            (1, 240, 28, 28), 4, lambda w, x: shuffled(w, w.conv(x, x.shape[1], 1, groups=3), 3)
        ),
    )


def _one_dimensional() -> Iterator[Named]:
    for channels, length, kernel, count in (
        (8, 4096, 5, 4),
        (16, 1024, 9, 4),
        (32, 1024, 3, 5),
        (64, 256, 5, 5),
        (128, 128, 3, 5),
        (256, 32, 3, 4),
    ):
        yield (
            f"conv 1-D of {kernel}, {channels} channels at {length}, {count} times",
            _repeat(
                (1, channels, length),
                count,
                lambda w, x, k=kernel: w.conv(x, x.shape[1], k),  # type: ignore[misc]
            ),
        )
    for channels, length, kernel in ((64, 512, 9), (128, 256, 31)):
        yield (
            f"depthwise 1-D of {kernel}, {channels} channels at {length}",
            _repeat(
                (1, channels, length),
                5,
                lambda w, x, k=kernel: w.depthwise(x, k),  # type: ignore[misc]
            ),
        )
    yield (
        "pointwise 1-D 96 channels at 512",
        _repeat((1, 96, 512), 4, lambda w, x: w.conv(x, x.shape[1], 1)),
    )


def _dense() -> Iterator[Named]:
    for width, count in ((64, 8), (128, 8), (256, 6), (512, 5), (1024, 2), (1536, 1)):
        yield (
            f"gemm {width} wide, {count} times",
            _repeat((1, width), count, lambda w, x: w.dense(x, x.shape[1])),
        )
    yield "gemm autoencoder of 640", _autoencoder
    for rows, width, count in (
        (16, 64, 6),
        (16, 256, 4),
        (64, 128, 5),
        (196, 192, 3),
        (64, 512, 3),
    ):
        yield (
            f"gemm {rows} rows of {width}, {count} times",
            _repeat((1, rows, width), count, lambda w, x: w.dense(x, x.shape[2])),
        )


def _autoencoder(w: ModelWriter) -> Tensor:
    x = w.input(1, 640)
    for width in (128, 128, 128, 8, 128, 128, 128):
        x = w.dense(x, width)
    return w.dense(x, 640, activation=None)


def _attention() -> Iterator[Named]:
    for length, width, heads, count in (
        (16, 64, 4, 3),
        (49, 128, 4, 2),
        (64, 128, 4, 2),
        (128, 256, 4, 1),
        (196, 192, 3, 1),
        (256, 64, 2, 2),
    ):
        yield (
            f"transformer {length} tokens of {width}, {heads} heads, {count} times",
            _repeat(
                (1, length, width),
                count,
                lambda w, x, h=heads: transformer_block(w, x, h),  # type: ignore[misc]
            ),
        )
    for heads, length, width in ((4, 64, 32), (3, 196, 64), (8, 128, 32), (1, 384, 64)):
        yield (
            f"matmul {heads} of {length} by {width}",
            _repeat((1, heads, length, width), 3, _product_with_itself),
        )


def _product_with_itself(w: ModelWriter, x: Tensor) -> Tensor:
    across = w.transpose(x, 0, 1, 3, 2)
    squared = w.op("MatMul", [x, across], (*x.shape[:3], x.shape[2]))
    return w.op("MatMul", [w.op("Mul", [squared, w.scalar(1e-3)]), x], x.shape)


def _normalisations() -> Iterator[Named]:
    for shape in ((4, 64, 64), (8, 196, 196), (1, 16, 1000)):
        yield (
            f"normalise softmax of {' x '.join(map(str, shape))}",
            _repeat((1, *shape), 6, lambda w, x: w.op("Softmax", [x], axis=-1)),
        )
    for rows, width in ((16, 64), (196, 192), (256, 768)):
        yield (
            f"normalise layers of {rows} x {width}",
            _repeat((1, rows, width), 6, ModelWriter.layer_norm),
        )
    for channels, size in ((32, 56), (64, 28)):
        yield (
            f"normalise instances of {channels} channels at {size}",
            _repeat(
                (1, channels, size, size),
                4,
                lambda w, x: w.op(
                    "InstanceNormalization", [x, w.weights(x.shape[1]), w.weights(x.shape[1])]
                ),
            ),
        )


_SIZES = ((16, 14, 14), (64, 28, 28), (32, 56, 56), (32, 112, 112), (32, 224, 224))


def _elementwise() -> Iterator[Named]:
    for channels, height, width in _SIZES:
        shape = (1, channels, height, width)
        size = f"{channels} x {height} x {width}"
        yield f"elementwise sums of {size}", _repeat(shape, 6, _sum_and_relu)
        if height < 224:
            yield f"elementwise scaled channels of {size}", _repeat(shape, 6, _scaled_channels)
    for op in ("Sigmoid", "Tanh", "Erf", "Exp", "HardSwish"):
        for channels, height, width in ((64, 28, 28), (32, 112, 112)):
            yield (
                f"transcendental {op} of {channels} x {height} x {width}",
                _repeat(
                    (1, channels, height, width),
                    4,
                    lambda w, x, o=op: w.op(o, [w.op("Neg", [x])]),  # type: ignore[misc]
                ),
            )
    yield (
        "transcendental GELU of 196 x 768",
        _repeat((1, 196, 768), 4, lambda w, x: w.gelu(x)),
    )
    yield (
        "transcendental SiLU of 64 x 56 x 56",
        _repeat((1, 64, 56, 56), 4, lambda w, x: w.op("Mul", [x, w.op("Sigmoid", [x])])),
    )


def _sum_and_relu(w: ModelWriter, x: Tensor) -> Tensor:
    return w.op("Add", [w.op("Relu", [x]), x])


def _scaled_channels(w: ModelWriter, x: Tensor) -> Tensor:
    scale = w.constant(np.full((1, x.shape[1], 1, 1), 0.9, np.float32))
    return w.op("Relu", [w.op("Mul", [x, scale])])


def _pooling() -> Iterator[Named]:
    for kind, kernel, channels, size in (
        ("MaxPool", 3, 16, 112),
        ("MaxPool", 3, 64, 56),
        ("MaxPool", 5, 128, 14),
        ("AveragePool", 3, 64, 28),
        ("AveragePool", 3, 32, 112),
    ):
        yield (
            f"pool {kind} {kernel}x{kernel} {channels} channels at {size}",
            _repeat(
                (1, channels, size, size),
                4,
                lambda w, x, o=kind, k=kernel: w.pool(x, o, k),  # type: ignore[misc]
            ),
        )
    yield (
        "pool MaxPool halving 32 channels at 112",
        _repeat((1, 32, 112, 112), 4, lambda w, x: w.pool(x, "MaxPool", 3, 2)),
    )
    for channels, size in ((64, 7), (64, 56), (16, 112), (256, 14)):
        yield (
            f"reduce {channels} channels at {size}",
            _repeat((1, channels, size, size), 4, lambda w, x: w.op("Mul", [x, w.global_pool(x)])),
        )
    for rows, width in ((196, 192), (1024, 64)):
        yield (
            f"reduce rows of {rows} x {width}",
            _repeat((1, rows, width), 4, _without_mean),
        )


def _without_mean(w: ModelWriter, x: Tensor) -> Tensor:
    mean = w.op("ReduceMean", [x], (*x.shape[:-1], 1), axes=[-1], keepdims=1)
    return w.op("Sub", [x, mean])


def _moves() -> Iterator[Named]:
    for size in (28, 64, 96):
        yield (
            f"move transposed {size} x {size} x {size}",
            _repeat(
                (1, size, size, size),
                3,
                lambda w, x: w.op("Add", [x, w.transpose(x, 0, 3, 1, 2)]),
            ),
        )
    for channels, size in ((16, 112), (64, 56), (64, 14)):
        shape = (1, channels, size, size)
        what = f"{channels} channels at {size}"
        yield f"move joined and cut {what}", _repeat(shape, 4, _joined_and_cut)
        yield f"move padded and cut {what}", _repeat(shape, 4, _padded_and_cut)
    for kind in ("nearest", "linear"):
        yield (
            f"move resized ({kind}) 32 channels at 28",
            _repeat((1, 32, 28, 28), 2, lambda w, x, k=kind: resized(w, x, k)),  # type: ignore[misc]
        )


def _joined_and_cut(w: ModelWriter, x: Tensor) -> Tensor:
    return _cut(w, w.concat([w.op("Neg", [x]), x]), 1, x.shape[1] // 2, x.shape)


def _padded_and_cut(w: ModelWriter, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    padded = w.op(
        "Pad", [x, w.sizes(0, 0, 2, 2, 0, 0, 2, 2)], (batch, channels, height + 4, width + 4)
    )
    lower = _cut(w, padded, 2, 4, (batch, channels, height, width + 4))
    return _cut(w, lower, 3, 4, x.shape)


def _cut(w: ModelWriter, x: Tensor, axis: int, start: int, shape: tuple[int, ...]) -> Tensor:
    bounds = [w.sizes(start), w.sizes(start + shape[axis]), w.sizes(axis)]
    return w.op("Slice", [x, *bounds], shape)


def _recurrent() -> Iterator[Named]:
    for op, steps, inside, hidden in (
        ("LSTM", 16, 32, 64),
        ("LSTM", 64, 64, 128),
        ("LSTM", 128, 16, 32),
        ("LSTM", 32, 128, 256),
        ("GRU", 32, 32, 64),
        ("GRU", 64, 64, 128),
        ("GRU", 256, 8, 48),
    ):
        yield (
            f"recurrent {op} of {hidden}, {steps} steps of {inside}, twice",
            _recurrent_layers(op, steps, inside, hidden),
        )


def _recurrent_layers(
    op: str, steps: int, inside: int, hidden: int
) -> Callable[[ModelWriter], Tensor]:
    gates = {"LSTM": 4, "GRU": 3}[op]

    def build(w: ModelWriter) -> Tensor:
        x = w.input(steps, 1, inside)
        for _ in range(2):
            fan_in = x.shape[2]
            weights = (
                w.weights(1, gates * hidden, fan_in, fan_in=fan_in),
                w.weights(1, gates * hidden, hidden, fan_in=hidden),
                w.weights(1, 2 * gates * hidden),
            )
            made = w.op(op, [x, *weights], (steps, 1, 1, hidden), hidden_size=hidden)
            x = w.op("Squeeze", [made, w.sizes(1)], (steps, 1, hidden))
        return x

    return build


def _integer() -> Iterator[Named]:
    for channels, size, kernel, groups, count in (
        (16, 56, 3, 1, 4),
        (64, 28, 3, 1, 4),
        (128, 14, 3, 1, 4),
        (48, 56, 1, 1, 5),
        (192, 28, 1, 1, 4),
        (512, 7, 1, 1, 4),
        (96, 56, 3, 96, 4),
        (384, 14, 3, 384, 5),
    ):
        kind = "depthwise" if groups > 1 else "pointwise" if kernel == 1 else "conv"
        yield (
            f"int8 {kind} {kernel}x{kernel} {channels} channels at {size}, {count} times",
            _integer_convolutions((1, channels, size, size), kernel, groups, count),
        )
    for rows, width, count in ((1, 512, 5), (1, 1024, 3), (64, 256, 4)):
        yield f"int8 gemm {rows} rows of {width}, {count} times", _integer_dense(rows, width, count)


_ZERO_POINT = np.array(128, np.uint8)


def _quantised(w: ModelWriter, x: Tensor, scale: str, zero: str) -> Tensor:
    return w.op("DequantizeLinear", [w.op("QuantizeLinear", [x, scale, zero]), scale, zero])


def _integer_weights(w: ModelWriter, shape: tuple[int, ...], fan_in: int) -> Tensor:
    scale = w.scalar(1 / (37 * fan_in**0.5))  # uniform in -63..63 has a deviation of 37
    zero = w.constant(np.array(0, np.int8))
    return w.op("DequantizeLinear", [w.integer_weights(*shape), scale, zero], shape)


def _integer_convolutions(
    shape: tuple[int, int, int, int], kernel: int, groups: int, count: int
) -> Callable[[ModelWriter], Tensor]:
    def build(w: ModelWriter) -> Tensor:
        scale, zero = w.scalar(0.05), w.constant(_ZERO_POINT)
        channels = shape[1]
        fan_in = channels // groups
        x = _quantised(w, w.input(*shape), scale, zero)
        for _ in range(count):
            weights = _integer_weights(
                w, (channels, fan_in, kernel, kernel), fan_in * kernel * kernel
            )
            made = w.op(
                "Conv",
                [x, weights],
                kernel_shape=[kernel] * 2,
                pads=[kernel // 2] * 4,
                group=groups,
            )
            x = _quantised(w, w.op("Relu", [made]), scale, zero)
        return x

    return build


def _integer_dense(rows: int, width: int, count: int) -> Callable[[ModelWriter], Tensor]:
    def build(w: ModelWriter) -> Tensor:
        scale, zero = w.scalar(0.05), w.constant(_ZERO_POINT)
        x = _quantised(w, w.input(rows, width), scale, zero)
        for _ in range(count):
            weights = _integer_weights(w, (width, width), width)
            x = _quantised(w, w.op("MatMul", [x, weights]), scale, zero)
        return x

    return build


def _tiny() -> Iterator[Named]:
    for count in (30, 120):
        yield f"tiny sums, {count} times", _repeat((1, 8, 4, 4), count, _sum_and_relu)
    yield "tiny gemm, 60 times", _repeat((1, 8), 60, lambda w, x: w.dense(x, 8))
    yield "tiny conv, 60 times", _repeat((1, 8, 4, 4), 60, lambda w, x: w.conv(x, 8))
    yield "tiny pointwise, 60 times", _repeat((1, 8, 4, 4), 60, lambda w, x: w.conv(x, 8, 1))
    yield "tiny moves, 30 times", _repeat((1, 8, 4, 4), 30, _joined_and_cut)
    yield (
        "tiny transformer, 6 times",
        _repeat((1, 8, 16), 6, lambda w, x: transformer_block(w, x, 2)),
    )


def _mixed() -> Iterator[Named]:
    for channels, size, kernel in ((16, 56, 3), (24, 28, 5), (40, 28, 3), (80, 14, 5)):
        yield (
            f"mixed inverted residuals {kernel}x{kernel} of {channels} channels at {size}",
            _repeat(
                (1, channels, size, size),
                3,
                lambda w, x, k=kernel: inverted_residual(w, x, k),  # type: ignore[misc]
            ),
        )
    for channels, size in ((16, 56), (32, 28), (64, 14), (128, 7)):
        shape = (1, channels, size, size)
        what = f"{channels} channels at {size}"
        yield f"mixed residual blocks of {what}", _repeat(shape, 2, residual_block)
        yield f"mixed gated blocks of {what}", _repeat(shape, 3, gated_block)
        yield f"mixed wide blocks with norm of {what}", _repeat(shape, 2, wide_block)
    yield "mixed dense blocks of 32 channels at 28", _dense_blocks
    yield "mixed hourglass of 16 channels at 64", _hourglass
    for size in (32, 96):
        yield f"mixed small classifier at {size}", _classifier(size)


def _dense_blocks(w: ModelWriter) -> Tensor:
    x = w.input(1, 32, 28, 28)
    for _ in range(4):
        x = w.concat([x, w.conv(w.conv(x, 64, 1), 16)])
    return x


def _hourglass(w: ModelWriter) -> Tensor:
    first = w.conv(w.input(1, 16, 64, 64), 16)
    second = w.conv(w.pool(first, "MaxPool", 3, 2), 32)
    third = w.conv(w.pool(second, "MaxPool", 3, 2), 64)
    up = w.conv(w.concat([resized(w, third, "nearest"), second]), 32)
    return w.conv(w.concat([resized(w, up, "nearest"), first]), 16)


def _classifier(size: int) -> Callable[[ModelWriter], Tensor]:
    def build(w: ModelWriter) -> Tensor:
        x = w.conv(w.input(1, 3, size, size), 16, stride=2)
        for channels in (32, 64, 128):
            x = w.conv(w.depthwise(x, stride=2), channels, 1)
        return w.classify(x)

    return build
