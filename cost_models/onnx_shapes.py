"""Types and small values of every tensor of an ONNX graph, one operator after the other.

The operators' own shape inference is the onnx package's. It is given the values that the graph
computes from sizes (`onnx_values`), so that a Reshape to a computed shape is known too, and a
branch (If) whose condition comes out constant is replaced by what it holds, as onnxruntime does.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx.checker
import onnx.defs
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    TypeProto,
)

from cost_models.onnx_stand_ins import LIKE_FIRST_INPUT, stand_in
from cost_models.onnx_values import MOST_ELEMENTS, Value, value_of
from cost_models.program import UnreadableModelError

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_DEEPEST_BRANCH = 16
_SHAPE_ONLY = frozenset({"Shape", "Size"})


@dataclass(slots=True)
class Inference:
    """What is known of a graph's tensors.

    `nodes` are the operators that remain, constants and decided branches taken out; `constants`
    are the tensors in initializers and Constant operators. `values` holds the small ones of them
    and what is computed from those, `arrays` the same as numbers where they were needed.
    """

    opsets: list[OperatorSetIdProto]
    versions: dict[str, int]
    declared: dict[str, TypeProto]
    types: dict[str, TypeProto] = field(default_factory=dict)
    values: dict[str, TensorProto] = field(default_factory=dict)
    arrays: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)


def fixed_shape(kind: TypeProto | None) -> tuple[int, ...] | None:
    """The shape of a tensor type all of whose dimensions are numbers, else None."""
    if kind is None or not kind.HasField("tensor_type"):
        return None
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return None
    dims = tensor.shape.dim
    if all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
        return tuple(dim.dim_value for dim in dims)
    return None


def has_named_sizes(kind: TypeProto | None) -> bool:
    """Whether each dimension of a tensor type is a number or at least has a name."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return False
    return all(dim.WhichOneof("value") is not None for dim in kind.tensor_type.shape.dim)


def infer(model: ModelProto) -> Inference:
    """Walk the graph of a model whose inputs have fixed shapes.

    Raises UnreadableModelError where an operator's inputs contradict each other or where a
    standard operator lacks inputs or outputs.
    """
    graph = model.graph
    known = Inference(
        list(model.opset_import),
        {opset.domain: opset.version for opset in model.opset_import},
        {value.name: value.type for value in (*graph.value_info, *graph.output)},
    )
    known.types.update((value.name, copy.deepcopy(value.type)) for value in graph.input)
    _add_initializers(graph, known)
    _walk(graph.node, known, 0)
    return known


def _add_initializers(graph: GraphProto, known: Inference) -> None:
    for tensor in graph.initializer:
        _add_constant(tensor.name, tensor, known)
    for sparse in graph.sparse_initializer:
        shape = tuple(sparse.dims)
        name, kind = sparse.values.name, sparse.values.data_type
        known.types[name] = onnx.helper.make_tensor_type_proto(kind, shape)
        known.constants[name] = TensorProto(dims=shape, data_type=kind)


def _add_constant(name: str, tensor: TensorProto, known: Inference) -> None:
    known.constants[name] = tensor
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape):
        raise UnreadableModelError(f"the constant {name!r} in the model has a negative size")
    known.types[name] = onnx.helper.make_tensor_type_proto(tensor.data_type, shape)
    stored = tensor.data_location != TensorProto.EXTERNAL
    if stored and math.prod(shape) <= MOST_ELEMENTS and tensor.data_type != TensorProto.STRING:
        known.values[name] = tensor


def array_of(name: str, tensor: TensorProto) -> Value:
    """The numbers of a constant.

    Raises UnreadableModelError where the bytes do not fit the shape.
    """
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnreadableModelError(f"the constant {name!r} in the model is damaged") from error


def _array(name: str, known: Inference) -> Value | None:
    """The value of a tensor if it is known and small."""
    if name not in known.arrays and name in known.values:
        known.arrays[name] = array_of(name, known.values[name])
    return known.arrays.get(name)


def _add_value(name: str, array: Value, known: Inference) -> None:
    known.arrays[name] = array
    known.values[name] = onnx.numpy_helper.from_array(array, name)


def _walk(nodes: Iterable[NodeProto], known: Inference, depth: int) -> None:
    for node in nodes:
        if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS and node.output:
            tensor = _tensor_of(node)
            if tensor is not None:
                _add_constant(node.output[0], tensor, known)
                continue
        branch = _decided_branch(node, known) if depth < _DEEPEST_BRANCH else None
        if branch is not None:
            _add_initializers(branch, known)
            known.declared.update((value.name, value.type) for value in branch.value_info)
            _walk(branch.node, known, depth + 1)
            for made, shown in zip(node.output, branch.output, strict=False):
                passed = onnx.helper.make_node("Identity", [shown.name], [made])
                _walk([passed], known, depth + 1)
            continue
        _infer_node(node, known)
        known.nodes.append(node)


def _tensor_of(node: NodeProto) -> TensorProto | None:
    """The tensor in a Constant operator, however it is written; None for one of strings."""
    for attribute in node.attribute:
        match attribute.name:
            case "value":
                return attribute.t
            case "value_float":
                return onnx.numpy_helper.from_array(np.array(attribute.f, np.float32))
            case "value_floats":
                return onnx.numpy_helper.from_array(np.array(attribute.floats, np.float32))
            case "value_int":
                return onnx.numpy_helper.from_array(np.array(attribute.i, np.int64))
            case "value_ints":
                return onnx.numpy_helper.from_array(np.array(attribute.ints, np.int64))
            case "sparse_value":
                sparse = attribute.sparse_tensor
                return TensorProto(dims=sparse.dims, data_type=sparse.values.data_type)
            case _:
                continue
    return None


def _decided_branch(node: NodeProto, known: Inference) -> GraphProto | None:
    if node.op_type != "If" or node.domain not in STANDARD_DOMAINS or not node.input:
        return None
    condition = _array(node.input[0], known)
    if condition is None or condition.size != 1:
        return None
    wanted = "then_branch" if condition.item() else "else_branch"
    return next((a.g for a in node.attribute if a.name == wanted), None)


def captured_names(node: NodeProto) -> list[str]:
    """Tensors of the outer graph that the graphs inside an operator read."""
    found: dict[str, None] = {}
    pending = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    own: set[str] = set()
    while pending:
        graph = pending.pop()
        own.update(value.name for value in graph.input)
        own.update(tensor.name for tensor in graph.initializer)
        for inner in graph.node:
            own.update(inner.output)
            found.update(dict.fromkeys(filter(None, inner.input)))
            pending += [a.g for a in inner.attribute if a.type == AttributeProto.GRAPH]
        found.update(dict.fromkeys(value.name for value in graph.output))
    return [name for name in found if name not in own]


def _infer_node(node: NodeProto, known: Inference) -> None:
    inferred = _inferred_types(stand_in(node) or node, known)
    first, made = (node.input or [""])[0], (node.output or [""])[0]
    alike = node.op_type in LIKE_FIRST_INPUT and first in known.types
    if alike and fixed_shape(inferred.get(made)) is None:
        inferred[made] = known.types[first]
    for name in filter(None, node.output):
        kind = inferred.get(name)
        declared = known.declared.get(name)
        if fixed_shape(kind) is None and declared is not None:
            kind = declared if kind is None or fixed_shape(declared) is not None else kind
        if kind is not None:
            known.types[name] = kind
    _evaluate(node, known)


def _inferred_types(node: NodeProto, known: Inference) -> dict[str, TypeProto]:
    schema = _schema(node, known.versions)
    if schema is None:
        return {}
    _check_arity(node, schema)
    names = list(filter(None, node.input))
    if any(name not in known.types for name in names):
        return {}
    names += [name for name in captured_names(node) if name in known.types]
    types = {name: known.types[name] for name in names}
    values = {name: known.values[name] for name in names if name in known.values}
    try:
        try:
            return onnx.shape_inference.infer_node_outputs(
                schema, node, types, values, opset_imports=known.opsets
            )
        except onnx.shape_inference.InferenceError:
            if not values:
                raise
            # Inference is stricter with values than runtimes are (a scalar of shape [1]).
            return onnx.shape_inference.infer_node_outputs(
                schema, node, types, opset_imports=known.opsets
            )
    except onnx.shape_inference.InferenceError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableModelError(
            f"the shapes in the model contradict each other at {node.op_type} {node.name!r}: "
            f"{reason}"
        ) from error
    except (RuntimeError, ValueError, onnx.checker.ValidationError):  # it cannot tell
        return {}


def _schema(node: NodeProto, versions: dict[str, int]) -> onnx.defs.OpSchema | None:
    domain = "" if node.domain in STANDARD_DOMAINS else node.domain
    version = versions.get(domain, versions.get("ai.onnx", 1) if domain == "" else 1)
    try:
        return onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:  # unknown here: charged as such
        return None


def _check_arity(node: NodeProto, schema: onnx.defs.OpSchema) -> None:
    """Refuse a standard operator that lacks inputs or outputs which every use of it has."""
    if len(node.input) < schema.min_input or len(node.output) < max(1, schema.min_output):
        raise UnreadableModelError(
            f"operator {node.op_type} {node.name!r} in the model lacks inputs or outputs"
        )


def _evaluate(node: NodeProto, known: Inference) -> None:
    if node.domain not in STANDARD_DOMAINS or not node.input or not node.output:
        return
    name = node.output[0]
    value = _counted(node, known) if node.op_type in _SHAPE_ONLY else _computed(node, known)
    if value is not None:
        _add_value(name, value, known)


def _counted(node: NodeProto, known: Inference) -> Value | None:
    shape = fixed_shape(known.types.get(node.input[0]))
    if shape is None:
        return None
    if node.op_type == "Size":
        size = math.prod(shape)
        return np.array(size, np.int64) if size < 2**63 else None
    attributes = {a.name: a.i for a in node.attribute}
    return np.array(shape[attributes.get("start", 0) : attributes.get("end")], np.int64)


def _computed(node: NodeProto, known: Inference) -> Value | None:
    if any(name and name not in known.values for name in node.input):
        return None
    kind = known.types.get(node.output[0])
    shape = fixed_shape(kind)
    if kind is None or shape is None:
        return None
    inputs = [_array(name, known) for name in node.input]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in {"Cast", "ConstantOfShape"}:
        return _filled_or_cast(node.op_type, inputs[0], attributes, kind, shape)
    return value_of(node.op_type, inputs, attributes, shape)


def _filled_or_cast(
    op: str,
    source: Value | None,
    attributes: dict[str, object],
    kind: TypeProto,
    shape: tuple[int, ...],
) -> Value | None:
    if math.prod(shape) > MOST_ELEMENTS or source is None:
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
    if op == "Cast":
        with np.errstate(all="ignore"):
            return source.astype(dtype)
    filler = attributes.get("value")
    fill = array_of(op, filler).ravel()[0] if isinstance(filler, TensorProto) else 0
    return np.full(shape, fill, dtype)
