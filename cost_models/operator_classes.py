"""The kernel class of each ONNX operator, and where those that multiply have their operands.

Names are those of ONNX and of onnxruntime's own operators. What is not named here is "unknown".
"""

from cost_models.kernels import KernelClass

CONVOLUTION_WEIGHTS = {
    "Conv": 1,
    "ConvInteger": 1,
    "ConvTranspose": 1,
    "DeformConv": 1,
    "FusedConv": 1,
    "QLinearConv": 3,
}
"""Which input of a convolution holds the weights."""

PRODUCT_OPERANDS: dict[str, tuple[int, ...]] = {
    "DynamicQuantizeMatMul": (0, 1),
    "FusedGemm": (0, 1),
    "FusedMatMul": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "MatMulNBits": (0, 1),
    "QGemm": (0, 3),
    "QLinearMatMul": (0, 3),
}
"""Which inputs of a matrix product are multiplied."""

RECURRENT_GATES = {"DynamicQuantizeLSTM": 4, "GRU": 3, "LSTM": 4, "RNN": 1}
"""Matrix products of each step of a recurrent operator, as multiples of the hidden size."""

INTEGER_PRODUCTS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
ATTENTIONS = frozenset({"Attention", "GroupQueryAttention", "MultiHeadAttention", "QAttention"})
VIEWS = frozenset({"Flatten", "Identity", "Optional", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that show the same bytes in another shape."""

SHAPE_ONLY = frozenset({"Shape", "Size"})
"""Operators that read how large a tensor is, not what is in it."""

EIGHT_BIT = frozenset({"QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"})
"""Operators that look 8-bit numbers up in a table instead of computing them."""

_NAMES: dict[KernelClass, str] = {
    "pool": """
        AveragePool LpPool MaxPool MaxRoiPool MaxUnpool QLinearAveragePool RoiAlign""",
    "reduce": """
        ArgMax ArgMin GlobalAveragePool GlobalLpPool GlobalMaxPool NegativeLogLikelihoodLoss
        QLinearGlobalAveragePool QLinearReduceMean ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
        TopK""",
    "normalise": """
        GroupNorm GroupNormalization Hardmax InstanceNormalization LRN LayerNormalization
        LogSoftmax LpNormalization MeanVarianceNormalization QLinearSoftmax RMSNormalization
        SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization
        Softmax SoftmaxCrossEntropyLoss""",
    "transcendental": """
        Acos Acosh Asin Asinh Atan Atanh BiasGelu Celu Cos Cosh Elu Erf Exp FastGelu Gelu
        Log Mish Pow QLinearSigmoid QuickGelu Selu Sigmoid Sin Sinh Softplus Swish Tan Tanh""",
    "elementwise": """
        Abs Add And BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
        Cast CastLike Ceil Clip CumProd CumSum DequantizeLinear Div DynamicQuantizeLinear
        Equal Floor Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less
        LessOrEqual Max Mean Min Mod Mul Neg Not Or PRelu QLinearAdd QLinearLeakyRelu
        QLinearMul QLinearWhere QuantizeLinear Reciprocal Relu RotaryEmbedding Round Shrink
        Sign Softsign Sqrt Sub Sum ThresholdedRelu Where Xor""",
    "move": """
        AffineGrid BitCast CenterCropPad Col2Im Compress Concat ConstantOfShape DepthToSpace
        Expand EyeLike Gather GatherElements GatherND GridSample OneHot Pad QLinearConcat
        Range Resize ReverseSequence Scatter ScatterElements ScatterND Shape Size Slice SpaceToDepth
        Split TensorScatter Tile Transpose Trilu Upsample""",
}
CLASSES: dict[str, KernelClass] = {
    name: kind for kind, names in _NAMES.items() for name in names.split()
}
