"""Samples divided into training, validation and test, so that what belongs together stays so."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from host.data.split import SUBSETS, Subset

VALIDATION_FRACTION = 0.2
TEST_FRACTION = 0.2

_MOST_TRIES = 20_000  # of units put into parts, before the search for a division gives up
_Counts = npt.NDArray[np.float64]


class Item(Protocol):
    """What is dealt: a picture, or a recording with its windows."""

    @property
    def path(self) -> str: ...

    @property
    def label(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    @property
    def subset(self) -> Subset | None: ...

    @property
    def group(self) -> str | None: ...

    @property
    def weight(self) -> int:
        """How many samples it is."""
        ...


ItemT = TypeVar("ItemT", bound=Item)
Parts = dict[Subset, tuple[ItemT, ...]]


@dataclass
class Unit(Generic[ItemT]):
    """What may not be divided: items of one group, copies, and what hangs together by either."""

    items: list[ItemT] = field(default_factory=list)

    @property
    def key(self) -> str:
        """A content of it, so that names play no role in the draw."""
        return min(item.sha256 for item in self.items)

    @property
    def labels(self) -> set[int]:
        return {item.label for item in self.items}


def deal(items: Sequence[ItemT], classes: int, *, seed: int) -> Parts[ItemT]:
    """Divide items class by class; parts that they already have are kept.

    A pure function of contents, groups and seed. Copies of one content stay in one part, and so
    does a group. Without groups a part has its share of each class to the sample; with groups as
    nearly as whole groups allow. A class that no division can bring into a part is missing there:
    see `missing`. Items of a part are in the order of their paths.
    """
    given = {item.subset for item in items} - {None, "train"}
    parts: dict[Subset, list[ItemT]] = {subset: [] for subset in SUBSETS}
    for item in items:
        if item.subset in {"validation", "test"}:
            parts[item.subset].append(item)
    rest = [item for item in items if item.subset in {None, "train"}]
    shares: dict[Subset, float] = {
        "test": 0.0 if "test" in given else TEST_FRACTION,
        "validation": 0.0 if "validation" in given else VALIDATION_FRACTION,
    }
    if any(item.group is not None for item in rest):
        _deal_whole(rest, classes, shares, parts, seed)
    else:
        for label in range(classes):
            _deal_exactly([i for i in rest if i.label == label], shares, parts, seed)
    return {s: tuple(sorted(chosen, key=lambda i: i.path)) for s, chosen in parts.items()}


def missing(parts: Mapping[Subset, Sequence[Item]], classes: int) -> tuple[Subset, int] | None:
    """The first part that lacks a class, and the class."""
    for subset, chosen in parts.items():
        lacking = set(range(classes)) - {item.label for item in chosen}
        if lacking:
            return subset, min(lacking)
    return None


def units_of(items: Sequence[ItemT]) -> list[Unit[ItemT]]:
    """Items put together by their groups and by their contents."""
    leader: dict[int, int] = {}

    def root(index: int) -> int:
        while leader.setdefault(index, index) != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, item in enumerate(items):
        names = [("content", item.sha256)]
        if item.group is not None:
            names.append(("group", item.group))
        for name in names:
            leader[root(index)] = root(first.setdefault(name, index))
    units: dict[int, Unit[ItemT]] = defaultdict(Unit)
    for index, item in enumerate(items):
        units[root(index)].items.append(item)
    return list(units.values())


def draw(content: str, seed: int) -> str:
    """A number for each content that puts contents into a random order."""
    return hashlib.sha256(f"{seed}:{content}".encode()).hexdigest()


def _deal_exactly(
    items: Sequence[ItemT],
    shares: Mapping[Subset, float],
    parts: dict[Subset, list[ItemT]],
    seed: int,
) -> None:
    """Fill test, then validation, with whole sets of copies; the rest is for training."""
    wanted = {s: max(1, round(share * len(items))) for s, share in shares.items() if share}
    taken = dict.fromkeys(wanted, 0)
    for unit in _drawn(units_of(items), seed):
        size = len(unit.items)
        fitting = (s for s, count in wanted.items() if taken[s] + size <= count)
        subset = next(fitting, None)
        if subset is not None:
            taken[subset] += size
        parts[subset or "train"].extend(unit.items)


def _deal_whole(
    items: Sequence[ItemT],
    classes: int,
    shares: Mapping[Subset, float],
    parts: dict[Subset, list[ItemT]],
    seed: int,
) -> None:
    """Put whole units where they bring the parts nearest to their share of each class."""
    units = _drawn(units_of(items), seed)
    weights = np.zeros((len(units), classes))
    for row, unit in zip(weights, units, strict=True):
        for item in unit.items:
            row[item.label] += item.weight
    open_parts: list[Subset] = [subset for subset, share in shares.items() if share]
    names: list[Subset] = [*open_parts, "train"]
    fractions = [shares[subset] for subset in open_parts]
    division = _Division(weights, [*fractions, 1 - sum(fractions)])
    for unit, place in zip(units, division.places(), strict=True):
        parts[names[place]].extend(unit.items)


class _Division:
    """Units of several classes, to be put into parts; all by number.

    `weights` has a row for each unit and a column for each class; `fractions` are the parts'.
    """

    def __init__(self, weights: _Counts, fractions: Sequence[float]) -> None:
        self._weights = weights
        totals = weights.sum(axis=0)
        self._targets = np.outer(fractions, np.maximum(totals, 1))
        self._has = weights > 0
        # Large units first: small ones then even out what they left.
        largest_share = (weights / np.maximum(totals, 1)).max(axis=1)
        self._order = sorted(range(len(weights)), key=lambda unit: -largest_share[unit])

    def places(self) -> list[int]:
        """The part of each unit: every part has every class, if that is possible."""
        places = self._filled({})
        if self._covers(places):
            return places
        fixed = self._cover()
        return places if fixed is None else self._filled(fixed)

    def _filled(self, fixed: Mapping[int, int]) -> list[int]:
        """Each unit goes where it lessens the sum of (count - target)^2 / target the most."""
        counts = np.zeros_like(self._targets)
        places = [-1] * len(self._weights)
        for unit, place in fixed.items():
            places[unit] = place
            counts[place] += self._weights[unit]
        for unit in self._order:
            if places[unit] < 0:
                weight = self._weights[unit]
                change = (2 * weight * (counts - self._targets) + weight**2) / self._targets
                places[unit] = int(np.argmin(change.sum(axis=1)))
                counts[places[unit]] += weight
        return places

    def _covers(self, places: Sequence[int]) -> bool:
        held = np.zeros_like(self._targets, dtype=np.bool_)
        for unit, place in enumerate(places):
            held[place] |= self._has[unit]
        return bool((held | ~self._has.any(axis=0)).all())

    def _cover(self) -> dict[int, int] | None:
        """Some units' parts, so that every part has every class: a search that turns back.

        Small units are tried first. None where there is no such division, or none was found in
        reasonable time.
        """
        holders = {label: np.flatnonzero(self._has[:, label]) for label in self._labels()}
        parts = range(len(self._targets))
        if any(len(units) < len(parts) for units in holders.values()):
            return None
        needs = [
            (place, label)
            for label in sorted(holders, key=lambda label: len(holders[label]))
            for place in parts
        ]
        smallest = {
            label: sorted(units.tolist(), key=lambda unit: float(self._weights[unit].sum()))
            for label, units in holders.items()
        }
        return self._searched(needs, smallest)

    def _searched(
        self, needs: Sequence[tuple[int, int]], holders: Mapping[int, Sequence[int]]
    ) -> dict[int, int] | None:
        """A depth-first search without recursion: needs may be many."""
        chosen: list[tuple[int, int, int]] = []  # need, index among its holders, unit or -1
        fixed: dict[int, int] = {}
        need, start = 0, 0
        for _ in range(_MOST_TRIES):
            if need == len(needs):
                return fixed
            place, label = needs[need]
            held = any(p == place and self._has[unit, label] for unit, p in fixed.items())
            if held and start == 0:
                chosen.append((need, len(holders[label]), -1))
                need, start = need + 1, 0
                continue
            free = (i for i in range(start, len(holders[label])) if holders[label][i] not in fixed)
            index = next(free, None)
            if index is not None:
                unit = holders[label][index]
                fixed[unit] = place
                chosen.append((need, index + 1, unit))
                need, start = need + 1, 0
            elif not chosen:
                return None
            else:
                need, start, unit = chosen.pop()
                fixed.pop(unit, None)
        return None

    def _labels(self) -> list[int]:
        return [int(label) for label in np.flatnonzero(self._has.any(axis=0))]


def _drawn(units: list[Unit[ItemT]], seed: int) -> list[Unit[ItemT]]:
    return sorted(units, key=lambda unit: draw(unit.key, seed))
