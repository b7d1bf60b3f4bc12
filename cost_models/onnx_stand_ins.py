"""Shapes of operators for which the onnx package has no shape inference: those of onnxruntime.

Files that onnxruntime has quantised or optimised hold them. Each has the shape of a standard
operator on some of its inputs, or the shape of its first input.
"""

import onnx.defs
from onnx import NodeProto

RUNTIME_DOMAIN = "com.microsoft"
LIKE_FIRST_INPUT = frozenset(
    {
        "Attention",
        "BiasGelu",
        "CastLike",
        "FastGelu",
        "Gelu",
        "GroupNorm",
        "MeanVarianceNormalization",
        "MultiHeadAttention",
        "QLinearLeakyRelu",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuickGelu",
        "RotaryEmbedding",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
_STANDARD: dict[str, tuple[str, tuple[int, ...]]] = {
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "FusedConv": ("Conv", (0, 1, 2)),
    "FusedGemm": ("Gemm", (0, 1, 2)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "QGemm": ("Gemm", (0, 3)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearReduceMean": ("ReduceMean", (0,)),
}


def stand_in(node: NodeProto) -> NodeProto | None:
    """A standard operator with the output shape of an operator of onnxruntime, if there is one."""
    if node.domain != RUNTIME_DOMAIN or not node.output:
        return None
    if node.op_type == "QLinearConcat":
        op, inputs = "Concat", list(node.input[2::3])
    elif node.op_type in _STANDARD:
        op, places = _STANDARD[node.op_type]
        inputs = [node.input[place] for place in places if place < len(node.input)]
    elif node.op_type == "FusedMatMul" and not _transposes(node):
        op, inputs = "MatMul", list(node.input[:2])
    else:
        return None
    allowed = onnx.defs.get_schema(op).attributes
    attributes = [attribute for attribute in node.attribute if attribute.name in allowed]
    return NodeProto(op_type=op, input=inputs, output=node.output[:1], attribute=attributes)


def _transposes(node: NodeProto) -> bool:
    return any(attribute.name.startswith("trans") and attribute.i for attribute in node.attribute)
