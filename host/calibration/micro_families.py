"""The families of synthetic networks, each in the sizes that real networks have."""

from collections.abc import Iterator
from functools import partial
from itertools import chain as joined

from host.calibration.micro_blocks import (
    gated_block,
    inverted_residual,
    residual_block,
    transformer_block,
    wide_block,
)
from host.calibration.model_writer import Function, ModelWriter, PoolKind, Recurrence, Tensor
from host.calibration.recipes import (
    Build,
    Recipe,
    Step,
    chain,
    conv,
    depthwise,
    image,
    in_turn,
    rows,
    signal,
)
from host.calibration.specimens import FORMS, Form

_ONNX_ALONE: tuple[Form, ...] = ("onnx",)


def families() -> Iterator[Recipe]:
    """Every network."""
    return joined(
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


def _convolutions() -> Iterator[Recipe]:
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
        yield Recipe(
            f"conv {kernel}x{kernel} {channels} channels at {size}, {count} times",
            chain(image(channels, size), count, conv(channels, kernel)),
        )
    for channels, size, count in ((8, 112, 4), (16, 112, 4), (32, 56, 3), (64, 28, 2)):
        yield Recipe(
            f"conv strided from {channels} channels at {size}, {count} times",
            chain(image(channels, size), count, _halved_and_widened),
        )
    for size in (96, 224):
        yield Recipe(f"conv stem at {size}", partial(_stem, size=size))
    yield Recipe(
        "conv 1x7 and 7x1, 64 channels at 14",
        chain(image(64, 14), 2, in_turn(conv(64, (1, 7)), conv(64, (7, 1)))),
    )
    yield Recipe("conv dilated 32 channels at 28", chain(image(32, 28), 3, conv(32, 3, dilation=2)))


def _halved_and_widened(w: ModelWriter, x: Tensor) -> Tensor:
    return w.conv(x, 2 * w.channels(x), stride=2)


def _stem(w: ModelWriter, size: int) -> Tensor:
    x = w.conv(w.image(3, size, size), 32, 7, stride=2)
    return w.conv(w.pool(x, stride=2), 32, 3, stride=2)


def _pointwise() -> Iterator[Recipe]:
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
        yield Recipe(
            f"pointwise {channels} channels at {size}, {count} times",
            chain(image(channels, size), count, conv(channels, 1)),
        )
    for channels, size, count in ((16, 56, 3), (32, 28, 3), (96, 14, 3), (160, 7, 3)):
        wide, narrow = conv(6 * channels, 1, activation=None), conv(channels, 1, activation=None)
        yield Recipe(
            f"pointwise from {channels} to six times as many at {size}, {count} times",
            chain(image(channels, size), count, in_turn(wide, narrow)),
        )


def _depthwise() -> Iterator[Recipe]:
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
        yield Recipe(
            f"depthwise {kernel}x{kernel} {channels} channels at {size}, {count} times",
            chain(image(channels, size), count, depthwise(kernel)),
        )
    yield Recipe(
        "depthwise strided 96 channels at 112", chain(image(96, 112), 4, depthwise(3, stride=2))
    )


def _grouped() -> Iterator[Recipe]:
    for channels, size, groups, count in (
        (32, 56, 2, 3),
        (64, 56, 4, 3),
        (128, 28, 8, 3),
        (128, 28, 32, 4),
        (256, 14, 16, 4),
        (256, 14, 32, 4),
        (512, 7, 32, 4),
    ):
        yield Recipe(
            f"grouped 3x3 {channels} channels in {groups} groups at {size}, {count} times",
            chain(image(channels, size), count, conv(channels, groups=groups)),
        )
    yield Recipe(
        "grouped 1x1 240 channels in 3 groups, shuffled, at 28",
        chain(image(240, 28), 4, lambda w, x: w.shuffle(w.conv(x, 240, 1, groups=3), 3)),
    )


def _one_dimensional() -> Iterator[Recipe]:
    for channels, length, kernel, count in (
        (8, 4096, 5, 4),
        (16, 1024, 9, 4),
        (32, 1024, 3, 5),
        (64, 256, 5, 5),
        (128, 128, 3, 5),
        (256, 32, 3, 4),
    ):
        yield Recipe(
            f"conv 1-D of {kernel}, {channels} channels at {length}, {count} times",
            chain(signal(channels, length), count, conv(channels, kernel)),
        )
    for channels, length, kernel in ((64, 512, 9), (128, 256, 31)):
        yield Recipe(
            f"depthwise 1-D of {kernel}, {channels} channels at {length}",
            chain(signal(channels, length), 5, depthwise(kernel)),
        )
    yield Recipe("pointwise 1-D 96 channels at 512", chain(signal(96, 512), 4, conv(96, 1)))


def _dense() -> Iterator[Recipe]:
    for width, count in ((64, 8), (128, 8), (256, 6), (512, 5), (1024, 2), (1536, 1)):
        yield Recipe(f"gemm {width} wide, {count} times", chain(rows(1, width), count, _square))
    yield Recipe("gemm autoencoder of 640", _autoencoder)
    for length, width, count in (
        (16, 64, 6),
        (16, 256, 4),
        (64, 128, 5),
        (196, 192, 3),
        (64, 512, 3),
    ):
        yield Recipe(
            f"gemm {length} rows of {width}, {count} times",
            chain(rows(1, length, width), count, _square),
        )


def _square(w: ModelWriter, x: Tensor) -> Tensor:
    return w.dense(x, x.shape[-1])


def _autoencoder(w: ModelWriter) -> Tensor:
    x = w.rows(1, 640)
    for width in (128, 128, 128, 8, 128, 128, 128):
        x = w.dense(x, width)
    return w.dense(x, 640, activation=None)


def _attention() -> Iterator[Recipe]:
    for length, width, heads, count in (
        (16, 64, 4, 3),
        (49, 128, 4, 2),
        (64, 128, 4, 2),
        (128, 256, 4, 1),
        (196, 192, 3, 1),
        (256, 64, 2, 2),
    ):
        yield Recipe(
            f"transformer {length} tokens of {width}, {heads} heads, {count} times",
            chain(rows(1, length, width), count, partial(transformer_block, heads=heads)),
        )
    for heads, length, width in ((4, 64, 32), (3, 196, 64), (8, 128, 32), (1, 384, 64)):
        yield Recipe(
            f"matmul {heads} of {length} by {width}",
            chain(rows(1, heads, length, width), 3, _product_with_itself),
        )


def _product_with_itself(w: ModelWriter, x: Tensor) -> Tensor:
    squared = w.product(x, w.transpose(x, 0, 1, 3, 2))
    return w.product(w.arithmetic("multiply", squared, 1e-3), x)


def _normalisations() -> Iterator[Recipe]:
    for shape in ((4, 64, 64), (8, 196, 196), (1, 16, 1000)):
        yield Recipe(
            f"normalise softmax of {' x '.join(map(str, shape))}",
            chain(rows(1, *shape), 6, lambda w, x: w.softmax(x)),
        )
    for length, width in ((16, 64), (196, 192), (256, 768)):
        yield Recipe(
            f"normalise layers of {length} x {width}",
            chain(rows(1, length, width), 6, lambda w, x: w.layer_norm(x)),
        )
    for channels, size in ((32, 56), (64, 28)):
        yield Recipe(
            f"normalise instances of {channels} channels at {size}",
            chain(image(channels, size), 4, lambda w, x: w.instance_norm(x)),
        )


_SIZES = ((16, 14), (64, 28), (32, 56), (32, 112), (32, 224))
_FUNCTIONS: tuple[tuple[str, Function], ...] = (
    ("Sigmoid", "sigmoid"),
    ("Tanh", "tanh"),
    ("Erf", "erf"),
    ("Exp", "exp"),
    ("HardSwish", "hard_swish"),
)


def _elementwise() -> Iterator[Recipe]:
    for channels, size in _SIZES:
        what = f"{channels} x {size} x {size}"
        start = image(channels, size)
        yield Recipe(f"elementwise sums of {what}", chain(start, 6, _sum_and_relu))
        if size < 224:
            yield Recipe(
                f"elementwise scaled channels of {what}",
                chain(start, 6, lambda w, x: w.scale_channels(x, 0.9)),
            )
    for name, function in _FUNCTIONS:
        for channels, size in ((64, 28), (32, 112)):
            yield Recipe(
                f"transcendental {name} of {channels} x {size} x {size}",
                chain(image(channels, size), 4, _of_the_negative(function)),
                _ONNX_ALONE if function == "erf" else FORMS,
            )
    yield Recipe(
        "transcendental GELU of 196 x 768", chain(rows(1, 196, 768), 4, lambda w, x: w.gelu(x))
    )
    yield Recipe("transcendental SiLU of 64 x 56 x 56", chain(image(64, 56), 4, _silu))


def _sum_and_relu(w: ModelWriter, x: Tensor) -> Tensor:
    return w.add(w.apply("relu", x), x)


def _of_the_negative(function: Function) -> Step:
    return lambda w, x: w.apply(function, w.apply("negative", x))


def _silu(w: ModelWriter, x: Tensor) -> Tensor:
    return w.arithmetic("multiply", x, w.apply("sigmoid", x))


_POOLS: tuple[tuple[str, PoolKind, int, int, int], ...] = (
    ("MaxPool", "maximum", 3, 16, 112),
    ("MaxPool", "maximum", 3, 64, 56),
    ("MaxPool", "maximum", 5, 128, 14),
    ("AveragePool", "average", 3, 64, 28),
    ("AveragePool", "average", 3, 32, 112),
)


def _pooling() -> Iterator[Recipe]:
    for name, kind, window, channels, size in _POOLS:
        yield Recipe(
            f"pool {name} {window}x{window} {channels} channels at {size}",
            chain(image(channels, size), 4, _pooled(kind, window)),
        )
    yield Recipe(
        "pool MaxPool halving 32 channels at 112",
        chain(image(32, 112), 4, lambda w, x: w.pool(x, "maximum", 3, 2)),
    )
    for channels, size in ((64, 7), (64, 56), (16, 112), (256, 14)):
        yield Recipe(
            f"reduce {channels} channels at {size}", chain(image(channels, size), 4, _gated_by_mean)
        )
    for length, width in ((196, 192), (1024, 64)):
        yield Recipe(
            f"reduce rows of {length} x {width}", chain(rows(1, length, width), 4, _without_mean)
        )


def _pooled(kind: PoolKind, window: int) -> Step:
    return lambda w, x: w.pool(x, kind, window)


def _gated_by_mean(w: ModelWriter, x: Tensor) -> Tensor:
    return w.arithmetic("multiply", x, w.global_pool(x))


def _without_mean(w: ModelWriter, x: Tensor) -> Tensor:
    return w.arithmetic("subtract", x, w.mean(x))


def _moves() -> Iterator[Recipe]:
    for size in (28, 64, 96):
        yield Recipe(
            f"move transposed {size} x {size} x {size}",
            chain(rows(1, size, size, size), 3, lambda w, x: w.add(x, w.transpose(x, 0, 3, 1, 2))),
        )
    for channels, size in ((16, 112), (64, 56), (64, 14)):
        what = f"{channels} channels at {size}"
        yield Recipe(
            f"move joined and cut {what}", chain(image(channels, size), 4, _joined_and_cut)
        )
        yield Recipe(
            f"move padded and cut {what}",
            chain(image(channels, size), 4, partial(_padded_and_cut, size=size)),
        )
    yield Recipe(
        "move resized (nearest) 32 channels at 28",
        chain(image(32, 28), 2, lambda w, x: w.enlarge(x, "nearest")),
    )
    yield Recipe(
        "move resized (linear) 32 channels at 28",
        chain(image(32, 28), 2, lambda w, x: w.enlarge(x, "linear")),
    )


def _joined_and_cut(w: ModelWriter, x: Tensor) -> Tensor:
    channels = w.channels(x)
    return w.cut(w.concat([w.apply("negative", x), x]), "channels", channels // 2, channels)


def _padded_and_cut(w: ModelWriter, x: Tensor, size: int) -> Tensor:
    return w.cut(w.cut(w.pad(x, 2), "height", 4, size), "width", 4, size)


def _recurrent() -> Iterator[Recipe]:
    made: tuple[tuple[Recurrence, int, int, int], ...] = (
        ("LSTM", 16, 32, 64),
        ("LSTM", 64, 64, 128),
        ("LSTM", 128, 16, 32),
        ("LSTM", 32, 128, 256),
        ("GRU", 32, 32, 64),
        ("GRU", 64, 64, 128),
        ("GRU", 256, 8, 48),
    )
    for kind, steps, inside, hidden in made:
        yield Recipe(
            f"recurrent {kind} of {hidden}, {steps} steps of {inside}, twice",
            _recurrent_layers(kind, steps, inside, hidden),
            _ONNX_ALONE if kind == "GRU" else FORMS,
        )


def _recurrent_layers(kind: Recurrence, steps: int, inside: int, hidden: int) -> Build:
    return chain(lambda w: w.sequence(steps, inside), 2, lambda w, x: w.recurrent(x, kind, hidden))


def _integer() -> Iterator[Recipe]:
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
        yield Recipe(
            f"int8 {kind} {kernel}x{kernel} {channels} channels at {size}, {count} times",
            chain(_quantised(image(channels, size)), count, _integer_conv(kernel, groups)),
        )
    for length, width, count in ((1, 512, 5), (1, 1024, 3), (64, 256, 4)):
        yield Recipe(
            f"int8 gemm {length} rows of {width}, {count} times",
            chain(_quantised(rows(length, width)), count, lambda w, x: w.integer_dense(x)),
        )


def _quantised(start: Build) -> Build:
    return lambda w: w.quantise(start(w))


def _integer_conv(kernel: int, groups: int) -> Step:
    return lambda w, x: w.integer_conv(x, kernel, groups)


def _tiny() -> Iterator[Recipe]:
    small = image(8, 4)
    for count in (30, 120):
        yield Recipe(f"tiny sums, {count} times", chain(small, count, _sum_and_relu))
    yield Recipe("tiny gemm, 60 times", chain(rows(1, 8), 60, _square))
    yield Recipe("tiny conv, 60 times", chain(small, 60, conv(8)))
    yield Recipe("tiny pointwise, 60 times", chain(small, 60, conv(8, 1)))
    yield Recipe("tiny moves, 30 times", chain(small, 30, _joined_and_cut))
    yield Recipe(
        "tiny transformer, 6 times",
        chain(rows(1, 8, 16), 6, partial(transformer_block, heads=2)),
    )


def _mixed() -> Iterator[Recipe]:
    for channels, size, kernel in ((16, 56, 3), (24, 28, 5), (40, 28, 3), (80, 14, 5)):
        yield Recipe(
            f"mixed inverted residuals {kernel}x{kernel} of {channels} channels at {size}",
            chain(image(channels, size), 3, partial(inverted_residual, kernel=kernel)),
        )
    for channels, size in ((16, 56), (32, 28), (64, 14), (128, 7)):
        start = image(channels, size)
        what = f"{channels} channels at {size}"
        yield Recipe(f"mixed residual blocks of {what}", chain(start, 2, residual_block))
        yield Recipe(f"mixed gated blocks of {what}", chain(start, 3, gated_block))
        yield Recipe(f"mixed wide blocks with norm of {what}", chain(start, 2, wide_block))
    yield Recipe(
        "mixed dense blocks of 32 channels at 28", chain(image(32, 28), 4, _densely_joined)
    )
    yield Recipe("mixed hourglass of 16 channels at 64", _hourglass)
    for size in (32, 96):
        yield Recipe(f"mixed small classifier at {size}", partial(_classifier, size=size))


def _densely_joined(w: ModelWriter, x: Tensor) -> Tensor:
    return w.concat([x, w.conv(w.conv(x, 64, 1), 16)])


def _hourglass(w: ModelWriter) -> Tensor:
    first = w.conv(w.image(16, 64, 64), 16)
    second = w.conv(w.pool(first, stride=2), 32)
    third = w.conv(w.pool(second, stride=2), 64)
    up = w.conv(w.concat([w.enlarge(third, "nearest"), second]), 32)
    return w.conv(w.concat([w.enlarge(up, "nearest"), first]), 16)


def _classifier(w: ModelWriter, size: int) -> Tensor:
    x = w.conv(w.image(3, size, size), 16, stride=2)
    for channels in (32, 64, 128):
        x = w.conv(w.depthwise(x, stride=2), channels, 1)
    return w.classify(x)
