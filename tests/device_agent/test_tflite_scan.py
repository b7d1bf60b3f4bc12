from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent import tflite_scan
from device_agent.errors import ModelRejectedError
from device_agent.reference import REFERENCE_FOLDER
from device_agent.reference.encoding import I8, I32, Scalar, flatbuffer
from device_agent.reference.generate import (
    TFLITE_IDENTIFIER,
    TfliteGraph,
    reference_tflite,
    tiny_tflite,
)
from device_agent.scan_limits import ScanLimits
from device_agent.tflite_scan import CUSTOM_OPERATORS, TfliteScan, scan_file

INT8, INT32, INT64, STRING = 9, 2, 4, 5
RESHAPE, CUSTOM = 22, 32
CODES, GRAPHS, BUFFERS, METADATA = 1, 2, 4, 6
TENSORS, INPUTS, OPERATORS = 0, 1, 3


def scan_bytes(data: bytes, **limits: Any) -> TfliteScan:
    return tflite_scan.scan_bytes(data, ScanLimits(**limits))


def written(tree: Any) -> bytes:
    return flatbuffer(tree, TFLITE_IDENTIFIER)


def u64(value: int) -> Scalar:
    return Scalar("<Q", value)


def int32s(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def reshaping(
    source: bytes = b"",
    x: Any = (1, 4),
    y: Any = (4, 1),
    shape: bytes = int32s(4, 1),
    **kinds: int,
) -> Any:
    """A Reshape of an input, or of a constant where `source` has its bytes."""
    graph = TfliteGraph(x)
    constant = graph.tensor("c", x, source) if source else 0
    new_shape = graph.tensor("s", (len(shape) // 4,), shape, kind=kinds.get("shape_kind", INT32))
    out = graph.tensor("y", y, kind=kinds.get("y_kind", 0))
    graph.operator(RESHAPE, (constant, new_shape), out, (17, {}))
    return graph.tree(out)


@pytest.fixture
def tree() -> Any:
    return reshaping()


def graph_of(tree: Any) -> Any:
    return tree[GRAPHS][0]


# ---- what is welcome --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reference.tflite", "tiny.tflite"])
def test_a_shipped_model_passes(name: Any) -> None:
    scan = scan_file(REFERENCE_FOLDER / name, ScanLimits())

    assert scan.operators >= 1
    assert scan.custom_operators == ()


def test_counts_are_those_of_the_file() -> None:
    scan = scan_bytes(reference_tflite())

    assert (scan.subgraphs, scan.operators, scan.tensors) == (1, 4, 11)


@pytest.mark.parametrize("name", sorted(CUSTOM_OPERATORS))
def test_custom_operators_of_the_runtimes_pass(tree: Any, name: Any) -> None:
    tree[CODES][0] = {0: I8(CUSTOM), 1: name, 3: I32(CUSTOM)}

    assert scan_bytes(written(tree)).custom_operators == (name,)


def test_data_behind_the_flatbuffer_passes() -> None:
    tree = reshaping(int32s(1, 2, 3, 4))
    tree[BUFFERS][1] = {1: u64(1), 2: u64(16)}
    length = len(written(tree))
    tree[BUFFERS][1] = {1: u64(length), 2: u64(16)}

    scan_bytes(written(tree) + int32s(1, 2, 3, 4))

    with pytest.raises(ModelRejectedError, match="truncated"):
        scan_bytes(written(tree) + int32s(1, 2, 3))


@pytest.mark.parametrize(
    ("kind", "size"), [(0, 16), (1, 8), (INT8, 4), (INT64, 32), (17, 2), (19, 1), (11, 64)]
)
def test_a_constant_has_the_bytes_of_its_shape(kind: Any, size: Any) -> None:
    def model(size: int) -> bytes:
        graph = TfliteGraph((1, 4))
        graph.tensor("c", (2, 2), bytes(size), kind=kind)
        return written(graph.tree(0))

    scan_bytes(model(size))

    with pytest.raises(ModelRejectedError, match=f"{size + 1} bytes instead of {size}"):
        scan_bytes(model(size + 1))


def test_strings_and_sparse_constants_may_have_any_bytes() -> None:
    graph = TfliteGraph((1, 4))
    graph.tensor("strings", (2,), b"some text", kind=STRING)
    graph.tensor("sparse", (100,), bytes(12))
    tree = graph.tree(0)
    graph_of(tree)[TENSORS][2][6] = {}

    scan_bytes(written(tree))


@pytest.mark.parametrize("new_shape", [(4, 1), (-1, 1), (2, 2), (4,), (-1,)])
def test_a_reshape_of_a_constant_to_as_many_elements_passes(new_shape: Any) -> None:
    scan_bytes(written(reshaping(int32s(1, 2, 3, 4), shape=int32s(*new_shape))))


# ---- what is no TFLite file -------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"TFL3",
        b"\x18\x00\x00\x00TFL3",  # tensorflow/tensorflow issue 115308
        b"\x08\x07\x12\x00:]" * 9,
        b"\x1c\x00\x00\x00TFL2" + bytes(60),
    ],
)
def test_another_format_is_refused(data: Any) -> None:
    with pytest.raises(ModelRejectedError, match="not a TFLite model"):
        scan_bytes(data)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()

    with pytest.raises(ModelRejectedError, match="empty"):
        scan_file(path, ScanLimits())


@pytest.mark.parametrize("root", [0, 1, 8, 60, 10_000, 2**31, 2**32 - 1])
def test_a_root_that_lies_elsewhere_is_refused(root: Any) -> None:
    data = struct.pack("<I", root) + tiny_tflite()[4:]

    with pytest.raises(ModelRejectedError):
        scan_bytes(data)


def test_another_version_of_the_schema_is_refused(tree: Any) -> None:
    tree[0] = I32(2)

    with pytest.raises(ModelRejectedError, match="schema version 3"):
        scan_bytes(written(tree))


def test_a_file_without_a_graph_is_refused(tree: Any) -> None:
    tree[GRAPHS] = []

    with pytest.raises(ModelRejectedError, match="no graph"):
        scan_bytes(written(tree))


# ---- what refers to things that are not there -------------------------------------------------


def tensor_with_buffer(tree: Any, index: Any) -> None:
    graph_of(tree)[TENSORS][0][2] = I32(index)


def operator_input(tree: Any, index: Any) -> None:
    graph_of(tree)[OPERATORS][0][1] = (index, 1)


def operator_output(tree: Any, index: Any) -> None:
    graph_of(tree)[OPERATORS][0][2] = (index,)


def operator_intermediate(tree: Any, index: Any) -> None:
    graph_of(tree)[OPERATORS][0][8] = (index,)


def operator_code(tree: Any, index: Any) -> None:
    graph_of(tree)[OPERATORS][0][0] = I32(index)


def graph_input(tree: Any, index: Any) -> None:
    graph_of(tree)[INPUTS] = (index,)


def graph_output(tree: Any, index: Any) -> None:
    graph_of(tree)[2] = (index,)


def metadata_buffer(tree: Any, index: Any) -> None:
    tree[METADATA] = [{0: "min_runtime_version", 1: I32(index)}]


def test_an_input_that_is_a_constant_is_refused(tree: Any) -> None:
    """A runtime would write the input into the file's read-only memory, and die."""
    graph_of(tree)[INPUTS] = (0, 1)

    with pytest.raises(ModelRejectedError, match="input of the model is a constant"):
        scan_bytes(written(tree))


def test_a_tensor_that_nobody_writes_is_refused_where_it_is_read(tree: Any) -> None:
    """A runtime gives it no memory, and dies where an operator reads it."""
    never = {0: (1, 4), 1: I8(0), 2: I32(0), 3: "never"}
    tensors, operators = graph_of(tree)[TENSORS], graph_of(tree)[OPERATORS]
    tensors.append(never)
    scan_bytes(written(tree))
    operators[0][1] = (3, 1)
    with pytest.raises(ModelRejectedError, match="tensor 3 of the model is read before"):
        scan_bytes(written(tree))
    # What remembers its content from run to run, and what has none, need nobody.
    tensors[3] = {**never, 5: I8(1)}
    scan_bytes(written(tree))
    tensors[3] = {**never, 0: (0,)}
    scan_bytes(written(tree))


def test_an_output_that_nobody_writes_is_refused(tree: Any) -> None:
    graph_of(tree)[OPERATORS] = []

    with pytest.raises(ModelRejectedError, match="tensor 2 of the model is read before"):
        scan_bytes(written(tree))


def test_operators_run_in_the_order_in_which_they_stand(tree: Any) -> None:
    first = graph_of(tree)[OPERATORS][0]
    graph_of(tree)[OPERATORS] = [{**first, 1: (2, 1)}, first]

    with pytest.raises(ModelRejectedError, match="tensor 2 of the model is read before"):
        scan_bytes(written(tree))


@pytest.mark.parametrize(("code", "inputs"), [(9, (0, -1)), (16, (-1, 0)), (3, (0, -1, 1))])
def test_an_operand_that_kernels_need_may_not_be_left_out(code: Any, inputs: Any) -> None:
    graph = TfliteGraph((1, 4))
    graph.tensor("c", (1,), bytes(4))
    graph.operator(code, inputs, 0, (0, {}))

    with pytest.raises(ModelRejectedError, match=rf"operator {code} of the model lacks"):
        scan_bytes(written(graph.tree(0)))


def test_an_lstm_may_lack_its_second_operand() -> None:
    graph = TfliteGraph((1, 4))
    graph.operator(16, (0, -1, 0), 0, (0, {}))

    scan_bytes(written(graph.tree(0)))


@pytest.mark.parametrize("index", [3, 1000, 2**31 - 1, -2, -(2**31)])
@pytest.mark.parametrize(
    "point",
    [
        tensor_with_buffer,
        operator_input,
        operator_output,
        operator_intermediate,
        operator_code,
        graph_input,
        graph_output,
        metadata_buffer,
    ],
)
def test_an_index_beyond_its_list_is_refused(tree: Any, point: Any, index: Any) -> None:
    point(tree, index)

    with pytest.raises(ModelRejectedError, match="refers to"):
        scan_bytes(written(tree))


@pytest.mark.parametrize(
    ("offset", "size"), [(2, 2**63), (2**64 - 1, 1), (2**63, 2**63), (10**6, 4), (2, 10**6)]
)
def test_a_buffer_beyond_the_file_is_refused(tree: Any, offset: Any, size: Any) -> None:
    tree[BUFFERS][1] = {1: u64(offset), 2: u64(size)}

    with pytest.raises(ModelRejectedError, match="truncated"):
        scan_bytes(written(tree))


def test_large_options_beyond_the_file_are_refused(tree: Any) -> None:
    graph_of(tree)[OPERATORS][0].update({9: u64(64), 10: u64(10**9)})

    with pytest.raises(ModelRejectedError, match="truncated"):
        scan_bytes(written(tree))


def test_external_buffers_are_refused(tree: Any) -> None:
    graph_of(tree)[TENSORS][0][10] = I32(1)

    with pytest.raises(ModelRejectedError, match="external buffers"):
        scan_bytes(written(tree))


@pytest.mark.parametrize("slot", [8, 9])
def test_lists_of_external_buffers_are_refused(tree: Any, slot: Any) -> None:
    tree[slot] = [{0: "../../../etc/hostname"}]

    with pytest.raises(ModelRejectedError, match="external buffers"):
        scan_bytes(written(tree))


def test_empty_lists_of_external_buffers_pass(tree: Any) -> None:
    tree[8] = tree[9] = []

    scan_bytes(written(tree))


# ---- what points out of the file --------------------------------------------------------------


def rich() -> Any:
    """A model with every kind of table."""
    tree = reshaping(int32s(1, 2, 3, 4))
    tensor = graph_of(tree)[TENSORS][0]
    tensor[4] = {0: (1,), 1: (1,), 2: (1,), 3: u64s(7), 4: I8(1), 5: {0: b"custom"}}
    dimension = {0: I8(1), 2: I8(1), 3: {0: (0, 1)}, 4: I8(3), 5: {0: b"12"}}
    tensor[6] = {0: (0, 1), 1: (1,), 2: [dimension]}
    tensor[7] = (1, 4)
    tensor[9] = [{0: (1, 4)}]
    operator = graph_of(tree)[OPERATORS][0]
    operator.update({4: {0: (4, 1)}, 5: b"options", 7: b"\0", 8: (), 11: I8(2), 12: {0: u64s(1)}})
    tree[5] = (0,)
    tree[METADATA] = [{0: "min_runtime_version", 1: I32(0)}]
    maps = [{0: "x", 1: I32(0)}]
    tree[7] = [{0: maps, 1: maps, 2: "serving_default", 4: I32(0)}]
    return tree


def u64s(*values: int) -> tuple[int, ...]:
    """Written as twice as many int32, so that a reader of eight-byte items looks further than
    they reach: files with it end in some bytes to spare.
    """
    return tuple(half for value in values for half in (value, 0))


def slots(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """The path of every slot that points to something."""
    if isinstance(value, dict):
        for slot, item in value.items():
            if not isinstance(item, Scalar):
                yield (*path, slot)
                yield from slots(item, (*path, slot))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from slots(item, (*path, index))


def test_a_model_with_every_kind_of_table_passes() -> None:
    assert scan_bytes(written(rich()) + bytes(16)).tensors == 4


@pytest.mark.parametrize("path", list(slots(rich())), ids=str)
@pytest.mark.parametrize("offset", [100_000, 2**31, 2**32 - 1])
def test_whatever_points_out_of_the_file_is_refused(path: Any, offset: Any) -> None:
    tree = rich()
    *parents, slot = path
    place = tree
    for parent in parents:
        place = place[parent]
    place[slot] = Scalar("<I", offset)

    with pytest.raises(ModelRejectedError):
        scan_bytes(written(tree) + bytes(16))


def test_a_text_without_an_end_is_refused() -> None:
    data = bytearray(written(rich()))
    data[data.index(b"serving_default\0") + 15] = 1

    with pytest.raises(ModelRejectedError, match="truncated or damaged"):
        scan_bytes(bytes(data))


def test_a_union_with_a_type_and_no_value_passes() -> None:
    tree = rich()
    del graph_of(tree)[OPERATORS][0][4]

    scan_bytes(written(tree) + bytes(16))


def test_metadata_without_a_name_is_refused() -> None:
    tree = rich()
    del tree[METADATA][0][0]

    with pytest.raises(ModelRejectedError, match="damaged"):
        scan_bytes(written(tree) + bytes(16))


# ---- what is too much -------------------------------------------------------------------------


def test_unknown_custom_operators_are_refused_by_name(tree: Any) -> None:
    names = ["TransformLandmarks", "FlexErf", "Mfcc"]
    tree[CODES] += [{0: I8(CUSTOM), 1: name, 3: I32(CUSTOM)} for name in names]

    with pytest.raises(ModelRejectedError, match=r"here has \('FlexErf', 'TransformLandmarks'\)"):
        scan_bytes(written(tree))


def test_a_custom_operator_of_the_old_numbering_is_refused_too(tree: Any) -> None:
    tree[CODES].append({0: I8(CUSTOM), 1: "FlexErf"})

    with pytest.raises(ModelRejectedError, match="FlexErf"):
        scan_bytes(written(tree))


def test_a_name_of_thousands_of_letters_is_refused(tree: Any) -> None:
    tree[CODES].append({0: I8(CUSTOM), 1: "x" * 4097})

    with pytest.raises(ModelRejectedError, match="name of 4097 bytes, and 4096 are allowed"):
        scan_bytes(written(tree))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_bytes": 500}, "bytes, and this device takes 500"),
        ({"max_nodes": 1}, "list of 3 operators"),
        ({"max_elements": 3}, "size of 4 elements, and this device takes 3"),
    ],
)
def test_more_than_a_limit_is_refused_with_what_to_change(
    tree: Any, limits: Any, words: Any
) -> None:
    graph_of(tree)[OPERATORS] *= 3
    scan_bytes(written(tree))

    with pytest.raises(ModelRejectedError, match=words) as refusal:
        scan_bytes(written(tree), **limits)

    assert f"change models.{next(iter(limits))} in the agent's config.json" in str(refusal.value)


def test_more_graphs_than_any_model_has_are_refused(tree: Any) -> None:
    tree[GRAPHS] *= 101

    with pytest.raises(ModelRejectedError, match=r"list of 101 .*graphs"):
        scan_bytes(written(tree))


def test_parts_are_counted_as_often_as_something_points_to_them(tree: Any) -> None:
    """Fifty graphs that are one in the file are fifty to whoever follows the pointers."""
    tree[GRAPHS] *= 50
    data = bytearray(written(tree))
    (root,) = struct.unpack_from("<I", data)
    vtable = root - struct.unpack_from("<i", data, root)[0]
    slot = root + struct.unpack_from("<H", data, vtable + 4 + 2 * GRAPHS)[0]
    graphs = slot + struct.unpack_from("<I", data, slot)[0] + 4
    last = graphs + 4 * 49 + struct.unpack_from("<I", data, graphs + 4 * 49)[0]
    for place in range(graphs, graphs + 4 * 50, 4):
        struct.pack_into("<I", data, place, last - place)
    assert scan_bytes(bytes(data)).operators == 50

    with pytest.raises(ModelRejectedError, match="more are allowed"):
        scan_bytes(bytes(data), max_nodes=15)


def test_operators_and_tensors_are_counted_over_all_graphs(tree: Any) -> None:
    tree[GRAPHS] *= 3
    assert scan_bytes(written(tree)).operators == 3

    with pytest.raises(ModelRejectedError, match="list of 1 operators"):
        scan_bytes(written(tree), max_nodes=2)


def test_numbers_are_counted_over_the_whole_file(tree: Any) -> None:
    graph_of(tree)[INPUTS] = (0,) * 300

    with pytest.raises(ModelRejectedError, match="more than 300 sizes and operands"):
        scan_bytes(written(tree), max_nodes=3)


def test_a_tensor_of_very_many_axes_is_refused_in_no_time(tree: Any) -> None:
    graph_of(tree)[TENSORS][0][0] = (2**31 - 1,) * 100_000

    with pytest.raises(ModelRejectedError, match="100000 axes"):
        scan_bytes(written(tree))


def test_one_long_name_of_many_tensors_is_refused_in_no_time(tree: Any) -> None:
    tensors = graph_of(tree)[TENSORS]
    tensors[0][3] = "x" * 5000

    with pytest.raises(ModelRejectedError, match="name of 5000 bytes"):
        scan_bytes(written(tree))


def test_a_name_that_is_not_utf_8_is_refused(tree: Any) -> None:
    data = written(tree).replace(b"main", b"\xff\xfe\xfd\xfc")

    with pytest.raises(ModelRejectedError, match="not UTF-8"):
        scan_bytes(data)


@pytest.mark.parametrize("shape", [(1, -1), (2**31 - 1, 2), (65536, 65536), (2**29,), (-(2**31),)])
@pytest.mark.parametrize("max_elements", [1 << 28, 1 << 40])
def test_a_tensor_that_overflows_or_cannot_be_is_refused(
    tree: Any, shape: Any, max_elements: Any
) -> None:
    graph_of(tree)[TENSORS][0][0] = shape

    with pytest.raises(
        ModelRejectedError, match=r"larger than 2 GiB|impossible shape|this device takes 268435456"
    ):
        scan_bytes(written(tree), max_elements=max_elements)


# ---- graphs that call graphs ------------------------------------------------------------------


def code_table(code: int) -> Any:
    return {0: I8(min(code, 127)), 2: I32(1), 3: I32(code)}


IF, WHILE, CALL_ONCE = (118, 92), (119, 93), (129, 103)


def calling(*calls: Any, graphs: int = 2) -> Any:
    """Graphs with operators that run other graphs: (caller, (code, options), called...)."""
    trees = [TfliteGraph((1, 4)) for _ in range(graphs)]
    for caller, (code, options), *called in calls:
        table = {slot: I32(index) for slot, index in enumerate(called)}
        trees[caller].operator(code, (0,), 0, (options, table))
    codes = sorted({code for _, (code, _), *_ in calls})
    built = []
    for each in trees:
        for operator in each._operators:
            operator[0] = I32(codes.index(each._codes[operator[0].value]))
        each._codes = []
        built.append(each.tree(0))
    built[0][CODES] = [code_table(code) for code in codes]
    built[0][GRAPHS] = [graph_of(each) for each in built]
    return built[0]


@pytest.mark.parametrize(("kind", "name"), [(IF, "IF"), (WHILE, "WHILE")])
def test_control_flow_is_refused_unless_the_device_allows_it(kind: Any, name: Any) -> None:
    data = written(calling((0, kind, 1, 2), graphs=3))

    with pytest.raises(ModelRejectedError, match=rf"control flow \({name}\).*models.control_flow"):
        scan_bytes(data)
    assert scan_bytes(data, control_flow=True).control_flow == (name,)
    assert scan_bytes(data, control_flow=True).graph_depth == 2


def test_graphs_nest_as_deep_as_the_limit_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        calls = [(n, CALL_ONCE, n + 1) for n in range(depth - 1)]
        return written(calling(*calls, graphs=depth))

    assert scan_bytes(nested(4)).graph_depth == 4
    with pytest.raises(ModelRejectedError, match=r"nests 5 graphs, .* takes 4.*max_graph_depth"):
        scan_bytes(nested(5))


@pytest.mark.parametrize(
    "calls",
    [
        [(0, CALL_ONCE, 0)],
        [(0, CALL_ONCE, 1), (1, CALL_ONCE, 0)],
        [(1, WHILE, 0, 1)],
        [(1, IF, 0, 1)],
    ],
    ids=["itself", "each other", "its body", "its branch"],
)
def test_graphs_that_call_themselves_are_refused(calls: Any) -> None:
    with pytest.raises(ModelRejectedError, match="calls itself"):
        scan_bytes(written(calling(*calls)), control_flow=True)


@pytest.mark.parametrize("index", [2, -1, 2**31 - 1])
@pytest.mark.parametrize("kind", [IF, WHILE, CALL_ONCE])
def test_a_graph_that_is_not_there_is_refused(kind: Any, index: Any) -> None:
    with pytest.raises(ModelRejectedError, match=rf"graph {index} of 2"):
        scan_bytes(written(calling((0, kind, index, 1))), control_flow=True)


@pytest.mark.parametrize("code", [118, 119, 129])
def test_an_operator_that_does_not_say_which_graph_it_runs_is_refused(code: Any) -> None:
    with pytest.raises(ModelRejectedError, match="does not say which"):
        scan_bytes(written(calling((0, (code, 8), 1, 1))), control_flow=True)


# ---- what constants say of sizes --------------------------------------------------------------


def sized(code: int, *operands: Any) -> bytes:
    """An operator that reads the input and these constants of int32 or float32."""
    graph = TfliteGraph((1, 4))
    inputs = []
    for operand in operands:
        if operand is None:
            inputs.append(0)
            continue
        packing, kind = ("i", INT32) if isinstance(operand[0], int) else ("f", 0)
        data = struct.pack(f"<{len(operand)}{packing}", *operand)
        inputs.append(graph.tensor("c", (len(operand),), data, kind=kind))
    graph.operator(0, tuple(inputs), 0, (0, {}))
    tree = graph.tree(0)
    tree[CODES] = [code_table(code)]
    return written(tree)


@pytest.mark.parametrize(
    ("code", "operands", "elements"),
    [
        (94, [(65536, 4096), (0.0,)], 2**28),  # FILL
        (130, [None, (65536, 4096)], 2**28),  # BROADCAST_TO
        (69, [None, (65536, 1024)], 2**28),  # TILE of four elements
        (23, [None, (16384, 16384)], 2**28),  # RESIZE_BILINEAR
        (34, [None, (8192, 8192, 16000, 384)], 2**28),  # PAD
        (96, [(0,), (2**28,), (1,)], 2**28),  # RANGE
        (96, [(0.0,), (2.0**26,), (0.25,)], 2**28),
    ],
)
def test_a_size_that_constants_state_is_refused_above_the_limit(
    code: Any, operands: Any, elements: Any
) -> None:
    data = sized(code, *operands)

    scan_bytes(data, max_elements=elements)

    with pytest.raises(ModelRejectedError, match=rf"operator {code} .*models.max_elements"):
        scan_bytes(data, max_elements=elements - 1)


@pytest.mark.parametrize("code", [23, 34, 69, 94, 96, 130])
def test_operators_without_their_operands_never_break_the_scan(code: Any) -> None:
    scan_bytes(sized(code))


def test_an_open_axis_passes_and_a_stranger_one_does_not(tree: Any) -> None:
    graph_of(tree)[TENSORS][0][7] = (-1, 4)
    scan_bytes(written(tree))
    graph_of(tree)[TENSORS][0][7] = (-2, 4)

    with pytest.raises(ModelRejectedError, match="impossible shape"):
        scan_bytes(written(tree))


# ---- Reshape: tensorflow/tensorflow issues 124982 and 62164 -----------------------------------


def test_a_constant_longer_than_its_shape_is_refused() -> None:
    tree = reshaping(bytes(22), x=(1, 1), y=(1, 1), shape=int32s(1, 1))

    with pytest.raises(ModelRejectedError, match=r"\[1, 1\] has 22 bytes instead of 4"):
        scan_bytes(written(tree))


@pytest.mark.parametrize("new_shape", [(1, 1), (5,), (-1, 3), (2, 2, 2), (-1, 0)])
def test_a_reshape_of_a_constant_to_other_elements_is_refused(new_shape: Any) -> None:
    tree = reshaping(int32s(1, 2, 3, 4), shape=int32s(*new_shape))

    with pytest.raises(ModelRejectedError, match="of a constant"):
        scan_bytes(written(tree))


@pytest.mark.parametrize("new_shape", [(-2, 2), (-1, -1), (2**31 - 1, -(2**31))])
def test_an_impossible_new_shape_is_refused(new_shape: Any) -> None:
    with pytest.raises(ModelRejectedError, match="impossible new shape"):
        scan_bytes(written(reshaping(shape=int32s(*new_shape))))


def test_a_new_shape_of_too_many_axes_or_of_another_type_is_refused() -> None:
    for tree in (
        reshaping(shape=int32s(*[1] * 9)),
        reshaping(shape=struct.pack("<ff", 4, 1), shape_kind=0),
    ):
        with pytest.raises(ModelRejectedError, match="implausible new shape"):
            scan_bytes(written(tree))


def test_a_reshape_to_another_type_is_refused() -> None:
    with pytest.raises(ModelRejectedError, match="changes the type"):
        scan_bytes(written(reshaping(y_kind=INT8)))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [((), (2,)), ((-1, 1), (2,)), ((0, 1, 1), (2,)), ((0,), ()), ((0,), (-1,))],
)
def test_a_reshape_without_its_operands_is_refused(inputs: Any, outputs: Any) -> None:
    tree = reshaping()
    graph_of(tree)[OPERATORS][0].update({1: inputs, 2: outputs})

    with pytest.raises(ModelRejectedError, match=r"lacks|refers to tensor -1"):
        scan_bytes(written(tree))


# ---- anything at all --------------------------------------------------------------------------

SAMPLES = [tiny_tflite(), written(rich())]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_a_truncated_file_is_refused_or_harmless(data: Any, draw: Any) -> None:
    kept = draw.draw(st.integers(0, len(data) - 1))

    with contextlib.suppress(ModelRejectedError):
        scan_bytes(data[:kept])


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_flipped_bytes_never_break_the_scan(data: Any, changes: Any) -> None:
    changed = bytearray(data)
    for position, value in changes:
        changed[position % len(changed)] = value

    with contextlib.suppress(ModelRejectedError):
        scan_bytes(bytes(changed))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_noise_behind_the_identifier_never_breaks_the_scan(noise: Any) -> None:
    with contextlib.suppress(ModelRejectedError):
        scan_bytes(struct.pack("<I", 12) + TFLITE_IDENTIFIER + noise)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SAMPLES), st.integers(0, 500), st.integers(0, 2**32 - 1))
def test_offsets_to_anywhere_never_break_the_scan(data: Any, word: Any, value: Any) -> None:
    changed = bytearray(data)
    position = 4 * (word % (len(changed) // 4))
    changed[position : position + 4] = struct.pack("<I", value)

    with contextlib.suppress(ModelRejectedError):
        scan_bytes(bytes(changed))
