"""What onnxruntime makes of a graph before it runs it on a CPU, as rewrites of a `Program`.

The rules were read off the graphs that onnxruntime 1.32.0 writes with `optimized_model_filepath`
at ORT_ENABLE_EXTENDED, the highest level that does not depend on the CPU; the tests compare with
the installed onnxruntime. In order:

1. HardSwish becomes HardSigmoid and Mul, Mish becomes Softplus, Tanh and Mul: the CPU provider has
   no kernel for them, and HardSigmoid * x is *not* fused again. Operators whose inputs are all
   constants are folded; so are Shape and Size, unless the file leaves a size of their input open:
   then the chain of operators that computes another shape from it is run. DequantizeLinear is not
   folded: weights that no integer kernel takes in are dequantised in every run.
2. Identity, Dropout, a Cast to the same type and an Expand to the same shape vanish; so do sums
   with 0 and products with 1 (one element, behind another operator and not a network output).
3. Equal operators on equal inputs run once (common subexpressions): two poolings of one tensor.
   Constants of few elements are equal if their numbers are, and so is what is computed from them.
   But an operator whose output nobody reads **is** run, as is a branch that is multiplied by zero.
4. Transposes that follow one another merge, through cheap operators too (`fusion_transposes`).
5. Into Conv, MatMul and Gemm go constants, padding, transposes and activations (`fusion_pairs`).
6. QuantizeLinear and DequantizeLinear around an operator make an integer kernel of it
   (`fusion_quantised`).
7. Gelu and normalisations are made of their primitives (`fusion_patterns`).

A fusion needs that nobody else reads the tensor between. A sum after a convolution stays a kernel
of its own: Conv + Add (+ Relu) is not fused for the CPU at this level. At ORT_ENABLE_ALL on x86 the
NCHWc layout additionally adds into the second operand's Conv where both operands come from NCHWc
kernels, and inserts reorderings; which ones depends on the width of the CPU's vectors, so it is not
modelled. Nor is Attention from its primitives, which needs the very graph of one exporter.
"""

import dataclasses

from cost_models.fusion_pairs import ACTIVATION_RULES, FOLDING_RULES, merge_pairs
from cost_models.fusion_patterns import fuse_patterns
from cost_models.fusion_products import fuse_products
from cost_models.fusion_quantised import fuse_quantised
from cost_models.fusion_transposes import merge_transposes
from cost_models.program import Operator, Program, Tensor

_VANISHING = frozenset({"Identity", "Dropout"})
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
_COMMUTATIVE = frozenset({"Add", "Mul"})
_FOLDED_BY_SHAPE = frozenset({"Shape", "Size"})
_RUN_ANYWAY = frozenset(
    {
        "Bernoulli",
        "DequantizeLinear",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_EXPANSIONS = {"HardSwish": ("HardSigmoid", "Mul"), "Mish": ("Softplus", "Tanh", "Mul")}


def fuse(program: Program) -> Program:
    """The program as onnxruntime would run it; see the module's text for the rules."""
    program = _drop_no_ops(_fold_constants(_merge_equal(_expand(program))))
    program = merge_transposes(_merge_equal(program))
    program = fuse_quantised(merge_pairs(program, FOLDING_RULES))
    return fuse_products(fuse_patterns(merge_pairs(program, ACTIVATION_RULES)))


def _fold_constants(program: Program) -> Program:
    tensors = dict(program.tensors)
    kept = []
    for operator in program.operators:
        known = all(not name or tensors[name].constant for name in operator.inputs)
        if operator.op in _FOLDED_BY_SHAPE:
            known = known or program.is_fixed(operator.inputs[0])
        if operator.op in _RUN_ANYWAY or not known:
            kept.append(operator)
            continue
        if not all(_is_sized(tensors[name]) for name in operator.outputs if name):
            kept.append(operator)  # an operator whose result cannot even be sized
            continue
        for name in filter(None, operator.outputs):
            tensors[name] = _folded(tensors[name])
    return dataclasses.replace(program, operators=tuple(kept), tensors=tensors)


def _is_sized(tensor: Tensor) -> bool:
    return tensor.shape is not None


def _folded(tensor: Tensor) -> Tensor:
    parameter = tensor.shape != () and tensor.element_type not in {"int64", "bool"}
    return dataclasses.replace(tensor, constant=True, parameter=parameter)


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
    """The program without operators that do nothing; who reads their output reads their input."""
    alias: dict[str, str] = {}
    written: set[str] = set()
    kept = []
    for operator in program.operators:
        inputs = tuple(alias.get(name, name) for name in operator.inputs)
        renamed = dataclasses.replace(operator, inputs=inputs)
        source = _passed_on(renamed, program, written)
        if source is None:
            kept.append(renamed)
            written.update(operator.outputs)
        else:
            alias[operator.outputs[0]] = source
    outputs = tuple(alias.get(name, name) for name in program.outputs)
    return dataclasses.replace(program, operators=tuple(kept), outputs=outputs)


def _passed_on(operator: Operator, program: Program, written: set[str]) -> str | None:
    """The input that an operator only passes on, None for one that does something."""
    if operator.op in _VANISHING:
        return operator.inputs[0]
    if operator.op in _NEUTRAL:
        return _other_than_neutral(operator, program, written)
    if operator.op not in {"Cast", "Expand"}:
        return None
    before, after = program.tensors[operator.inputs[0]], program.tensors[operator.outputs[0]]
    same_shape = after.shape is not None and after.fixed and before.shape == after.shape
    same = same_shape if operator.op == "Expand" else before.element_type == after.element_type
    return operator.inputs[0] if same else None


def _other_than_neutral(operator: Operator, program: Program, written: set[str]) -> str | None:
    if len(operator.inputs) != 2 or operator.outputs[0] in program.outputs:
        return None
    sides = [operator.inputs]
    if operator.op in _COMMUTATIVE:
        sides.append(operator.inputs[::-1])
    for kept, constant in sides:
        shape = program.shape(kept)
        unchanged = shape is not None and shape == program.shape(operator.outputs[0])
        neutral = program.scalar(constant) == _NEUTRAL[operator.op]
        if neutral and unchanged and kept in written:
            return kept
    return None


def _identity(name: str, program: Program) -> object:
    """What tells a tensor from others: its name, or the content of a small constant."""
    tensor = program.tensors.get(name)
    if tensor is None or not tensor.content:
        return name
    return tensor.element_type, tensor.content


def _merge_equal(program: Program) -> Program:
    first: dict[tuple[object, ...], Operator] = {}
    alias: dict[str, str] = {}
    kept = []
    for operator in program.operators:
        inputs = tuple(alias.get(name, name) for name in operator.inputs)
        by_content = operator.op != "QuantizeLinear"  # whose constants onnxruntime leaves alone
        read = tuple(_identity(name, program) for name in inputs) if by_content else inputs
        key = (operator.op, operator.signature, read, len(operator.outputs))
        twin = None if operator.op in _RUN_ANYWAY else first.get(key)
        if twin is not None:
            alias.update(zip(operator.outputs, twin.outputs, strict=True))
            continue
        first[key] = dataclasses.replace(operator, inputs=inputs)
        kept.append(first[key])
    outputs = tuple(alias.get(name, name) for name in program.outputs)
    return dataclasses.replace(program, operators=tuple(kept), outputs=outputs)
