"""Transposes that merge with those before them, as onnxruntime's layout pass does.

A Transpose takes in one that feeds it, directly or through cheap operators that do not mind the
order of the dimensions: the one in between moves to the end, and both vanish where they cancel.
Operators of several inputs pass where all of these are transposed alike or constant. onnxruntime
also moves transposes where none is saved and through Reshape and Split; that is not modelled.
"""

import dataclasses
from dataclasses import dataclass, field

from cost_models.program import Operator, Program
from cost_models.wiring import Wiring

_INDIFFERENT = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Concat",
        "DequantizeLinear",
        "Div",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "Greater",
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "Less",
        "Log",
        "LogSoftmax",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "QuantizeLinear",
        "Reciprocal",
        "Relu",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Softmax",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Tanh",
        "ThresholdedRelu",
        "Where",
    }
)
_MOST_BETWEEN = 64
_Perm = tuple[int, ...]


@dataclass(slots=True)
class _Region:
    """Operators above a Transpose, up to the transposes that feed them."""

    operators: dict[str, Operator] = field(default_factory=dict)
    feeding: dict[str, Operator] = field(default_factory=dict)


def merge_transposes(program: Program) -> Program:
    """The program with the transposes merged that follow one another."""
    if sum(operator.op == "Transpose" for operator in program.operators) < 2:
        return program
    wiring = Wiring(program)
    for place in range(len(wiring.slots)):
        last = wiring.slots[place]
        if last is not None and last.op == "Transpose":
            _absorb(last, wiring)
    return wiring.program()


def _perm(operator: Operator, wiring: Wiring) -> _Perm | None:
    rank = wiring.rank(operator.inputs[0])
    if rank is None:
        return None
    perm = operator.integers("perm") or tuple(reversed(range(rank)))
    return perm if sorted(perm) == list(range(rank)) else None


def _absorb(last: Operator, wiring: Wiring) -> None:
    region = _Region()
    perm = _perm(last, wiring)
    if perm is None or not _collect(last.inputs[0], len(perm), region, wiring):
        return
    perms = {_perm(operator, wiring) for operator in region.feeding.values()}
    if len(perms) != 1 or None in perms:
        return
    (before,) = perms
    if before is None:
        return
    _swap(before, region, wiring)
    combined = tuple(before[axis] for axis in perm)
    source = region.feeding[last.inputs[0]].inputs[0] if not region.operators else last.inputs[0]
    _finish(last, source, combined, wiring)


def _collect(name: str, rank: int, region: _Region, wiring: Wiring) -> bool:
    """Gather what stands above a tensor; False where something stands in the way."""
    if len(region.operators) > _MOST_BETWEEN:
        return False
    maker = wiring.maker(name)
    if maker is None:
        return False
    if maker.op == "Transpose":
        region.feeding[name] = maker
        return True
    alone = name not in wiring.outputs and len({id(r) for r in wiring.readers(name)}) == 1
    if maker.op not in _INDIFFERENT or not alone or len(maker.outputs) != 1:
        return False
    region.operators[name] = maker
    moving = [source for source in maker.inputs if not wiring.constant(source)]
    shaped = all(wiring.rank(source) == rank for source in moving)
    return bool(moving) and shaped and all(_collect(s, rank, region, wiring) for s in moving)


def _swap(before: _Perm, region: _Region, wiring: Wiring) -> None:
    """Let the operators between work on what the transposes before them read."""
    renamed = {name: operator.inputs[0] for name, operator in region.feeding.items()}
    for name, operator in region.operators.items():
        place = wiring.place(name)
        shape = wiring.shape(name)
        if place is None or shape is None:
            continue
        undone = tuple(shape[before.index(axis)] for axis in range(len(before)))
        wiring.tensors[name] = dataclasses.replace(wiring.tensors[name], shape=undone)
        inputs = tuple(
            _constant_moved(source, before, wiring)
            if wiring.constant(source)
            else renamed.get(source, source)
            for source in operator.inputs
        )
        wiring.put(place, dataclasses.replace(operator, inputs=inputs))
    if region.operators:
        _drop_unused(region, wiring)


def _constant_moved(name: str, before: _Perm, wiring: Wiring) -> str:
    """A constant operand in the order of dimensions before the transposes."""
    shape = wiring.shape(name)
    if not shape or all(size == 1 for size in shape) or len(shape) > len(before):
        return name
    padded = (*(1 for _ in range(len(before) - len(shape))), *shape)
    moved = f"{name}/{before}"
    undone = tuple(padded[before.index(axis)] for axis in range(len(before)))
    wiring.tensors[moved] = dataclasses.replace(wiring.tensors[name], shape=undone)
    return moved


def _drop_unused(region: _Region, wiring: Wiring) -> None:
    for name, operator in region.feeding.items():
        if wiring.unused(name):
            wiring.remove(operator)


def _finish(last: Operator, source: str, combined: _Perm, wiring: Wiring) -> None:
    place = wiring.place(last.outputs[0])
    if place is None:
        return
    before = wiring.maker(last.inputs[0], "Transpose")
    if combined != tuple(range(len(combined))) or last.outputs[0] in wiring.outputs:
        inputs = (source, *last.inputs[1:])
        op = "Transpose" if combined != tuple(range(len(combined))) else "Identity"
        wiring.put(
            place,
            dataclasses.replace(
                last, op=op, inputs=inputs, attributes={"perm": combined}, signature=b"merged"
            ),
        )
    else:
        wiring.remove(last)
        _redirect(last.outputs[0], source, wiring)
    if before is not None and wiring.unused(before.outputs[0]):
        wiring.remove(before)


def _redirect(name: str, source: str, wiring: Wiring) -> None:
    for reader in {id(r): r for r in wiring.readers(name)}.values():
        place = next(p for p, found in enumerate(wiring.slots) if found is reader)
        inputs = tuple(source if read == name else read for read in reader.inputs)
        wiring.put(place, dataclasses.replace(reader, inputs=inputs))
