"""What onnxruntime makes of a graph before it runs it on a CPU, as rewrites of a `Program`.

The rules were read off the graphs that onnxruntime 1.32.0 writes with `optimized_model_filepath`
at ORT_ENABLE_EXTENDED, the highest level that does not depend on the CPU; the tests compare with
the installed onnxruntime. In order:

1. Operators whose inputs are all constants are folded; so are Shape and Size.
2. HardSwish becomes HardSigmoid and Mul, Mish becomes Softplus, Tanh and Mul: the CPU provider has
   no kernel for them, and HardSigmoid * x is *not* fused again.
3. Identity, Dropout, a Cast to the same type and an Expand to the same shape vanish.
4. Equal operators on equal inputs run once (common subexpressions): two poolings of one tensor.
   But an operator whose output nobody reads **is** run, as is a branch that is multiplied by zero.
5. Into Conv with constant weights go: a BatchNormalization after it; a Mul by a constant scalar or
   one value a channel; an Add of one constant a channel; a zero Pad before it (before AveragePool
   too). Constants count as the second operand only.
6. MatMul + Add of a row is a Gemm, as is MatMul + BatchNormalization. Relu before Clip vanishes.
7. Conv takes in a following Relu, Clip with constant bounds, Sigmoid, Tanh, LeakyRelu or
   HardSigmoid; a two-dimensional Gemm one of GEMM_ACTIVATIONS (not Clip). x * Sigmoid(x) is one
   kernel (QuickGelu).

A fusion needs that nobody else reads the tensor between. A sum after a convolution stays a kernel
of its own: Conv + Add (+ Relu) is not fused for the CPU at this level. At ORT_ENABLE_ALL on x86 the
NCHWc layout additionally adds into the second operand's Conv where both operands come from NCHWc
kernels, and inserts reorderings; which ones depends on the width of the CPU's vectors, so it is not
modelled. Nor are the pairs of Transpose that cancel, sums with 0 and products with 1, integer
kernels made of QuantizeLinear and DequantizeLinear pairs, and what is made of transformers (Gelu
and LayerNormalization from primitives, attention): such graphs are counted operator by operator.
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
_VANISHING = frozenset({"Identity", "Dropout"})
_FOLDED_BY_SHAPE = frozenset({"Shape", "Size"})
_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_EXPANSIONS = {"HardSwish": ("HardSigmoid", "Mul"), "Mish": ("Softplus", "Tanh", "Mul")}

_Rule = Callable[[Operator, Operator, Program], Operator | None]


def fuse(program: Program) -> Program:
    """The program as onnxruntime would run it; see the module's text for the rules."""
    program = _expand(_fold_constants(program))
    program = _merge_equal(_drop_no_ops(program))
    return _merge_pairs(_merge_pairs(program, _FOLDING_RULES), _ACTIVATION_RULES)


def _fold_constants(program: Program) -> Program:
    tensors = dict(program.tensors)
    kept = []
    for operator in program.operators:
        known = all(not name or tensors[name].constant for name in operator.inputs)
        if operator.op in _RANDOM or not (known or operator.op in _FOLDED_BY_SHAPE):
            kept.append(operator)
            continue
        for name in filter(None, operator.outputs):
            tensors[name] = _folded(operator, tensors, name)
    return dataclasses.replace(program, operators=tuple(kept), tensors=tensors)


def _folded(operator: Operator, tensors: dict[str, Tensor], name: str) -> Tensor:
    tensor = tensors[name]
    weights = [tensors[i] for i in operator.inputs if i and tensors[i].parameter]
    # Quantised weights are kept and read as stored: their element size is the stored one.
    stored = weights[0] if operator.op == "DequantizeLinear" and weights else tensor
    shaped = operator.op in _FOLDED_BY_SHAPE or tensor.shape in (None, ())
    return dataclasses.replace(
        tensor,
        constant=True,
        element_bytes=stored.element_bytes,
        parameter=tensor.parameter or (bool(weights) and not shaped),
    )


def _expand(program: Program) -> Program:
    tensors = dict(program.tensors)
    operators: list[Operator] = []
    for operator in program.operators:
        steps = _EXPANSIONS.get(operator.op)
        if steps is None:
            operators.append(operator)
            continue
        source, target = operator.inputs[0], operator.outputs[0]
        between = source
        for step in steps[:-1]:
            made = f"{target}/{step}"
            tensors[made] = tensors[target]
            operators.append(Operator(step, (between,), (made,), signature=b"expanded"))
            between = made
        operators.append(Operator(steps[-1], (source, between), (target,)))
    return dataclasses.replace(program, operators=tuple(operators), tensors=tensors)


def _drop_no_ops(program: Program) -> Program:
    return _redirect(program, lambda operator: _is_no_op(operator, program))


def _is_no_op(operator: Operator, program: Program) -> bool:
    if operator.op in _VANISHING:
        return True
    if operator.op not in {"Cast", "Expand"}:
        return False
    before, after = program.tensors[operator.inputs[0]], program.tensors[operator.outputs[0]]
    same_shape = after.shape is not None and before.shape == after.shape
    if operator.op == "Expand":
        return same_shape
    return before.element_type == after.element_type


def _redirect(program: Program, vanishes: Callable[[Operator], bool]) -> Program:
    """The program without those operators; readers of their output read their first input."""
    alias: dict[str, str] = {}
    kept = []
    for operator in program.operators:
        inputs = tuple(alias.get(name, name) for name in operator.inputs)
        if vanishes(operator):
            alias[operator.outputs[0]] = inputs[0]
        else:
            kept.append(dataclasses.replace(operator, inputs=inputs))
    outputs = tuple(alias.get(name, name) for name in program.outputs)
    return dataclasses.replace(program, operators=tuple(kept), outputs=outputs)


def _merge_equal(program: Program) -> Program:
    first: dict[tuple[object, ...], Operator] = {}
    alias: dict[str, str] = {}
    kept = []
    for operator in program.operators:
        inputs = tuple(alias.get(name, name) for name in operator.inputs)
        key = (operator.op, operator.signature, inputs, len(operator.outputs))
        twin = None if operator.op in _RANDOM else first.get(key)
        if twin is not None:
            alias.update(zip(operator.outputs, twin.outputs, strict=True))
            continue
        first[key] = dataclasses.replace(operator, inputs=inputs)
        kept.append(first[key])
    outputs = tuple(alias.get(name, name) for name in program.outputs)
    return dataclasses.replace(program, operators=tuple(kept), outputs=outputs)


def _merge_pairs(program: Program, rules: tuple[_Rule, ...]) -> Program:
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
    rules: tuple[_Rule, ...],
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
        axis = 1 if operator.op == "Conv" else -1
        channels = None if shape is None else (shape[axis],)
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
    if first.op != "Conv" or second.op != "BatchNormalization":
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
    row = program.tensors[addend].shape if addend else None
    if program.rank(first.inputs[1]) != 2 or row not in (shape[-1:], (1, shape[-1]), shape):
        return None
    if len(shape) > 2 and not (row == shape[-1:] and program.is_constant(addend)):
        return None
    inputs = (*first.inputs, addend)
    return Operator("Gemm", inputs, second.outputs, first.attributes, first.signature)


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
    if first.op != "Sigmoid" or second.op != "Mul":
        return None
    if set(second.inputs) != {first.inputs[0], first.outputs[0]}:
        return None
    return dataclasses.replace(first, outputs=second.outputs, fused=("Mul",))


_FOLDING_RULES: tuple[_Rule, ...] = (
    _padded_window,
    _normalised_conv,
    _scaled_conv,
    _shifted_conv,
    _biased_product,
    _normalised_product,
    _clipped_relu,
)
_ACTIVATION_RULES: tuple[_Rule, ...] = (_activated, _swish)
