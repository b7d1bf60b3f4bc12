"""What each type of an ncnn layer makes of its inputs: shapes, weights, and what it must not be.

ncnn trusts a file: it neither compares a layer's weights with the channels that come in, nor looks
whether a window fits. So every type that is known here has its shapes told as ncnn computes them
(src/layer/*.cpp of ncnn), and every other type is refused by its name. Shapes are (channels,
height, width), (height, width) or (width,); ncnn has no batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

from device_agent.errors import ModelRejectedError
from device_agent.ncnn_file import Layer, Value

Shape = tuple[int, ...]

_SAME_UPPER, _SAME_LOWER = -233, -234
_ABSENT = -233
_INT8, _DYNAMIC = 8, 19
# By number: no activation, ReLU, leaky ReLU, clip, sigmoid, Mish, hard swish; their parameters.
_ACTIVATION_PARAMETERS = (0, 0, 1, 2, 0, 0, 2)
_MOST_AXES = 3
# Of BinaryOp and UnaryOp: what every version of ncnn since 2023 knows.
_BINARY_OPERATIONS, _UNARY_OPERATIONS = 12, 20
_PERMUTATIONS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@dataclass(frozen=True)
class Weight:
    """Numbers in the file of weights; `marked` ones have four bytes before them that tell their
    form, 0 for float32.
    """

    elements: int
    marked: bool


@dataclass(frozen=True)
class Made:
    """What a layer makes: outputs, the weights that it reads in this order, and the elements of
    the largest array that it needs meanwhile.
    """

    shapes: tuple[Shape, ...]
    weights: tuple[Weight, ...] = ()
    working_elements: int = 0


def infer(layer: Layer, shapes: Sequence[Shape]) -> Made:
    """What `layer` makes of inputs of these shapes.

    Raises ModelRejectedError for an unknown type, and for values, counts of blobs and shapes that
    do not fit together.
    """
    kind = _KINDS.get(layer.kind)
    if kind is None:
        raise ModelRejectedError(
            f"the model has a layer {_shown(layer)}, a type that is not known to be safe:"
            " export the model without it"
        )
    if len(layer.reads) not in kind.reads or not 1 <= len(layer.writes) <= kind.most_writes:
        raise refused(layer, f"reads {len(layer.reads)} blobs and writes {len(layer.writes)}")
    _check_values(layer, kind)
    return kind.make(layer, tuple(shapes))


def refused(layer: Layer, why: str) -> ModelRejectedError:
    """The refusal of one layer; `why` follows its name."""
    return ModelRejectedError(f"the layer {_shown(layer)} of the model {why}: export it again")


def _shown(layer: Layer) -> str:
    return f"{layer.kind[:40]} {layer.name[:80]!a}"


# ---- values -----------------------------------------------------------------------------------

_ONE, _TWO, _MANY = range(1, 2), range(2, 3), range(1, 10_000)


@dataclass(frozen=True)
class _Kind:
    make: Callable[[Layer, tuple[Shape, ...]], Made]
    ints: frozenset[int] = frozenset()
    floats: frozenset[int] = frozenset()
    int_arrays: frozenset[int] = frozenset()
    float_arrays: frozenset[int] = frozenset()
    reads: range = _ONE
    most_writes: int = 1


def _check_values(layer: Layer, kind: _Kind) -> None:
    """ncnn takes the bits of a value for whatever it expects, so kinds must be right."""
    for number, value in layer.values.items():
        if number not in _home(value, kind):
            if number in (_INT8, _DYNAMIC) and not value:
                continue
            if number == _INT8:
                raise refused(layer, "has int8 weights, and only float32 is known to be safe")
            raise refused(layer, f"has a value {number}={value} that is unknown or no such number")


def _home(value: Value, kind: _Kind) -> frozenset[int]:
    if value == ():
        return kind.float_arrays | kind.int_arrays
    if isinstance(value, tuple):
        return kind.float_arrays if isinstance(value[0], float) else kind.int_arrays
    return kind.floats if isinstance(value, float) else kind.ints


def _int(layer: Layer, number: int, default: int = 0) -> int:
    value = layer.values.get(number, default)
    return value if isinstance(value, int) else default


def _flag(layer: Layer, number: int) -> bool:
    value = _int(layer, number)
    if value not in (0, 1):
        raise refused(layer, f"has {number}={value}, which is 0 or 1")
    return bool(value)


def _at_least(layer: Layer, number: int, least: int, value: int) -> int:
    if value < least:
        raise refused(layer, f"has {number}={value}, which is {least} at least")
    return value


def _array(layer: Layer, number: int) -> tuple[float, ...]:
    value = layer.values.get(number, ())
    return value if isinstance(value, tuple) else ()


def _axis(layer: Layer, axis: float, rank: int) -> int:
    if not -rank <= axis < rank:
        raise refused(layer, f"names the axis {axis} of {rank}")
    return int(axis) % rank


def _check_rank(layer: Layer, shape: Shape, *ranks: int) -> None:
    if len(shape) not in ranks:
        raise refused(layer, f"is given the shape {list(shape)}, which it cannot take")


# ---- windows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Windows:
    """Windows along one axis. `before` and `after` are the padding, or one of the marks that let
    ncnn pad by itself.
    """

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def extent(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    def own_padding(self, size: int) -> int:
        """What ncnn adds so that there is a window at every stride; below 0 it adds nothing."""
        return self.extent + (size - 1) // self.stride * self.stride - size

    def is_padded_by_ncnn(self) -> bool:
        return self.before in (_SAME_UPPER, _SAME_LOWER)


def _two_windows(layer: Layer, stride: int, padding: int, dilation: int | None) -> list[_Windows]:
    """Along height and width. Numbers of the values for the width are 1 for the kernel and those
    given; of the padding on the left, and those for the height stand ten further; the padding
    behind stands eleven and twelve further.
    """
    windows = []
    for further, behind in ((10, 12), (0, 11)):

        def read(number: int, default: int, least: int, further: int = further) -> int:
            value = _int(layer, number, default)
            return _at_least(layer, number, least, _int(layer, number + further, value))

        before = read(padding, 0, _SAME_LOWER)
        windows.append(
            _Windows(
                kernel=read(1, 0, 1),
                stride=read(stride, 1, 1),
                dilation=1 if dilation is None else read(dilation, 1, 1),
                before=before,
                after=_at_least(
                    layer,
                    padding + behind,
                    _SAME_LOWER,
                    _int(layer, padding + behind, before),
                ),
            )
        )
    return windows


def _check_padding(layer: Layer, windows: Sequence[_Windows]) -> None:
    """All of it is stated, or none: ncnn looks for the mark in all four places."""
    sides = [side for each in windows for side in (each.before, each.after)]
    if min(sides) < 0 and (len(set(sides)) > 1 or sides[0] not in (_SAME_UPPER, _SAME_LOWER)):
        raise refused(layer, f"has the padding {sides}")


def _padded(layer: Layer, windows: Sequence[_Windows], sizes: Shape) -> Shape:
    """Height and width with the padding that the values state, or that ncnn adds."""
    if windows[0].is_padded_by_ncnn():
        added = [each.own_padding(size) for each, size in zip(windows, sizes)]
        if min(added) < 0 < max(added):
            # ncnn would then cut off one axis while it pads the other.
            raise refused(layer, "has windows that are narrower than their strides on one axis")
        return tuple(size + max(0, more) for size, more in zip(sizes, added))
    return tuple(each.before + size + each.after for each, size in zip(windows, sizes))


def _count_windows(layer: Layer, windows: Sequence[_Windows], padded: Shape) -> Shape:
    if any(each.extent > size for each, size in zip(windows, padded)):
        extents = [each.extent for each in windows]
        raise refused(layer, f"has windows of {extents} in a map of {list(padded)}")
    return tuple((size - each.extent) // each.stride + 1 for each, size in zip(windows, padded))


# ---- layers with weights ----------------------------------------------------------------------


def _check_activation(layer: Layer) -> None:
    kind = _int(layer, 9)
    if kind not in range(len(_ACTIVATION_PARAMETERS)):
        raise refused(layer, f"has the activation {kind}, which is unknown")
    given = len(_array(layer, 10))
    if given < _ACTIVATION_PARAMETERS[kind]:
        raise refused(layer, f"has {given} parameters of its activation {kind}")


def _check_weights(layer: Layer, number: int, needed: int) -> None:
    stated = _int(layer, number)
    if stated != needed:
        raise refused(layer, f"has {stated} weights, and its inputs and outputs need {needed}")


def _matrix(outputs: int, elements: int, *, bias: bool) -> tuple[Weight, ...]:
    weights = Weight(elements, marked=True)
    return (weights, Weight(outputs, marked=False)) if bias else (weights,)


def _convolution(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    return _convolve(layer, shapes[0], groups=1)


def _grouped_convolution(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    groups = _at_least(layer, 7, 1, _int(layer, 7, 1))
    _check_rank(layer, shapes[0], 3)
    if shapes[0][0] % groups or _int(layer, 0) % groups:
        raise refused(layer, f"has {groups} groups, which do not divide its channels")
    return _convolve(layer, shapes[0], groups=groups)


def _convolve(layer: Layer, shape: Shape, groups: int) -> Made:
    _check_activation(layer)
    _check_rank(layer, shape, 1, 3)
    channels, height, width = shape if len(shape) == 3 else (*shape, 1, 1)
    outputs = _at_least(layer, 0, 1, _int(layer, 0))
    windows = _two_windows(layer, stride=3, padding=4, dilation=2)
    _check_padding(layer, windows)
    if len(shape) == 1 and windows != [_Windows(1, 1, 1, 0, 0)] * 2:
        raise refused(layer, "has windows over an input of one axis")
    window = math.prod(each.kernel for each in windows) * channels // groups
    _check_weights(layer, 6, outputs * window)
    padded = _padded(layer, windows, (height, width))
    sizes = _count_windows(layer, windows, padded)
    return Made(
        ((outputs, *sizes) if len(shape) == 3 else (outputs,),),
        _matrix(outputs, outputs * window, bias=_flag(layer, 5)),
        # Some ways to convolve lay all windows side by side, in tiles.
        max(channels * math.prod(padded), window * math.prod(sizes) // 8),
    )


def _inner_product(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    _check_activation(layer)
    outputs = _at_least(layer, 0, 1, _int(layer, 0))
    stated = _int(layer, 2)
    is_rows = len(shape) == 2 and stated == outputs * shape[-1]
    _check_weights(layer, 2, outputs * (shape[-1] if is_rows else math.prod(shape)))
    return Made(
        ((shape[0], outputs) if is_rows else (outputs,),),
        _matrix(outputs, stated, bias=_flag(layer, 1)),
    )


def _batch_norm(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    _check_weights(layer, 0, shape[0])
    return Made(shapes, (Weight(shape[0], marked=False),) * 4)


# ---- layers without weights -------------------------------------------------------------------


def _input(layer: Layer, _: tuple[Shape, ...]) -> Made:
    sizes = [_int(layer, number) for number in (2, 1, 0)]
    while sizes and sizes[0] == 0:
        sizes.pop(0)
    if not sizes or min(sizes) < 1:
        raise refused(layer, "does not state its sizes 0=width 1=height 2=channels")
    return Made((tuple(sizes),))


def _same(_: Layer, shapes: tuple[Shape, ...]) -> Made:
    return Made(shapes)


def _split(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    return Made(shapes * len(layer.writes))


def _unary(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    if _int(layer, 0) not in range(_UNARY_OPERATIONS):
        raise refused(layer, f"has the operation {_int(layer, 0)}, which is unknown")
    return Made(shapes)


def _softmax(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    axis = _int(layer, 0)
    _axis(layer, axis, len(shapes[0]))
    if axis and not _flag(layer, 1):
        raise refused(layer, "is of an old ncnn, which took axes otherwise: it needs 1=1")
    return Made(shapes)


def _pooling(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    _check_rank(layer, shape, 3)
    _flag(layer, 0)
    if _flag(layer, 4):
        return Made((shape[:1],))
    if _flag(layer, 7):
        wanted = (_int(layer, 18, _int(layer, 8)), _int(layer, 8))
        adapted = (old if new == _ABSENT else new for new, old in zip(wanted, shape[1:]))
        return Made(((shape[0], *(_at_least(layer, 8, 1, size) for size in adapted)),))
    windows = _two_windows(layer, stride=2, padding=3, dilation=None)
    mode = _int(layer, 5)
    if mode not in range(4) or min(min(each.before, each.after) for each in windows) < 0:
        raise refused(layer, "has an unknown padding")
    if mode in (2, 3):
        marked = [_Windows(each.kernel, each.stride, 1, _SAME_UPPER, 0) for each in windows]
        padded = _padded(layer, marked, shape[1:])
    else:
        padded = _padded(layer, windows, shape[1:])
    if mode == 0:
        _count_windows(layer, windows, padded)
        # As much more behind as lets the last window end where the map ends.
        padded = tuple(
            size + -(size - each.kernel) % each.stride for each, size in zip(windows, padded)
        )
    counts = _count_windows(layer, windows, padded)
    return Made(((shape[0], *counts),), working_elements=shape[0] * math.prod(padded))


def _binary(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    if _int(layer, 0) not in range(_BINARY_OPERATIONS):
        raise refused(layer, f"has the operation {_int(layer, 0)}, which is unknown")
    if _flag(layer, 1) != (len(shapes) == 1):
        raise refused(layer, "has another number of inputs than it says")
    if len(shapes) == 1:
        return Made(shapes)
    large, small = sorted(shapes, key=lambda each: (len(each), math.prod(each)), reverse=True)
    # One axis stands for the first one where the sizes agree, as a gate of channels does.
    spread = small if len(small) == len(large) else (*small, *(1,) * (len(large) - len(small)))
    fits = len(small) in (1, len(large)) and all(
        own in (1, other) for own, other in zip(spread, large)
    )
    if not fits:
        raise refused(layer, f"is given the shapes {list(shapes[0])} and {list(shapes[1])}")
    return Made((large,))


def _elementwise(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    if _int(layer, 0) not in range(3) or len(shapes) < 2 or len(set(shapes)) > 1:
        raise refused(layer, "has an unknown operation or inputs of different shapes")
    if len(_array(layer, 1)) not in (0, len(shapes)):
        raise refused(layer, "has another number of coefficients than of inputs")
    return Made(shapes[:1])


def _flatten(_: Layer, shapes: tuple[Shape, ...]) -> Made:
    return Made(((math.prod(shapes[0]),),))


def _reshape(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    given = [_int(layer, number, _ABSENT) for number in (0, 1, 2)]
    rank = given.index(_ABSENT) if _ABSENT in given else 3
    if not rank or any(size != _ABSENT for size in given[rank:]):
        raise refused(layer, "does not state its sizes 0=width 1=height 2=channels")
    own = (*reversed(shape), 1, 1)
    sizes = [own[axis] if size == 0 else size for axis, size in enumerate(given[:rank])]
    known = math.prod(size for size in sizes if size != -1)
    total = math.prod(shape)
    if sizes.count(-1) == 1 and known > 0:
        sizes[sizes.index(-1)] = total // known
    if min(sizes) < 1 or math.prod(sizes) != total:
        raise refused(layer, f"makes {given[:rank]} of the shape {list(shape)}")
    return Made((tuple(reversed(sizes)),))


def _concat(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    axis = _axis(layer, _int(layer, 0), len(shapes[0]))
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1 or any(
        len(shape) != len(shapes[0]) for shape in shapes
    ):
        raise refused(layer, f"is given the shapes {[list(shape) for shape in shapes][:10]}")
    joined = list(shapes[0])
    joined[axis] = sum(shape[axis] for shape in shapes)
    return Made((tuple(joined),))


def _padding(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    if any(_int(layer, number) for number in (6, 7, 8)):
        raise refused(layer, "pads channels or pads each of them with another value")
    top, bottom, left, right = (
        _at_least(layer, number, 0, _int(layer, number)) for number in range(4)
    )
    sides = [(0, 0), (top, bottom), (left, right)][-len(shape) :]
    if len(shape) == 1 and (top or bottom):
        raise refused(layer, "pads an axis that its input has not got")
    reflects = _int(layer, 4) == 2
    if _int(layer, 4) not in range(3) or (
        reflects and any(max(pair) >= size for pair, size in zip(sides, shape))
    ):
        raise refused(layer, "has an unknown way to pad, or reflects more than there is")
    return Made((tuple(size + sum(pair) for pair, size in zip(sides, shape)),))


def _permute(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    order = _int(layer, 0)
    if order not in range((1, 2, 6)[len(shape) - 1]):
        raise refused(layer, f"has the order {order} for {len(shape)} axes")
    if len(shape) == 3:
        return Made((tuple(shape[axis] for axis in _PERMUTATIONS[order]),))
    return Made((shape[::-1] if order else shape,))


def _squeeze(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    rank = len(shape)
    axes = {_axis(layer, axis, rank) for axis in _array(layer, 3)}
    if not axes:
        # Width, height and channels, as far as the shape has them.
        axes = {rank - 1 - back for back in range(rank) if _flag(layer, back)}
    kept = tuple(size for axis, size in enumerate(shape) if size > 1 or axis not in axes)
    return Made((kept or (1,),))


def _expand(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    axes = _array(layer, 3)
    rank = len(shape) + len(axes)
    places = {_axis(layer, axis, rank) for axis in axes}
    if not axes or rank > _MOST_AXES or len(places) < len(axes):
        raise refused(layer, f"adds the axes {list(axes)} to the shape {list(shape)}")
    sizes = iter(shape)
    return Made((tuple(1 if axis in places else next(sizes) for axis in range(rank)),))


def _shuffle(layer: Layer, shapes: tuple[Shape, ...]) -> Made:
    (shape,) = shapes
    _check_rank(layer, shape, 3)
    _flag(layer, 1)
    groups = _at_least(layer, 0, 1, _int(layer, 0, 1))
    if shape[0] % groups:
        raise refused(layer, f"has {groups} groups, which do not divide its {shape[0]} channels")
    return Made(shapes)


def _numbers(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


_CONVOLUTION_INTS = _numbers(0, 1, 2, 3, 4, 5, 6, 9, 11, 12, 13, 14, 15, 16)
_KINDS: Mapping[str, _Kind] = {
    "Input": _Kind(_input, ints=_numbers(0, 1, 2), reads=range(1)),
    "Convolution": _Kind(
        _convolution, _CONVOLUTION_INTS, floats=_numbers(18), float_arrays=_numbers(10)
    ),
    "ConvolutionDepthWise": _Kind(
        _grouped_convolution,
        _CONVOLUTION_INTS | {7},
        floats=_numbers(18),
        float_arrays=_numbers(10),
    ),
    "InnerProduct": _Kind(_inner_product, _numbers(0, 1, 2, 9), float_arrays=_numbers(10)),
    "BatchNorm": _Kind(_batch_norm, _numbers(0), floats=_numbers(1)),
    "Pooling": _Kind(_pooling, _numbers(0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 18)),
    "BinaryOp": _Kind(_binary, _numbers(0, 1), floats=_numbers(2), reads=range(1, 3)),
    "Eltwise": _Kind(_elementwise, _numbers(0), float_arrays=_numbers(1), reads=_MANY),
    "Split": _Kind(_split, most_writes=_MANY.stop),
    "Flatten": _Kind(_flatten),
    "Reshape": _Kind(_reshape, _numbers(0, 1, 2)),
    "Concat": _Kind(_concat, _numbers(0), reads=_MANY),
    "Padding": _Kind(_padding, _numbers(0, 1, 2, 3, 4, 6, 7, 8), floats=_numbers(5)),
    "Permute": _Kind(_permute, _numbers(0)),
    "Squeeze": _Kind(_squeeze, _numbers(0, 1, 2), int_arrays=_numbers(3)),
    "ExpandDims": _Kind(_expand, int_arrays=_numbers(3)),
    "ShuffleChannel": _Kind(_shuffle, _numbers(0, 1)),
    "Softmax": _Kind(_softmax, _numbers(0, 1)),
    "UnaryOp": _Kind(_unary, _numbers(0)),
    "ReLU": _Kind(_same, floats=_numbers(0)),
    "Clip": _Kind(_same, floats=_numbers(0, 1)),
    "HardSwish": _Kind(_same, floats=_numbers(0, 1)),
    "HardSigmoid": _Kind(_same, floats=_numbers(0, 1)),
    "ELU": _Kind(_same, floats=_numbers(0)),
    "SELU": _Kind(_same, floats=_numbers(0, 1)),
    "GELU": _Kind(_same, ints=_numbers(0)),
    "Dropout": _Kind(_same, floats=_numbers(0)),
    "Sigmoid": _Kind(_same),
    "Swish": _Kind(_same),
    "TanH": _Kind(_same),
    "AbsVal": _Kind(_same),
    "Mish": _Kind(_same),
    "Noop": _Kind(_same),
}

KNOWN_LAYERS = frozenset(_KINDS)
"""The types of layers that a model may have."""
