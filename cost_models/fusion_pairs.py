"""Fusions of an operator with the only reader of its output, as onnxruntime does them on a CPU.

Before the integer kernels are made (FOLDING_RULES):

- Into Conv with constant weights go: a BatchNormalization after it (ConvTranspose too); a Mul by a
  constant scalar or one value a channel; an Add of one constant a channel; a zero Pad before it
  (before AveragePool too). Constants count as the second operand only.
- MatMul + Add of a row is a Gemm (with more than two dimensions only if all are fixed), as is
  MatMul + BatchNormalization; a two-dimensional Gemm takes in a Sum that follows it and the
  transposes of its operands.
- Relu before Clip vanishes, as does Not before Where; y * (1 / x) is one division; a Cast of a
  Cast to a float that holds more is one Cast.

After that (ACTIVATION_RULES): Conv takes in a following Relu, Clip with constant bounds, Sigmoid,
Tanh, LeakyRelu or HardSigmoid; a two-dimensional Gemm one of GEMM_ACTIVATIONS (not Clip).
x * Sigmoid(x) is one kernel (QuickGelu).
"""

import dataclasses
from collections.abc import Callable

from cost_models.program import Operator, Program, Tensor

CONV_ACTIVATIONS = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"})
GEMM_ACTIVATIONS = frozenset(
    {
        "Relu",
        "Sigmoid",
        "Tanh",
        "LeakyRelu",
        "HardSigmoid",
        "Elu",
        "Selu",
        "Softplus",
        "Softsign",
        "ThresholdedRelu",
    }
)
_FLOATS = frozenset({"float16", "bfloat16", "float", "double"})
Rule = Callable[[Operator, Operator, Program], Operator | None]


def merge_pairs(program: Program, rules: tuple[Rule, ...]) -> Program:
    """Fuse operators with the only reader of their output, wherever a rule allows it.

    What comes out stands where the first of the two stood, unless the second reads something
    that may not have been computed there.
    """
    uses = program.uses()
    slots: list[Operator | None] = list(program.operators)
    makers = {name: i for i, o in enumerate(program.operators) for name in o.outputs if name}
    tensors = dict(program.tensors)
    current = dataclasses.replace(program, tensors=tensors)
    for place, second in enumerate(program.operators):
        found = _first_match(second, slots, makers, uses, current, rules)
        if found is None:
            continue
        start, merged = found
        first = slots[start]
        known_early = first is not None and all(
            current.is_constant(name) or name in first.inputs
            for name in second.inputs
            if name not in first.outputs
        )
        slots[place] = None
        slots[start] = None
        target = start if known_early else place
        slots[target] = _with_folded_bias(merged, tensors)
        makers.update(dict.fromkeys(merged.outputs, target))
    return dataclasses.replace(
        program, operators=tuple(o for o in slots if o is not None), tensors=tensors
    )


def _first_match(
    second: Operator,
    slots: list[Operator | None],
    makers: dict[str, int],
    uses: dict[str, int],
    program: Program,
    rules: tuple[Rule, ...],
) -> tuple[int, Operator] | None:
    for name in second.inputs:
        start = makers.get(name)
        first = None if start is None else slots[start]
        if start is None or first is None or uses[name] != 1 or name in program.outputs:
            continue
        for rule in rules:
            merged = rule(first, second, program)
            if merged is not None:
                return start, merged
    return None


_BIAS = "/folded bias"


def _with_folded_bias(operator: Operator, tensors: dict[str, Tensor]) -> Operator:
    """Give the bias that a folding asked for a tensor: one element for each output channel."""
    bias = operator.inputs[-1]
    if bias.endswith(_BIAS) and bias not in tensors:
        weights = tensors[operator.inputs[1]]
        shape = tensors[operator.outputs[0]].shape
        axis = 1 if operator.op in {"Conv", "ConvTranspose"} else -1
        channels = shape[axis : axis + 1 or None] if shape else None
        tensors[bias] = dataclasses.replace(weights, shape=channels)
    return operator


def _biased(operator: Operator, outputs: tuple[str, ...]) -> Operator:
    inputs = tuple(filter(None, operator.inputs))
    if len(inputs) < 3:
        inputs = (*inputs, f"{outputs[0]}{_BIAS}")
    return dataclasses.replace(operator, inputs=inputs, outputs=outputs)


def _folds_into(first: Operator, second: Operator, program: Program) -> bool:
    """Whether the first is a bare Conv or MatMul whose weights can take in the second's constants.

    The second must read the first as its first operand and nothing else but constants.
    """
    return (
        not first.fused
        and second.inputs[0] == first.outputs[0]
        and program.is_constant(first.inputs[1])
        and all(program.is_constant(name) for name in second.inputs[1:])
    )


def _normalised_conv(first: Operator, second: Operator, program: Program) -> Operator | None:
    if first.op not in {"Conv", "ConvTranspose"} or second.op != "BatchNormalization":
        return None
    if not _folds_into(first, second, program):
        return None
    return _biased(first, second.outputs[:1])


def _scaled_conv(first: Operator, second: Operator, program: Program) -> Operator | None:
    if first.op != "Conv" or second.op != "Mul" or not _folds_into(first, second, program):
        return None
    scalar = program.rank(second.inputs[1]) == 0
    if not scalar and not _is_per_channel(second.inputs[1], first, program):
        return None
    return dataclasses.replace(first, outputs=second.outputs)


def _shifted_conv(first: Operator, second: Operator, program: Program) -> Operator | None:
    if first.op != "Conv" or second.op != "Add" or not _folds_into(first, second, program):
        return None
    if not _is_per_channel(second.inputs[1], first, program):
        return None
    return _biased(first, second.outputs)


def _is_per_channel(name: str, conv: Operator, program: Program) -> bool:
    """Whether a constant has the shape [1, C, 1, 1] or [C, 1, 1] of the convolution's output."""
    out, shape = program.shape(conv.outputs[0]), program.shape(name)
    if out is None or len(out) < 2:
        return False
    wanted = (out[1], *(1 for _ in out[2:]))
    return shape in (wanted, (1, *wanted))


def _padded_window(first: Operator, second: Operator, program: Program) -> Operator | None:
    if first.op != "Pad" or second.op not in {"Conv", "AveragePool"}:
        return None
    value = program.tensors.get(first.inputs[2] if len(first.inputs) > 2 else "")
    zero = value is None or value.scalar == 0.0
    explicit = second.text("auto_pad", "NOTSET") == "NOTSET"
    if not zero or not explicit or first.text("mode", "constant") != "constant":
        return None
    if second.inputs[0] != first.outputs[0]:
        return None
    return dataclasses.replace(second, inputs=(first.inputs[0], *second.inputs[1:]))


def _biased_product(first: Operator, second: Operator, program: Program) -> Operator | None:
    if first.op != "MatMul" or second.op != "Add" or first.fused:
        return None
    shape = program.shape(first.outputs[0])
    addend = next((name for name in second.inputs if name != first.outputs[0]), "")
    row = program.shape(addend) if addend else None
    if shape is None or len(shape) < 2 or program.rank(first.inputs[1]) != 2:
        return None
    if row not in (shape[-1:], (1, shape[-1]), shape):
        return None
    if len(shape) > 2:
        if row != shape[-1:] or not program.is_constant(addend):
            return None
        if not program.is_fixed(first.outputs[0]):
            return None
    inputs = (*first.inputs, addend)
    return Operator("Gemm", inputs, second.outputs, first.attributes, first.signature)


def _summed_gemm(first: Operator, second: Operator, program: Program) -> Operator | None:
    """Gemm without a third operand takes in the sum with something of its own shape."""
    if first.op != "Gemm" or second.op != "Sum" or first.fused or len(second.inputs) != 2:
        return None
    addend = next((name for name in second.inputs if name != first.outputs[0]), "")
    operands = tuple(filter(None, first.inputs))
    if len(operands) != 2 or program.shape(addend) != program.shape(first.outputs[0]):
        return None
    if program.shape(addend) is None:
        return None
    return dataclasses.replace(first, inputs=(*operands, addend), outputs=second.outputs)


def _transposed_gemm(first: Operator, second: Operator, program: Program) -> Operator | None:
    if first.op != "Transpose" or second.op != "Gemm" or program.rank(first.inputs[0]) != 2:
        return None
    if first.integers("perm") not in (None, (1, 0)):
        return None
    source, made = first.inputs[0], first.outputs[0]
    flags = dict(second.attributes)
    for side, flag in enumerate(("transA", "transB")):
        if second.inputs[side] == made:
            flags[flag] = 1 - second.integer(flag, 0)
    if made in second.inputs[2:]:
        return None
    inputs = tuple(source if name == made else name for name in second.inputs)
    return dataclasses.replace(second, inputs=inputs, attributes=flags)


def _divided(first: Operator, second: Operator, program: Program) -> Operator | None:
    """(1 / x) * y is y / x."""
    if first.op != "Div" or second.op != "Mul" or program.scalar(first.inputs[0]) != 1.0:
        return None
    others = [name for name in second.inputs if name != first.outputs[0]]
    if len(others) != 1:
        return None
    return Operator("Div", (others[0], first.inputs[1]), second.outputs)


def _cast_of_cast(first: Operator, second: Operator, program: Program) -> Operator | None:
    """A Cast to a larger float and on is one Cast."""
    if first.op != "Cast" or second.op != "Cast":
        return None
    kinds = [program.tensors[n] for n in (first.inputs[0], first.outputs[0], second.outputs[0])]
    floats = all(kind.element_type in _FLOATS for kind in kinds)
    if not floats or kinds[1].element_bytes < kinds[0].element_bytes:
        return None
    same = kinds[0].element_type == kinds[2].element_type
    op = "Identity" if same else "Cast"
    return dataclasses.replace(second, op=op, inputs=first.inputs)


def _not_before_where(first: Operator, second: Operator, program: Program) -> Operator | None:
    del program
    if first.op != "Not" or second.op != "Where" or second.inputs[0] != first.outputs[0]:
        return None
    return dataclasses.replace(second, inputs=(first.inputs[0], second.inputs[2], second.inputs[1]))


def _normalised_product(first: Operator, second: Operator, program: Program) -> Operator | None:
    if first.op != "MatMul" or second.op != "BatchNormalization":
        return None
    if program.rank(first.outputs[0]) != 2 or not _folds_into(first, second, program):
        return None
    return dataclasses.replace(_biased(first, second.outputs[:1]), op="Gemm")


def _clipped_relu(first: Operator, second: Operator, program: Program) -> Operator | None:
    bounds_known = all(program.is_constant(name) for name in second.inputs[1:])
    if first.op != "Relu" or second.op != "Clip" or not bounds_known:
        return None
    return dataclasses.replace(second, inputs=(first.inputs[0], *second.inputs[1:]))


def _activated(first: Operator, second: Operator, program: Program) -> Operator | None:
    if first.fused or second.inputs[0] != first.outputs[0]:
        return None
    if first.op == "Conv":
        allowed = second.op in CONV_ACTIVATIONS
    else:
        flat = first.op == "Gemm" and program.rank(first.outputs[0]) == 2
        allowed = flat and second.op in GEMM_ACTIVATIONS
    if not allowed or not all(program.is_constant(name) for name in second.inputs[1:]):
        return None
    return dataclasses.replace(first, outputs=second.outputs, fused=(second.op,))


def _swish(first: Operator, second: Operator, program: Program) -> Operator | None:
    del program
    if first.op != "Sigmoid" or first.fused or second.op != "Mul":
        return None
    if set(second.inputs) != {first.inputs[0], first.outputs[0]}:
        return None
    return dataclasses.replace(first, outputs=second.outputs, fused=("Mul",))


FOLDING_RULES: tuple[Rule, ...] = (
    _padded_window,
    _normalised_conv,
    _scaled_conv,
    _shifted_conv,
    _biased_product,
    _normalised_product,
    _summed_gemm,
    _transposed_gemm,
    _clipped_relu,
    _divided,
    _not_before_where,
    _cast_of_cast,
)
ACTIVATION_RULES: tuple[Rule, ...] = (_activated, _swish)
