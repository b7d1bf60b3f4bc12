"""A classifier's ONNX file as a torch module, through `onnx2torch`, for proxies.

What works: one float32 input (N, channels, height, width) with fixed channels, height and width and
a batch N of 1 or left open; one output (N, classes), or such with further sides of 1; float32
weights in the file. Signals are images of height 1. Opsets 7 to 21 were tried: every file is
brought to opset 17 first, where onnx2torch 1.5.15 knows most operators. Quantised files, recurrent
networks and operators of foreign domains are not converted.

Most exporters write a batch of 1 into the file, and some into its reshapes: those are opened.
Where a batch is fixed deeper inside (a class token that is not expanded), the file is refused.
Every module is compared with what onnxruntime computes before it is handed out.

Exporters fold batch normalisations into convolutions: such a module has none, and what a proxy
reads of normalisation layers is absent.
"""

import importlib
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from torch import nn

from host.errors import UsageError
from host.network.graph import Shape
from host.network.onnx_layers import with_own_layers
from host.network.torch_module import draw_weights

_OPSET = 17
_TOLERANCE = 1e-3
"""Of the largest output: two libraries add up in different orders."""
_LARGEST_CHANNELS = 4
_STANDARD_DOMAINS = ("", "ai.onnx")
_WITH_OPTIONAL_OUTPUTS = {"BatchNormalization", "Dropout", "LayerNormalization", "MaxPool"}


class OnnxImportError(UsageError):
    """A file that cannot become a torch module; says which, and why."""


def image_shape(path: Path) -> Shape:
    """(channels, height, width) of the images that a file reads. Raises OnnxImportError."""
    return _image_shape(_read(path), path)


def module_from_onnx(path: Path, *, seed: int | None = None) -> nn.Module:
    """The network of a file: (N, C, H, W) float in, (N, classes) out, in evaluation mode.

    With a seed its weights are drawn anew as `build_module` draws them, a pure function of the
    seed; without one they are the file's. Weights of matrix products are parameters, as those of
    convolutions are. The global random state is left as it is. Raises OnnxImportError where the
    module docstring says that it does not work.
    """
    original = _read(path)
    shape = _image_shape(original, path)
    model = _prepared(original)
    convert = _onnx2torch()
    _check_operators(model, path)
    try:
        # Layers draw weights as they are made, before they are given the file's.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            module: nn.Module = with_own_layers(convert.convert(model)).eval()
    except Exception as error:  # whatever a converter of an operator stumbles over
        raise OnnxImportError(
            f"{path} cannot be converted to torch: {_first_line(error)}"
        ) from error
    module = _with_rows(module, path, shape)
    if seed is not None:
        draw_weights(module, seed=seed)
    return module


def _read(path: Path) -> ModelProto:
    try:
        model = onnx.load(path)
    except OSError as error:
        raise OnnxImportError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's own class, which differs between its implementations
        raise OnnxImportError(f"{path} is not an ONNX file or is damaged") from error
    if not model.graph.output or not model.graph.node:
        raise OnnxImportError(f"{path} is not an ONNX file or is damaged: it computes nothing")
    return model


def _image_shape(model: ModelProto, path: Path) -> Shape:
    constants = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise OnnxImportError(
            f"{path} has {len(inputs)} inputs and {len(model.graph.output)} outputs: "
            "only a network with one image in and one row of classes out can be scored"
        )
    tensor = inputs[0].type.tensor_type
    batch, *shape = _sides(inputs[0]) or (None,)
    found = f"{inputs[0].name!r} of {path} is {_written(inputs[0])}"
    if len(shape) != 3 or tensor.elem_type != TensorProto.FLOAT:
        raise OnnxImportError(
            f"{found}: it must be float32 images (N, channels, height, width); write signals as "
            "images of height 1"
        )
    channels, height, width = shape
    if channels is None or height is None or width is None:
        raise OnnxImportError(f"{found}: export it with fixed channels, height and width")
    if batch not in {None, 1}:
        raise OnnxImportError(f"{found}: export it with a batch of 1, or an open one")
    if width <= _LARGEST_CHANNELS < channels:
        raise OnnxImportError(
            f"{found}, which looks like images with the channels last: export it with the channels "
            "first"
        )
    return channels, height, width


def _sides(value: ValueInfoProto) -> tuple[int | None, ...]:
    """The sides of a tensor, None where the file leaves one open."""
    return tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)


def _written(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    sides = [str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim]
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{kind} ({', '.join(sides)})"


def _prepared(original: ModelProto) -> ModelProto:
    """The same network without functions, at the opset that converts best, with an open batch."""
    model = ModelProto()
    model.CopyFrom(original)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    model = _at_common_opset(model)
    _hoist_constants(model)
    _drop_unread_outputs(model)
    _open_reshapes(model)
    return model


def _at_common_opset(model: ModelProto) -> ModelProto:
    relabelled = ModelProto()
    relabelled.CopyFrom(model)
    for opset in relabelled.opset_import:
        # Later opsets mostly add types and attributes that classifiers do not use, and onnx knows
        # no way back from them. Where one is used, the comparison with onnxruntime tells.
        if opset.domain in _STANDARD_DOMAINS:
            opset.version = min(opset.version, _OPSET + 1)
    for same in (model, relabelled):
        with suppress(RuntimeError, ValueError, IndexError, onnx.checker.ValidationError):
            return onnx.version_converter.convert_version(same, _OPSET)
    return model


def _hoist_constants(model: ModelProto) -> None:
    """Constant operators as initialisers: converters look for weights there."""
    kept: list[NodeProto] = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            model.graph.initializer.add().CopyFrom(value)
            model.graph.initializer[-1].name = node.output[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _drop_unread_outputs(model: ModelProto) -> None:
    """Leave out masks and the like that nobody reads: a converter takes such a pair for a list."""
    read = {name for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        if node.op_type in _WITH_OPTIONAL_OUTPUTS:
            while len(node.output) > 1 and node.output[-1] not in read:
                node.output.pop()


def _open_reshapes(model: ModelProto) -> None:
    """Let reshapes that keep a batch of 1 keep any batch: 0 stands for the size that comes in."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:
        return
    sides = {value.name: _sides(value) for value in (*inferred.input, *inferred.value_info)}
    constants = {initializer.name: initializer for initializer in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        target = numpy_helper.to_array(constants[node.input[1]])
        came_in = sides.get(node.input[0], ())
        if len(target) > 1 and target[0] == 1 and came_in[:1] in {(), (1,), (None,)}:
            opened = np.concatenate([np.zeros(1, target.dtype), target[1:]])
            name = f"{node.input[1]}.open{index}"
            model.graph.initializer.append(numpy_helper.from_array(opened, name))
            node.input[1] = name


def _check_operators(model: ModelProto, path: Path) -> None:
    """Raises OnnxImportError that names every operator without a converter."""
    registry = importlib.import_module("onnx2torch.node_converters.registry")
    versions = {opset.domain: opset.version for opset in model.opset_import}
    missing = []
    for node in model.graph.node:
        domain = "" if node.domain in _STANDARD_DOMAINS else node.domain
        try:
            registry.get_converter(
                operation_type=node.op_type, version=versions.get(node.domain, 0), domain=domain
            )
        except NotImplementedError:
            missing.append(f"{domain}:{node.op_type}" if domain else node.op_type)
    if missing:
        raise OnnxImportError(
            f"{path} cannot be converted to torch: onnx2torch has no "
            f"{', '.join(dict.fromkeys(missing))} of opset {versions.get('', 0)}"
        )


def _with_rows(module: nn.Module, path: Path, shape: Shape) -> nn.Module:
    """The module with one row of classes for an image.

    Raises OnnxImportError unless two images together give what onnxruntime gives for each.
    """
    images = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    expected = _rows_by_onnxruntime(path, images)
    if expected.ndim > 2 and set(expected.shape[2:]) == {1}:
        module, expected = nn.Sequential(module, nn.Flatten()), expected.reshape(2, -1)
    if expected.ndim != 2:
        raise OnnxImportError(
            f"{path} writes {'x'.join(map(str, expected.shape[1:]))} numbers for an image: only a "
            "network that writes one row of classes can be scored"
        )
    if _agrees(module, images, expected):
        return module
    if _agrees(module, images[:1], expected[:1]):
        raise OnnxImportError(
            f"{path} takes one image at a time: export it with an open batch, as "
            "dynamic_axes={'input': {0: 'batch'}} of torch.onnx.export does"
        )
    raise OnnxImportError(f"{path} is converted to a module that does not compute the same")


def _rows_by_onnxruntime(path: Path, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        rows = [session.run(None, {name: image[np.newaxis]})[0] for image in images]
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise OnnxImportError(f"onnxruntime cannot run {path}: {_first_line(error)}") from error
    return np.concatenate(rows)


def _agrees(module: nn.Module, images: npt.NDArray[np.float32], expected: npt.NDArray[Any]) -> bool:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = module(torch.from_numpy(images)).numpy()
    except (RuntimeError, IndexError, ValueError, TypeError):
        return False
    if found.shape != expected.shape:
        return False
    largest = max(1.0, float(np.abs(expected).max()))
    return bool(np.abs(found - expected).max() <= _TOLERANCE * largest)


def _onnx2torch() -> ModuleType:
    """The converter. Raises OnnxImportError where it is not installed.

    It imports torchvision, for two operators of detectors; a build of torchvision fits one build
    of torch, and where there is none that fits, all the other operators do without.
    """
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        with _stand_in("torchvision", "torchvision.ops"):
            return _imported("onnx2torch")
    return _imported("onnx2torch")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        # Without its dependencies: torchvision, which it names, would bring a torch of its own.
        raise OnnxImportError(
            f"ONNX files become torch modules through {name}: pip install --no-deps {name}"
        ) from error


@contextmanager
def _stand_in(*names: str) -> Iterator[None]:
    """Empty modules of these names while something is imported that wants them."""
    for name in names:
        sys.modules[name] = ModuleType(name)
    sys.modules["torchvision.ops"].roi_align = None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\s+", " ", lines[0])
