"""Where candidates come from: a space of networks, and a candidate of it as data."""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from host.errors import UsageError
from host.network.graph import Network


class CandidateTextError(UsageError):
    """A text that names no candidate of the space."""


class SpaceChoiceError(UsageError):
    """A restriction that leaves a decision of the space without a choice, or names none of them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing to decide, by name, and what may be chosen."""

    name: str
    choices: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One network of a space as data: the index of the choice taken at each decision."""

    choices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What every candidate must fit: channels of the images, and how many classes they have."""

    channels: int
    classes: int


class SearchSpace(Protocol):
    """Decisions, and what a candidate means as a network."""

    @property
    def name(self) -> str: ...

    @property
    def decisions(self) -> tuple[Decision, ...]: ...

    def text(self, candidate: Candidate) -> str:
        """The candidate as a person reads it; unique in the space."""
        ...

    def parse(self, text: str) -> Candidate:
        """The inverse of `text`. Raises CandidateTextError for a text that names no candidate."""
        ...

    def build(self, candidate: Candidate, task: Task) -> Network:
        """The live graph of a candidate. Raises DeadNetworkError where no path leads through."""
        ...


def sample(space: SearchSpace, rng: np.random.Generator) -> Candidate:
    """A candidate drawn with every choice of a decision equally likely."""
    return Candidate(tuple(int(rng.integers(len(d.choices))) for d in space.decisions))


def size(space: SearchSpace) -> int:
    """How many candidates the space holds, isomorphic ones counted apart."""
    return math.prod(len(decision.choices) for decision in space.decisions)
