"""The candidate of a space nearest to another that a target can run."""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from host.export.floor import missing_operators
from host.export.target import Target
from host.network.graph import InvalidNetworkError, Network
from host.spaces.base import Candidate, SearchSpace, Task

_MOST_STEPS = 4


@dataclass(frozen=True)
class _Near:
    candidate: Candidate
    missing: tuple[str, ...]
    distance: tuple[float, int, int]


def nearest_variant(
    space: SearchSpace, candidate: Candidate, task: Task, target: Target
) -> Candidate | None:
    """A candidate without what the target lacks, whose work is as near as may be; None where
    taking one choice after another for its neighbour leads to none.

    Each step puts one choice in place of another wherever that was taken, such as relu6 for
    hard_swish.
    """
    current = candidate
    missing = missing_operators(space.build(candidate, task), target)
    for _ in range(_MOST_STEPS):
        if not missing:
            return current
        network = space.build(current, task)
        better = [
            near
            for near in _neighbours(space, current, network, task, target)
            if set(near.missing) < set(missing)
        ]
        if not better:
            return None
        best = min(better, key=lambda near: (len(near.missing), near.distance))
        current, missing = best.candidate, best.missing
    return current if not missing else None


def _neighbours(
    space: SearchSpace, candidate: Candidate, network: Network, task: Task, target: Target
) -> Iterator[_Near]:
    seen: set[Candidate] = set()
    for old in _taken(space, candidate):
        for new in _offered_beside(space, old):
            other, changed, steps = _replaced(space, candidate, old, new)
            if other == candidate or other in seen:
                continue
            seen.add(other)
            try:
                built = space.build(other, task)
            except InvalidNetworkError:
                continue
            work = abs(math.log(max(1, built.macs) / max(1, network.macs)))
            yield _Near(other, missing_operators(built, target), (work, changed, steps))


def _taken(space: SearchSpace, candidate: Candidate) -> list[Hashable]:
    pairs = zip(space.decisions, candidate.choices, strict=True)
    return list(dict.fromkeys(_typed(decision.choices[index]) for decision, index in pairs))


def _offered_beside(space: SearchSpace, old: Hashable) -> list[Hashable]:
    return list(
        dict.fromkeys(
            typed
            for decision in space.decisions
            if old in [_typed(choice) for choice in decision.choices]
            for choice in decision.choices
            if (typed := _typed(choice)) != old
        )
    )


def _replaced(
    space: SearchSpace, candidate: Candidate, old: Hashable, new: Hashable
) -> tuple[Candidate, int, int]:
    """The candidate, how many decisions changed, and how far along their lists."""
    choices, changed, steps = [], 0, 0
    for decision, index in zip(space.decisions, candidate.choices, strict=True):
        known = [_typed(choice) for choice in decision.choices]
        place = known.index(new) if known[index] == old and new in known else index
        choices.append(place)
        changed += place != index
        steps += abs(place - index)
    return Candidate(tuple(choices)), changed, steps


def _typed(choice: Hashable) -> Hashable:
    """True is not 1 here."""
    return type(choice).__name__, choice
