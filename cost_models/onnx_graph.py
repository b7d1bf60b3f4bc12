"""Kernels of an ONNX file.

Conventions of the `Kernel`s, which every other source of kernels keeps too:

- The list is in the file's order. A step fused of two operators stands where the first stood
  (where the second stood if that reads something computed in between), one fused of more where the
  last stood. `fusion` says what is fused.
- `ops` are the ONNX operators of one step in the order in which they run: ("Conv", "Relu"),
  ("Gemm",), ("Sigmoid", "Mul"). What is folded into weights (BatchNormalization, constant Mul, Add
  and Pad) is not named, and MatMul + Add is named Gemm. A step for which onnxruntime has a name of
  its own has that name: QLinearConv, Gelu, LayerNormalization, SkipLayerNormalization,
  FusedMatMul, DynamicQuantizeMatMul ... An operator of a foreign domain is "domain:operator".
- `macs`: output elements x window x input channels / groups for convolutions, m n k for matrix
  products (Einsum: the product of all its indices), all gates and steps of recurrent operators, 0
  for everything else. A bias is not counted.
- `input_bytes`: each activation tensor read, once. `output_bytes`: all tensors written.
- `weight_bytes`: constant inputs, the bias included, also one that a folded BatchNormalization or
  Add made. Scalars and 64-bit integers (bounds, axes, target shapes) steer and are not counted.
  A Gather reads a few rows of its table, which counts in full here.
- `reads`: the sources of the activations, each once, in the order of the operator's inputs.
- `output_shape`: of the first output, without its first dimension.
- `kind`: "depthwise" if groups = input channels > 1 (whatever the window), "grouped" for other
  groups, else "pointwise" if the window has one element, else "conv". A product is "gemm" if one
  operand is constant (dequantised weights included), else "matmul".
- `steps`: sequence length x directions of a recurrent operator.
- An operator that this package does not know, control flow, and one whose sizes depend on data
  (NonZero, and all that follows it) is "unknown": charged with the bytes that are known.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
import onnx.checker
import onnx.helper
import onnx.inliner
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
)

from cost_models.fusion import fuse
from cost_models.kernels import KernelGraph
from cost_models.onnx_shapes import (
    STANDARD_DOMAINS,
    Inference,
    array_of,
    captured_names,
    fixed_shape,
    has_named_sizes,
    infer,
)
from cost_models.operator_cost import kernels_of
from cost_models.program import (
    AttributeValue,
    Operator,
    Program,
    Tensor,
    UnknownShapeError,
    UnreadableModelError,
    check_given_shapes,
)

_INT64 = TensorProto.INT64
_DEFAULT_ELEMENT = ("float32", 4)
_OWN_DOMAINS = STANDARD_DOMAINS | {"com.microsoft"}
_ALREADY_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
_MOST_SHARED = 8  # elements of a constant that onnxruntime compares with others
_HALF_BYTES = {"INT4": 0.5, "UINT4": 0.5, "FLOAT4E2M1": 0.5, "INT2": 0.25, "UINT2": 0.25}


def kernels_from_onnx(
    model: bytes | Path, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> KernelGraph:
    """The kernels that onnxruntime executes for a model on a CPU, with their costs at batch 1.

    A symbolic first dimension of an input counts as 1; `input_shapes`, by the input's name and
    batch included, replace what the file says. A size that the file gives a name is the same
    wherever that name stands. Weights are not read, so external data need not be
    there. Raises UnreadableModelError for bytes that are no model, UnknownShapeError where an
    input leaves a size open, GraphError for given shapes that do not fit; both of the first are
    GraphErrors. Raises OSError where the file cannot be read.
    """
    loaded = _load(model)
    opened = [value.type for value in _network_inputs(loaded.graph)]
    as_written = infer(loaded) if any(fixed_shape(kind) is None for kind in opened) else None
    _fix_input_shapes(loaded.graph, dict(input_shapes or {}))
    return kernels_of(fuse(_program(loaded, infer(loaded), as_written)))


def _load(model: bytes | Path) -> ModelProto:
    data = model if isinstance(model, bytes) else model.read_bytes()
    name = "the model" if isinstance(model, bytes) else str(model)
    loaded = onnx.ModelProto()
    try:
        loaded.ParseFromString(data)
    except Exception as error:  # protobuf's own class, which differs between its implementations
        raise UnreadableModelError(f"{name} is not an ONNX file or is damaged") from error
    if not all(isinstance(text, str) for text in _texts(loaded)):
        raise UnreadableModelError(f"{name} is damaged: it holds names that are no text")
    if not loaded.graph.output:
        raise UnreadableModelError(f"{name} is not an ONNX file or is damaged: it has no output")
    if loaded.functions:
        try:
            return onnx.inliner.inline_local_functions(loaded)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            raise UnreadableModelError(f"{name} has functions that call one another") from error
    return loaded


def _texts(model: ModelProto) -> Iterator[object]:
    """All names in a model. protobuf hands out bytes where one is no valid text."""
    yield from (opset.domain for opset in model.opset_import)
    yield from _texts_of_nodes(node for function in model.functions for node in function.node)
    yield from _texts_of_graph(model.graph)


def _texts_of_graph(graph: GraphProto) -> Iterator[object]:
    yield from (tensor.name for tensor in graph.initializer)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    yield from _texts_of_nodes(graph.node)


def _texts_of_nodes(nodes: Iterable[NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            if attribute.type == AttributeProto.GRAPH:
                yield from _texts_of_graph(attribute.g)


def _network_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    constants = {initializer.name for initializer in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _fix_input_shapes(graph: GraphProto, given: dict[str, tuple[int, ...]]) -> None:
    inputs = _network_inputs(graph)
    ranks = {value.name: _declared_rank(value) for value in inputs}
    check_given_shapes(given, ranks)
    if given:  # what the file says of other tensors held for its own sizes
        del graph.value_info[:]
        for output in graph.output:
            if output.type.HasField("tensor_type"):
                output.type.tensor_type.ClearField("shape")
    named = _sizes_by_name(inputs, given)
    for value in inputs:
        if value.name in given:
            _set_shape(value, given[value.name])
        elif value.type.HasField("tensor_type"):
            _fix_open_sizes(value, named)


def _sizes_by_name(
    inputs: list[ValueInfoProto], given: dict[str, tuple[int, ...]]
) -> dict[str, int]:
    """The sizes that the file has names for: those in the given shapes, and the batch."""
    named: dict[str, int] = {}
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        if value.name in given:
            sizes = zip(dims, given[value.name], strict=False)
            named.update((dim.dim_param, size) for dim, size in sizes if dim.dim_param)
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        if len(dims) > 0 and dims[0].dim_param:
            named.setdefault(dims[0].dim_param, 1)
    return named


def _declared_rank(value: ValueInfoProto) -> int | None:
    tensor = value.type.tensor_type
    return len(tensor.shape.dim) if tensor.HasField("shape") else None


def _set_shape(value: ValueInfoProto, shape: tuple[int, ...]) -> None:
    tensor = value.type.tensor_type
    tensor.ClearField("shape")
    for size in shape:
        tensor.shape.dim.add(dim_value=size)
    tensor.shape.SetInParent()


def _fix_open_sizes(value: ValueInfoProto, named: dict[str, int]) -> None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise UnknownShapeError(
            f"input {value.name!r} has no shape in the file; give its shape or export the model "
            "with fixed sizes"
        )
    for index, dim in enumerate(tensor.shape.dim):
        if dim.dim_value > 0 or (index > 0 and dim.HasField("dim_value") and dim.dim_value == 0):
            continue
        size = named.get(dim.dim_param, 1 if index == 0 else 0)
        if size == 0:
            raise UnknownShapeError(
                f"input {value.name!r} leaves dimension {index} ({dim.dim_param or '?'}) open; "
                "give its shape or export the model with fixed sizes"
            )
        dim.dim_value = size


def _program(model: ModelProto, known: Inference, as_written: Inference | None) -> Program:
    """The operators and tensors; `as_written` is what the file tells without sizes given."""
    told = known if as_written is None else as_written
    tensors = {
        name: Tensor(
            fixed_shape(kind),
            *_element(kind.tensor_type.elem_type),
            fixed=fixed_shape(told.types.get(name)) is not None,
            named=has_named_sizes(told.types.get(name)),
        )
        for name, kind in known.types.items()
    }
    tensors.update((name, _constant(name, value)) for name, value in known.constants.items())
    for name, array in known.arrays.items():
        if name not in known.constants and array.size == 1 and array.dtype.kind in "biuf":
            kind = tensors[name]
            tensors[name] = dataclasses.replace(kind, scalar=float(array.item()))
    operators = []
    for node in known.nodes:
        operators.append(_operator(node, tensors))
        for name in (*operators[-1].inputs, *node.output):
            tensors.setdefault(name, Tensor(None, *_DEFAULT_ELEMENT))
    for output in model.graph.output:
        tensors.setdefault(output.name, Tensor(None, *_DEFAULT_ELEMENT))
    return Program(
        tuple(operators),
        tensors,
        tuple(value.name for value in _network_inputs(model.graph)),
        tuple(value.name for value in model.graph.output),
    )


def _element(elem_type: int) -> tuple[str, float]:
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
        name = TensorProto.DataType.Name(elem_type)
    except (KeyError, ValueError):
        return _DEFAULT_ELEMENT
    return name.lower(), _HALF_BYTES.get(name, dtype.itemsize)


def _constant(name: str, value: TensorProto) -> Tensor:
    shape = tuple(value.dims)
    scalar = None
    external = value.data_location == TensorProto.EXTERNAL
    numeric = value.data_type not in {TensorProto.STRING, *_COMPLEX}
    if all(size == 1 for size in shape) and not external and numeric:
        scalar = _scalar(name, value)
    parameter = shape != () and value.data_type != _INT64
    few = numeric and not external and math.prod(shape) <= _MOST_SHARED
    content = repr(shape).encode() + array_of(name, value).tobytes() if few else b""
    return Tensor(shape, *_element(value.data_type), True, parameter, scalar, content=content)


_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def _scalar(name: str, value: TensorProto) -> float | None:
    array = array_of(name, value)
    return float(array.ravel()[0]) if array.size == 1 else None


def _operator(node: NodeProto, tensors: dict[str, Tensor]) -> Operator:
    attributes: dict[str, AttributeValue] = {}
    for attribute in node.attribute:
        value = _attribute(attribute)
        if value is not None:
            attributes[attribute.name] = value
    signature = b"".join(sorted(a.SerializeToString() for a in node.attribute))
    name = node.op_type if node.domain in _OWN_DOMAINS else f"{node.domain}:{node.op_type}"
    activation = attributes.get("activation")
    fused = name in _ALREADY_FUSED and isinstance(activation, str)
    return Operator(
        _ALREADY_FUSED[name] if fused else name,
        (*node.input, *_read_within(node, tensors)),
        tuple(node.output),
        attributes,
        node.domain.encode() + signature,
        (str(activation),) if fused else (),
    )


def _read_within(node: NodeProto, tensors: dict[str, Tensor]) -> list[str]:
    """What the graphs inside an operator read of the outer graph, and their own constants."""
    graphs = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    if not graphs:
        return []
    names = [name for name in captured_names(node) if name in tensors]
    for graph in graphs:
        for initializer in graph.initializer:
            own = f"{node.output[0] if node.output else node.name}/{initializer.name}"
            tensors[own] = _constant(own, initializer)
            names.append(own)
    return names


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
