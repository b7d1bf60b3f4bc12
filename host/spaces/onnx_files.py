"""A user's own ONNX files as a space: the one decision is which file.

Its candidates are no `Network`s: a file is scored as the torch module that `onnx2torch` makes of it
(`host.network.onnx_import` says which files work) and priced by the kernels that onnxruntime would
execute.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from cost_models.kernels import KernelGraph
from cost_models.onnx_graph import kernels_from_onnx
from cost_models.program import GraphError
from host.errors import UsageError
from host.network.graph import Shape
from host.spaces.base import Candidate, CandidateTextError, Decision

if TYPE_CHECKING:
    from torch import nn

_WEIGHT_BYTES = 4


@dataclass(frozen=True)
class OnnxFiles:
    """Files by name; each name may stand once, in whatever folder."""

    files: tuple[Path, ...]
    name: ClassVar[str] = "onnx"

    def __post_init__(self) -> None:
        """Raises UsageError for no file, a missing one and a name that stands twice."""
        if not self.files:
            raise UsageError("there is no ONNX file to choose from: name one or more")
        by_name: dict[str, Path] = {}
        for path in self.files:
            if not path.is_file():
                raise UsageError(f"there is no file {path}: check the path")
            other = by_name.setdefault(path.name, path)
            if other is not path:
                raise UsageError(f"{other} and {path} have one name: rename one of them")

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Self:
        """These files, and of each folder the .onnx files in it, by name."""
        files: list[Path] = []
        for path in paths:
            files += sorted(path.glob("*.onnx")) if path.is_dir() else [path]
        return cls(tuple(files))

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One, "file"."""
        return (Decision("file", tuple(path.name for path in self.files)),)

    def text(self, candidate: Candidate) -> str:
        """The name of the file."""
        return self.path(candidate).name

    def parse(self, text: str) -> Candidate:
        """The inverse of `text`. Raises CandidateTextError where no file has that name."""
        names = [path.name for path in self.files]
        if text not in names:
            raise CandidateTextError(f"{text!r} is none of the files {', '.join(names)}")
        return Candidate((names.index(text),))

    def path(self, candidate: Candidate) -> Path:
        """Where the file is."""
        (choice,) = candidate.choices
        return self.files[choice]

    def image_shape(self, candidate: Candidate) -> Shape:
        """(channels, height, width) of the images that it reads. Raises UsageError."""
        from host.network.onnx_import import image_shape

        return image_shape(self.path(candidate))

    def module(self, candidate: Candidate, *, seed: int | None = None) -> "nn.Module":
        """The file as a torch module for proxies: see `host.network.onnx_import.module_from_onnx`.

        Give the seed to compare untrained networks: what a file's training has left in its weights
        would count otherwise. Raises UsageError where the file cannot be converted.
        """
        from host.network.onnx_import import module_from_onnx

        return module_from_onnx(self.path(candidate), seed=seed)

    def kernels(self, candidate: Candidate) -> KernelGraph:
        """What a device will execute. Raises UsageError for a file that is no ONNX model."""
        path = self.path(candidate)
        try:
            return kernels_from_onnx(path)
        except GraphError as error:
            raise UsageError(f"{path} cannot be read: {error}") from error

    def macs(self, candidate: Candidate) -> int:
        """Multiply-accumulates of one image, of what is executed. Raises UsageError."""
        return self.kernels(candidate).macs

    def parameters(self, candidate: Candidate) -> int:
        """Weights and biases, after folding, of what is executed, each four bytes.

        Raises UsageError for a file that is no ONNX model.
        """
        return self.kernels(candidate).weight_bytes // _WEIGHT_BYTES
