"""What a TFLite file says about itself is read back, and changes nothing of what it computes."""

import contextlib

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.tflite_graph import kernels_from_tflite
from device_agent.scan_limits import ScanLimits
from device_agent.tflite_scan import scan_bytes
from host.network.graph import Conv, GlobalPool, Linear, NetworkBuilder
from host.network.tflite_metadata import (
    NotTfliteError,
    tflite_metadata_of,
    with_tflite_metadata,
    without_tflite_metadata,
)
from host.network.tflite_model import tflite_bytes
from host.network.weights import random_weights

ENTRIES = {
    "classes": "good\n傷",
    "colour_order": "RGB",
    "input_size": "6x8",
    "mean": "[0.5, 0.4, 0.25]",
    "std": "[0.2, 0.3, 1.0]",
    "study": "cells",
    "candidate": "r32 w0.5",
    "license": "CC0",
    "author": "plant 3",
    "version": "7",
}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def small() -> bytes:
    b = NetworkBuilder((3, 6, 8))
    index = b.add(GlobalPool(), b.conv(0, Conv(4, 3, 2), "relu"))
    network = b.build(b.add(Linear(2), index))
    return tflite_bytes(network, random_weights(network, seed=0))


BARE = small()


def answer(data: bytes):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    x = np.random.default_rng(0).standard_normal((1, 6, 8, 3), dtype=np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist()


class Reader:
    """Reads the metadata by slots, as tflite-support's and Netron's generated readers do."""

    def __init__(self, table):
        self.table = table

    @classmethod
    def of(cls, data: bytes):
        model = schema.Model.GetRootAs(data, 0)
        entries = {model.Metadata(i).Name(): model.Metadata(i) for i in range(2)}
        content = model.Buffers(entries[b"TFLITE_METADATA"].Buffer()).DataAsNumpy().tobytes()
        assert content[4:8] == b"M001"
        start = int.from_bytes(content[:4], "little")
        return cls(flatbuffers.table.Table(bytearray(content), start))

    def _at(self, slot):
        return self.table.Offset(4 + 2 * slot)

    def text(self, slot):
        offset = self._at(slot)
        return self.table.String(offset + self.table.Pos).decode() if offset else None

    def byte(self, slot):
        return self.table.Bytes[self._at(slot) + self.table.Pos]

    def number(self, slot):
        place = self._at(slot) + self.table.Pos
        return int.from_bytes(self.table.Bytes[place : place + 4], "little")

    def child(self, slot):
        place = self.table.Indirect(self._at(slot) + self.table.Pos)
        return Reader(flatbuffers.table.Table(self.table.Bytes, place))

    def first(self, slot):
        place = self.table.Indirect(self.table.Vector(self._at(slot)))
        return Reader(flatbuffers.table.Table(self.table.Bytes, place))

    def floats(self, slot):
        offset = self._at(slot)
        start, count = self.table.Vector(offset), self.table.VectorLen(offset)
        return np.frombuffer(bytes(self.table.Bytes[start : start + 4 * count]), "<f4").tolist()

    def has(self, slot):
        return self._at(slot) != 0


def test_readers_of_tflite_find_name_licence_labels_and_normalisation():
    model = Reader.of(with_tflite_metadata(BARE, ENTRIES))

    assert [model.text(slot) for slot in (0, 1, 2, 4, 5)] == [
        "cells",
        "r32 w0.5",
        "7",
        "plant 3",
        "CC0",
    ]
    graph = model.first(3)
    read, written = graph.first(2), graph.first(3)
    assert (read.text(0), written.text(0)) == ("input", "logits")
    assert written.text(1) == "logits of good, 傷"
    content = read.child(3)
    assert content.byte(0) == 2  # ImageProperties
    image = content.child(1)
    assert (image.byte(0), image.child(1).number(0), image.child(1).number(1)) == (1, 8, 6)
    unit = read.first(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    np.testing.assert_allclose(unit.child(1).floats(0), [127.5, 102, 63.75])
    np.testing.assert_allclose(unit.child(1).floats(1), [51, 76.5, 255])


def test_signals_are_no_images_and_keep_their_units():
    model = Reader.of(with_tflite_metadata(BARE, {"mean": "[0.5]", "std": "[2.0]"}))

    read = model.first(3).first(2)
    assert not read.has(3)
    assert read.first(4).child(1).floats(0) == [0.5]
    assert model.text(0) is None


@settings(max_examples=50)
@given(st.dictionaries(texts, texts, max_size=5), st.dictionaries(texts, texts, max_size=5))
def test_entries_come_back_and_the_file_inside_stays_whole(first, second):
    for reserved in ("mean", "std", "input_size", "colour_order"):
        first.pop(reserved, None)
        second.pop(reserved, None)

    once = with_tflite_metadata(BARE, first)
    twice = with_tflite_metadata(once, second)

    assert tflite_metadata_of(once) == first
    assert tflite_metadata_of(twice) == first | second
    assert twice == with_tflite_metadata(BARE, first | second)
    assert without_tflite_metadata(twice) == BARE


def test_a_file_with_metadata_computes_what_it_did_from_constants_that_lie_as_before():
    said = with_tflite_metadata(BARE, ENTRIES)

    assert answer(said) == answer(BARE)
    assert said.find(BARE) % 16 == 0
    assert kernels_from_tflite(said) == kernels_from_tflite(BARE)
    assert Interpreter(model_content=said).get_signature_list() == {
        "serving_default": {"inputs": ["input"], "outputs": ["logits"]}
    }


def test_the_agent_takes_it():
    assert scan_bytes(with_tflite_metadata(BARE, ENTRIES), ScanLimits()) == scan_bytes(
        BARE, ScanLimits()
    )


def test_a_file_without_metadata_has_none():
    assert tflite_metadata_of(BARE) == {}
    assert without_tflite_metadata(BARE) == BARE


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08TFL4" + bytes(40)])
def test_bytes_that_are_no_file_are_refused(content):
    for act in (tflite_metadata_of, without_tflite_metadata):
        with pytest.raises(NotTfliteError, match="no TFLite file"):
            act(content)
    with pytest.raises(NotTfliteError):
        with_tflite_metadata(content, {"a": "b"})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read(data):
    said = bytearray(with_tflite_metadata(BARE, ENTRIES))
    for _ in range(data.draw(st.integers(1, 4))):
        said[data.draw(st.integers(8, len(said) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(said[: data.draw(st.integers(8, len(said)))])

    for act in (tflite_metadata_of, without_tflite_metadata):
        with contextlib.suppress(NotTfliteError):
            act(cut)
