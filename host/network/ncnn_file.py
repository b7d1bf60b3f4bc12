"""The one file in which genba keeps an ncnn model: ncnn itself wants two, a text and the weights.

It is a ZIP without compression that holds `model.param` (the layers, as ncnn's text), `model.bin`
(the weights) and, where there is something to say, `metadata.json`. Equal content is equal bytes.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from host.errors import GenbaError

MAGIC = "7767517"  # ncnn's src/net.cpp, Net::load_param
PARAM, WEIGHTS, METADATA = "model.param", "model.bin", "metadata.json"

_LOCAL_HEADER = b"PK\3\4"
_NAME_AT = 30  # in the header that a ZIP begins with
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # ZIP knows no earlier time
_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError)
_NO_TEXT = "the text of this .ncnn file is not ncnn's: export it again"

Value = int | float | tuple[int | float, ...]


class NotNcnnError(GenbaError):
    """Bytes that are no ncnn model in genba's container."""


@dataclass(frozen=True)
class NcnnModel:
    """What a file holds. `metadata` is what it says about itself."""

    param: str
    weights: bytes = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NcnnLayer:
    """A layer of the text: its type, the blobs it reads and writes, and its parameters by number.

    What the numbers mean stands in ncnn's docs/developer-guide/operators.md.
    """

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, Value] = field(default_factory=dict)


def ncnn_file(model: NcnnModel) -> bytes:
    """The container of a model."""
    files = {PARAM: model.param.encode(), WEIGHTS: model.weights}
    if model.metadata:
        files[METADATA] = json.dumps(
            dict(sorted(model.metadata.items())), ensure_ascii=False, indent=1
        ).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _TIMESTAMP)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def is_ncnn_file(content: bytes) -> bool:
    """Whether bytes begin as a container does."""
    name = PARAM.encode()
    return content.startswith(_LOCAL_HEADER) and content[_NAME_AT:].startswith(name)


def read_ncnn_file(content: bytes) -> NcnnModel:
    """What a container holds. Raises NotNcnnError where it is none, or damaged."""
    if not is_ncnn_file(content):
        raise NotNcnnError("these bytes are no .ncnn file: export it again")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            _check_entries(entries, len(content))
            files = {entry.filename: archive.read(entry) for entry in entries}
        param = files[PARAM].decode()
        metadata = json.loads(files.get(METADATA, b"{}"))
    except (*_DAMAGE, RecursionError) as error:
        raise NotNcnnError("this .ncnn file is damaged or only a part: export it again") from error
    if not isinstance(metadata, dict):
        raise NotNcnnError(f"{METADATA} of this .ncnn file is no table: export it again")
    return NcnnModel(param, files[WEIGHTS], {str(k): str(v) for k, v in metadata.items()})


def with_ncnn_metadata(content: bytes, entries: Mapping[str, str]) -> bytes:
    """The same file with these entries added, replacing those of the same key.

    Raises NotNcnnError where the bytes are no container.
    """
    model = read_ncnn_file(content)
    return ncnn_file(replace(model, metadata={**model.metadata, **entries}))


def without_ncnn_metadata(content: bytes) -> bytes:
    """The same file without entries. Raises NotNcnnError where the bytes are no container."""
    return ncnn_file(replace(read_ncnn_file(content), metadata={}))


def param_text(layers: Iterable[NcnnLayer]) -> str:
    """ncnn's text of these layers.

    A blob that several layers read goes through a Split first: in ncnn a blob has one reader.
    """
    split = list(_with_splits(tuple(layers)))
    blobs = sum(len(layer.outputs) for layer in split)
    lines = [MAGIC, f"{len(split)} {blobs}", *(_line(layer) for layer in split)]
    return "\n".join(lines) + "\n"


def layers_of(param: str) -> tuple[NcnnLayer, ...]:
    """The layers of ncnn's text. Raises NotNcnnError for a text that is none."""
    lines = [line.split() for line in param.splitlines() if line.strip()]
    try:
        magic, counts, *written = lines
        count, _ = (int(number) for number in counts)
        layers = tuple(_layer(line) for line in written)
    except ValueError as error:
        raise NotNcnnError(_NO_TEXT) from error
    if magic != [MAGIC] or count != len(layers):
        raise NotNcnnError(_NO_TEXT)
    return layers


def input_shapes_of(layers: Sequence[NcnnLayer]) -> dict[str, tuple[int, ...]]:
    """(channels, height, width), (height, width) or (width,) that each input states.

    Raises NotNcnnError where there is none, or one does not state its sizes.
    """
    shapes = {}
    for layer in layers:
        if layer.type == "Input":
            sizes = [layer.params.get(axis, 0) for axis in (2, 1, 0)]
            shapes[layer.outputs[0]] = tuple(s for s in sizes if isinstance(s, int) and s > 0)
    if not shapes or not all(shapes.values()):
        raise NotNcnnError("this .ncnn file does not state the sizes of its input: export it again")
    return shapes


def outputs_of(layers: Sequence[NcnnLayer]) -> tuple[str, ...]:
    """The blobs that nothing reads."""
    read = {blob for layer in layers for blob in layer.inputs}
    return tuple(blob for layer in layers for blob in layer.outputs if blob not in read)


def _check_entries(entries: Sequence[zipfile.ZipInfo], content_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    if names not in ([PARAM, WEIGHTS], [PARAM, WEIGHTS, METADATA]):
        raise ValueError(f"it holds {names}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed")
    # Keeps entries that overlap from being read.
    if sum(entry.file_size for entry in entries) > content_bytes:
        raise ValueError("its entries are larger than itself")


def _with_splits(layers: Sequence[NcnnLayer]) -> Iterator[NcnnLayer]:
    readers: dict[str, int] = {}
    for layer in layers:
        for blob in layer.inputs:
            readers[blob] = readers.get(blob, 0) + 1
    shares: dict[str, list[str]] = {}
    for layer in layers:
        inputs = tuple(shares[blob].pop(0) if blob in shares else blob for blob in layer.inputs)
        yield replace(layer, inputs=inputs)
        for blob in layer.outputs:
            if readers.get(blob, 0) > 1:
                shares[blob] = [f"{blob}.{place}" for place in range(readers[blob])]
                yield NcnnLayer("Split", f"{blob}.split", (blob,), tuple(shares[blob]))


def _line(layer: NcnnLayer) -> str:
    words = [layer.type, layer.name, str(len(layer.inputs)), str(len(layer.outputs))]
    words += [*layer.inputs, *layer.outputs]
    words += [_parameter(number, value) for number, value in sorted(layer.params.items())]
    return " ".join(words)


def _parameter(number: int, value: Value) -> str:
    if isinstance(value, tuple):
        # The form of arrays that every version of ncnn reads: the length comes first.
        return f"{-23300 - number}={','.join([str(len(value)), *map(_number, value)])}"
    return f"{number}={_number(value)}"


def _number(value: float) -> str:
    """A point or an exponent is what tells ncnn a float."""
    return str(value) if isinstance(value, int) else f"{value:.8e}"


def _layer(words: Sequence[str]) -> NcnnLayer:
    kind, name, reads, writes, *rest = words
    read, written = int(reads), int(writes)
    if min(read, written) < 0 or len(rest) < read + written:
        raise ValueError("blobs are missing")
    blobs, said = rest[: read + written], rest[read + written :]
    params = dict(_read_parameter(word) for word in said)
    return NcnnLayer(kind, name, tuple(blobs[:read]), tuple(blobs[read:]), params)


def _read_parameter(word: str) -> tuple[int, Value]:
    key, _, text = word.partition("=")
    number = int(key)
    if number > -23300:
        return number, _read_number(text)
    length, *items = text.split(",")
    if int(length) != len(items):
        raise ValueError(f"{word} is of another length")
    return -23300 - number, tuple(_read_number(item) for item in items)


def _read_number(text: str) -> int | float:
    return float(text) if any(mark in text for mark in ".eE") else int(text)
