"""What would deceive a training: copies under two labels, and what stands in two parts at once."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from host.data.dealing import ItemT
from host.data.listing import ExcludedFile
from host.data.split import SUBSETS, Subset

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Resolved(Generic[ItemT]):
    """The items that stay, and those that are left out."""

    kept: list[ItemT]
    excluded: list[ExcludedFile]


def without_conflicts(
    items: Sequence[ItemT],
    classes: Sequence[str],
    moved: Callable[[ItemT, Subset], ItemT],
    noun: str = "picture",
) -> Resolved[ItemT]:
    """Leave out contents with two labels, and what is of a later part in an earlier one.

    That is a copy of a held-back picture, or another item of its group. An item without a part
    follows the others into theirs, by `moved`.
    """
    copies = _together(items, lambda item: item.sha256)
    kept, excluded = [], []
    for item in items:
        same = copies[item.sha256]
        labels = sorted({other.label for other in same})
        if len(labels) > 1:
            names = " and ".join(f'"{classes[label]}"' for label in labels)
            reason = f"the same {noun} stands in {names}"
            excluded.append(ExcludedFile(item.path, reason, "two classes"))
        else:
            kept.append(item)
    once = _in_one_part(kept, lambda item: item.sha256, moved)
    excluded += [
        ExcludedFile(item.path, f"the same {noun} stands in {part}", "later part")
        for item, part in once.excluded
    ]
    whole = _in_one_part(once.kept, lambda item: item.group, moved)
    excluded += [
        ExcludedFile(
            item.path, f'its group "{item.group}" stands in {part}', "group in a later part"
        )
        for item, part in whole.excluded
    ]
    return Resolved(whole.kept, excluded)


@dataclass(frozen=True)
class _Settled(Generic[ItemT]):
    kept: list[ItemT]
    excluded: list[tuple[ItemT, Subset]]
    """With the later part that each stands in too."""


def _in_one_part(
    items: Sequence[ItemT],
    key: Callable[[ItemT], str | None],
    moved: Callable[[ItemT, Subset], ItemT],
) -> _Settled[ItemT]:
    """Items of one key in the latest part that any of them has; None is no key."""
    latest = {name: _latest(members) for name, members in _together(items, key).items()}
    settled: _Settled[ItemT] = _Settled([], [])
    for item in items:
        name = key(item)
        part = None if name is None else latest[name]
        if part is None or item.subset == part:
            settled.kept.append(item)
        elif item.subset is None:
            settled.kept.append(moved(item, part))
        else:
            settled.excluded.append((item, part))
    return settled


def _together(items: Sequence[ItemT], key: Callable[[ItemT], _Key]) -> dict[_Key, list[ItemT]]:
    found: dict[_Key, list[ItemT]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found


def _latest(items: Sequence[ItemT]) -> Subset | None:
    return max((item.subset for item in items), key=_order)


def _order(subset: Subset | None) -> int:
    return -1 if subset is None else SUBSETS.index(subset)
