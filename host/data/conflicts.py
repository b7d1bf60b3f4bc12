"""What would deceive a training: copies under two labels, and what stands in two parts at once."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from host.data.dealing import ItemT, units_of
from host.data.listing import ExcludedFile, Why
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

    That is whatever hangs together with a held-back picture by copies and groups, over however
    many steps. An item without a part follows the others into theirs, by `moved`.
    """
    once = _of_one_class(items, classes, noun)
    whole = _in_one_part(once.kept, moved, noun)
    return Resolved(whole.kept, [*once.excluded, *whole.excluded])


def _of_one_class(items: Sequence[ItemT], classes: Sequence[str], noun: str) -> Resolved[ItemT]:
    copies = _copies(items)
    found: Resolved[ItemT] = Resolved([], [])
    for item in items:
        labels = sorted({other.label for other in copies[item.sha256]})
        if len(labels) > 1:
            names = " and ".join(f'"{classes[label]}"' for label in labels)
            reason = f"the same {noun} stands in {names}"
            found.excluded.append(ExcludedFile(item.path, reason, "two classes"))
        else:
            found.kept.append(item)
    return found


def _in_one_part(
    items: Sequence[ItemT], moved: Callable[[ItemT, Subset], ItemT], noun: str
) -> Resolved[ItemT]:
    """What hangs together in the latest part that any of it has."""
    latest: dict[str, Subset | None] = {}
    for unit in units_of(items):
        latest |= dict.fromkeys((item.path for item in unit.items), _latest(unit.items))
    copies, groups = _copies(items), _together(items, lambda item: item.group)
    found: Resolved[ItemT] = Resolved([], [])
    for item in items:
        part = latest[item.path]
        if part is None or item.subset == part:
            found.kept.append(item)
        elif item.subset is None:
            found.kept.append(moved(item, part))
        else:
            grouped = [] if item.group is None else groups[item.group]
            reason, why = _tie(item, part, copies[item.sha256], grouped, noun)
            found.excluded.append(ExcludedFile(item.path, reason, why))
    return found


def _tie(
    item: ItemT, part: Subset, copies: Sequence[ItemT], grouped: Sequence[ItemT], noun: str
) -> tuple[str, Why]:
    """What an item of an earlier part has in the later one: given there, or moved there."""
    for given in (part, None):
        if any(copy.subset == given for copy in copies):
            return f"the same {noun} stands in {part}", "later part"
        if any(other.subset == given for other in grouped):
            return f'its group "{item.group}" stands in {part}', "group in a later part"
    return f"copies and groups tie it to a {noun} of {part}", "group in a later part"


def _copies(items: Sequence[ItemT]) -> dict[str, list[ItemT]]:
    return _together(items, lambda item: item.sha256)


def _together(items: Sequence[ItemT], key: Callable[[ItemT], _Key]) -> dict[_Key, list[ItemT]]:
    found: dict[_Key, list[ItemT]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found


def _latest(items: Sequence[ItemT]) -> Subset | None:
    return max((item.subset for item in items), key=_order)


def _order(subset: Subset | None) -> int:
    return -1 if subset is None else SUBSETS.index(subset)
