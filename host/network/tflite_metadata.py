"""What a TFLite file says about itself: as TFLite's own metadata, and as genba's key and values.

`TFLITE_METADATA` is the flatbuffer that tflite-support reads and Netron shows; its slots are those
of tensorflow/tflite-support, metadata_schema.fbs. Entries of these keys appear there too: `name`,
`description`, `version`, `author`, `license`, `classes` (one name a line), `colour_order` and
`input_size` ("HxW") of images, `mean` and `std` (JSON lists; those of images for pixels between 0
and 1).

All entries stand, as JSON, in a second one. The file that they were added to stays whole inside the
new one, each constant as far from a multiple of 16 bytes as before: it computes, and takes the
time, that it did.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
from tflite.Model import Model

from host.errors import GenbaError
from host.network.tflite_tables import IDENTIFIER, table, tables

STANDARD_ENTRY = "TFLITE_METADATA"
OWN_ENTRY = "GENBA_METADATA"

_STANDARD_IDENTIFIER = b"M001"
_ALIGNMENT = 16
_IMAGE_PROPERTIES, _NORMALISATION = 2, 1  # of the unions ContentProperties and ProcessUnitOptions
_COLOURS = {"RGB": 1, "grey": 2}
_DAMAGE = (struct.error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class NotTfliteError(GenbaError):
    """Bytes that are no TFLite file, or one whose constants lie behind its tables."""


def with_tflite_metadata(model: bytes, entries: Mapping[str, str]) -> bytes:
    """The same file with these entries added, replacing those of the same key.

    Raises NotTfliteError where the bytes are no TFLite file.
    """
    merged = tflite_metadata_of(model) | dict(entries)
    bare = without_tflite_metadata(model)
    try:
        return _wrapped(bare, merged)
    except _DAMAGE as error:
        raise _damaged() from error


def tflite_metadata_of(model: bytes) -> dict[str, str]:
    """The entries of a file, none where it was given none.

    Raises NotTfliteError where the bytes are no TFLite file.
    """
    document = _own_document(model)
    return {} if document is None else {str(k): str(v) for k, v in document["entries"].items()}


def without_tflite_metadata(model: bytes) -> bytes:
    """The file as it was before it was given entries, byte for byte.

    Raises NotTfliteError where the bytes are no TFLite file.
    """
    document = _own_document(model)
    if document is None:
        return model
    size = int(document["model_bytes"])
    start = len(model) - _padded(size)
    if size < 8 or start < 0:
        raise _damaged()
    return model[start : start + size]


def _own_document(model: bytes) -> dict[str, Any] | None:
    """What `_wrapped` wrote; None where it never was at work."""
    if model[4:8] != IDENTIFIER:
        raise NotTfliteError("these bytes are no TFLite file: export it again")
    try:
        root = Model.GetRootAs(model, 0)
        for index in range(root.MetadataLength()):
            entry = root.Metadata(index)
            if entry.Name() == OWN_ENTRY.encode():
                content = root.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
                document: dict[str, Any] = json.loads(content)
                return {
                    "entries": dict(document["entries"]),
                    "model_bytes": int(document["model_bytes"]),
                }
    except _DAMAGE as error:
        raise _damaged() from error
    return None


def _wrapped(bare: bytes, entries: Mapping[str, str]) -> bytes:
    """The file with another root in front, which refers to all that the old one did."""
    old = Model.GetRootAs(bare, 0)
    if any(old.Buffers(index).Offset() > 1 for index in range(old.BuffersLength())):
        raise NotTfliteError("a TFLite file of more than 2 GB takes no metadata")
    end = _padded(len(bare))
    builder = _builder_before(bare)
    own = {"entries": dict(sorted(entries.items())), "model_bytes": len(bare)}
    added = {
        STANDARD_ENTRY: _standard(entries, old),
        OWN_ENTRY: json.dumps(own, ensure_ascii=False, indent=1).encode(),
    }
    buffers = [end - _place(old.Buffers(index)) for index in range(old.BuffersLength())]
    described = [end - _place(entry) for entry in _kept(old)]
    for name, content in added.items():
        text = builder.CreateString(name)
        described.append(table(builder, "Metadata", Name=text, Buffer=len(buffers)))
        buffers.append(table(builder, "Buffer", Data=builder.CreateByteVector(content)))
    fields = {
        name: end - place
        for name, slot in _VECTORS.items()
        if (place := _place_in(old, slot)) is not None
    }
    model = table(
        builder,
        "Model",
        **fields,
        Buffers=tables(builder, buffers),
        Metadata=tables(builder, described),
        Version=old.Version(),
    )
    builder.Finish(model, IDENTIFIER)
    return bytes(builder.Output())


_VECTORS = {"OperatorCodes": 1, "Subgraphs": 2, "Description": 3, "SignatureDefs": 7}
"""What the new root takes over, by its slot."""


def _builder_before(bare: bytes) -> Any:
    """A builder whose output ends in these bytes: it writes from behind."""
    size = _padded(len(bare))
    builder: Any = flatbuffers.Builder(size + (1 << 16))
    builder.Prep(_ALIGNMENT, size)
    builder.head -= size
    builder.Bytes[builder.head : builder.head + len(bare)] = bare
    return builder


def _place(found: Any) -> int:
    """Where a table lies; the schema's package has no other way to tell."""
    return int(found._tab.Pos)  # noqa: SLF001


def _place_in(model: Model, slot: int) -> int | None:
    """Where a vector or text of the root lies."""
    tab = model._tab  # noqa: SLF001
    offset = tab.Offset(4 + 2 * slot)
    return int(tab.Indirect(tab.Pos + offset)) if offset else None


def _kept(model: Model) -> list[Any]:
    """The entries of others; a converter's own description gives way to ours."""
    entries = [model.Metadata(index) for index in range(model.MetadataLength())]
    return [entry for entry in entries if entry.Name() != STANDARD_ENTRY.encode()]


def _standard(entries: Mapping[str, str], model: Model) -> bytes:
    """A ModelMetadata of these entries."""
    builder: Any = flatbuffers.Builder(1024)
    graph = model.Subgraphs(0)
    input_, output = (
        graph.Tensors(index).Name().decode() for index in (graph.Inputs(0), graph.Outputs(0))
    )
    classes = entries.get("classes", "").splitlines()
    meaning = f"logits of {', '.join(classes)}" if classes else "logits"
    name = _text(builder, input_)
    content, units = _content(builder, entries), _units(builder, entries)
    reads = _offsets(builder, {0: name, 3: content, 4: units})
    writes = _offsets(builder, {0: _text(builder, output), 1: _text(builder, meaning)})
    graphs = _offsets(builder, {2: tables(builder, [reads]), 3: tables(builder, [writes])})
    root = _offsets(
        builder,
        {
            0: _text(builder, entries.get("name") or entries.get("study")),
            1: _text(builder, entries.get("description") or entries.get("candidate")),
            2: _text(builder, entries.get("version")),
            3: tables(builder, [graphs]),
            4: _text(builder, entries.get("author")),
            5: _text(builder, entries.get("license")),
            7: _text(builder, "1.0.0"),
        },
    )
    builder.Finish(root, _STANDARD_IDENTIFIER)
    return bytes(builder.Output())


def _content(builder: Any, entries: Mapping[str, str]) -> int | None:
    """That the input is an image, of which colours and size; None for a signal."""
    colour = _COLOURS.get(entries.get("colour_order", ""))
    if colour is None:
        return None
    size = None
    if "input_size" in entries:
        height, width = (int(side) for side in entries["input_size"].split("x"))
        builder.StartObject(2)
        builder.PrependUint32Slot(0, width, 0)
        builder.PrependUint32Slot(1, height, 0)
        size = builder.EndObject()
    image = _offsets(builder, {1: size}, number=(0, colour))
    return _offsets(builder, {1: image}, number=(0, _IMAGE_PROPERTIES))


def _units(builder: Any, entries: Mapping[str, str]) -> int | None:
    """How values are normalised; pixels go from 0 to 255 here."""
    if "mean" not in entries or "std" not in entries:
        return None
    unit = 255.0 if "colour_order" in entries else 1.0
    mean, std = (_floats(builder, unit, json.loads(entries[key])) for key in ("mean", "std"))
    options = _offsets(builder, {0: mean, 1: std})
    return tables(builder, [_offsets(builder, {1: options}, number=(0, _NORMALISATION))])


def _floats(builder: Any, unit: float, of_unit: Sequence[float]) -> int:
    values = [unit * float(value) for value in of_unit]
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    place: int = builder.EndVector()
    return place


def _text(builder: Any, text: str | None) -> int | None:
    return None if text is None else builder.CreateString(text)


def _offsets(
    builder: Any, slots: Mapping[int, int | None], *, number: tuple[int, int] | None = None
) -> int:
    """A table of what lies elsewhere, by slot, and perhaps one byte in a slot of its own."""
    builder.StartObject(8)
    if number is not None:
        builder.PrependUint8Slot(*number, 0)
    for slot, place in slots.items():
        if place is not None:
            builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    made: int = builder.EndObject()
    return made


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _damaged() -> NotTfliteError:
    return NotTfliteError("this TFLite file is damaged: export it again")
