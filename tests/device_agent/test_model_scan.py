from __future__ import annotations

import contextlib
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent import model_scan
from device_agent.errors import ModelRejectedError
from device_agent.model_scan import ModelScan, scan_file
from device_agent.onnx_wire import MESSAGES
from device_agent.reference.encoding import field, varint
from device_agent.scan_limits import ScanLimits

onnx = pytest.importorskip("onnx")
helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
BIG = 1 << 28


def scan_bytes(data: bytes, **limits: Any) -> ModelScan:
    return model_scan.scan_bytes(data, ScanLimits(**limits))


def scanned(model: Any, **limits: Any) -> ModelScan:
    return scan_bytes(model.SerializeToString(), **limits)


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


def model_of(*nodes: Any, tensors: Any = (), functions: Any = ()) -> Any:
    """A model with these nodes; "x" is its input and has four elements."""
    value = helper.make_tensor_value_info("x", FLOAT, [1, 4])
    graph = helper.make_graph(list(nodes), "g", [value], [], list(tensors))
    return helper.make_model(graph, functions=list(functions))


def node(operator: str, reads: Any = (), writes: Any = (), **attributes: Any) -> Any:
    return helper.make_node(operator, list(reads), list(writes), **attributes)


def sizes(name: str, *values: Any) -> Any:
    """A constant that states sizes."""
    kind = INT64 if isinstance(values[0], int) else FLOAT
    return helper.make_tensor(name, kind, [len(values)], values)


def graph_with(tensor: Any) -> Any:
    return onnx.GraphProto(name="inner", initializer=[tensor])


def graph_of(*nodes: Any) -> Any:
    return helper.make_graph(list(nodes), "inner", [], [])


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
        scanned(model, control_flow=True)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_tensor_with_its_own_data_is_welcome_at_the_same_places(place: Any) -> None:
    model = empty_model()
    place(model, plain_tensor())

    scan = scanned(model, control_flow=True)

    assert scan.tensors >= 1


def test_external_data_is_refused_when_only_half_of_its_marks_are_there() -> None:
    location_only, entry_only = external_tensor(), external_tensor()
    del location_only.external_data[:]
    entry_only.data_location = onnx.TensorProto.DEFAULT

    for tensor in (location_only, entry_only):
        model = empty_model()
        model.graph.initializer.append(tensor)
        with pytest.raises(ModelRejectedError, match="external data"):
            scanned(model)


def test_what_a_parser_would_merge_or_choose_from_is_refused() -> None:
    """Of two graphs a parser makes one, of two names it takes the last."""
    model, addition = empty_model(), onnx.ModelProto()
    addition.graph.initializer.append(plain_tensor())
    two_graphs = model.SerializeToString() + addition.SerializeToString()
    two_names = field(7, field(2, "a") + field(2, "b")) + field(8, b"")

    for data in (two_graphs, two_names):
        assert onnx.load_model_from_string(data)
        with pytest.raises(ModelRejectedError, match="stands in it twice"):
            scan_bytes(data)


# ---- counts and limits ------------------------------------------------------------------------


def test_counts_are_those_of_the_file(conv_model: bytes) -> None:
    scan = scan_bytes(conv_model)

    assert (scan.nodes, scan.tensors, scan.graph_depth, scan.chain) == (1, 1, 1, 1)
    assert (scan.domains, scan.control_flow) == (("",), ())


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_bytes": 10}, "bytes, and this device takes 10"),
        ({"max_nodes": 2}, "more than 2 nodes"),
        ({"max_chain": 2}, "has 3 nodes, and this device takes 2"),
        ({"max_elements": 3}, "size of 4 elements, and this device takes 3"),
        ({"domains": ("",)}, "unknown domain 'ai.onnx.ml'"),
    ],
)
def test_more_than_a_limit_is_refused_with_what_to_change(limits: Any, words: str) -> None:
    model = model_of(
        node("Neg", ["x"], ["a"]),
        node("Normalizer", ["a"], ["b"], domain="ai.onnx.ml"),
        node("Neg", ["b"], ["c"]),
    )
    scanned(model)

    with pytest.raises(ModelRejectedError, match=words) as refusal:
        scanned(model, **limits)

    assert f"change models.{next(iter(limits))} in the agent's config.json" in str(refusal.value)


def nested(depth: int) -> Any:
    inner = graph_of(node("Neg", ["x"], ["y"]))
    for _ in range(depth - 1):
        branches = {"then_branch": inner, "else_branch": inner}
        inner = graph_of(node("If", ["c"], ["y"], **branches))
    return onnx.ModelProto(graph=inner, opset_import=[helper.make_opsetid("", 13)])


def test_graphs_nest_as_deep_as_the_limit_and_no_deeper() -> None:
    assert scanned(nested(4), control_flow=True).graph_depth == 4

    with pytest.raises(ModelRejectedError, match=r"deeper than 4.*models.max_graph_depth"):
        scanned(nested(5), control_flow=True)


def test_a_limit_without_end_still_ends_where_parsers_give_up() -> None:
    inner = field(1, b"")
    for _ in range(2000):
        inner = field(1, field(5, field(6, inner)))

    with pytest.raises(ModelRejectedError, match="deeper than 30"):
        scan_bytes(field(7, inner) + field(8, b""), control_flow=True, max_graph_depth=10**9)


def test_types_inside_each_other_without_end_are_refused() -> None:
    inner = b""
    for _ in range(2000):
        inner = field(4, field(1, inner))

    with pytest.raises(ModelRejectedError, match="nested deeper than 16"):
        scan_bytes(field(7, field(11, field(2, inner))) + field(8, b""))


@pytest.mark.parametrize("operator", ["If", "Loop", "Scan"])
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_control_flow_is_refused_unless_the_device_allows_it(operator: str, domain: str) -> None:
    model = model_of(node(operator, ["x"], ["y"], domain=domain))

    with pytest.raises(ModelRejectedError, match=rf"\('{operator}'\).*models.control_flow"):
        scanned(model)
    assert scanned(model, control_flow=True).control_flow == (operator,)


def test_any_operator_that_holds_a_graph_is_control_flow() -> None:
    model = model_of(
        node("BeamSearch", ["x"], ["y"], domain="com.microsoft", decoder=graph_of(node("Neg")))
    )

    with pytest.raises(ModelRejectedError, match=r"control flow \('BeamSearch'\)"):
        scanned(model)


def test_the_longest_path_counts_whatever_the_order_of_the_nodes() -> None:
    chain = [node("Neg", [f"v{n}"], [f"v{n + 1}"]) for n in range(10)]
    side = [node("Neg", ["x"], [f"s{n}"]) for n in range(10)]

    assert scanned(model_of(*chain, *side)).chain == 10
    assert scanned(model_of(*side, *reversed(chain))).chain == 10


def test_the_longest_path_goes_through_graphs_and_what_they_read_from_outside() -> None:
    body = graph_of(node("Neg", ["a"], ["b"]), node("Neg", ["b"], ["c"]))
    loop = node("Loop", ["n"], ["y"], body=body)
    model = model_of(node("Neg", ["x"], ["a"]), loop, node("Neg", ["y"], ["z"]))

    assert scanned(model, control_flow=True).chain == 4


def test_nodes_that_need_each_other_are_refused() -> None:
    model = model_of(node("Neg", ["a"], ["b"]), node("Abs", ["b"], ["a"]))

    with pytest.raises(ModelRejectedError, match="need each other's results"):
        scanned(model)


def test_a_value_that_two_nodes_make_is_refused() -> None:
    model = model_of(node("Neg", ["x"], ["y"]), node("Abs", ["x"], ["y"]))

    with pytest.raises(ModelRejectedError, match="make the same value"):
        scanned(model)


def test_operands_that_are_left_out_are_no_value() -> None:
    scanned(model_of(node("Neg", ["x", ""], ["y", ""]), node("Abs", ["", "y"], ["", "z"])))


# ---- domains and functions --------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["evil.corp", "x" * 1000, "a\nb\x1b[31m"])
def test_operators_of_unknown_domains_are_refused_in_one_clean_line(domain: str) -> None:
    with pytest.raises(ModelRejectedError, match="unknown domain") as refusal:
        scanned(model_of(node("Neg", ["x"], ["y"], domain=domain)))

    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 400


def function(name: str, *nodes: Any, domain: str = "own") -> Any:
    return onnx.FunctionProto(name=name, domain=domain, node=nodes)


def call(name: str, reads: Any = (), writes: Any = ()) -> Any:
    return node(name, reads, writes, domain="own")


def test_operators_that_the_file_itself_defines_are_welcome() -> None:
    body = [node("Neg", ["a"], ["b"]), node("Neg", ["b"], ["c"])]
    model = model_of(
        call("F", ["x"], ["y"]), call("F", ["y"], ["z"]), functions=[function("F", *body)]
    )

    scan = scanned(model)

    assert (scan.nodes, scan.chain, scan.graph_depth) == (4, 4, 2)


def test_an_operator_that_the_file_s_own_domain_lacks_is_refused() -> None:
    with pytest.raises(ModelRejectedError, match="'G' of the unknown domain 'own'"):
        scanned(model_of(call("G"), functions=[function("F")]))


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_a_function_in_the_place_of_an_operator_is_refused(domain: str) -> None:
    model = model_of(node("Relu", ["x"], ["y"]), functions=[function("Relu", domain=domain)])

    with pytest.raises(ModelRejectedError, match="in the place of ONNX's operator 'Relu'"):
        scanned(model)


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(ModelRejectedError, match="two functions 'F'"):
        scanned(model_of(functions=[function("F"), function("F", node("Neg"))]))


@pytest.mark.parametrize("circle", [["F"], ["F", "G"], ["F", "G", "H"]])
def test_functions_that_call_themselves_are_refused(circle: Any) -> None:
    functions = [
        function(name, call(circle[(index + 1) % len(circle)])) for index, name in enumerate(circle)
    ]

    with pytest.raises(ModelRejectedError, match="calls itself"):
        scanned(model_of(call("F"), functions=functions))


def test_functions_that_multiply_each_other_count_as_what_they_come_to() -> None:
    """Ten calls of ten calls of ten ...: a thousand million nodes in a kilobyte."""
    levels = 9
    functions = [
        function(f"F{level}", *[call(f"F{level + 1}", ["a"], [f"b{n}"]) for n in range(10)])
        for level in range(levels)
    ]
    functions.append(function(f"F{levels}", node("Neg", ["a"], ["b"])))
    model = model_of(call("F0", ["x"], ["y"]), functions=functions)

    with pytest.raises(ModelRejectedError, match=r"in place of their calls.*more than 20000 nodes"):
        scanned(model, max_graph_depth=20)


@pytest.mark.parametrize("backwards", [False, True])
def test_calls_nest_as_deep_as_the_limit_in_whatever_order_they_stand(backwards: bool) -> None:
    def model(depth: int) -> Any:
        functions = [function(f"F{n}", call(f"F{n + 1}")) for n in range(depth - 2)]
        functions.append(function(f"F{depth - 2}", node("Neg")))
        return model_of(call("F0"), functions=functions[::-1] if backwards else functions)

    assert scanned(model(4)).graph_depth == 4
    for deeper in (5, 500):
        with pytest.raises(ModelRejectedError, match="deeper than 4"):
            scanned(model(deeper))


def test_functions_that_take_graphs_are_refused() -> None:
    given = model_of(
        node("F", ["x"], ["y"], domain="own", body=graph_of()), functions=[function("F")]
    )
    default = model_of(functions=[function("F")])
    default.functions[0].attribute_proto.append(attribute(g=graph_of()))

    for model in (given, default):
        with pytest.raises(ModelRejectedError, match=r"onnx\.inliner"):
            scanned(model, control_flow=True)


# ---- what constants and shapes say of sizes ---------------------------------------------------


@pytest.mark.parametrize("shape", [[2**31], [2**62, 2**62], [0, 2**40], [65536, 65536]])
def test_a_shape_beyond_the_limit_is_refused_wherever_it_stands(shape: Any) -> None:
    value = helper.make_tensor_value_info("v", FLOAT, shape)
    places: Any = [model_of() for _ in range(6)]
    places[0].graph.input.append(value)
    places[1].graph.output.append(value)
    places[2].graph.value_info.append(value)
    places[3].graph.initializer.append(onnx.TensorProto(name="v", data_type=FLOAT, dims=shape))
    places[4].graph.sparse_initializer.append(onnx.SparseTensorProto(dims=shape))
    places[5].functions.append(function("F"))
    places[5].functions[0].value_info.append(value)

    for model in places:
        with pytest.raises(ModelRejectedError, match=r"elements, and this device takes 268435456"):
            scanned(model)


def test_open_axes_pass_and_impossible_sizes_do_not() -> None:
    def with_shape(*shape: Any) -> Any:
        model = model_of()
        model.graph.value_info.append(helper.make_tensor_value_info("v", FLOAT, shape))
        return model

    for shape in ((None, 3), ("batch", 3), (-1, 3), (0, 3), ()):
        scanned(with_shape(*shape))
    impossible: tuple[tuple[int, ...], ...] = ((-2, 3), (-(2**62),))
    for sizes in impossible:
        with pytest.raises(ModelRejectedError, match="impossible shape"):
            scanned(with_shape(*sizes))


def test_a_tensor_of_a_negative_size_or_of_too_many_axes_is_refused() -> None:
    for dims, words in (([-2], "impossible shape"), ([1] * 65, "more than 64 axes")):
        tensor = onnx.TensorProto(name="t", data_type=FLOAT, dims=dims, raw_data=b"")
        with pytest.raises(ModelRejectedError, match=words):
            scanned(model_of(tensors=[tensor]))


@pytest.mark.parametrize(
    ("data", "words"), [({}, "no data"), ({"raw_data": b"1234"}, "4 bytes instead of 400000000")]
)
def test_a_tensor_that_promises_more_than_it_has_is_refused(data: Any, words: str) -> None:
    tensor = onnx.TensorProto(name="t", data_type=FLOAT, dims=[100_000_000], **data)

    with pytest.raises(ModelRejectedError, match=words):
        scanned(model_of(tensors=[tensor]))


def int64s(*values: Any) -> Any:
    return sizes("s", *values)


SIZED = {
    "ConstantOfShape": (["s"], [int64s(BIG)]),
    "Expand": (["x", "s"], [int64s(2, BIG // 2)]),
    "Reshape": (["x", "s"], [int64s(-1, BIG)]),
    "Tile": (["x", "s"], [int64s(1, BIG // 4)]),
    "OneHot": (["x", "s", "v"], [int64s(BIG)]),
    "Pad": (["x", "s"], [int64s(BIG // 4, 0, 3 * BIG // 4, 1)]),
    "Range": (["z", "s", "one"], [sizes("z", 0), int64s(BIG), sizes("one", 1)]),
    "Resize": (["x", "", "s"], [int64s(1.0, BIG / 4)]),
    "Upsample": (["x", "s"], [int64s(1.0, BIG / 4)]),
    "HannWindow": (["s"], [int64s(BIG)]),
}


@pytest.mark.parametrize("operator", SIZED)
def test_a_size_that_a_constant_states_is_refused_above_the_limit(operator: str) -> None:
    reads, constants = SIZED[operator]
    as_tensors = model_of(node(operator, reads, ["y"]), tensors=constants)
    as_nodes = model_of(
        node(operator, reads, ["y"]),
        *[node("Constant", [], [each.name], value=each) for each in constants],
    )

    for model in (as_tensors, as_nodes):
        scanned(model, max_elements=BIG)
        with pytest.raises(ModelRejectedError, match=rf"operator '{operator}' .*max_elements"):
            scanned(model, max_elements=BIG - 1)


def test_sizes_are_read_however_they_are_written() -> None:
    """A list of numbers may be packed or not, raw, or an attribute of a node Constant."""
    raw = onnx.TensorProto(name="s", data_type=INT64, dims=[1], raw_data=BIG.to_bytes(8, "little"))
    loose = field(1, 1) + field(2, INT64) + field(7, BIG) + field(8, "s")
    user = node("ConstantOfShape", ["s"], ["y"])
    files = [
        model_of(user, tensors=[raw]).SerializeToString(),
        field(7, field(1, user.SerializeToString()) + field(5, loose)) + field(8, b""),
        model_of(node("Constant", [], ["s"], value_ints=[BIG]), user).SerializeToString(),
        model_of(node("Constant", [], ["s"], value_int=BIG), user).SerializeToString(),
    ]

    for data in files:
        scan_bytes(data)
        with pytest.raises(ModelRejectedError, match="ConstantOfShape"):
            scan_bytes(data, max_elements=BIG - 1)


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("RandomUniform", {"shape": [BIG, 2]}),
        ("ConvTranspose", {"output_shape": [BIG, 2]}),
        ("Conv", {"pads": [20_000] * 4}),
        ("Upsample", {"scales": [1e300, 1e300]}),
    ],
)
def test_a_size_that_an_attribute_states_is_refused(operator: str, attributes: Any) -> None:
    with pytest.raises(ModelRejectedError, match=f"operator '{operator}'"):
        scanned(model_of(node(operator, ["x"], ["y"], **attributes)))


def test_a_sub_graph_sees_the_constants_around_it() -> None:
    inner = graph_of(node("ConstantOfShape", ["s"], ["y"]))
    model = model_of(
        node("If", ["c"], ["z"], then_branch=inner, else_branch=inner), tensors=[sizes("s", 2**40)]
    )

    with pytest.raises(ModelRejectedError, match="ConstantOfShape"):
        scanned(model, control_flow=True)


@pytest.mark.parametrize(
    "values", [(0.0, float("inf"), 1.0), (0.0, float("nan"), 1.0), (0, 5, 0), (5, 0, 1)]
)
def test_numbers_that_are_no_sizes_never_break_the_scan(values: Any) -> None:
    tensors = [sizes(name, value) for name, value in zip("abc", values)]

    with contextlib.suppress(ModelRejectedError):
        scanned(model_of(node("Range", ["a", "b", "c"], ["y"]), tensors=tensors))


# ---- the encoding -----------------------------------------------------------------------------


def described(message: Any, seen: set[str]) -> Any:
    """Every field of a message of the package onnx and of those inside it."""
    seen.add(message.full_name)
    for each in message.fields:
        yield message.full_name, each
        if each.message_type is not None and each.message_type.full_name not in seen:
            yield from described(each.message_type, seen)


def test_the_table_of_messages_is_that_of_the_package_onnx() -> None:
    kinds = {"onnx.ModelProto": "model"}
    wire_types = {"string": 2, "bytes": 2, "message": 2, "float": 5, "double": 1}
    text, message = 9, 11
    names = {1: "double", 2: "float", 9: "string", 11: "message", 12: "bytes"}

    for parent, each in described(onnx.ModelProto.DESCRIPTOR, set()):
        ours = MESSAGES[kinds[parent]][each.number]
        assert ours.wire_type == wire_types.get(names.get(each.type, ""), 0), each.full_name
        # Newer protobuf warns of the label, older has nothing else.
        new = hasattr(each, "is_repeated")
        assert ours.repeated == (each.is_repeated if new else each.label == 3), each.full_name
        assert bool(ours.message) == (each.type == message), each.full_name
        # Texts for people may be long and in whatever encoding.
        is_name = each.type == text and each.name not in ("doc_string", "value")
        assert ours.is_name == is_name, each.full_name
        if ours.message:
            assert kinds.setdefault(each.message_type.full_name, ours.message) == ours.message


def test_a_name_that_is_not_utf_8_is_refused_and_a_comment_may_be_anything() -> None:
    node_fields = field(1, "x") + field(2, "y") + field(4, "Neg")
    bad = b"\xff\xfe"

    scan_bytes(field(7, field(1, node_fields + field(6, bad))) + field(8, b""))
    for number in (3, 7, 8):
        with pytest.raises(ModelRejectedError, match="not UTF-8"):
            scan_bytes(field(7, field(1, node_fields + field(number, bad))) + field(8, b""))


def test_a_name_of_thousands_of_letters_is_refused() -> None:
    with pytest.raises(ModelRejectedError, match="name of 4097 bytes, and 4096 are allowed"):
        scanned(model_of(node("Neg", ["x"], ["y" * 4097])))


WHOLE = field(7, b"") + field(8, b"")


@pytest.mark.parametrize(
    "data",
    [
        varint(7 << 3 | 3) + varint(7 << 3 | 4),  # a group
        varint(7 << 3 | 6),
        varint(7 << 3 | 7),
        varint(7 << 3 | 0) + b"\1",  # the graph as a number
        varint(7 << 3 | 5) + bytes(4),
        field(0, 1),
        varint((1 << 32) | 7 << 3 | 2) + b"\0",  # cut to 32 bits it is the graph
        varint(1 << 40 | 2) + b"\0",
        b"\x08" + b"\x80" * 10 + b"\1",
        varint(1 << 3 | 2) + varint((1 << 32) + 1) + b"x",  # cut to 32 bits its length fits
        varint(1 << 3 | 2) + varint((1 << 64) - 1),
        field(8, varint(1 << 3 | 2) + varint(5) + b"abcd"),  # longer than what it stands in
    ],
)
def test_an_encoding_that_no_serialiser_writes_is_refused(data: bytes) -> None:
    scan_bytes(WHOLE)

    with pytest.raises(ModelRejectedError):
        scan_bytes(WHOLE + data)


def test_what_onnx_does_not_know_is_left_out_as_parsers_do() -> None:
    strange = field(200, 1) + field(201, b"\xff\xff") + varint(202 << 3 | 1) + bytes(8)

    scan_bytes(WHOLE + strange)


def test_a_model_without_an_operator_set_is_refused() -> None:
    with pytest.raises(ModelRejectedError, match="operator set"):
        scan_bytes(field(7, b""))


@pytest.mark.parametrize(
    "data", [b"", b"hello world, this is text", b"\xff" * 64, b"\x08" + b"\xff" * 12, b"\x0b\x0c"]
)
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(data)

    with pytest.raises(ModelRejectedError):
        scan_file(path, ScanLimits())


def test_a_file_on_disk_is_scanned_like_its_bytes(tmp_path: Path, conv_model: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(conv_model)

    assert scan_file(path, ScanLimits()) == scan_bytes(conv_model)


# ---- time and memory --------------------------------------------------------------------------


def seconds_and_bytes(data: bytes, **limits: Any) -> tuple[float, int]:
    """What a scan takes, whatever comes of it."""
    began = time.process_time()
    with contextlib.suppress(ModelRejectedError):
        scan_bytes(data, **limits)
    seconds = time.process_time() - began
    tracemalloc.start()
    with contextlib.suppress(ModelRejectedError):
        scan_bytes(data, **limits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, peak


def test_weights_cost_nothing_to_scan() -> None:
    weights = helper.make_tensor("w", FLOAT, [8 << 20], bytes(32 << 20), raw=True)
    data = model_of(node("Neg", ["w"], ["y"]), tensors=[weights]).SerializeToString()

    seconds, peak = seconds_and_bytes(data)

    assert seconds < 0.1  # more than 300 MB/s
    assert peak < 100_000


def test_a_hundred_thousand_nodes_are_refused_at_once() -> None:
    one = field(1, node("Neg", ["x"], ["y"]).SerializeToString())
    data = field(7, one * 100_000) + field(8, b"")

    seconds, peak = seconds_and_bytes(data)

    assert seconds < 0.3  # 0.04 s on a quiet machine
    assert peak < 10 << 20


HOSTILE = {
    "empty nodes": field(7, field(1, b"") * 1_000_000),
    "empty functions": field(25, b"") * 1_000_000,
    "empty tensors": field(7, (field(5, field(1, 0))) * 500_000),
    "loose numbers": field(7, field(5, field(7, 1) * 1_000_000)),
    "operands": field(7, field(1, field(1, "x") * 1_000_000)),
    "attributes": field(7, field(1, field(5, field(1, "pads") + field(8, 1)) * 300_000)),
    "sub-graphs": field(7, field(1, field(5, field(11, b"") * 1_000_000))),
    "values": field(7, field(11, field(1, "name")) * 500_000),
    "operator sets": field(8, b"") * 1_000_000,
    "strange fields": field(99, 0) * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_takes_little_time_and_memory(name: str) -> None:
    seconds, peak = seconds_and_bytes(
        HOSTILE[name] + field(8, b""), max_nodes=2_000, control_flow=True
    )

    assert seconds < 5.0  # half a second on a quiet machine
    assert peak < 60 << 20


# ---- anything at all --------------------------------------------------------------------------


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
