"""Kernels of a model file: the only module here that needs the onnx package.

Conventions of the `Kernel`s, which every other source of kernels keeps too:

- The list is in the file's order. A fused kernel stands where its first operator stood (where
  that of MatMul + Add stood if the Add's other operand is computed). `fusion` says what is fused.
- `ops` are the ONNX operators of one step in the order in which they run: ("Conv", "Relu"),
  ("Gemm",), ("Sigmoid", "Mul"). What is folded into weights (BatchNormalization, constant Mul, Add
  and Pad) is not named, and MatMul + Add is named Gemm.
- `macs`: output elements x window x input channels / groups for convolutions, m n k for matrix
  products, 0 for everything else. A bias is not counted.
- `input_bytes`: each activation tensor read, once. `output_bytes`: all tensors written.
- `weight_bytes`: constant inputs, the bias included, also one that a folded BatchNormalization or
  Add made. Scalars and 64-bit integers (bounds, axes, target shapes) steer and are not counted.
- `reads`: the sources of the activations, each once, in the order of the operator's inputs.
- `output_shape`: of the first output, without its first dimension.
- `kind`: "depthwise" if groups = input channels > 1 (whatever the window), else "pointwise" if the
  window has one element, else "conv". Softmax and normalisations are "elementwise".
"""

from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx.defs
import onnx.helper
import onnx.inliner
import onnx.numpy_helper
import onnx.shape_inference
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
)

from cost_models.fusion import fuse
from cost_models.kernels import KernelGraph
from cost_models.operator_cost import kernels_of
from cost_models.program import (
    AttributeValue,
    GraphError,
    Operator,
    Program,
    Tensor,
    UnknownShapeError,
    UnreadableModelError,
)

_INT64 = TensorProto.INT64
_DEFAULT_ELEMENT = ("float32", 4)


def kernels_from_onnx(
    model: bytes | Path, *, input_shape: tuple[int, ...] | None = None
) -> KernelGraph:
    """The kernels that onnxruntime executes for a model on a CPU, with their costs at batch 1.

    A symbolic first dimension of an input counts as 1; `input_shape`, batch included, replaces
    the shape of a single input. Weights are not read, so external data need not be there.
    Raises UnreadableModelError for bytes that are no model, UnknownShapeError where a size is
    left open, OSError where the file cannot be read; both of the first are GraphErrors.
    """
    loaded = _load(model)
    _fix_input_shapes(loaded.graph, input_shape)
    _forget_open_shapes(loaded.graph)
    return kernels_of(fuse(_program(_with_shapes(loaded))))


def _load(model: bytes | Path) -> ModelProto:
    data = model if isinstance(model, bytes) else model.read_bytes()
    name = "the model" if isinstance(model, bytes) else str(model)
    loaded = onnx.ModelProto()
    try:
        loaded.ParseFromString(data)
    except Exception as error:  # protobuf's own class, which differs between its implementations
        raise UnreadableModelError(f"{name} is not an ONNX file or is damaged") from error
    if not loaded.graph.output:
        raise UnreadableModelError(f"{name} is not an ONNX file or is damaged: it has no output")
    if loaded.functions:
        loaded = onnx.inliner.inline_local_functions(loaded)
    return loaded


def _network_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    constants = {initializer.name for initializer in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _fix_input_shapes(graph: GraphProto, input_shape: tuple[int, ...] | None) -> None:
    inputs = _network_inputs(graph)
    if input_shape is not None:
        if len(inputs) != 1:
            raise GraphError(
                f"input_shape fits a model with one input, this one has {len(inputs)}: "
                "export it with fixed sizes instead"
            )
        _set_shape(inputs[0], input_shape)
        del graph.value_info[:]
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
    for value in inputs:
        _fix_batch(value)


def _set_shape(value: ValueInfoProto, shape: tuple[int, ...]) -> None:
    tensor = value.type.tensor_type
    if tensor.HasField("shape") and len(tensor.shape.dim) != len(shape):
        raise GraphError(
            f"input {value.name!r} has {len(tensor.shape.dim)} dimensions, "
            f"the given shape {shape} has {len(shape)}"
        )
    tensor.ClearField("shape")
    for size in shape:
        tensor.shape.dim.add(dim_value=size)
    tensor.shape.SetInParent()


def _fix_batch(value: ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise UnknownShapeError(
            f"input {value.name!r} is no tensor of known rank; export the model with fixed sizes"
        )
    for index, dim in enumerate(tensor.shape.dim):
        if dim.dim_value > 0:
            continue
        if index > 0:
            raise UnknownShapeError(
                f"input {value.name!r} leaves dimension {index} ({dim.dim_param or '?'}) open; "
                "give its shape or export the model with fixed sizes"
            )
        dim.dim_value = 1


def _forget_open_shapes(graph: GraphProto) -> None:
    """Drop declared shapes that name a symbolic size, so that inference fills them in."""
    known = [value for value in graph.value_info if _is_fixed(value.type)]
    del graph.value_info[:]
    graph.value_info.extend(known)
    for output in graph.output:
        if not _is_fixed(output.type):
            output.type.tensor_type.ClearField("shape")


def _is_fixed(kind: TypeProto) -> bool:
    tensor = kind.tensor_type
    return tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)


def _with_shapes(model: ModelProto) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableModelError(
            f"the shapes in the model contradict each other: {reason}"
        ) from (error)


def _program(model: ModelProto) -> Program:
    graph = model.graph
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    inputs = _network_inputs(graph)
    tensors = dict(_declared([*inputs, *graph.value_info, *graph.output]))
    for initializer in graph.initializer:
        tensors[initializer.name] = _constant(initializer)
    for sparse in graph.sparse_initializer:
        tensors[sparse.values.name] = _constant(sparse.values)
    operators = []
    for node in graph.node:
        value = _constant_value(node)
        if value is not None:
            tensors[node.output[0]] = _constant(value)
            continue
        _check_arity(node, opsets)
        operators.append(_operator(node))
        for name in (*node.input, *node.output):
            tensors.setdefault(name, Tensor(None, *_DEFAULT_ELEMENT))
    return Program(
        tuple(operators),
        tensors,
        tuple(value.name for value in inputs),
        tuple(value.name for value in graph.output),
    )


def _declared(values: Iterable[ValueInfoProto]) -> Iterable[tuple[str, Tensor]]:
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in tensor.shape.dim) if _is_fixed(value.type) else None
        yield value.name, Tensor(shape, *_element(tensor.elem_type))


def _element(elem_type: int) -> tuple[str, int]:
    if elem_type == TensorProto.UNDEFINED:
        return _DEFAULT_ELEMENT
    dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    return TensorProto.DataType.Name(elem_type).lower(), dtype.itemsize


def _constant(value: TensorProto) -> Tensor:
    shape = tuple(value.dims)
    scalar = None
    external = value.data_location == TensorProto.EXTERNAL
    if all(size == 1 for size in shape) and not external and value.data_type != TensorProto.STRING:
        scalar = _scalar(value)
    parameter = shape != () and value.data_type != _INT64
    return Tensor(shape, *_element(value.data_type), True, parameter, scalar)


def _scalar(value: TensorProto) -> float:
    try:
        return float(onnx.numpy_helper.to_array(value).reshape(()))
    except (TypeError, ValueError) as error:
        raise UnreadableModelError(
            f"the constant {value.name!r} in the model is damaged"
        ) from error


def _constant_value(node: NodeProto) -> TensorProto | None:
    """The tensor in a Constant node, None for other nodes and other forms of constants."""
    if node.op_type != "Constant":
        return None
    return next((a.t for a in node.attribute if a.name == "value"), None)


def _check_arity(node: NodeProto, opsets: dict[str, int]) -> None:
    """Refuse a standard operator that lacks inputs or outputs which every use of it has."""
    if node.domain not in {"", "ai.onnx"}:
        return
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), "")
    except onnx.defs.SchemaError:  # unknown here: charged as such
        return
    if len(node.input) < schema.min_input or len(node.output) < max(1, schema.min_output):
        raise UnreadableModelError(
            f"operator {node.op_type} {node.name!r} in the model lacks inputs or outputs"
        )


def _operator(node: NodeProto) -> Operator:
    attributes: dict[str, AttributeValue] = {}
    for attribute in node.attribute:
        value = _attribute(attribute)
        if value is not None:
            attributes[attribute.name] = value
    signature = b"".join(sorted(a.SerializeToString() for a in node.attribute))
    return Operator(
        node.op_type,
        tuple(node.input),
        tuple(node.output),
        attributes,
        node.domain.encode() + signature,
    )


def _attribute(attribute: AttributeProto) -> AttributeValue | None:
    match attribute.type:
        case AttributeProto.INT:
            return attribute.i
        case AttributeProto.FLOAT:
            return attribute.f
        case AttributeProto.STRING:
            return attribute.s.decode(errors="replace")
        case AttributeProto.INTS:
            return tuple(attribute.ints)
        case _:
            return None
