from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.errors import ModelRejectedError
from device_agent.model_scan import MAX_GRAPH_DEPTH, MAX_NODES, scan_bytes, scan_file

onnx = pytest.importorskip("onnx")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def external_tensor(name: str = "w") -> Any:
    tensor = onnx.TensorProto(name=name, data_type=FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/hostname")
    return tensor


def plain_tensor(name: str = "w") -> Any:
    return helper.make_tensor(name, FLOAT, [1], [1.0])


def sparse(values: Any, indices: Any) -> Any:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[1])


def empty_model() -> Any:
    value = helper.make_tensor_value_info("x", FLOAT, [1])
    result = helper.make_tensor_value_info("y", FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [result])
    return helper.make_model(graph)


def graph_with(tensor: Any) -> Any:
    return onnx.GraphProto(name="inner", initializer=[tensor])


def attribute(**fields: Any) -> Any:
    return onnx.AttributeProto(name="a", **fields)


def in_attribute(model: Any, **fields: Any) -> None:
    model.graph.node[0].attribute.append(attribute(**fields))


def in_function_node(model: Any, tensor: Any) -> None:
    function = model.functions.add(name="f", domain="own")
    function.node.add(op_type="Constant").attribute.append(attribute(t=tensor))


def in_function_attribute(model: Any, tensor: Any) -> None:
    model.functions.add(name="f", domain="own").attribute_proto.append(attribute(t=tensor))


PLACES = {
    "initializer": lambda m, t: m.graph.initializer.append(t),
    "values of a sparse initializer": lambda m, t: m.graph.sparse_initializer.append(
        sparse(t, plain_tensor())
    ),
    "indices of a sparse initializer": lambda m, t: m.graph.sparse_initializer.append(
        sparse(plain_tensor(), t)
    ),
    "tensor attribute": lambda m, t: in_attribute(m, t=t),
    "tensors attribute": lambda m, t: in_attribute(m, tensors=[plain_tensor(), t]),
    "sparse tensor attribute": lambda m, t: in_attribute(m, sparse_tensor=sparse(t, t)),
    "sparse tensors attribute": lambda m, t: in_attribute(m, sparse_tensors=[sparse(t, t)]),
    "sub-graph": lambda m, t: in_attribute(m, g=graph_with(t)),
    "sub-graphs": lambda m, t: in_attribute(m, graphs=[graph_with(t)]),
    "node of a function": in_function_node,
    "attribute of a function": in_function_attribute,
    "training graph": lambda m, t: m.training_info.add().algorithm.initializer.append(t),
    "training initialisation": lambda m, t: m.training_info.add().initialization.initializer.append(
        t
    ),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_external_data_is_refused_wherever_a_tensor_may_stand(place: Any) -> None:
    model = empty_model()
    place(model, external_tensor())

    with pytest.raises(ModelRejectedError, match="external data"):
        scan_bytes(model.SerializeToString())


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_tensor_with_its_own_data_is_welcome_at_the_same_places(place: Any) -> None:
    model = empty_model()
    place(model, plain_tensor())

    scan = scan_bytes(model.SerializeToString())

    assert scan.tensors >= 1


def test_external_data_is_refused_when_only_half_of_its_marks_are_there() -> None:
    location_only, entry_only = external_tensor(), external_tensor()
    del location_only.external_data[:]
    entry_only.data_location = onnx.TensorProto.DEFAULT

    for tensor in (location_only, entry_only):
        model = empty_model()
        model.graph.initializer.append(tensor)
        with pytest.raises(ModelRejectedError, match="external data"):
            scan_bytes(model.SerializeToString())


def test_a_second_graph_field_that_a_parser_would_merge_is_scanned_too() -> None:
    model, addition = empty_model(), onnx.ModelProto()
    addition.graph.initializer.append(external_tensor())

    with pytest.raises(ModelRejectedError, match="external data"):
        scan_bytes(model.SerializeToString() + addition.SerializeToString())


def test_counts_are_those_of_the_file(conv_model: bytes) -> None:
    scan = scan_bytes(conv_model)

    assert (scan.nodes, scan.tensors, scan.graph_depth) == (1, 1, 1)


def test_too_many_nodes_are_refused() -> None:
    model = empty_model()
    model.graph.node.extend([helper.make_node("Neg", ["x"], ["x"])] * MAX_NODES)

    with pytest.raises(ModelRejectedError, match="nodes"):
        scan_bytes(model.SerializeToString())


def test_graphs_nested_too_deep_are_refused() -> None:
    inner = onnx.GraphProto(name="innermost")
    for _ in range(MAX_GRAPH_DEPTH):
        node = onnx.NodeProto(op_type="If", attribute=[attribute(g=inner)])
        inner = onnx.GraphProto(name="outer", node=[node])

    with pytest.raises(ModelRejectedError, match="deeper"):
        scan_bytes(onnx.ModelProto(graph=inner).SerializeToString())


@pytest.mark.parametrize("domain", ["evil.corp", "x" * 1000])
def test_operators_of_unknown_domains_are_refused(domain: Any) -> None:
    model = empty_model()
    model.graph.node[0].domain = domain

    with pytest.raises(ModelRejectedError, match="unknown domains"):
        scan_bytes(model.SerializeToString())


def test_operators_that_the_file_itself_defines_are_welcome() -> None:
    model = empty_model()
    model.graph.node[0].domain = "own"
    model.functions.add(name="Identity", domain="own")

    scan_bytes(model.SerializeToString())


@settings(deadline=None)
@given(cut=st.integers(0, 400))
def test_a_file_cut_inside_its_graph_is_refused(conv_model: bytes, cut: int) -> None:
    with pytest.raises(ModelRejectedError):
        scan_bytes(conv_model[: len(conv_model) - 20 - cut])


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_accepted_or_refused_but_never_break_the_scan(data: bytes) -> None:
    with contextlib.suppress(ModelRejectedError):
        scan_bytes(data)


@settings(deadline=None)
@given(at=st.integers(0, 200), value=st.integers(0, 255))
def test_a_flipped_byte_never_breaks_the_scan(conv_model: bytes, at: int, value: int) -> None:
    data = bytearray(conv_model[-300:])
    data[at] = value

    with contextlib.suppress(ModelRejectedError):
        scan_bytes(bytes(data))


@pytest.mark.parametrize(
    "data", [b"", b"hello world, this is text", b"\xff" * 64, b"\x08" + b"\xff" * 12, b"\x0b\x0c"]
)
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(data)

    with pytest.raises(ModelRejectedError):
        scan_file(path)


def test_a_file_on_disk_is_scanned_like_its_bytes(tmp_path: Path, conv_model: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(conv_model)

    assert scan_file(path) == scan_bytes(conv_model)
