"""FusedMatMul: a product that takes in transposes of its operands and constant factors."""

import dataclasses

from cost_models.program import Operator, Program
from cost_models.wiring import Wiring

_PRODUCTS = frozenset({"MatMul", "FusedMatMul"})
_MOST_ROUNDS = 4


def fuse_products(program: Program) -> Program:
    """The program in which MatMul takes in what onnxruntime lets it take in.

    A Transpose of the last two dimensions of an operand, whoever else reads it; a constant factor
    (Mul or Div by one element) of an operand or of the result.
    """
    if not any(operator.op == "MatMul" for operator in program.operators):
        return program
    wiring = Wiring(program)
    for operator in program.operators:
        if operator.op == "MatMul" and _is_float(operator, wiring):
            _take_in(operator, wiring)
    return wiring.program()


def _is_float(operator: Operator, wiring: Wiring) -> bool:
    return wiring.tensors[operator.outputs[0]].element_type == "float"


def _take_in(product: Operator, wiring: Wiring) -> None:
    place = wiring.place(product.outputs[0])
    if place is None:
        return
    for _ in range(_MOST_ROUNDS):
        changed = _operand_taken(product, wiring)
        if changed is None:
            break
        product, gone = changed
        wiring.put(place, product)
        if wiring.unused(gone.outputs[0]):
            wiring.remove(gone)
    while (factor := wiring.only_reader(product.outputs[0], "Mul", "Div")) is not None:
        if not _is_factor(factor, product.outputs[0], wiring):
            break
        merged = dataclasses.replace(product, op="FusedMatMul", outputs=factor.outputs)
        wiring.replace([product, factor], merged, place)
        product = merged


def _operand_taken(product: Operator, wiring: Wiring) -> tuple[Operator, Operator] | None:
    """The product without an operator before an operand, and that operator."""
    for side, name in enumerate(product.inputs[:2]):
        before = wiring.maker(name)
        if before is None or name in wiring.outputs:
            continue
        flags = dict(product.attributes)
        if before.op == "Transpose" and _swaps_last_two(before, wiring):
            flag = "transB" if side else "transA"
            flags[flag] = 1 - product.integer(flag, 0)
        elif not (
            before.op in {"Mul", "Div"} and _is_factor(before, _moving(before, wiring), wiring)
        ):
            continue
        inputs = list(product.inputs)
        inputs[side] = _moving(before, wiring)
        new = dataclasses.replace(product, op="FusedMatMul", inputs=tuple(inputs), attributes=flags)
        return new, before
    return None


def _moving(operator: Operator, wiring: Wiring) -> str:
    return next((n for n in operator.inputs if not wiring.constant(n)), operator.inputs[0])


def _is_factor(operator: Operator, name: str, wiring: Wiring) -> bool:
    """Whether an operator multiplies a tensor by, or divides it by, one constant number."""
    if operator.inputs[0] != name and operator.op == "Div":
        return False
    others = [other for other in operator.inputs if other != name]
    if len(operator.inputs) != 2 or len(others) != 1 or wiring.scalar(others[0]) is None:
        return False
    return wiring.shape(name) == wiring.shape(operator.outputs[0]) is not None


def _swaps_last_two(transpose: Operator, wiring: Wiring) -> bool:
    rank = wiring.rank(transpose.inputs[0])
    if rank is None or rank < 2:
        return False
    wanted = (*range(rank - 2), rank - 1, rank - 2)
    perm = transpose.integers("perm") or tuple(reversed(range(rank)))
    return perm == wanted
