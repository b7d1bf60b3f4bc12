"""What is ranked: candidates drawn from a space, or models of the user's own."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cost_models.kernels import KernelGraph
from host.errors import UsageError
from host.network.graph import Shape
from host.proxies.scoring import Subject
from host.spaces.base import Candidate, SearchSpace, Task, sample, size
from host.spaces.onnx_files import OnnxFiles
from host.study.proposal import Proposal, Proposer

if TYPE_CHECKING:
    from torch import nn

_ENUMERABLE = 1_000_000
"""Spaces up to this size are drawn from without repetition; in larger ones repetition is rare."""
_DRAWS_PER_CANDIDATE = 100


@dataclass(frozen=True, eq=False)
class Contender:
    """A network in a ranking, and where its kernels come from."""

    subject: Subject
    origin: Proposal | KernelGraph

    @property
    def graph(self) -> KernelGraph:
        """What a device will execute."""
        return self.origin.graph if isinstance(self.origin, Proposal) else self.origin


def drawn(
    space: SearchSpace, task: Task, count: int, *, seed: int, on_drawn: Callable[[int], None]
) -> list[Contender]:
    """Different networks of a space, each candidate equally likely; fewer where there are fewer.

    A function of the seed; what a smaller count draws, a larger one draws first. `on_drawn` is told
    how many there are.
    """
    proposer = Proposer(space, task)
    found: list[Contender] = []
    for candidate in _candidates(space, count, np.random.default_rng(seed)):
        for proposal in proposer.fresh([candidate]):
            found.append(Contender(proposer.subject(proposal), proposal))
            on_drawn(len(found))
        if len(found) == count:
            break
    return found


@dataclass(frozen=True)
class FileModel:
    """An ONNX file as proxies see it; `key` is the SHA-256 of its content."""

    path: Path
    key: str
    input_shape: Shape

    def module(self, seed: int) -> "nn.Module":
        """Its network with weights drawn from the seed.

        Raises UsageError where the file has changed meanwhile, or cannot become a module.
        """
        from host.network.onnx_import import module_from_onnx

        if _sha256(self.path) != self.key:
            raise UsageError(f"{self.path} has changed since it was first read: rank it again")
        return module_from_onnx(self.path, seed=seed)


def of_files(paths: Iterable[Path], say: Callable[[str], None]) -> list[Contender]:
    """The models of these ONNX files, and of the .onnx files in each folder, each content once.

    `say` is told which file has the content of which. Raises UsageError for what is no ONNX file
    that proxies can look at, and for a file name that stands twice.
    """
    space = OnnxFiles.of(paths)
    found: dict[str, Contender] = {}
    for choice in range(len(space.files)):
        candidate = Candidate((choice,))
        path = space.path(candidate)
        model = FileModel(path, _sha256(path), space.image_shape(candidate))
        if model.key in found:
            say(f"{path.name} has the content of {found[model.key].subject.text}: ranked once")
            continue
        graph = space.kernels(candidate)
        subject = Subject(
            key=model.key,
            space=space.name,
            text=space.text(candidate),
            network=model,
            macs=graph.macs,
            parameters=space.parameters(candidate),
        )
        found[model.key] = Contender(subject, graph)
    return list(found.values())


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def _candidates(space: SearchSpace, count: int, rng: np.random.Generator) -> Iterator[Candidate]:
    """Candidates in a random order: all of them, or as many as should do."""
    if size(space) > _ENUMERABLE:
        for _ in range(_DRAWS_PER_CANDIDATE * count):
            yield sample(space, rng)
        return
    cardinalities = [len(decision.choices) for decision in space.decisions]
    for number in rng.permutation(math.prod(cardinalities)):
        choices = np.unravel_index(number, cardinalities)
        yield Candidate(tuple(int(choice) for choice in choices))
