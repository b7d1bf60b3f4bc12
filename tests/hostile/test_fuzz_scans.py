"""Whatever bytes a scan is given, it accepts or refuses them, in time and inside the file; and what
it accepts is what the libraries' own readers understand.
"""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent import model_scan, ncnn_scan, tflite_scan
from device_agent.errors import ModelRejectedError
from device_agent.ncnn_file import read_container
from device_agent.reference.encoding import stored_zip
from device_agent.reference.generate import (
    NCNN_FLOAT32,
    ncnn_model,
    reference_ncnn,
    reference_tflite,
    tiny_ncnn,
    tiny_onnx,
    tiny_tflite,
)
from device_agent.runtimes.catalogue import LIBRARIES
from device_agent.scan_limits import ScanLimits

onnx = pytest.importorskip("onnx")
DecodeError = pytest.importorskip("google.protobuf.message").DecodeError

LIMITS = ScanLimits(control_flow=True)
# Generous, for busy machines: what matters is that a scan ends.
FUZZ = settings(max_examples=600, deadline=20_000, suppress_health_check=list(HealthCheck))
SCANS = {
    "onnx": model_scan.scan_bytes,
    "tflite": tflite_scan.scan_bytes,
    "ncnn": ncnn_scan.scan_bytes,
}
SMALL = {"onnx": tiny_onnx(), "tflite": tiny_tflite(), "ncnn": tiny_ncnn()}


def accepts(runtime: str, data: bytes) -> bool:
    try:
        SCANS[runtime](data, LIMITS)
    except ModelRejectedError:
        return False
    return True


# ---- mutations --------------------------------------------------------------------------------

INTERESTING = (0, 1, 2, 4, 8, 0x7F, 0x80, 0xFE, 0xFF)
WORDS = (0, 1, 4, 12, 255, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 8)


@st.composite
def mutations(draw: Any, samples: Any) -> bytes:
    """A valid file after a few flips, insertions, cuts and splices."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(("byte", "flip", "word", "insert", "cut", "splice", "repeat")))
        if how == "byte":
            data[at : at + 1] = bytes([draw(st.sampled_from(INTERESTING))])
        elif how == "flip":
            data[at : at + 1] = bytes(b ^ 1 << draw(st.integers(0, 7)) for b in data[at : at + 1])
        elif how == "word":
            data[at : at + 4] = struct.pack("<I", draw(st.sampled_from(WORDS)))
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        else:
            other = bytes(data) if how == "repeat" else draw(st.sampled_from(samples))
            start = draw(st.integers(0, len(other) - 1)) if other else 0
            data[at:at] = other[start : start + draw(st.integers(1, 80))]
    return bytes(data)


class Fenced:
    """A file that fails the test when somebody reads where it is not."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            assert 0 <= key.start <= key.stop <= len(self._data), key
        else:
            assert 0 <= key < len(self._data), key
        return self._data[key]


@pytest.fixture(scope="session")
def onnx_samples(make_hostile: Any) -> list[bytes]:
    """Small files of every kind, good ones and bad ones."""
    hostile = [data for data in make_hostile("onnx") if len(data) < 2000]
    return [tiny_onnx(), *hostile]


@pytest.fixture(scope="session")
def tflite_samples(make_hostile: Any) -> list[bytes]:
    return [tiny_tflite(), *(data for data in make_hostile("tflite") if data)]


@FUZZ
@given(st.data())
def test_no_mutation_of_an_onnx_file_breaks_the_scan_or_hides_a_reference_to_a_file(
    onnx_samples: Any, data: Any
) -> None:
    mutated = data.draw(mutations(onnx_samples))
    try:
        model_scan.scan_bytes(Fenced(mutated), LIMITS)  # type: ignore[arg-type] # read alike
    except ModelRejectedError:
        return
    model = onnx.ModelProto()
    with contextlib.suppress(DecodeError):
        model.ParseFromString(mutated)
    assert not refers_outside(model)


@FUZZ
@given(st.data())
def test_no_mutation_of_a_tflite_file_breaks_the_scan(tflite_samples: Any, data: Any) -> None:
    mutated = data.draw(mutations(tflite_samples))

    if accepts("tflite", mutated):
        walk_with_the_official_reader(mutated)


def walk_with_the_official_reader(data: bytes) -> None:
    """Every object of the file, made by the classes that the schema's compiler wrote."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))

    assert model.version == 3
    assert model.subgraphs
    assert not model.externalBuffers
    assert not model.externalBufferGroups


# ---- what protobuf understands ----------------------------------------------------------------


def is_repeated(descriptor: Any) -> bool:
    """Newer protobuf warns of the label, older has nothing else."""
    if hasattr(descriptor, "is_repeated"):
        return bool(descriptor.is_repeated)
    return bool(descriptor.label == descriptor.LABEL_REPEATED)


def refers_outside(message: Any) -> bool:
    """Whether a tensor anywhere in a message names another file, found by reflection."""
    if isinstance(message, onnx.TensorProto) and (
        message.data_location != onnx.TensorProto.DEFAULT or message.external_data
    ):
        return True
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_MESSAGE:
            children = value if is_repeated(descriptor) else [value]
            if any(refers_outside(child) for child in children):
                return True
    return False


def paths_to_tensors(descriptor: Any, path: Any = (), visits: Any = ()) -> Any:
    """Every way from a message to a tensor, through each kind of message twice at most."""
    if descriptor.full_name == "onnx.TensorProto":
        yield path
        return
    for each in descriptor.fields:
        if each.message_type is not None and visits.count(each.message_type.full_name) < 2:
            name = each.message_type.full_name
            yield from paths_to_tensors(each.message_type, (*path, each), (*visits, name))


def test_a_tensor_in_another_file_is_refused_on_every_way_to_a_tensor() -> None:
    paths = list(paths_to_tensors(onnx.ModelProto.DESCRIPTOR))
    for path in paths:
        model = onnx.ModelProto()
        model.graph.SetInParent()
        model.opset_import.add(version=17)
        message = model
        for each in path:
            message = getattr(message, each.name)
            message = message.add() if is_repeated(each) else message
        message.dims.append(1)
        message.data_type = onnx.TensorProto.FLOAT
        message.external_data.add(key="location", value="/etc/hostname")

        for function in model.functions:
            function.domain = "own"
        # A function that is given a graph is refused before anybody looks into the graph.
        with pytest.raises(ModelRejectedError, match=r"external data|onnx\.inliner"):
            model_scan.scan_bytes(model.SerializeToString(), LIMITS)
    assert len(paths) > 100


@st.composite
def messages(draw: Any, message: Any, depth: int = 0) -> Any:
    """A message of the package onnx with random fields, external tensors among them."""
    fields = {each.number: each for each in message.DESCRIPTOR.fields}
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), max_size=5, unique=True))
    for each in (fields[number] for number in chosen):
        repeated = is_repeated(each)
        if each.type != each.TYPE_MESSAGE:
            value = draw(_VALUES[each.cpp_type])
            if each.type == each.TYPE_BYTES:
                value = value.encode()
            if each.type == each.TYPE_ENUM:
                value = draw(st.sampled_from([v.number for v in each.enum_type.values]))
            if repeated:
                getattr(message, each.name).append(value)
            else:
                setattr(message, each.name, value)
        elif depth < 7:
            holder = getattr(message, each.name)
            draw(messages(holder.add() if repeated else holder, depth + 1))
            if not repeated:
                holder.SetInParent()
    return message


_descriptor = onnx.ModelProto.DESCRIPTOR.fields[0]
_VALUES = {
    _descriptor.CPPTYPE_INT32: st.integers(0, 20),
    _descriptor.CPPTYPE_INT64: st.integers(0, 20),
    _descriptor.CPPTYPE_UINT64: st.integers(0, 20),
    _descriptor.CPPTYPE_FLOAT: st.just(1.0),
    _descriptor.CPPTYPE_DOUBLE: st.just(1.0),
    _descriptor.CPPTYPE_ENUM: st.just(0),
    _descriptor.CPPTYPE_STRING: st.sampled_from(["", "a", "b", "If", "Neg", "own"]),
}


@settings(FUZZ, max_examples=300)
@given(st.data())
def test_a_tensor_in_another_file_is_refused_wherever_the_schema_lets_it_stand(data: Any) -> None:
    model = data.draw(messages(onnx.ModelProto()))
    model.graph.SetInParent()
    model.opset_import.add(version=17)

    if refers_outside(model):
        assert not accepts("onnx", model.SerializeToString())
    else:
        accepts("onnx", model.SerializeToString())


# ---- every length and every offset of a small file --------------------------------------------


def test_an_onnx_file_cut_at_any_length_is_refused() -> None:
    whole = SMALL["onnx"]

    assert accepts("onnx", whole)
    assert [size for size in range(len(whole)) if accepts("onnx", whole[:size])] == []


def test_a_tflite_file_cut_at_any_length_is_refused_until_nothing_is_missing() -> None:
    """The writer pads the file at its end, and nobody points there."""
    whole = SMALL["tflite"]

    accepted = [size for size in range(len(whole) + 1) if accepts("tflite", whole[:size])]

    assert accepted == list(range(accepted[0], len(whole) + 1))
    assert whole[accepted[0] :].strip(b"\0") == b""
    walk_with_the_official_reader(whole[: accepted[0]])


# Load and run every file, one after the other, each named before: a crash tells which it was.
RUN_ALL = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from pathlib import Path
from device_agent.errors import AgentError, NoRuntimeError
from device_agent.runtimes.catalogue import open_runtime
from device_agent.work import ModelRun
runtime = open_runtime(sys.argv[1])
counts = {"ran": 0, "refused": 0}
for path in sorted(Path(sys.argv[2]).iterdir()):
    print(path, file=sys.stderr, flush=True)
    try:
        model = runtime.load(path, ModelRun("", 0, runtime.name, threads=1))
        model.make_inputs(1)
        model.run()
        model.outputs()
        counts["ran"] += 1
    except (AgentError, MemoryError):
        counts["refused"] += 1
print(json.dumps(counts))
"""


def run_all(runtime: str, folder: Path) -> Any:
    """How many files in a folder ran, and how many the library refused."""
    pytest.importorskip(LIBRARIES[runtime].replace("-", "_"))
    ended = subprocess.run(
        [sys.executable, "-c", RUN_ALL, runtime, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = ended.stderr.strip().splitlines()[-1:]
    assert ended.returncode == 0, f"status {ended.returncode} at {last}"
    return json.loads(ended.stdout)


def broken_tflite(whole: bytes) -> Any:
    """The file with each of its words, in turn, pointing elsewhere."""
    for place in range(0, len(whole) - 3, 4):
        left = len(whole) - place
        for value in (0, 1, 2, 4, 8, left - 4, left, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - place):
            data = bytearray(whole)
            struct.pack_into("<I", data, place, value % 2**32)
            if data != whole:
                yield bytes(data)


def broken_onnx(whole: bytes) -> Any:
    """The file with each of its bytes, in turn, something else."""
    for place, byte in enumerate(whole):
        for value in {0, 1, 2, byte ^ 1, byte ^ 0x80, byte + 1 & 0xFF, 0x7F, 0xFE, 0xFF} - {byte}:
            yield whole[:place] + bytes([value]) + whole[place + 1 :]


@pytest.mark.parametrize(
    ("runtime", "broken"),
    [("tflite", broken_tflite), ("onnx", broken_onnx), ("ncnn", broken_onnx)],
)
def test_a_file_broken_at_any_place_is_refused_or_harms_no_library(
    runtime: str, broken: Any, tmp_path: Path
) -> None:
    files = list(broken(SMALL[runtime]))
    accepted = [data for data in files if accepts(runtime, data)]
    for number, data in enumerate(accepted):
        (tmp_path / f"{number:05}").write_bytes(data)

    counts = run_all(runtime, tmp_path)

    assert counts["ran"] + counts["refused"] == len(accepted)
    # Weights may be anything, so many are fine; most of the rest has to be seen.
    assert len(accepted) < len(files) / 3


@pytest.mark.parametrize("value", [0, 2**31, 2**32 - 1])
def test_a_tflite_file_of_several_layers_broken_anywhere_never_breaks_the_scan(value: int) -> None:
    whole = reference_tflite()

    for place in range(0, 2000, 4):
        data = bytearray(whole)
        struct.pack_into("<I", data, place, value)
        accepts("tflite", bytes(data))


# ---- ncnn -------------------------------------------------------------------------------------


def several_layers() -> tuple[list[str], bytes]:
    """A small network with a gate, a shortcut and both ways to convolve."""
    lines = [
        "Input x 0 1 x 0=8 1=8 2=3",
        "Convolution c 1 1 x c 0=8 1=3 3=2 4=1 5=1 6=216 9=3 -23310=2,0.0,6.0",
        "Split s 1 3 c c0 c1 c2",
        "ConvolutionDepthWise d 1 1 c0 d 0=8 1=3 4=1 5=0 6=72 7=8",
        "Pooling g 1 1 c1 g 0=1 4=1",
        "HardSigmoid h 1 1 g h 0=0.16666667 1=0.5",
        "BinaryOp m 2 1 d h m 0=2",
        "BinaryOp a 2 1 m c2 a 0=0",
        "Pooling p 1 1 a p 0=0 1=2 2=2 5=1",
        "Flatten f 1 1 p f",
        "InnerProduct y 1 1 f y 0=3 1=1 2=96",
    ]
    numbers = struct.pack("<224f", *[0.1] * 224)
    weights = NCNN_FLOAT32 + numbers + NCNN_FLOAT32 + numbers[:288]
    return lines, weights + NCNN_FLOAT32 + numbers[: 4 * 99]


@pytest.fixture(scope="session")
def ncnn_samples(make_hostile: Any) -> list[bytes]:
    hostile = [data for data in make_hostile("ncnn") if len(data) < 4000]
    return [tiny_ncnn(), ncnn_model(*several_layers()), *hostile]


@FUZZ
@given(st.data())
def test_no_mutation_of_an_ncnn_file_breaks_the_scan(ncnn_samples: Any, data: Any) -> None:
    mutated = data.draw(mutations(ncnn_samples))

    with contextlib.suppress(ModelRejectedError):
        ncnn_scan.scan_bytes(Fenced(mutated), LIMITS)  # type: ignore[arg-type] # read alike


@FUZZ
@given(st.data())
def test_no_mutation_of_the_text_of_an_ncnn_file_breaks_the_scan(data: Any) -> None:
    """The container around it is whole, so that the scan goes on into the text."""
    lines, weights = several_layers()
    text = data.draw(mutations([read_container(ncnn_model(lines, weights)).text.encode()]))

    accepts("ncnn", stored_zip({"model.param": text, "model.bin": weights}))


def broken_text(words: list[list[str]]) -> Any:
    """The lines with each word, in turn, another one that stands in them, or another number."""
    others = sorted({word for line in words for word in line}) + [
        f"{key}={value}"
        for key in (*range(20), -23310)
        for value in ("0", "1", "2", "5", "-1", "-233", "100000", "2147483647", "0.5", "1,1")
    ]
    for row, line in enumerate(words):
        for place, word in enumerate(line):
            for other in others:
                if other != word:
                    yield [
                        *words[:row],
                        [*line[:place], other, *line[place + 1 :]],
                        *words[row + 1 :],
                    ]
        for place in range(len(line)):
            yield [*words[:row], [*line[:place], *line[place + 1 :]], *words[row + 1 :]]
        for other in others:
            yield [*words[:row], [*line, other], *words[row + 1 :]]


def container(words: list[list[str]], weights: bytes) -> bytes:
    text = "\n".join(" ".join(line) for line in words) + "\n"
    return stored_zip({"model.param": text.encode(), "model.bin": weights})


def test_a_network_with_any_word_of_its_text_changed_is_refused_or_harms_no_library(
    tmp_path: Path,
) -> None:
    """One word is enough to make ncnn read past its weights; each is tried, also with the weights
    that the changed layers need.
    """
    lines, weights = several_layers()
    whole = [line.split() for line in read_container(ncnn_model(lines, weights)).text.splitlines()]
    made = accepted = 0
    for words in broken_text(whole):
        made += 1
        data = container(words, weights)
        if accepts("ncnn", data):
            (tmp_path / f"{accepted:05}").write_bytes(data)
            accepted += 1

    counts = run_all("ncnn", tmp_path)

    assert counts == {"ran": accepted, "refused": 0}
    assert 100 < accepted < made / 10


def test_an_ncnn_file_cut_at_any_length_is_refused() -> None:
    whole = SMALL["ncnn"]

    assert accepts("ncnn", whole)
    assert [size for size in range(len(whole)) if accepts("ncnn", whole[:size])] == []


@pytest.mark.parametrize("value", [0, 2**31, 2**32 - 1])
def test_an_ncnn_file_of_several_layers_broken_anywhere_never_breaks_the_scan(value: int) -> None:
    whole = reference_ncnn()

    for place in [*range(600), *range(len(whole) - 300, len(whole) - 3)]:
        data = bytearray(whole)
        struct.pack_into("<I", data, place, value)
        accepts("ncnn", bytes(data))
