"""What each operator costs: its kernel class, multiply-accumulates and bytes."""

import math

from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from cost_models.program import GraphError, Operator, Program

_WEIGHTS_INPUT = {
    "Conv": 1,
    "ConvInteger": 1,
    "ConvTranspose": 1,
    "FusedConv": 1,
    "QLinearConv": 3,
}
_PRODUCT_INPUTS = {
    "FusedGemm": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
}
_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
_REDUCTIONS = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "TopK",
    }
)
_MOVES = frozenset(
    {
        "Compress",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
        "Resize",
        "ReverseSequence",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Tile",
        "Transpose",
        "Upsample",
    }
)
_ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "CumSum",
        "DequantizeLinear",
        "Div",
        "DynamicQuantizeLinear",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "Greater",
        "GreaterOrEqual",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "Max",
        "Mean",
        "MeanVarianceNormalization",
        "Min",
        "Mish",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pow",
        "QLinearAdd",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearSigmoid",
        "QuantizeLinear",
        "QuickGelu",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
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


def kernels_of(program: Program) -> KernelGraph:
    """The kernels of a fused program, one for each operator that is no mere view, in its order.

    Views (Reshape, Flatten, Squeeze, Unsqueeze) move no bytes: what reads them reads what they
    show. Raises UnknownShapeError where a size is needed that the file leaves open.
    """
    sources = dict.fromkeys(program.inputs, NETWORK_INPUT)
    shown: dict[str, str] = {}
    kernels: list[Kernel] = []
    for operator in program.operators:
        if operator.op in _VIEWS:
            shown[operator.outputs[0]] = shown.get(operator.inputs[0], operator.inputs[0])
            continue
        sources.update((name, len(kernels)) for name in operator.outputs if name)
        kernels.append(_kernel(operator, program, shown, sources))
    return KernelGraph(tuple(kernels), sum(program.size_bytes(name) for name in program.inputs))


def _kernel(
    operator: Operator, program: Program, shown: dict[str, str], sources: dict[str, int]
) -> Kernel:
    names = [name for name in operator.inputs if not program.is_constant(name)]
    activations = dict.fromkeys(shown.get(name, name) for name in names)
    for name in activations:
        if name not in sources:
            raise GraphError(f"{operator.op} reads tensor {name!r} before anything has written it")
    weights = dict.fromkeys(
        name for name in operator.inputs if name and program.tensors[name].parameter
    )
    written = [name for name in operator.outputs if name]
    return Kernel(
        kind=_kind(operator, program),
        ops=(operator.op, *operator.fused),
        macs=_macs(operator, program),
        input_bytes=sum(program.size_bytes(name) for name in activations),
        output_bytes=sum(program.size_bytes(name) for name in written),
        weight_bytes=sum(program.size_bytes(name) for name in weights),
        reads=tuple(dict.fromkeys(sources[name] for name in activations)),
        output_shape=program.shape(written[0])[1:],
    )


def _kind(operator: Operator, program: Program) -> KernelClass:
    op = operator.op
    if op in _WEIGHTS_INPUT:
        return _convolution_kind(operator, program)
    if op in _PRODUCT_INPUTS:
        return "gemm"
    if op in _POOLS:
        return "pool"
    if op in _REDUCTIONS:
        return "reduce"
    if op in _MOVES:
        return "move"
    return "elementwise" if op in _ELEMENTWISE else "unknown"


def _convolution_kind(operator: Operator, program: Program) -> KernelClass:
    channels = program.shape(operator.inputs[0])[1]
    if 1 < channels == operator.integer("group", 1):
        return "depthwise"
    window = program.shape(operator.inputs[_WEIGHTS_INPUT[operator.op]])[2:]
    return "pointwise" if math.prod(window) == 1 else "conv"


def _macs(operator: Operator, program: Program) -> int:
    """Multiply-accumulates; 0 for what is neither a convolution nor a matrix product."""
    if operator.op in _WEIGHTS_INPUT:
        weights = program.shape(operator.inputs[_WEIGHTS_INPUT[operator.op]])
        # A transposed convolution scatters each input element instead of gathering each output.
        transposed = operator.op == "ConvTranspose"
        driver = operator.inputs[0] if transposed else operator.outputs[0]
        return math.prod(program.shape(driver)) * math.prod(weights[1:])
    if operator.op in _PRODUCT_INPUTS:
        left = program.shape(operator.inputs[_PRODUCT_INPUTS[operator.op][0]])
        inner = left[0] if operator.integer("transA", 0) else left[-1]
        return math.prod(program.shape(operator.outputs[0])) * inner
    return 0
