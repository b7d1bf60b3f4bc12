"""What each operator of an ONNX graph costs: its kernel class, multiply-accumulates and bytes."""

import math

from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from cost_models.operator_classes import (
    ATTENTIONS,
    CLASSES,
    CONVOLUTION_WEIGHTS,
    EIGHT_BIT,
    INTEGER_PRODUCTS,
    PRODUCT_OPERANDS,
    RECURRENT_GATES,
    SHAPE_ONLY,
    VIEWS,
)
from cost_models.program import GraphError, Operator, Program


def kernels_of(program: Program) -> KernelGraph:
    """The kernels of a fused program, one for each operator that is no mere view, in its order.

    Views (Reshape, Flatten, Squeeze, Unsqueeze) move no bytes: what reads them reads what they
    show. A kernel with a size that is not known is "unknown" and has the bytes that are known.
    Raises GraphError for an operator that reads what nobody has written before it.
    """
    sources = dict.fromkeys(program.inputs, NETWORK_INPUT)
    shown: dict[str, str] = {}
    weights = _dequantised_weights(program)
    kernels: list[Kernel] = []
    for operator in program.operators:
        if operator.op in VIEWS and not program.is_constant(operator.inputs[0]):
            shown[operator.outputs[0]] = shown.get(operator.inputs[0], operator.inputs[0])
            continue
        sources.update((name, len(kernels)) for name in operator.outputs if name)
        kernels.append(_kernel(operator, program, weights, shown, sources))
    return KernelGraph(tuple(kernels), _bytes_known(program, program.inputs))


def _dequantised_weights(program: Program) -> frozenset[str]:
    return frozenset(
        operator.outputs[0]
        for operator in program.operators
        if operator.op == "DequantizeLinear" and program.is_constant(operator.inputs[0])
    )


def _bytes_known(program: Program, names: tuple[str, ...]) -> int:
    return sum(program.size_bytes(name) or 0 for name in names)


def _kernel(
    operator: Operator,
    program: Program,
    weights: frozenset[str],
    shown: dict[str, str],
    sources: dict[str, int],
) -> Kernel:
    names = [name for name in operator.inputs if not program.is_constant(name)]
    activations = tuple(dict.fromkeys(shown.get(name, name) for name in names))
    for name in activations:
        if name not in sources:
            raise GraphError(f"{operator.op} reads tensor {name!r} before anything has written it")
    parameters = dict.fromkeys(n for n in operator.inputs if n and program.tensors[n].parameter)
    written = tuple(name for name in operator.outputs if name)
    known = all(program.shape(name) is not None for name in (*names, *written))
    kind = _kind(operator, program, weights) if known and written else "unknown"
    return Kernel(
        kind=kind,
        ops=(operator.op, *operator.fused),
        macs=0 if kind == "unknown" else _macs(operator, program),
        input_bytes=0 if operator.op in SHAPE_ONLY else _bytes_known(program, activations),
        output_bytes=_bytes_known(program, written),
        weight_bytes=_bytes_known(program, tuple(parameters)),
        reads=tuple(dict.fromkeys(sources[name] for name in activations)),
        output_shape=((program.shape(written[0]) or ()) if written else ())[1:],
        steps=_steps(operator, program) if kind == "recurrent" else 1,
        integer=kind != "unknown" and operator.op in INTEGER_PRODUCTS,
    )


def _kind(operator: Operator, program: Program, weights: frozenset[str]) -> KernelClass:
    op = operator.op
    if op in CONVOLUTION_WEIGHTS:
        return _convolution_kind(operator, program)
    if op in PRODUCT_OPERANDS or op == "Einsum":
        return _product_kind(operator, program, weights)
    if op in RECURRENT_GATES:
        return "recurrent" if _recurrent_sizes(operator, program) else "unknown"
    if op in ATTENTIONS:
        return "matmul" if _attention_macs(operator, program) else "unknown"
    if op in EIGHT_BIT and program.tensors[operator.outputs[0]].element_bytes == 1:
        return "elementwise"
    return CLASSES.get(op, "unknown")


def _product_kind(operator: Operator, program: Program, weights: frozenset[str]) -> KernelClass:
    operands = operator.inputs
    if operator.op == "Einsum":
        if _einsum_sizes(operator, program) is None:
            return "unknown"
        if len(operands) < 2:
            return "move"
    else:
        operands = tuple(operands[place] for place in PRODUCT_OPERANDS[operator.op])
    constant = any(program.is_constant(name) or name in weights for name in operands)
    return "gemm" if constant else "matmul"


def _convolution_kind(operator: Operator, program: Program) -> KernelClass:
    shape = program.shape(operator.inputs[0])
    weights = program.shape(operator.inputs[CONVOLUTION_WEIGHTS[operator.op]])
    if shape is None or weights is None or len(shape) < 2 or len(weights) < 2:
        return "unknown"
    groups = operator.integer("group", 1)
    if groups > 1:
        return "depthwise" if shape[1] == groups else "grouped"
    return "pointwise" if math.prod(weights[2:]) == 1 else "conv"


def _macs(operator: Operator, program: Program) -> int:
    """Multiply-accumulates; 0 for what is neither a convolution, product nor recurrent."""
    if operator.op in CONVOLUTION_WEIGHTS:
        weights = program.shape(operator.inputs[CONVOLUTION_WEIGHTS[operator.op]]) or ()
        # A transposed convolution scatters each input element instead of gathering each output.
        transposed = operator.op == "ConvTranspose"
        driver = operator.inputs[0] if transposed else operator.outputs[0]
        return math.prod(program.shape(driver) or ()) * math.prod(weights[1:])
    if operator.op in PRODUCT_OPERANDS:
        left = program.shape(operator.inputs[PRODUCT_OPERANDS[operator.op][0]]) or ()
        transposed = operator.integer("transA", 0) == 1 and len(left) > 1
        inner = left[-2] if transposed else (left[-1] if left else 1)
        return math.prod(program.shape(operator.outputs[0]) or ()) * inner
    if operator.op == "Einsum" and len(operator.inputs) > 1:
        return math.prod((_einsum_sizes(operator, program) or {"": 0}).values())
    if operator.op in RECURRENT_GATES:
        return _recurrent_macs(operator, program)
    if operator.op in ATTENTIONS:
        return _attention_macs(operator, program)
    return 0


def _einsum_sizes(operator: Operator, program: Program) -> dict[str, int] | None:
    """The size of each index of an Einsum; None where equation and shapes do not fit."""
    terms = operator.text("equation", "").replace(" ", "").split("->")[0].split(",")
    if len(terms) != len(operator.inputs):
        return None
    sizes: dict[str, int] = {}
    for term, name in zip(terms, operator.inputs, strict=True):
        shape = program.shape(name)
        before, dots, after = term.partition("...")
        if shape is None or len(before) + len(after) > len(shape):
            return None
        middle = len(shape) - len(before) - len(after)
        if middle and not dots:
            return None
        wild = [f"...{middle - position}" for position in range(middle)]
        for index, size in zip([*before, *wild, *after], shape, strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    return sizes


def _recurrent_sizes(operator: Operator, program: Program) -> tuple[int, int, int, int] | None:
    """Sequence length, batch, directions and hidden size."""
    shape = program.shape(operator.inputs[0])
    recurrence = program.shape(operator.inputs[2])
    if shape is None or recurrence is None or len(shape) != 3 or len(recurrence) != 3:
        return None
    steps, batch = shape[:2] if operator.integer("layout", 0) == 0 else (shape[1], shape[0])
    return steps, batch, recurrence[0], recurrence[2]


def _recurrent_macs(operator: Operator, program: Program) -> int:
    sizes = _recurrent_sizes(operator, program)
    if sizes is None:
        return 0
    steps, batch, directions, hidden = sizes
    width = (program.shape(operator.inputs[0]) or (0,))[-1]
    gates = RECURRENT_GATES[operator.op]
    return steps * batch * directions * gates * hidden * (width + hidden)


def _steps(operator: Operator, program: Program) -> int:
    sizes = _recurrent_sizes(operator, program)
    return 1 if sizes is None else max(1, sizes[0] * sizes[2])


def _attention_macs(operator: Operator, program: Program) -> int:
    """Projections where they are inside, scores, and their product with the values.

    0 where the form is not known: shapes tell onnx's Attention and onnxruntime's apart.
    """
    shapes = [program.shape(name) for name in operator.inputs[:3] if name]
    if len(shapes) < 3 or any(shape is None for shape in shapes):
        return 0
    queries, keys, values = (shape or () for shape in shapes)
    if len(queries) == 3 and len(keys) == 2:  # onnxruntime's: input, weights, bias
        batch, length, _ = queries
        return math.prod(queries) * keys[1] + 2 * batch * length**2 * keys[1] // 3
    if len(queries) not in {3, 4} or not len(queries) == len(keys) == len(values):
        return 0
    heads = operator.integer("q_num_heads", 1) if len(queries) == 3 else 1
    own = operator.integer("kv_num_heads", 1) if len(queries) == 3 else 1
    width = values[-1] * heads // max(1, own)
    return (math.prod(queries) + math.prod(queries[:-1]) * width) * keys[-2]
