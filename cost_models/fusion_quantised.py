"""Integer kernels made of an operator between DequantizeLinear and QuantizeLinear.

- Each reader of a DequantizeLinear has one of its own. A pair that quantises again what has just
  been dequantised vanishes.
- A Relu or Clip before a QuantizeLinear that cannot hold what it cuts off vanishes.
- An operator of INTEGER_KERNELS whose operands are all dequantised and whose result is quantised
  becomes that kernel; Gemm also without a quantised result; MatMul then is MatMulIntegerToFloat.
- Operators that only move numbers (PASSED_THROUGH) run on the integers; where only one side of
  them is quantised, the DequantizeLinear moves behind them, or the QuantizeLinear before them.
- A MatMul with dequantised weights alone is MatMulNBits, which reads the weights as stored.
"""

import dataclasses

from cost_models.program import Operator, Program
from cost_models.wiring import Wiring

INTEGER_KERNELS = {
    "Add": "QLinearAdd",
    "AveragePool": "QLinearAveragePool",
    "Concat": "QLinearConcat",
    "Conv": "QLinearConv",
    "Gemm": "QGemm",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
    "LeakyRelu": "QLinearLeakyRelu",
    "MatMul": "QLinearMatMul",
    "Mul": "QLinearMul",
    "Sigmoid": "QLinearSigmoid",
    "Softmax": "QLinearSoftmax",
    "Where": "QLinearWhere",
}
PASSED_THROUGH = frozenset(
    {
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "MaxPool",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_MOVABLE = frozenset({"MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_BYTES = {"uint8": (0, 255), "int8": (-128, 127)}
_ROUNDING = 1e-5
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def fuse_quantised(program: Program) -> Program:
    """The program with integer kernels."""
    if not any(operator.op == _DQ for operator in program.operators):
        return program
    wiring = Wiring(program)
    for operator in program.operators:
        if operator.op == _Q:
            _drop_cut_off(operator, wiring)
    wiring = Wiring(_own_copies(_merge_double_pairs(wiring.program())))
    for rule in (_quantise_both_sides, _make_integer):
        for standing in list(wiring.slots):
            if standing is not None:
                rule(standing, wiring)
    return wiring.program()


def _merge_double_pairs(program: Program) -> Program:
    """Drop each QuantizeLinear that reads the only use of a DequantizeLinear of like scale."""
    wiring = Wiring(program)
    alias: dict[str, str] = {}
    kept = []
    for operator in program.operators:
        inputs = tuple(alias.get(name, name) for name in operator.inputs)
        if operator.op == _Q:
            before = wiring.maker(operator.inputs[0], _DQ)
            source = wiring.maker(before.inputs[0], _Q) if before is not None else None
            if before is not None and source is not None and _alike(source, operator, wiring):
                alias[operator.outputs[0]] = alias.get(before.inputs[0], before.inputs[0])
                continue
        kept.append(dataclasses.replace(operator, inputs=inputs))
    merged = dataclasses.replace(
        program,
        operators=tuple(kept),
        outputs=tuple(alias.get(name, name) for name in program.outputs),
    )
    return merged if not alias else _without_unread(merged, program)


def _without_unread(program: Program, before: Program) -> Program:
    """Drop the DequantizeLinear that lost its only reader."""
    uses, used = program.uses(), before.uses()
    kept = tuple(
        operator
        for operator in program.operators
        if operator.op != _DQ or uses[operator.outputs[0]] or not used[operator.outputs[0]]
    )
    return dataclasses.replace(program, operators=kept)


def _alike(first: Operator, second: Operator, wiring: Wiring) -> bool:
    """Whether two have the same scale and zero point, by name or by value."""
    ours, theirs = first.inputs[1:3], second.inputs[1:3]
    if ours == theirs:
        return True
    values = [(wiring.scalar(a), wiring.scalar(b)) for a, b in zip(ours, theirs, strict=False)]
    return len(ours) == len(theirs) and all(a is not None and a == b for a, b in values)


def _own_copies(program: Program) -> Program:
    """Give every reader of a DequantizeLinear one of its own."""
    uses = program.uses()
    shared = {
        operator.outputs[0]: operator
        for operator in program.operators
        if operator.op == _DQ and uses[operator.outputs[0]] > 1
    }
    if not shared:
        return program
    tensors = dict(program.tensors)
    seen: set[str] = set(program.outputs)
    operators: list[Operator] = []
    for operator in program.operators:
        inputs = list(operator.inputs)
        for index, name in enumerate(inputs):
            if name not in shared:
                continue
            if name not in seen:
                seen.add(name)
                continue
            copy = f"{name}/{len(operators)}/{index}"
            tensors[copy] = tensors[name]
            operators.append(dataclasses.replace(shared[name], outputs=(copy,)))
            inputs[index] = copy
        operators.append(dataclasses.replace(operator, inputs=tuple(inputs)))
    return dataclasses.replace(program, operators=tuple(operators), tensors=tensors)


def _drop_cut_off(quantise: Operator, wiring: Wiring) -> None:
    """Take away the Relu or Clip before a QuantizeLinear that saturates at its bounds anyway."""
    before = wiring.maker(quantise.inputs[0], "Relu", "Clip")
    place = wiring.place(quantise.outputs[0])
    if before is None or place is None or wiring.only_reader(before.outputs[0]) is None:
        return
    held = _range_held(quantise, wiring)
    if held is None:
        return
    low, high = _bounds(before, wiring)
    slack = _ROUNDING * (held[1] - held[0])
    if low is None or high is None or low > held[0] + slack or high < held[1] - slack:
        return
    inputs = (before.inputs[0], *quantise.inputs[1:])
    wiring.remove(before)
    wiring.put(place, dataclasses.replace(quantise, inputs=inputs))


def _range_held(quantise: Operator, wiring: Wiring) -> tuple[float, float] | None:
    limits = _BYTES.get(wiring.tensors[quantise.outputs[0]].element_type)
    scale = wiring.scalar(quantise.inputs[1])
    zero = wiring.scalar(quantise.inputs[2]) if len(quantise.inputs) > 2 else 0.0
    if limits is None or scale is None or zero is None:
        return None
    return (limits[0] - zero) * scale, (limits[1] - zero) * scale


def _bounds(operator: Operator, wiring: Wiring) -> tuple[float | None, float | None]:
    """Between which numbers a Relu or Clip leaves its input alone; None where not known."""
    if operator.op == "Relu":
        return 0.0, float("inf")
    found: list[float | None] = []
    for index, (name, unbounded) in enumerate((("min", -float("inf")), ("max", float("inf")))):
        given = operator.inputs[index + 1] if len(operator.inputs) > index + 1 else ""
        attribute = operator.attributes.get(name, unbounded)
        if given:
            found.append(wiring.scalar(given))
        else:
            found.append(attribute if isinstance(attribute, float) else None)
    return found[0], found[1]


def _quantise_both_sides(operator: Operator, wiring: Wiring) -> None:
    """Quantise both sides of what only moves numbers, if one side is."""
    if operator.op not in _MOVABLE or len(operator.outputs) != 1:
        return
    before = wiring.maker(operator.inputs[0], _DQ)
    after = wiring.only_reader(operator.outputs[0], _Q)
    if before is not None and after is None:
        _dequantise_later(before, operator, wiring)
    elif before is None and after is not None:
        _quantise_earlier(operator, after, wiring)


def _dequantise_later(before: Operator, operator: Operator, wiring: Wiring) -> None:
    first, last = wiring.place(before.outputs[0]), wiring.place(operator.outputs[0])
    alone = wiring.only_reader(before.outputs[0]) is not None
    if first is None or last is None or not alone or wiring.constant(before.inputs[0]):
        return
    inner = _stored_as(operator.outputs[0], before.inputs[0], wiring)
    inputs = (before.inputs[0], *operator.inputs[1:])
    wiring.remove(before)
    wiring.remove(operator)
    wiring.put(first, dataclasses.replace(operator, inputs=inputs, outputs=(inner,)))
    wiring.put(
        last,
        dataclasses.replace(before, inputs=(inner, *before.inputs[1:]), outputs=operator.outputs),
    )


def _quantise_earlier(operator: Operator, after: Operator, wiring: Wiring) -> None:
    first, last = wiring.place(operator.outputs[0]), wiring.place(after.outputs[0])
    if first is None or last is None:
        return
    inner = _stored_as(operator.inputs[0], after.outputs[0], wiring)
    inputs = (operator.inputs[0], *after.inputs[1:])
    wiring.remove(after)
    wiring.remove(operator)
    wiring.put(first, dataclasses.replace(after, inputs=inputs, outputs=(inner,)))
    wiring.put(
        last,
        dataclasses.replace(operator, inputs=(inner, *operator.inputs[1:]), outputs=after.outputs),
    )


def _stored_as(name: str, like: str, wiring: Wiring) -> str:
    """A new tensor of the shape of one and the element of another."""
    made, kind = f"{name}/quantised", wiring.tensors[like]
    wiring.tensors[made] = dataclasses.replace(
        wiring.tensors[name],
        element_type=kind.element_type,
        element_bytes=kind.element_bytes,
    )
    return made


def _make_integer(operator: Operator, wiring: Wiring) -> None:
    if not operator.outputs or wiring.maker(operator.outputs[0]) is not operator:
        return
    if operator.op in PASSED_THROUGH:
        _pass_through(operator, wiring)
    elif operator.op in INTEGER_KERNELS and not operator.fused:
        _integer_kernel(operator, wiring)


def _pass_through(operator: Operator, wiring: Wiring) -> None:
    before = wiring.maker(operator.inputs[0], _DQ)
    afters = [wiring.only_reader(name, _Q) for name in operator.outputs]
    place = wiring.place(operator.outputs[0])
    found = [after for after in afters if after is not None]
    if before is None or place is None or len(found) != len(afters):
        return
    if not all(_alike(before, after, wiring) for after in found):
        return
    inputs = (before.inputs[0], *operator.inputs[1:])
    outputs = tuple(after.outputs[0] for after in found)
    merged = dataclasses.replace(operator, inputs=inputs, outputs=outputs)
    wiring.replace([operator, *found], merged, place)
    if wiring.unused(before.outputs[0]):
        wiring.remove(before)


def _integer_kernel(operator: Operator, wiring: Wiring) -> None:
    makers = [wiring.maker(name, _DQ) for name in operator.inputs if name]
    place = wiring.place(operator.outputs[0])
    after = wiring.only_reader(operator.outputs[0], _Q)
    found = [maker for maker in makers if maker is not None]
    if place is None:
        return
    if operator.op == "Where":
        whole = len(found) == 2
    elif operator.op in {"Conv", "Gemm"}:  # a constant bias is quantised by onnxruntime
        rest = operator.inputs[2:]
        whole = len(found) - sum(bool(wiring.maker(n, _DQ)) for n in rest) == 2
        whole = whole and all(wiring.maker(n, _DQ) or wiring.constant(n) for n in rest)
        whole = whole and (after is not None or all(wiring.maker(n, _DQ) for n in rest))
    else:
        whole = bool(found) and len(found) == len(makers)
    if operator.op == "MatMul" and not whole:
        _weights_as_stored(operator, wiring, place)
    if not whole or (after is None and operator.op not in {"Gemm", "MatMul"}):
        return
    name = INTEGER_KERNELS[operator.op]
    if after is None and operator.op == "MatMul":
        name = "MatMulIntegerToFloat"
    by_name = {maker.outputs[0]: maker for maker in found}
    inputs: list[str] = []
    for source in operator.inputs:
        maker = by_name.get(source)
        inputs += [source] if maker is None else [*maker.inputs, *[""] * (3 - len(maker.inputs))]
    outputs = operator.outputs if after is None else after.outputs
    merged = dataclasses.replace(operator, op=name, inputs=tuple(inputs), outputs=outputs)
    old = [operator, *found] if after is None else [operator, *found, after]
    wiring.replace(old, merged, place)


def _weights_as_stored(operator: Operator, wiring: Wiring, place: int) -> None:
    weights = wiring.maker(operator.inputs[1], _DQ)
    if weights is None or not wiring.constant(weights.inputs[0]):
        return
    if wiring.only_reader(operator.inputs[1]) is None or wiring.maker(operator.inputs[0], _DQ):
        return
    merged = dataclasses.replace(
        operator, op="MatMulNBits", inputs=(operator.inputs[0], *weights.inputs)
    )
    wiring.replace([operator, weights], merged, place)
