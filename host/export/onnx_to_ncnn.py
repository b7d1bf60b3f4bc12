"""A user's own ONNX file as an ncnn model, by ncnn's own converter `pnnx`.

pnnx is a program: it runs in a process of its own. What it writes is packed into the container,
with the names and the sizes that the ONNX file has, and answers as that does or is refused.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from host.errors import UsageError
from host.export.check import LARGEST_DIFFERENCE, Floats, logits_of_onnx, relative_difference
from host.export.errors import ExportDiffersError, ExportError
from host.export.floor import FloorError
from host.export.metadata import parse
from host.export.ncnn import logits_of_ncnn
from host.network.ncnn_file import (
    NcnnLayer,
    NcnnModel,
    NotNcnnError,
    layers_of,
    ncnn_file,
    param_text,
)
from host.network.ncnn_layers import check_weights, unknown_layers

MISSING = (
    "ONNX files become ncnn models through pnnx, which is not installed: pip install"
    " 'genba[ncnn-export]'"
)
LONGEST_SECONDS = 300.0

_MEAN = 3
_AXES_OF_MAP = ((1, 2), (-2, -1))
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,80}")


def ncnn_of_onnx(model: bytes) -> bytes:
    """The same classifier as a `.ncnn` file.

    Raises UsageError where the file has not one float32 input of fixed size and one output, or
    pnnx or ncnn is not installed; FloorError, which names what ncnn cannot run; ExportError where
    pnnx fails, ExportDiffersError where the answers differ.
    """
    proto = parse(model)
    name, shape = _input(proto)
    if len(proto.graph.output) != 1:
        raise UsageError(f"the model has {len(proto.graph.output)} outputs: ncnn export takes one")
    made = _converted(model, shape)
    content = ncnn_file(_renamed(made, name, proto.graph.output[0].name, shape[1:], proto))
    inputs = np.random.default_rng(0).standard_normal((2, *shape[1:]), dtype=np.float32)
    _check_same(model, content, inputs)
    return content


def _input(proto: onnx.ModelProto) -> tuple[str, tuple[int, ...]]:
    constants = {initializer.name for initializer in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise UsageError(f"the model has {len(inputs)} inputs: ncnn export takes one")
    tensor = inputs[0].type.tensor_type
    batch, *sides = [side.dim_value for side in tensor.shape.dim] or [0]
    fits = len(sides) in {2, 3} and all(sides) and batch in {0, 1}
    if not fits or tensor.elem_type != onnx.TensorProto.FLOAT:
        raise UsageError(
            f"{inputs[0].name!r} of the model must be float32 (1, channels, height, width) or (1,"
            " channels, length), all fixed but the batch"
        )
    return inputs[0].name, (1, *sides)


def _converted(model: bytes, shape: Sequence[int]) -> NcnnModel:
    """What pnnx writes, float32."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.onnx").write_bytes(model)
        sizes = ",".join(map(str, shape))
        try:
            done = subprocess.run(
                [str(_program()), "model.onnx", f"inputshape=[{sizes}]f32", "fp16=0"],
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"pnnx did not finish within {LONGEST_SECONDS:g} s") from error
        param, weights = (Path(folder, f"model.ncnn.{part}") for part in ("param", "bin"))
        if done.returncode or not param.is_file() or not weights.is_file():
            raise ExportError(f"pnnx cannot convert the model{_reason(done)}")
        return NcnnModel(param.read_text(encoding="utf-8"), weights.read_bytes())


def _program() -> Path:
    """The executable in pnnx's package. Raises UsageError where it is not installed."""
    found = importlib.util.find_spec("pnnx")
    folders = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    name = "pnnx.exe" if sys.platform == "win32" else "pnnx"
    programs = (path for folder in folders for path in folder.rglob(name) if path.is_file())
    program = next(programs, None)
    if program is None:
        raise UsageError(MISSING)
    return program


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    said = [line.strip() for line in done.stderr.splitlines() if "not supported" in line]
    if said:
        return f": {', '.join(dict.fromkeys(said))[:300]}"
    return f" (it ended with {done.returncode})"


def _renamed(
    made: NcnnModel, reads: str, writes: str, shape: tuple[int, ...], proto: onnx.ModelProto
) -> NcnnModel:
    """With the names of the ONNX file, and with the size of the input in the text."""
    try:
        layers = [_plain(layer) for layer in layers_of(made.param)]
        _refuse_unknown(layers)
        check_weights(made, layers)
    except NotNcnnError as error:
        raise ExportError(f"what pnnx wrote cannot be used: {error}") from error
    names = {"in0": _clean(reads, "input"), "out0": _clean(writes, "output")}
    sizes = dict(enumerate(reversed(shape)))  # 0=width 1=height 2=channels
    return replace(
        made,
        param=param_text(_named(layer, names, sizes) for layer in layers),
        metadata={prop.key: prop.value for prop in proto.metadata_props},
    )


def _named(layer: NcnnLayer, names: Mapping[str, str], sizes: Mapping[int, int]) -> NcnnLayer:
    return replace(
        layer,
        name=names.get(layer.name, layer.name),
        inputs=tuple(names.get(blob, blob) for blob in layer.inputs),
        outputs=tuple(names.get(blob, blob) for blob in layer.outputs),
        params=sizes if layer.type == "Input" else layer.params,
    )


def _plain(layer: NcnnLayer) -> NcnnLayer:
    """A mean over the map as the pooling that it is, which every version of ncnn has as that."""
    params = layer.params
    is_mean = layer.type == "Reduction" and params.get(0) == _MEAN and not params.get(4, 0)
    if is_mean and params.get(3) in _AXES_OF_MAP and params.get(2, 1.0) == 1.0:
        return replace(layer, type="Pooling", params={0: 1, 4: 1})
    return layer


def _refuse_unknown(layers: Sequence[NcnnLayer]) -> None:
    """pnnx leaves what ncnn does not have under its name in ONNX, next to helpers of its own."""
    found = unknown_layers(layers)
    unknown = [name for name in found if not name.startswith("pnnx.")] or found
    if unknown:
        raise FloorError(
            f"ncnn on devices lacks {', '.join(unknown)}, which the model becomes there: export"
            " it without",
            unknown,
        )


def _clean(name: str, otherwise: str) -> str:
    """ncnn's text is cut at spaces."""
    return name if _NAME.fullmatch(name) else otherwise


def _check_same(model: bytes, content: bytes, inputs: Floats) -> None:
    expected = logits_of_onnx(model, inputs)
    found = logits_of_ncnn(content, inputs)
    difference = relative_difference(found, expected.reshape(found.shape))
    if difference > LARGEST_DIFFERENCE:
        raise ExportDiffersError(
            f"the ncnn model answers otherwise than the ONNX file, by {difference:.2g} of the"
            " largest output: ncnn cannot run this model"
        )
