"""Whether a network can be trained on data, and if not, why not and what to do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from host.data.dealing import Item, missing, units_of
from host.data.listing import ExcludedFile, Kind
from host.data.split import Subset

MIN_SAMPLES_PER_CLASS = 5
_PARTS = 3


class Collection(Protocol):
    """What was read of a folder or a table: images or recordings."""

    @property
    def kind(self) -> Kind: ...

    @property
    def root(self) -> Path: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def items(self) -> Sequence[Item]: ...

    @property
    def excluded(self) -> tuple[ExcludedFile, ...]: ...

    @property
    def table(self) -> Path | None: ...

    def class_counts(self) -> dict[str, int]: ...


def complaints(data: Collection) -> list[str]:
    """Why no network can be trained on it, whatever the division; empty where one can."""
    where, noun = _where(data), "images" if data.kind == "images" else "windows"
    if len(data.classes) == 1:
        each = "in a sub-folder of its own" if data.table is None else "in its rows"
        only = f'{where} has only one class, "{data.classes[0]}"'
        return [f"{only}: training needs two classes or more, each {each}"]
    return [
        f'class "{name}" of {where} has {count} usable {noun}{_left_out(data, name)}: at least '
        f"{MIN_SAMPLES_PER_CLASS} are needed"
        for name, count in data.class_counts().items()
        if count < MIN_SAMPLES_PER_CLASS
    ]


def first_complaint(data: Collection) -> str | None:
    """The first of `complaints`; None where there is none."""
    return next(iter(complaints(data)), None)


def missing_class(data: Collection, parts: Mapping[Subset, Sequence[Item]]) -> str | None:
    """Why a part lacks a class, and what to do; None where every part has every class."""
    found = missing(parts, len(data.classes))
    if found is None:
        return None
    subset, label = found
    name, where = data.classes[label], _where(data)
    noun = "image" if data.kind == "images" else "recording"
    plain = f'class "{name}" of {where} has no {noun} for {subset}: add {noun}s of it'
    if all(item.group is None for item in data.items):
        return plain
    if any(item.subset in {"validation", "test"} for item in data.items):
        return plain
    units = [unit for unit in units_of(data.items) if label in unit.labels]
    if len(units) < _PARTS:
        return _too_few(data, name, len(units))
    mixed = next((unit for unit in units if len(unit.labels) > 1), units[0])
    others = " and ".join(f'"{data.classes[other]}"' for other in sorted(mixed.labels))
    return (
        f'class "{name}" of {where} has no {noun} for {subset}: groups such as '
        f'"{mixed.items[0].group}" hold {others} together, and whole groups cannot be divided so '
        "that every part has every class; make finer groups"
    )


def _too_few(data: Collection, name: str, count: int) -> str:
    held = "one" if count == 1 else str(count)
    if data.kind == "signals":
        noun = "recording" if count == 1 else "recordings"
        return (
            f'class "{name}" of {_where(data)} has {held} independent {noun} only: training, '
            "validation and test need one each at least, since windows of one recording never "
            f"stand in two parts; record {_PARTS - count} more"
        )
    return (
        f'class "{name}" of {_where(data)} stands in {held} group{"" if count == 1 else "s"} only: '
        "training, validation and test need one each at least, since a group never stands in two "
        "parts; add images of other groups"
    )


def _left_out(data: Collection, name: str) -> str:
    first = next((file for file in data.excluded if name in Path(file.path).parts), None)
    return "" if first is None else f" (left out: {first.path}: {first.reason})"


def _where(data: Collection) -> Path:
    return data.root if data.table is None else data.table
