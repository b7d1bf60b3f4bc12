"""Kernels that onnxruntime makes of several operators: Gelu, normalisations, dynamic quantisation.

- Gelu: 0.5 x (1 + erf(x / sqrt 2)), the division by a constant written as one. A constant row that
  is added before it makes it BiasGelu.
- LayerNormalization: (x - mean) / sqrt(var + eps) * scale + bias over the last axis. Without the
  mean it is SimplifiedLayerNormalization (RMS). A sum of two tensors of rank 3 before a
  LayerNormalization over the last axis makes it SkipLayerNormalization, and that takes in a
  constant row added to one of them.
- QuickGelu: x * Sigmoid(c * x) with a constant c.
- A Reshape to sizes of its own input, gathered one by one and concatenated with constants, needs no
  computed shape.
- Gathers of single, constant indices that take a whole axis apart are one Split.
- DynamicQuantizeLinear + MatMulInteger + Cast + Mul by the scales: DynamicQuantizeMatMul, or
  MatMulIntegerToFloat where others read the quantised tensor too; both take in a constant bias.
"""

import dataclasses
import math
from collections.abc import Callable

from cost_models.program import Operator, Program
from cost_models.wiring import Wiring

_CLOSE = 1e-3
_TRIGGERS = frozenset(
    {"Erf", "Sqrt", "Gelu", "LayerNormalization", "MatMulInteger", "Sigmoid", "Gather", "Reshape"}
)


def fuse_patterns(program: Program) -> Program:
    """The program with those kernels."""
    if not any(operator.op in _TRIGGERS for operator in program.operators):
        return program
    wiring = Wiring(program)
    for rule, trigger in _RULES:
        for operator in list(wiring.slots):
            if operator is not None and operator.op == trigger and _stands(operator, wiring):
                rule(operator, wiring)
    return wiring.program()


def _stands(operator: Operator, wiring: Wiring) -> bool:
    return bool(operator.outputs) and wiring.maker(operator.outputs[0]) is operator


def _near(value: float | None, wanted: float) -> bool:
    return value is not None and abs(value - wanted) <= _CLOSE


def _other(operator: Operator, name: str) -> str:
    """The operand of a binary operator that is not `name`."""
    return next((other for other in operator.inputs if other != name), "")


def _put_last(old: list[Operator], new: Operator, wiring: Wiring) -> None:
    place = wiring.place(new.outputs[0])
    if place is not None:
        wiring.replace(old, new, place)


def _gelu(erf: Operator, wiring: Wiring) -> None:
    scaled = wiring.maker(erf.inputs[0], "Div")
    plus = wiring.only_reader(erf.outputs[0], "Add")
    if scaled is None or wiring.only_reader(scaled.outputs[0]) is None or plus is None:
        return
    root, one = wiring.scalar(scaled.inputs[1]), wiring.scalar(_other(plus, erf.outputs[0]))
    product = wiring.only_reader(plus.outputs[0], "Mul")
    if not _near(root, math.sqrt(2)) or not _near(one, 1.0) or product is None:
        return
    source = scaled.inputs[0]
    operand = _other(product, plus.outputs[0])
    if operand == source:
        half = wiring.only_reader(product.outputs[0], "Mul")
        halved = half is not None and _near(wiring.scalar(_other(half, product.outputs[0])), 0.5)
        steps = [scaled, erf, plus, product] + ([half] if half is not None else [])
    else:
        half = wiring.maker(operand, "Mul")
        alone = half is not None and wiring.only_reader(operand) is not None
        halved = alone and half is not None and source in half.inputs
        halved = halved and half is not None and _near(wiring.scalar(_other(half, source)), 0.5)
        steps = [scaled, erf, plus, *([half] if half is not None else []), product]
    if halved:
        _put_last(steps, Operator("Gelu", (source,), steps[-1].outputs), wiring)


def _bias_gelu(gelu: Operator, wiring: Wiring) -> None:
    add = wiring.maker(gelu.inputs[0], "Add")
    if add is None or wiring.only_reader(add.outputs[0]) is None or len(gelu.inputs) != 1:
        return
    row = _constant_row(add, wiring)
    if row is None or gelu.text("approximate", "none") != "none":
        return
    _put_last([add, gelu], Operator("BiasGelu", (_other(add, row), row), gelu.outputs), wiring)


def _constant_row(add: Operator, wiring: Wiring) -> str | None:
    """The operand of a sum that is a constant of one number for each element of the last axis."""
    shape = wiring.shape(add.outputs[0])
    if not shape or len(add.inputs) != 2:
        return None
    rows = (n for n in add.inputs if wiring.constant(n) and wiring.shape(n) == shape[-1:])
    return next(rows, None)


def _layer_norm(root: Operator, wiring: Wiring) -> None:
    """Match from the square root of the variance, up to the mean and down to the bias."""
    eps = wiring.maker(root.inputs[0], "Add")
    divide = wiring.only_reader(root.outputs[0], "Div")
    if eps is None or divide is None or divide.inputs[1] != root.outputs[0]:
        return
    variance = next((m for n in eps.inputs if (m := wiring.maker(n, "ReduceMean"))), None)
    if variance is None or not _over_last_axis(variance, wiring):
        return
    square = wiring.maker(variance.inputs[0], "Pow")
    if square is None or not _near(wiring.scalar(square.inputs[1]), 2.0):
        return
    inner = [square, variance, eps, root]
    if any(wiring.only_reader(step.outputs[0]) is None for step in inner):
        return
    centred = square.inputs[0]
    scale = wiring.only_reader(divide.outputs[0], "Mul")
    if divide.inputs[0] != centred or scale is None:
        return
    weights = _other(scale, divide.outputs[0])
    if not wiring.constant(weights):
        return
    _put_layer_norm([*inner, divide, scale], centred, weights, wiring)


def _put_layer_norm(steps: list[Operator], centred: str, weights: str, wiring: Wiring) -> None:
    scale = steps[-1]
    less = wiring.maker(centred, "Sub")
    shift = wiring.only_reader(scale.outputs[0], "Add")
    mean = wiring.maker(less.inputs[1], "ReduceMean") if less is not None else None
    if less is not None and mean is not None and shift is not None:
        bias = _other(shift, scale.outputs[0])
        whole = mean.inputs[0] == less.inputs[0] and _over_last_axis(mean, wiring)
        alone = wiring.only_reader(mean.outputs[0]) is not None
        if whole and alone and wiring.constant(bias) and len(wiring.readers(centred)) == 2:
            new = Operator(
                "LayerNormalization",
                (less.inputs[0], weights, bias),
                shift.outputs,
                {"axis": -1},
            )
            _put_last([mean, less, *steps, shift], new, wiring)
            return
    new = Operator("SimplifiedLayerNormalization", (centred, weights), scale.outputs)
    _put_last(steps, new, wiring)


def _over_last_axis(mean: Operator, wiring: Wiring) -> bool:
    rank = wiring.rank(mean.inputs[0])
    axes = mean.integers("axes")
    if axes is None and len(mean.inputs) > 1:
        axis = wiring.scalar(mean.inputs[1])
        axes = None if axis is None else (int(axis),)
    return rank is not None and axes in ((-1,), (rank - 1,)) and mean.integer("keepdims", 1) == 1


def _skip_layer_norm(norm: Operator, wiring: Wiring) -> None:
    add = wiring.maker(norm.inputs[0], "Add")
    if add is None or wiring.only_reader(add.outputs[0]) is None or len(norm.inputs) < 2:
        return
    shapes = [wiring.shape(name) for name in add.inputs]
    rank = wiring.rank(norm.inputs[0])
    if not all(wiring.tensors[name].named for name in add.inputs):
        return
    if rank != 3 or len(shapes) != 2 or shapes[0] != shapes[1] or len(norm.outputs) != 1:
        return
    if norm.integer("axis", -1) not in {-1, 2}:
        return
    steps, sides = [add, norm], list(add.inputs)
    bias: tuple[str, ...] = ()
    for index, name in enumerate(sides):
        inner = wiring.maker(name, "Add")
        row = _constant_row(inner, wiring) if inner is not None else None
        if inner is not None and row is not None and wiring.only_reader(name) is not None:
            sides[index], bias = _other(inner, row), (row,)
            steps.insert(0, inner)
            break
    new = Operator("SkipLayerNormalization", (*sides, *norm.inputs[1:], *bias), norm.outputs)
    _put_last(steps, new, wiring)


def _dynamic_product(product: Operator, wiring: Wiring) -> None:
    cast = wiring.only_reader(product.outputs[0], "Cast")
    scaled = wiring.only_reader(cast.outputs[0], "Mul") if cast is not None else None
    quantise = wiring.maker(product.inputs[0], "DynamicQuantizeLinear")
    if cast is None or scaled is None or quantise is None:
        return
    scales = wiring.maker(_other(scaled, cast.outputs[0]), "Mul")
    if scales is None or wiring.only_reader(scales.outputs[0]) is None:
        return
    if quantise.outputs[1] not in scales.inputs:
        return
    steps = [product, cast, scales, scaled]
    alone = len(wiring.readers(quantise.outputs[0])) == 1
    source = quantise.inputs if alone else quantise.outputs
    bias: tuple[str, ...] = ()
    outputs = scaled.outputs
    shift = wiring.only_reader(scaled.outputs[0], "Add")
    row = _constant_row(shift, wiring) if shift is not None else None
    if shift is not None and row is not None:
        steps, bias, outputs = [*steps, shift], (row,), shift.outputs
    # The weights stand second, as in a MatMul; scales and zero points steer.
    new = Operator(
        "DynamicQuantizeMatMul" if alone else "MatMulIntegerToFloat",
        (source[0], product.inputs[1], _other(scales, quantise.outputs[1]), *source[1:], *bias),
        outputs,
    )
    _put_last([*([quantise] if alone else []), *steps], new, wiring)


def _own_reshape(reshape: Operator, wiring: Wiring) -> None:
    target = wiring.maker(reshape.inputs[1], "Concat") if len(reshape.inputs) > 1 else None
    place = wiring.place(reshape.outputs[0])
    if target is None or place is None:
        return
    parts = [_size_of(reshape.inputs[0], name, wiring) for name in target.inputs]
    for index, (name, part) in enumerate(zip(target.inputs, parts, strict=True)):
        if not wiring.constant(name) and part != index:
            return
    wiring.put(place, dataclasses.replace(reshape, inputs=reshape.inputs[:1]))
    _drop_unread(target, wiring)


def _size_of(source: str, name: str, wiring: Wiring) -> int | None:
    """Which dimension of `source` a tensor of one element holds the size of."""
    lifted = wiring.maker(name, "Unsqueeze")
    gathered = wiring.maker(lifted.inputs[0], "Gather") if lifted is not None else None
    shape = wiring.maker(gathered.inputs[0], "Shape") if gathered is not None else None
    if gathered is None or shape is None or shape.inputs[0] != source:
        return None
    index = wiring.scalar(gathered.inputs[1])
    return None if index is None else int(index)


def _drop_unread(operator: Operator, wiring: Wiring) -> None:
    """Take away an operator that nobody reads any more, and then those that only it read."""
    pending = [operator]
    while pending:
        current = pending.pop()
        if not _stands(current, wiring) or not all(wiring.unused(n) for n in current.outputs):
            continue
        makers = [wiring.maker(name) for name in current.inputs]
        wiring.remove(current)
        pending += [maker for maker in makers if maker is not None]


def _quick_gelu(sigmoid: Operator, wiring: Wiring) -> None:
    scaled = wiring.maker(sigmoid.inputs[0], "Mul")
    product = wiring.only_reader(sigmoid.outputs[0], "Mul")
    if scaled is None or product is None or wiring.only_reader(scaled.outputs[0]) is None:
        return
    source = _other(product, sigmoid.outputs[0])
    if sigmoid.fused or source not in scaled.inputs:
        return
    if wiring.scalar(_other(scaled, source)) is None:
        return
    new = Operator("Sigmoid", (source,), product.outputs, fused=("Mul",))
    _put_last([scaled, sigmoid, product], new, wiring)


def _split(gather: Operator, wiring: Wiring) -> None:
    source, shape = gather.inputs[0], wiring.shape(gather.inputs[0])
    readers = wiring.readers(source)
    if shape is None or not wiring.tensors[source].named or len(readers) < 2:
        return
    if source in wiring.outputs:
        return
    axis = gather.integer("axis", 0)
    by_index: dict[float, Operator] = {}
    for reader in readers:
        index = wiring.scalar(reader.inputs[1]) if reader.op == "Gather" else None
        if index is None or wiring.rank(reader.inputs[1]) != 0:
            return
        if reader.integer("axis", 0) != axis or reader.inputs[0] != source:
            return
        by_index[index] = reader
    if not -len(shape) <= axis < len(shape) or len(readers) != shape[axis]:
        return
    if sorted(by_index) != list(range(shape[axis])):
        return
    old = [by_index[index] for index in sorted(by_index)]
    outputs = tuple(reader.outputs[0] for reader in old)
    places = [place for name in outputs if (place := wiring.place(name)) is not None]
    wiring.replace(old, Operator("Split", (source,), outputs), min(places))


_RULES: tuple[tuple[Callable[[Operator, Wiring], None], str], ...] = (
    (_own_reshape, "Reshape"),
    (_split, "Gather"),
    (_quick_gelu, "Sigmoid"),
    (_gelu, "Erf"),
    (_layer_norm, "Sqrt"),
    (_bias_gelu, "Gelu"),
    (_skip_layer_norm, "LayerNormalization"),
    (_dynamic_product, "MatMulInteger"),
)
