"""Synthetic .tflite networks to calibrate LiteRT with: what micrographs.py is for ONNX.

Chains of equal steps in the sizes that networks have, each a mixture of few kernel classes.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from benchmarks.arbitrary_onnx.tflite_file import TfliteFile

Step = Callable[[TfliteFile, int], int]


def micro_files() -> Mapping[str, Callable[[], bytes]]:
    """What writes each network, by name."""
    return dict(_families())


def _families() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield from _convolutions()
    yield from _products()
    yield from _without_weights()
    yield from _moves()


def _chain(shape: tuple[int, ...], count: int, step: Step) -> Callable[[], bytes]:
    def write() -> bytes:
        file = TfliteFile()
        x = file.input(*shape)
        for _ in range(count):
            x = step(file, x)
        return file.bytes(x)

    return write


def _image(channels: int, size: int) -> tuple[int, ...]:
    return (1, size, size, channels)


def _convolutions() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for channels, size, window, count in (
        (16, 112, 3, 3), (32, 56, 3, 3), (64, 28, 3, 4), (128, 14, 3, 4), (256, 7, 3, 3),
        (512, 7, 3, 2), (32, 28, 5, 3), (64, 14, 5, 3), (24, 28, 7, 3),
    ):  # fmt: skip

        def conv(f: TfliteFile, x: int, c: int = channels, w: int = window) -> int:
            return f.conv(x, c, w, 1, "relu")

        yield (
            f"conv {window}x{window} {channels} at {size}",
            _chain(_image(channels, size), count, conv),
        )
    for channels, size, count in (
        (16, 112, 4), (24, 56, 6), (96, 28, 5), (192, 28, 3), (512, 14, 2), (512, 7, 4),
        (1024, 7, 2), (1024, 1, 2),
    ):  # fmt: skip

        def pointwise(f: TfliteFile, x: int, c: int = channels) -> int:
            return f.conv(x, c, 1, 1, "relu6")

        yield f"pointwise {channels} at {size}", _chain(_image(channels, size), count, pointwise)
    for channels, size, window, count in (
        (16, 112, 3, 5), (96, 56, 3, 4), (192, 28, 3, 5), (384, 14, 3, 6), (960, 7, 3, 6),
        (48, 56, 5, 4), (480, 14, 5, 4), (96, 28, 7, 3),
    ):  # fmt: skip

        def depthwise(f: TfliteFile, x: int, w: int = window) -> int:
            return f.depthwise(x, w, 1, "relu6")

        yield (
            f"depthwise {window}x{window} {channels} at {size}",
            _chain(_image(channels, size), count, depthwise),
        )
    for side in (96, 224):
        yield (
            f"stem at {side}",
            _chain(_image(3, side), 1, lambda f, x: f.conv(f.conv(x, 32, 3, 2, "relu"), 32, 3, 2)),
        )


def _products() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for width, count in ((64, 8), (256, 6), (512, 5), (1024, 2), (2048, 1)):
        yield (
            f"gemm {width}",
            _chain((1, width), count, lambda f, x: f.linear(x, f.shape(x)[-1], "relu")),
        )
    for rows, width, count in ((64, 128, 5), (196, 192, 3)):
        yield (
            f"gemm {rows} rows of {width}",
            _chain((1, rows, width), count, lambda f, x: f.linear(x, f.shape(x)[-1])),
        )
    for heads, rows in ((4, 64), (1, 256)):
        yield (
            f"matmul {heads} of {rows}",
            _chain(
                (1, heads, rows, rows), 3, lambda f, x: f.add("BATCH_MATMUL", [x, x], f.shape(x))
            ),
        )


def _without_weights() -> Iterator[tuple[str, Callable[[], bytes]]]:
    sizes = ((16, 14), (64, 28), (32, 56), (32, 112))
    for channels, size in sizes:
        shape = _image(channels, size)
        yield (
            f"sums {channels} at {size}",
            _chain(
                shape, 6, lambda f, x: f.add("ADD", [x, f.add("ABS", [x], f.shape(x))], f.shape(x))
            ),
        )
        yield f"scaled {channels} at {size}", _chain(shape, 4, _gated)
    for op in ("LOGISTIC", "TANH", "HARD_SWISH", "SOFTMAX", "EXP"):
        for channels, size in ((64, 28), (32, 112)):

            def unary(f: TfliteFile, x: int, op: str = op) -> int:
                options = {"beta": 1.0} if op == "SOFTMAX" else {}
                return f.add(op, [f.add("ABS", [x], f.shape(x))], f.shape(x), **options)

            yield f"{op} {channels} at {size}", _chain(_image(channels, size), 4, unary)
    for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        for channels, size in ((64, 28), (32, 112)):

            def pool(f: TfliteFile, x: int, op: str = op) -> int:
                return f.pool(x, op, 3, 1)

            yield f"{op} {channels} at {size}", _chain(_image(channels, size), 4, pool)
    yield (
        "halved 32 at 112",
        _chain(_image(32, 112), 4, lambda f, x: f.pool(x, "MAX_POOL_2D", 2, 2)),
    )
    yield "one sum", _chain(_image(4, 4), 1, lambda f, x: f.add("ADD", [x, x], f.shape(x)))
    yield "thirty sums", _chain(_image(8, 8), 30, lambda f, x: f.add("ADD", [x, x], f.shape(x)))


def _gated(f: TfliteFile, x: int) -> int:
    axes = f.constant(np.array([1, 2], np.int32))
    mean = f.add("MEAN", [x, axes], (1, 1, 1, f.shape(x)[-1]), keepDims=True)
    return f.add("MUL", [x, mean], f.shape(x))


def _moves() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for channels, size in ((16, 112), (64, 28), (64, 14)):
        shape = _image(channels, size)
        yield f"joined {channels} at {size}", _chain(shape, 3, _joined)
        yield f"padded {channels} at {size}", _chain(shape, 4, _padded)
        yield f"transposed {channels} at {size}", _chain(shape, 4, _transposed)
        yield f"resized {channels} at {size}", _chain(shape, 1, _resized)


def _joined(f: TfliteFile, x: int) -> int:
    *front, channels = f.shape(x)
    joined = f.add("CONCATENATION", [f.add("ABS", [x], f.shape(x)), x], (*front, 2 * channels),
                   axis=3)  # fmt: skip
    begin, size = np.zeros(4, np.int32), np.array(f.shape(x), np.int32)
    return f.add("SLICE", [joined, f.constant(begin), f.constant(size)], f.shape(x))


def _padded(f: TfliteFile, x: int) -> int:
    batch, height, width, channels = f.shape(x)
    amounts = f.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    padded = f.add("PAD", [x, amounts], (batch, height + 2, width + 2, channels))
    begin = f.constant(np.array([0, 1, 1, 0], np.int32))
    return f.add("SLICE", [padded, begin, f.constant(np.array(f.shape(x), np.int32))], f.shape(x))


def _transposed(f: TfliteFile, x: int) -> int:
    order = f.constant(np.array([0, 2, 1, 3], np.int32))
    return f.add("ADD", [x, f.add("TRANSPOSE", [x, order], f.shape(x))], f.shape(x))


def _resized(f: TfliteFile, x: int) -> int:
    batch, height, width, channels = f.shape(x)
    size = f.constant(np.array([2 * height, 2 * width], np.int32))
    return f.add("RESIZE_BILINEAR", [x, size], (batch, 2 * height, 2 * width, channels),
                 halfPixelCenters=True)  # fmt: skip
