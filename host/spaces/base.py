"""Where candidates come from: a space of networks, and a candidate of it as data."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from host.errors import UsageError
from host.network.graph import InvalidNetworkError, Network

Choices = tuple[Hashable, ...]
"""What may be chosen."""


class CandidateTextError(UsageError):
    """A text that names no candidate of the space."""


class SpaceChoiceError(UsageError):
    """A restriction that leaves a decision of the space without a choice, or names none of them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing to decide, by name, and what may be chosen."""

    name: str
    choices: Choices


@dataclass(frozen=True, slots=True)
class Candidate:
    """One network of a space as data: the index of the choice taken at each decision."""

    choices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What every candidate must fit: channels of the images, and how many classes they have.

    For signals the channels are the sensors.
    """

    channels: int
    classes: int


class DecisionSpace(Protocol):
    """Decisions, and how a person writes what was decided."""

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


class SearchSpace(DecisionSpace, Protocol):
    """A space whose candidates are `Network`s."""

    def build(self, candidate: Candidate, task: Task) -> Network:
        """The live graph of a candidate. Raises InvalidNetworkError where it is no network."""
        ...

    def scoring_network(self, candidate: Candidate, task: Task) -> Network:
        """What proxies look at: the candidate's own network, or one that ranks alike for less.

        Raises InvalidNetworkError as `build` does.
        """
        ...


def sample(space: DecisionSpace, rng: np.random.Generator) -> Candidate:
    """A candidate drawn with every choice of a decision equally likely."""
    return Candidate(tuple(int(rng.integers(len(d.choices))) for d in space.decisions))


def mutate(space: DecisionSpace, candidate: Candidate, rng: np.random.Generator) -> Candidate:
    """The candidate with a few decisions taken otherwise: one at least, on average one or two.

    Each decision that leaves a choice changes with probability one over their number, to any other
    choice alike: choices have no order. A space of one candidate gives that one back.
    """
    choices = list(candidate.choices)
    counts = [len(decision.choices) for decision in space.decisions]
    free = [index for index, count in enumerate(counts) if count > 1]
    if not free:
        return candidate
    changed = [index for index in free if rng.random() * len(free) < 1]
    for index in changed or [free[int(rng.integers(len(free)))]]:
        step = 1 + int(rng.integers(counts[index] - 1))
        choices[index] = (choices[index] + step) % counts[index]
    return Candidate(tuple(choices))


def crossover(
    space: DecisionSpace, first: Candidate, second: Candidate, rng: np.random.Generator
) -> Candidate:
    """A candidate that takes each decision as one of the two did, either alike."""
    taken = rng.random(len(space.decisions)) < 0.5
    pairs = zip(first.choices, second.choices, taken.tolist(), strict=True)
    return Candidate(tuple(one if own else other for one, other, own in pairs))


def size(space: DecisionSpace) -> int:
    """How many candidates the space holds, isomorphic ones counted apart."""
    return math.prod(len(decision.choices) for decision in space.decisions)


def is_valid(space: SearchSpace, candidate: Candidate, task: Task) -> bool:
    """Whether the candidate belongs to the space and is a network; `build` says why it is none."""
    counts = [len(decision.choices) for decision in space.decisions]
    if len(candidate.choices) != len(counts):
        return False
    if not all(0 <= choice < n for choice, n in zip(candidate.choices, counts, strict=True)):
        return False
    try:
        space.build(candidate, task)
    except InvalidNetworkError:
        return False
    return True


def restricted(
    space: str, offered: Mapping[str, Choices], restrict: Mapping[str, Choices]
) -> dict[str, Choices]:
    """What is left to choose, by the name of the decision.

    Raises SpaceChoiceError for a name or a choice that the space does not offer.
    """
    for name, wanted in restrict.items():
        if name not in offered:
            raise SpaceChoiceError(
                f"the space '{space}' has no decision {name!r}; it has {', '.join(offered)}"
            )
        unknown = [choice for choice in wanted if choice not in offered[name]]
        if unknown or not wanted:
            raise SpaceChoiceError(
                f"{name} = {list(wanted)} must name some of {list(offered[name])}"
            )
    return {
        name: tuple(choice for choice in choices if choice in restrict.get(name, choices))
        for name, choices in offered.items()
    }
