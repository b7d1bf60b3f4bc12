"""Spaces of networks in stages: some things are decided once, others for every stage."""

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from host.network.graph import Network
from host.spaces.base import (
    Candidate,
    CandidateTextError,
    Choices,
    Decision,
    Task,
    restricted,
)


@dataclass(frozen=True)
class Item:
    """A kind of decision: what may be chosen, and what stands before the choice in a text.

    True is written as the prefix alone, False as nothing.
    """

    name: str
    choices: Choices
    prefix: str = ""

    def written(self, choice: Hashable) -> str:
        """The choice as it stands in a text."""
        if isinstance(choice, bool):
            return self.prefix if choice else ""
        return f"{self.prefix}{choice}"

    @property
    def pattern(self) -> str:
        """A regular expression with one group, the choice as `read` takes it."""
        prefix = re.escape(self.prefix)
        match self.choices[0]:
            case bool():
                return f"({prefix})?"
            case int() | float():
                return rf"{prefix}(\d+(?:\.\d+)?)"
            case _:
                return rf"{prefix}([a-z]\w*)"

    def read(self, found: str | None) -> Hashable:
        """What was found; equal to a choice where it is one."""
        match self.choices[0]:
            case bool():
                return found is not None
            case int() | float():
                return float(found or "nan")
            case _:
                return found


@dataclass(frozen=True)
class StagedSpace(ABC):
    """What such spaces share: decisions, restriction, and texts as `first | stage | stage ...`.

    `restrict` narrows decisions by name to some of their choices, in every stage alike.
    """

    restrict: Mapping[str, Choices] = field(default_factory=dict)

    name: ClassVar[str]
    once: ClassVar[tuple[Item, ...]]
    per_stage: ClassVar[tuple[Item, ...]]
    stages: ClassVar[int]
    example: ClassVar[str]
    """The text of a candidate."""

    def __post_init__(self) -> None:
        """Raises SpaceChoiceError for a restriction to what the space does not offer."""
        self._offered()

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """What is decided once, then stage by stage."""
        offered = self._offered()
        once = (Decision(item.name, offered[item.name]) for item in self.once)
        per_stage = (
            Decision(f"{item.name}{stage}", offered[item.name])
            for stage in range(self.stages)
            for item in self.per_stage
        )
        return (*once, *per_stage)

    def text(self, candidate: Candidate) -> str:
        """Such as `example`."""
        values = self.values(candidate)
        first = "".join(item.written(values[item.name]) for item in self.once)
        stages = [
            "".join(item.written(values[f"{item.name}{stage}"]) for item in self.per_stage)
            for stage in range(self.stages)
        ]
        return " | ".join([first, *stages])

    def parse(self, text: str) -> Candidate:
        """The inverse of `text`. Raises CandidateTextError where it names no candidate."""
        first, *stages = (" ".join(part.split()) for part in text.split("|"))
        values = _read(self.once, first, "")
        for stage, part in enumerate(stages):
            values |= _read(self.per_stage, part, str(stage))
        if len(values) != len(self.decisions) or len(stages) != self.stages:
            raise CandidateTextError(
                f"{text!r} names no candidate of the space '{self.name}': write it as "
                f"'{self.example}'"
            )
        for decision in self.decisions:
            if values[decision.name] not in decision.choices:
                raise CandidateTextError(
                    f"{text!r}: {decision.name} must be one of {list(decision.choices)}"
                )
        return Candidate(tuple(d.choices.index(values[d.name]) for d in self.decisions))

    @abstractmethod
    def build(self, candidate: Candidate, task: Task) -> Network:
        """The network of a candidate."""

    def scoring_network(self, candidate: Candidate, task: Task) -> Network:
        """The candidate's own network. Raises InvalidNetworkError as `build` does."""
        return self.build(candidate, task)

    def taking(self, candidate: Candidate, name: str, choice: Hashable) -> Candidate:
        """The candidate with this choice wherever that is decided: in every stage, if it is there.

        Raises ValueError for a choice that is not left.
        """
        of_stages = {f"{name}{stage}" for stage in range(self.stages)}
        choices = (
            decision.choices.index(choice) if decision.name in {name, *of_stages} else taken
            for decision, taken in zip(self.decisions, candidate.choices, strict=True)
        )
        return Candidate(tuple(choices))

    def values(self, candidate: Candidate) -> dict[str, Any]:
        """What was chosen, by the name of the decision: `kernel2` in the third stage."""
        chosen = zip(self.decisions, candidate.choices, strict=True)
        return {decision.name: decision.choices[index] for decision, index in chosen}

    def _offered(self) -> dict[str, Choices]:
        items = {item.name: item.choices for item in (*self.once, *self.per_stage)}
        return restricted(self.name, items, self.restrict)


def _read(items: tuple[Item, ...], text: str, suffix: str) -> dict[str, Hashable]:
    """The choices in a part of a text, none where it is written otherwise."""
    found = re.fullmatch("".join(item.pattern for item in items), text)
    if found is None:
        return {}
    return {f"{i.name}{suffix}": i.read(t) for i, t in zip(items, found.groups(), strict=True)}
