"""What the scan of ncnn files refuses, and that ncnn computes the shapes that the scan tells."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from device_agent import ncnn_scan
from device_agent.errors import ModelRejectedError, NoRuntimeError
from device_agent.ncnn_file import read_container
from device_agent.ncnn_layers import KNOWN_LAYERS
from device_agent.ncnn_scan import NcnnScan, scan_file
from device_agent.reference import REFERENCE_FOLDER
from device_agent.reference.encoding import stored_zip
from device_agent.reference.generate import NCNN_FLOAT32, ncnn_model, tiny_ncnn
from device_agent.runtimes.catalogue import open_runtime
from device_agent.scan_limits import ScanLimits
from device_agent.work import ModelRun

INPUT = "Input x 0 1 x 0=8 1=6 2=4"


def scan_bytes(data: bytes, **limits: Any) -> NcnnScan:
    return ncnn_scan.scan_bytes(data, ScanLimits(**limits))


def floats(count: int) -> bytes:
    return struct.pack(f"<{count}f", *(0.01 * (number % 7 - 3) for number in range(count)))


def matrix(count: int, bias: int = 0) -> bytes:
    return NCNN_FLOAT32 + floats(count) + floats(bias)


def container(text: str, weights: bytes = b"", **more: bytes) -> bytes:
    files = {"model.param": text.encode("utf-8", "surrogateescape"), "model.bin": weights, **more}
    return stored_zip(files)


# ---- what is welcome --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reference.ncnn", "tiny.ncnn"])
def test_a_shipped_model_passes(name: Any) -> None:
    scan = scan_file(REFERENCE_FOLDER / name, ScanLimits())

    assert set(scan.inputs) == {"x"}
    assert set(scan.outputs) == {"y"}


def test_counts_and_shapes_are_told() -> None:
    scan = scan_file(REFERENCE_FOLDER / "reference.ncnn", ScanLimits())

    assert scan.layers == 5
    assert scan.inputs == {"x": (3, 96, 96)}
    assert scan.outputs == {"y": (16,)}
    assert scan.weights == 432 + 16 + 3456 + 24 + 3456 + 16


def test_a_table_of_metadata_may_stand_at_the_end() -> None:
    text, weights = parts(tiny_ncnn())

    scan_bytes(container(text, weights, **{"metadata.json": b'{"study": "s1"}'}))


def test_a_text_that_is_aligned_by_spaces_passes() -> None:
    scan_bytes(
        container("7767517\n2 2\nInput     x  0 1 x   0=8\nReLU      y  1 1 x y\n"),
    )


# ---- the container ----------------------------------------------------------------------------


def parts(data: bytes) -> tuple[str, bytes]:
    file = read_container(data)
    return file.text, data[file.weights.first : file.weights.last]


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


TINY = tiny_ncnn()
DIRECTORY = TINY.index(b"PK\1\2")
WEIGHTS_HEADER = TINY.index(b"PK\3\4", 4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"PK\3\4", "truncated"),
        (b"\x08" * 100, "no entry model.param"),
        (stored_zip({"model.bin": b"", "model.param": b""}), "no entry model.param"),
        (stored_zip({"model.param": b""}), "no entry model.bin|truncated"),
        (
            stored_zip({"model.param": b"", "model.bin": b"", "x": b""}),
            "model.bin|directory|metadata",
        ),
        (patched(TINY, 6, b"\1\0"), "compressed, encrypted"),
        (patched(TINY, 8, b"\x08\0"), "compressed, encrypted"),
        (patched(TINY, 28, b"\4\0"), "compressed, encrypted"),
        (patched(TINY, 18, b"\xff\xff"), "compressed, encrypted"),
        (patched(TINY, 14, b"\0\0\0\0"), "other things|damaged"),
        (patched(TINY, WEIGHTS_HEADER + 18, b"\xff\xff\xff\x7f" * 2), "model.bin is truncated"),
        (patched(TINY, WEIGHTS_HEADER + 18, b"\4\0\0\0" * 2), "other things|directory"),
        (patched(TINY, DIRECTORY + 42, b"\1\0\0\0"), "other things of model.param"),
        (patched(TINY, DIRECTORY + 32, b"\1\0"), "other things of model.param"),
        (TINY[:-1], "does not end"),
        (TINY + b"\0", "does not end"),
        (b"\0" + TINY, "no entry model.param"),
        (TINY[: DIRECTORY + 20], "truncated"),
        (container("", b"", **{"metadata.json": b"[1]"}), "no table of texts"),
        (container("", b"", **{"metadata.json": b'{"a": 1}'}), "no table of texts"),
        (container("", b"", **{"metadata.json": b"\xff"}), "no table of texts"),
        (container("", b"", **{"metadata.json": b"[" * 100_000}), "no table of texts"),
        (container("", b"", **{"metadata.json": bytes(2 << 20)}), "at most 1048576"),
        (container("7" * (2 << 20)), "at most 1048576"),
    ],
)
def test_what_is_no_such_container_is_refused(data: Any, words: Any) -> None:
    with pytest.raises(ModelRejectedError, match=words) as refusal:
        scan_bytes(data)

    assert str(refusal.value).isprintable()


def test_a_text_that_is_damaged_is_refused() -> None:
    at = TINY.index(b"0=2")

    with pytest.raises(ModelRejectedError, match="damaged"):
        scan_bytes(patched(TINY, at, b"0=3"))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"")

    with pytest.raises(ModelRejectedError, match="empty"):
        scan_file(tmp_path / "model", ScanLimits())


# ---- the text ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1 .*begin with 7767517"),
        ("7767516\n1 1\nInput x 0 1 x 0=8\n", "line 1"),
        ("7767517", "line 2 .*numbers of layers and blobs"),
        ("7767517\n1 -1\n", "line 2"),
        ("7767517\n2 1\nInput x 0 1 x 0=8\n", "states 2 layers and 1 blobs, and there are 1 and 1"),
        ("7767517\n1 2\nInput x 0 1 x 0=8\n", "states 1 layers and 2 blobs"),
        ("7767517\n1 1\nInput x 0 1 x 0=8\n\nReLU", "line 4"),
        ("7767517\n1 1\nInput x 0 99 x\n", "should name 0 [+] 99 blobs"),
        ("7767517\n1 1\nInput x 0 x 0=8\n", "line 3 .*two counts"),
        (f"7767517\n1 1\nInput {'x' * 256} 0 1 x 0=8\n", "line 3"),
        ("7767517\n1 1\nInput x 0 1 a=b 0=8\n", "line 3"),
        ("7767517\n1 1\nInput x 0 1 x 8\n", "no number that"),
        ("7767517\n1 1\nInput x 0 1 x y=8\n", "no numbered value"),
        ("7767517\n1 1\nInput x 0 1 x 0=8 0=9\n", "given twice"),
        ("7767517\n1 1\nInput x 0 1 x 32=8\n", "unknown number"),
        ("7767517\n1 1\nInput x 0 1 x -1=8\n", "unknown number"),
        ("7767517\n1 1\nInput x 0 1 x -23303=3,1,2\n", "not as long as it says"),
        (f"7767517\n1 1\nInput x 0 1 x -23303=33{',1' * 33}\n", "more than 32 items"),
        ("7767517\n1 1\nInput x 0 1 x -23303=2,1,2.0\n", "both integers and floats"),
        ("7767517\n1 1\nInput x 0 1 x 0=2147483648\n", "no number that ncnn reads right"),
        ("7767517\n1 1\nInput x 0 1 x 0=nan\n", "no number"),
        ("7767517\n1 1\nInput x 0 1 x 0=0x10\n", "no number"),
        ('7767517\n1 1\nInput x 0 1 x 0="8"\n', "no number"),
        # ncnn reads 15 characters of a value and takes the rest for the next one.
        ("7767517\n1 1\nInput x 0 1 x 0=-1.234567890e-10\n", "no number that ncnn reads right"),
        # It counts the digits in 32 bits.
        ("7767517\n1 1\nInput x 0 1 x 0=0.1234567890\n", "no number that ncnn reads right"),
        ("7767517\n1 1\nInput x 0 1 \xff 0=8\n", "not plain text"),
        ("7767517\n1 1\nInput x 0 1 x\t0=8\n", "not plain text"),
    ],
)
def test_a_text_that_ncnn_would_refuse_or_misread_is_refused(text: Any, words: Any) -> None:
    with pytest.raises(ModelRejectedError, match=words) as refusal:
        scan_bytes(container(text))

    assert str(refusal.value).isprintable()


# ---- blobs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([INPUT, "ReLU y 1 1 z y"], "reads 'z', that nothing made"),
        (["ReLU y 1 1 x y", INPUT], "reads 'x', that nothing made"),
        ([INPUT, "ReLU y 1 1 y y"], "reads 'y', that nothing made"),
        ([INPUT, "ReLU y 1 1 x y", "ReLU z 1 1 x z"], "reads 'x', that another layer has read"),
        ([INPUT, "BinaryOp y 2 1 x x y"], "another layer has read"),
        ([INPUT, "ReLU y 1 1 x x"], "writes 'x', which another layer made"),
        ([INPUT, INPUT], "writes 'x', which another layer made"),
        ([INPUT, "Split s 1 2 x a a"], "writes 'a', which another layer made"),
        ([INPUT, "ReLU y 1 2 x y z"], "reads 1 blobs and writes 2"),
        ([INPUT, "ReLU y 0 1 y"], "reads 0 blobs"),
        ([INPUT, "Noop y 1 0 x"], "writes 0"),
        (["Concat y 0 1 y"], "reads 0 blobs"),
    ],
)
def test_a_blob_is_made_once_and_then_read_once(lines: Any, words: Any) -> None:
    with pytest.raises(ModelRejectedError, match=words):
        scan_bytes(ncnn_model(lines, b""))


@pytest.mark.parametrize("kind", ["Spy", "LSTM", "MemoryData", "Interp", "relu", "Permute2"])
def test_an_unknown_type_of_layer_is_refused_by_its_name(kind: Any) -> None:
    with pytest.raises(ModelRejectedError, match=f"a layer {kind} 'y', a type that is not known"):
        scan_bytes(ncnn_model([INPUT, f"{kind} y 1 1 x y"], b""))


# ---- values and shapes ------------------------------------------------------------------------

CONVOLUTION = "0=4 1=3 5=1 6=144"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("Input y 0 1 y 0=8 2=4", "does not state its sizes"),
        ("Input y 0 1 y", "does not state its sizes"),
        ("Input y 0 1 y 0=-8", "does not state its sizes"),
        ("Input y 0 1 y 0=8 11=2", "a value 11=2 that is unknown"),
        ("ReLU y 1 1 x y 0=1", "a value 0=1 that is unknown or no such number"),
        ("ReLU y 1 1 x y 30=1", "a value 30=1"),
        ("ReLU y 1 1 x y 31=1", "a value 31=1"),
        ("Convolution y 1 1 x y 0=4.0 1=3 6=144", "a value 0=4.0"),
        ("Convolution y 1 1 x y 0=4 1=3 6=145", "has 145 weights, .* need 144"),
        ("Convolution y 1 1 x y 0=4 1=3 6=36", "has 36 weights, .* need 144"),
        ("Convolution y 1 1 x y 1=3 6=0", "has 0=0, which is 1 at least"),
        ("Convolution y 1 1 x y 0=4 6=144", "has 1=0, which is 1 at least"),
        ("Convolution y 1 1 x y 0=4 1=3 3=0 6=144", "has 3=0, which is 1 at least"),
        ("Convolution y 1 1 x y 0=4 1=3 12=0 6=144", "has 2=0, which is 1 at least"),
        ("Convolution y 1 1 x y 0=4 1=3 5=2 6=144", "has 5=2, which is 0 or 1"),
        ("Convolution y 1 1 x y 0=4 1=3 4=-1 6=144", "the padding"),
        ("Convolution y 1 1 x y 0=4 1=3 4=-233 14=0 6=144", "the padding"),
        ("Convolution y 1 1 x y 0=4 1=3 2=4 6=144", "windows of .9, 9. in a map of .6, 8."),
        ("Convolution y 1 1 x y 0=4 1=3 6=144 9=7", "the activation 7"),
        ("Convolution y 1 1 x y 0=4 1=3 6=144 9=3 -23310=1,0.0", "1 parameters of its activation"),
        ("Convolution y 1 1 x y 0=4 1=3 6=144 9=3 -23310=2,0,6", "a value 10="),
        ("Convolution y 1 1 x y 0=4 1=3 6=144 8=1", "has int8 weights"),
        ("Convolution y 1 1 x y 0=4 1=3 6=144 19=1", "a value 19=1"),
        ("Convolution y 1 1 x y 0=4 1=1 3=3 11=5 4=-233 6=80", "narrower than their strides"),
        ("ConvolutionDepthWise y 1 1 x y 0=4 1=3 6=36 7=3", "3 groups, which do not divide"),
        ("ConvolutionDepthWise y 1 1 x y 0=6 1=3 6=36 7=4", "4 groups, which do not divide"),
        ("ConvolutionDepthWise y 1 1 x y 0=4 1=3 6=36 7=0", "has 7=0"),
        ("InnerProduct y 1 1 x y 0=2 2=4", "has 4 weights, .* need 384"),
        ("InnerProduct y 1 1 x y 0=2 2=384 8=2", "has int8 weights"),
        ("BatchNorm y 1 1 x y 0=3", "has 3 weights, .* need 4"),
        ("Pooling y 1 1 x y 0=2 1=2", "has 0=2, which is 0 or 1"),
        ("Pooling y 1 1 x y 0=0 1=2 5=4", "unknown padding"),
        ("Pooling y 1 1 x y 0=0 1=2 3=-1 5=1", "unknown padding"),
        ("Pooling y 1 1 x y 0=0 1=9 5=1", "windows of .9, 9."),
        ("Pooling y 1 1 x y 0=0 1=9", "windows of .9, 9."),
        ("Pooling y 1 1 x y 0=0 7=1 8=0", "has 8=0, which is 1 at least"),
        ("BinaryOp y 1 1 x y 0=0", "another number of inputs"),
        ("BinaryOp y 1 1 x y 0=12 1=1 2=1.0", "the operation 12"),
        ("UnaryOp y 1 1 x y 0=20", "the operation 20"),
        ("Eltwise y 1 1 x y 0=1", "unknown operation or inputs"),
        ("Softmax y 1 1 x y 0=3 1=1", "names the axis 3 of 3"),
        ("Softmax y 1 1 x y 0=1", "of an old ncnn"),
        ("Reshape y 1 1 x y", "does not state its sizes"),
        ("Reshape y 1 1 x y 1=8", "does not state its sizes"),
        ("Reshape y 1 1 x y 0=191", "makes .191. of the shape"),
        ("Reshape y 1 1 x y 0=-1 1=-1", "makes .-1, -1. of the shape"),
        ("Reshape y 1 1 x y 0=-1 1=7", "makes .-1, 7. of the shape"),
        ("Reshape y 1 1 x y 0=-2 1=-96", "makes"),
        ("Concat y 1 1 x y 0=3", "names the axis 3 of 3"),
        ("Padding y 1 1 x y 0=-1", "has 0=-1, which is 0 at least"),
        ("Padding y 1 1 x y 0=6 4=2", "reflects more than there is"),
        ("Padding y 1 1 x y 6=4", "pads channels"),
        ("Padding y 1 1 x y 7=1", "pads channels"),
        ("Padding y 1 1 x y 4=3", "unknown way to pad"),
        ("Permute y 1 1 x y 0=6", "the order 6 for 3 axes"),
        ("Squeeze y 1 1 x y -23303=1,3", "names the axis 3 of 3"),
        ("ExpandDims y 1 1 x y -23303=1,0", "adds the axes"),
        ("ExpandDims y 1 1 x y", "adds the axes"),
        ("ShuffleChannel y 1 1 x y 0=3", "3 groups, which do not divide"),
    ],
)
def test_values_and_shapes_that_do_not_fit_together_are_refused(layer: Any, words: Any) -> None:
    with pytest.raises(ModelRejectedError, match=words) as refusal:
        scan_bytes(ncnn_model([INPUT, layer], b""))

    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("first", "second", "layer"),
    [
        ("0=8 1=6 2=4", "0=8 1=5 2=4", "BinaryOp y 2 1 x z y 0=0"),
        ("0=8 1=1 2=4", "0=1 1=6 2=4", "BinaryOp y 2 1 x z y 0=0"),
        ("0=8 1=6 2=4", "0=8", "BinaryOp y 2 1 x z y 0=0"),
        ("0=8 1=6 2=4", "0=6 1=4", "BinaryOp y 2 1 x z y 0=0"),
        ("0=8 1=6 2=4", "0=8 1=6 2=5", "Eltwise y 2 1 x z y 0=1"),
        ("0=8 1=6 2=4", "0=8 1=6 2=4", "Eltwise y 2 1 x z y 0=1 -23301=1,1.0"),
        ("0=8 1=6 2=4", "0=8 1=5 2=4", "Concat y 2 1 x z y 0=0"),
        ("0=8 1=6 2=4", "0=8 1=6", "Concat y 2 1 x z y 0=0"),
    ],
)
def test_inputs_of_shapes_that_do_not_fit_are_refused(first: Any, second: Any, layer: Any) -> None:
    lines = [f"Input x 0 1 x {first}", f"Input z 0 1 z {second}", layer]

    with pytest.raises(ModelRejectedError, match=r"the layer \w+ 'y' of the model"):
        scan_bytes(ncnn_model(lines, b""))


# ---- weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [-4, -1, 1, 4])
def test_weights_are_as_many_bytes_as_the_layers_need(more: int) -> None:
    lines = [INPUT, f"Convolution y 1 1 x y {CONVOLUTION}"]
    weights = matrix(144, bias=4)
    scan_bytes(ncnn_model(lines, weights))

    with pytest.raises(ModelRejectedError, match=f"has {596 + more} bytes, .* need 596"):
        scan_bytes(ncnn_model(lines, (weights + bytes(4))[: 596 + more]))


@pytest.mark.parametrize(
    ("mark", "form"),
    [
        (0x01306B47, "float16"),
        (0x000D4B38, "int8"),
        (0x0002C056, "of an unknown form"),
        (1, "of an unknown form"),
    ],
)
def test_weights_that_are_not_float32_are_refused_by_their_form(mark: int, form: str) -> None:
    lines = [
        INPUT,
        f"Convolution z 1 1 x z {CONVOLUTION}",
        "InnerProduct y 1 1 z y 0=2 1=0 2=192",
    ]
    weights = matrix(144, bias=4) + struct.pack("<I", mark) + floats(192)

    with pytest.raises(ModelRejectedError, match=f"are {form}, and only float32"):
        scan_bytes(ncnn_model(lines, weights))


# ---- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "limits", "words"),
    [
        ([INPUT], {"max_bytes": 100}, "this device takes 100: .* models.max_bytes"),
        ([INPUT, "ReLU y 1 1 x y"], {"max_nodes": 1}, "has 2 layers.* models.max_nodes"),
        ([INPUT, "ReLU y 1 1 x y"], {"max_chain": 1}, "layers in a row.* models.max_chain"),
        ([INPUT], {"max_elements": 191}, "an array of 192 elements.* models.max_elements"),
        (["Input x 0 1 x 0=65536 1=65536"], {}, "an array of 4294967296 elements"),
        (["Input x 0 1 x 0=2147483647 1=2147483647 2=2147483647"], {}, r"of 9\.9e\+27 elements"),
        (
            [INPUT, "Padding y 1 1 x y 0=2147483647"],
            {},
            "an array of 68719476896 elements",
        ),
        # What comes out is small, and what is padded for it is not.
        (
            [INPUT, "Pooling y 1 1 x y 0=0 1=1 2=1000000000 3=1000000000 5=1"],
            {},
            "needs an array of",
        ),
    ],
)
def test_more_than_a_device_takes_is_refused(lines: Any, limits: Any, words: Any) -> None:
    with pytest.raises(ModelRejectedError, match=words):
        scan_bytes(ncnn_model(lines, b""), **limits)


def test_a_convolution_s_padding_is_counted() -> None:
    padded = "3=1000000000 4=1000000000 13=1 14=0"

    with pytest.raises(ModelRejectedError, match="needs an array of"):
        scan_bytes(ncnn_model([INPUT, f"Convolution y 1 1 x y 0=1 1=1 {padded} 6=4"], b""))


# ---- ncnn computes what the scan tells --------------------------------------------------------

# Lines after the input, 4 x 6 x 8 where nothing else is said, and their weights.
LAYERS: dict[str, tuple[list[str], bytes]] = {
    "Convolution": ([f"Convolution y 1 1 x y {CONVOLUTION}"], matrix(144, 4)),
    "strides and sides": (
        ["Convolution y 1 1 x y 0=5 1=3 11=1 3=2 13=3 4=1 14=0 15=2 16=1 5=0 6=60"],
        matrix(60),
    ),
    "dilation": (["Convolution y 1 1 x y 0=4 1=3 2=2 6=144 5=1 4=2"], matrix(144, 4)),
    "SAME": (["Convolution y 1 1 x y 0=4 1=3 3=2 4=-233 6=144"], matrix(144)),
    "SAME below": (["Convolution y 1 1 x y 0=4 1=3 3=2 4=-234 6=144"], matrix(144)),
    "one axis": (
        ["Flatten z 1 1 x z", "Convolution y 1 1 z y 0=3 1=1 5=1 6=576"],
        matrix(576, 3),
    ),
    **{
        f"activation {kind}": (
            [f"Convolution y 1 1 x y {CONVOLUTION} 9={kind} {parameters}".rstrip()],
            matrix(144, 4),
        )
        for kind, parameters in enumerate(
            ("", "", "-23310=1,0.1", "-23310=2,0.0,6.0", "", "", "-23310=2,0.16666667,0.5")
        )
    },
    "ConvolutionDepthWise": (
        ["ConvolutionDepthWise y 1 1 x y 0=4 1=3 4=1 5=1 6=36 7=4"],
        matrix(36, 4),
    ),
    "groups": (["ConvolutionDepthWise y 1 1 x y 0=8 1=3 5=0 6=144 7=2"], matrix(144)),
    "InnerProduct": (["InnerProduct y 1 1 x y 0=2 1=1 2=384"], matrix(384, 2)),
    "rows": (
        ["Reshape z 1 1 x z 0=8 1=24", "InnerProduct y 1 1 z y 0=3 1=1 2=24"],
        matrix(24, 3),
    ),
    "flat rows": (
        ["Reshape z 1 1 x z 0=8 1=24", "InnerProduct y 1 1 z y 0=3 1=0 2=576"],
        matrix(576),
    ),
    "BatchNorm": (["BatchNorm y 1 1 x y 0=4 1=0.1"], floats(8) + struct.pack("<8f", *[1.0] * 8)),
    "Pooling": (["Pooling y 1 1 x y 0=0 1=2 2=2 5=1"], b""),
    "average": (["Pooling y 1 1 x y 0=1 1=3 2=2 3=1 5=1 6=0"], b""),
    "full windows": (["Pooling y 1 1 x y 0=0 1=3 2=2"], b""),
    "SAME windows": (["Pooling y 1 1 x y 0=0 1=3 2=2 5=2"], b""),
    "SAME windows below": (["Pooling y 1 1 x y 0=1 1=3 2=2 5=3"], b""),
    "global": (["Pooling y 1 1 x y 0=1 4=1"], b""),
    "adaptive": (["Pooling y 1 1 x y 0=1 7=1 8=3 18=-233"], b""),
    "BinaryOp": (["Split s 1 2 x a b", "BinaryOp y 2 1 a b y 0=2"], b""),
    "scalar": (["BinaryOp y 1 1 x y 0=1 1=1 2=0.5"], b""),
    "gate": (
        ["Split s 1 2 x a b", "Pooling g 1 1 a g 0=1 4=1", "BinaryOp y 2 1 b g y 0=2"],
        b"",
    ),
    "gate first": (
        ["Split s 1 2 x a b", "Pooling g 1 1 a g 0=1 7=1 8=1", "BinaryOp y 2 1 g b y 0=1"],
        b"",
    ),
    "Eltwise": (["Split s 1 3 x a b c", "Eltwise y 3 1 a b c y 0=1 -23301=3,1.0,2.0,3.0"], b""),
    "Split": (["Split s 1 3 x y z w"], b""),
    "Flatten": (["Flatten y 1 1 x y"], b""),
    "Reshape": (["Reshape y 1 1 x y 0=0 1=-1 2=8"], b""),
    "Concat": (["Split s 1 2 x a b", "Concat y 2 1 a b y 0=0"], b""),
    "last axis": (["Split s 1 2 x a b", "Concat y 2 1 a b y 0=-1"], b""),
    "Padding": (["Padding y 1 1 x y 0=1 1=2 2=3 3=4 4=0 5=1.5"], b""),
    "reflection": (["Padding y 1 1 x y 0=1 1=2 2=3 3=4 4=2"], b""),
    "Permute": (["Permute y 1 1 x y 0=3"], b""),
    "Squeeze": (["Pooling z 1 1 x z 0=1 7=1 8=1", "Squeeze y 1 1 z y 0=1 1=1"], b""),
    "ExpandDims": (["Flatten z 1 1 x z", "ExpandDims y 1 1 z y -23303=2,0,-1"], b""),
    "ShuffleChannel": (["ShuffleChannel y 1 1 x y 0=2"], b""),
    "Softmax": (["Softmax y 1 1 x y 0=-1 1=1"], b""),
    "UnaryOp": (["UnaryOp y 1 1 x y 0=7"], b""),
    "Clip": (["Clip y 1 1 x y 0=0.0 1=6.0"], b""),
    "ReLU": (["ReLU y 1 1 x y 0=0.1"], b""),
    "HardSwish": (["HardSwish y 1 1 x y 0=0.16666667 1=0.5"], b""),
    "HardSigmoid": (["HardSigmoid y 1 1 x y 0=0.16666667 1=0.5"], b""),
    "ELU": (["ELU y 1 1 x y 0=1.0"], b""),
    "SELU": (["SELU y 1 1 x y"], b""),
    "GELU": (["GELU y 1 1 x y 0=1"], b""),
    "Dropout": (["Dropout y 1 1 x y"], b""),
    **{
        kind: ([f"{kind} y 1 1 x y"], b"")
        for kind in ("Sigmoid", "Swish", "TanH", "AbsVal", "Mish", "Noop")
    },
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_ncnn_computes_the_shapes_that_the_scan_tells(name: str, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    lines, weights = LAYERS[name]
    path = tmp_path / "model"
    path.write_bytes(ncnn_model([INPUT, *lines], weights))
    told = scan_file(path, ScanLimits()).outputs
    try:
        runtime = open_runtime("ncnn")
    except NoRuntimeError as error:
        pytest.skip(str(error))

    model = runtime.load(path, ModelRun("", 0, "ncnn", 1))
    model.make_inputs(1)
    model.run()
    outputs = model.outputs()

    assert {name: value.shape for name, value in outputs.items()} == {
        name: (1, *shape) for name, shape in told.items()
    }
    assert all(np.isfinite(value).all() for value in outputs.values())


def test_every_known_type_is_among_those_that_ncnn_was_seen_to_compute() -> None:
    seen = {line.split()[0] for lines, _ in LAYERS.values() for line in lines}

    assert KNOWN_LAYERS - {"Input"} == seen


def test_a_refusal_is_json_safe() -> None:
    """It goes to the host as it is."""
    with pytest.raises(ModelRejectedError) as refusal:
        scan_bytes(ncnn_model([INPUT, 'ReLU "\\ 1 1 z y'], b""))

    assert json.loads(json.dumps(str(refusal.value))) == str(refusal.value)
