"""The container of an ncnn model, and ncnn's text in it."""

import io
import zipfile

import pytest

from host.network.ncnn_file import (
    NcnnLayer,
    NcnnModel,
    NotNcnnError,
    input_shapes_of,
    is_ncnn_file,
    layers_of,
    ncnn_file,
    outputs_of,
    param_text,
    read_ncnn_file,
    with_ncnn_metadata,
    without_ncnn_metadata,
)
from host.network.ncnn_layers import check_weights

LAYERS = (
    NcnnLayer("Input", "input", (), ("input",), {0: 4, 1: 2, 2: 3}),
    NcnnLayer("Clip", "n1", ("input",), ("n1",), {0: 0.0, 1: 6.0}),
    NcnnLayer("InnerProduct", "logits", ("n1",), ("logits",), {0: 2, 1: 1, 2: 48, 10: (0.0, 6.0)}),
)
MODEL = NcnnModel(param_text(LAYERS), bytes(4 + 4 * 50), {"classes": "良品\nNG", "study": "s"})


def test_what_is_written_is_read_again():
    assert read_ncnn_file(ncnn_file(MODEL)) == MODEL
    assert layers_of(MODEL.param) == LAYERS


def test_equal_models_are_equal_bytes():
    other = NcnnModel(
        MODEL.param, MODEL.weights, dict(sorted(MODEL.metadata.items(), reverse=True))
    )

    assert ncnn_file(MODEL) == ncnn_file(other)


def test_the_zip_is_uncompressed_and_holds_the_text_first():
    content = ncnn_file(MODEL)

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == ["model.param", "model.bin", "metadata.json"]
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert not any(entry.extra for entry in entries)


def test_metadata_are_added_replaced_and_taken_away():
    bare = ncnn_file(NcnnModel(MODEL.param, MODEL.weights))

    said = with_ncnn_metadata(with_ncnn_metadata(bare, {"a": "1", "b": "2"}), {"a": "3"})

    assert read_ncnn_file(said).metadata == {"a": "3", "b": "2"}
    assert without_ncnn_metadata(said) == bare


def test_a_blob_with_several_readers_is_split():
    layers = (
        NcnnLayer("Input", "x", (), ("x",)),
        NcnnLayer("ReLU", "a", ("x",), ("a",)),
        NcnnLayer("BinaryOp", "b", ("a", "x"), ("b",), {0: 0}),
    )

    written = layers_of(param_text(layers))

    assert [(one.type, one.inputs, one.outputs) for one in written[1:]] == [
        ("Split", ("x",), ("x.0", "x.1")),
        ("ReLU", ("x.0",), ("a",)),
        ("BinaryOp", ("a", "x.1"), ("b",)),
    ]


def test_a_text_tells_the_input_and_the_output():
    assert input_shapes_of(LAYERS) == {"input": (3, 2, 4)}
    assert outputs_of(LAYERS) == ("logits",)


def zipped(names, compression=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name in names:
            archive.writestr(name, "{}")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no .ncnn file"),
        (b"TFL3", "no .ncnn file"),
        (zipped(["model.bin", "model.param"]), "no .ncnn file"),
        (zipped(["model.param"]), "damaged"),
        (zipped(["model.param", "model.bin", "run.py"]), "damaged"),
        (zipped(["model.param", "model.bin"], zipfile.ZIP_DEFLATED), "damaged"),
        (ncnn_file(MODEL)[:-40], "damaged"),
        (ncnn_file(MODEL)[:200], "damaged"),
    ],
    ids=["nothing", "tflite", "order", "no weights", "more", "compressed", "end", "half"],
)
def test_what_is_no_whole_container_is_refused(content, words):
    with pytest.raises(NotNcnnError, match=words):
        read_ncnn_file(content)


def test_a_container_is_told_by_how_it_begins():
    assert is_ncnn_file(ncnn_file(MODEL))
    assert not is_ncnn_file(zipped(["manifest.json"]))
    assert not is_ncnn_file(b"PK\3\4")


@pytest.mark.parametrize(
    "text",
    ["", "7767517", "7767517\n2 1\nInput x 0 1 x\n", "1\n1 1\nInput x 0 1 x\n", "7767517\n1 1\nA"],
)
def test_a_text_that_is_not_ncnns_is_refused(text):
    with pytest.raises(NotNcnnError, match="not ncnn's"):
        layers_of(text)


@pytest.mark.parametrize("size", [0, 203, 205])
def test_weights_of_another_length_are_refused(size):
    with pytest.raises(NotNcnnError, match="its layers read 204"):
        check_weights(NcnnModel(MODEL.param, bytes(size)), LAYERS)
