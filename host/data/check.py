"""What there is to know about data before anything is trained on them: facts, no opinions."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from host.data.dealing import Item, deal
from host.data.images import ImageFolder, ImageItem
from host.data.likeness import Likeness, alike
from host.data.listing import (
    IMAGE_SUFFIXES,
    RECORDING_SUFFIXES,
    ExcludedFile,
    Kind,
    files_below,
)
from host.data.signals import SignalFolder, SignalItem
from host.data.split import SUBSETS, Subset
from host.data.trainable import complaints, missing_class

Counts = Mapping[str, int]
"""By class."""


@dataclass(frozen=True)
class LikePair:
    """Two pictures in different parts that look alike, with part and class of each."""

    paths: tuple[str, str]
    parts: tuple[Subset, Subset]
    classes: tuple[str, str]
    correlation: float


@dataclass(frozen=True)
class GroupFacts:
    """Groups: how many, how many of each class in each part, and those with several classes."""

    count: int
    by_part: Mapping[Subset, Counts]
    mixed: Mapping[str, tuple[str, ...]]
    """The classes of each such group."""


@dataclass(frozen=True)
class ImageFacts:
    """Sizes as (width, height) and colours of each class, and pictures that look alike.

    `alike` lists the pairs that are most alike (see `host.data.likeness`); `alike_count` and
    `alike_contrary` count them all, and those of two classes.
    """

    sizes: Mapping[str, Counter[tuple[int, int]]]
    grey: Counts
    modes: Counter[str]
    alike: tuple[LikePair, ...]
    alike_count: int
    alike_contrary: int


@dataclass(frozen=True)
class SignalFacts:
    """Recordings by class, how they are cut, and channels that are odd in every recording."""

    recordings: Counts
    channels: tuple[str, ...]
    length: int
    step: int
    shortest: int
    longest: int
    flat: tuple[str, ...]
    rising: tuple[str, ...]


@dataclass(frozen=True)
class DataCheck:
    """All that was found. `problems` say why no training could start, in sentences."""

    kind: Kind
    root: Path
    table: Path | None
    seed: int
    fingerprint: str
    classes: tuple[str, ...]
    counts: Counts
    """Samples: images, or windows."""
    parts: Mapping[Subset, Counts]
    given: tuple[Subset, ...]
    """Parts that the folder or the table itself fills."""
    groups: GroupFacts | None
    excluded: tuple[ExcludedFile, ...]
    copies: tuple[tuple[str, ...], ...]
    """Files of one content, class and part: they stay together, and count as many."""
    unlisted: int
    """Files below the folder that its table does not name."""
    images: ImageFacts | None
    signals: SignalFacts | None
    problems: tuple[str, ...]


def check_data(data: ImageFolder | SignalFolder, folder: Path, *, seed: int) -> DataCheck:
    """The facts of data that were read from a folder, divided by the seed.

    Pictures are compared as they were read: nothing is decoded again.
    """
    parts = division(data, seed=seed)
    problems = complaints(data)
    missing = missing_class(data, parts)
    if not problems and missing is not None:
        problems = [missing]
    return DataCheck(
        kind=data.kind,
        root=data.root,
        table=data.table,
        seed=seed,
        fingerprint=data.fingerprint,
        classes=data.classes,
        counts=data.class_counts(),
        parts={subset: _counts(chosen, data.classes) for subset, chosen in parts.items()},
        given=tuple(s for s in SUBSETS if any(item.subset == s for item in data.items)),
        groups=_groups(parts, data),
        excluded=data.excluded,
        copies=_copies(data.items),
        unlisted=_unlisted(data, folder),
        images=_image_facts(data, seed) if isinstance(data, ImageFolder) else None,
        signals=_signal_facts(data) if isinstance(data, SignalFolder) else None,
        problems=tuple(problems),
    )


def division(
    data: ImageFolder | SignalFolder, *, seed: int
) -> Mapping[Subset, Sequence[ImageItem | SignalItem]]:
    """The parts, even where a class is missing in one."""
    if isinstance(data, ImageFolder):
        return deal(data.items, len(data.classes), seed=seed)
    return deal(data.items, len(data.classes), seed=seed)


def _counts(items: Sequence[Item], classes: Sequence[str]) -> Counts:
    counts = dict.fromkeys(classes, 0)
    for item in items:
        counts[classes[item.label]] += item.weight
    return counts


def _groups(
    parts: Mapping[Subset, Sequence[Item]], data: ImageFolder | SignalFolder
) -> GroupFacts | None:
    """None where there are none; a recording without a group is one by itself."""
    labels: dict[str, set[int]] = defaultdict(set)
    by_part: dict[Subset, Counts] = {}
    for subset, chosen in parts.items():
        grouped = {(item.group, item.label) for item in chosen if item.group is not None}
        counted = Counter(label for _, label in grouped)
        by_part[subset] = {name: counted[label] for label, name in enumerate(data.classes)}
        for group, label in grouped:
            labels[str(group)].add(label)
    if not labels:
        return None
    mixed = {
        group: tuple(data.classes[label] for label in sorted(held))
        for group, held in sorted(labels.items())
        if len(held) > 1
    }
    return GroupFacts(len(labels), by_part, mixed)


def _copies(items: Sequence[Item]) -> tuple[tuple[str, ...], ...]:
    paths: dict[Hashable, list[str]] = defaultdict(list)
    for item in items:
        paths[item.sha256].append(item.path)
    return tuple(tuple(same) for same in paths.values() if len(same) > 1)


def _unlisted(data: ImageFolder | SignalFolder, folder: Path) -> int:
    if data.table is None or not folder.is_dir():
        return 0
    suffixes = IMAGE_SUFFIXES if data.kind == "images" else RECORDING_SUFFIXES
    table, root = data.table.resolve(), data.root.resolve()
    known = {(root / item.path).resolve() for item in (*data.items, *data.excluded)}
    below = {file.resolve() for file in files_below(folder, suffixes)}
    return len(below - known - {table})


def _image_facts(data: ImageFolder, seed: int) -> ImageFacts:
    sizes: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in data.classes}
    grey = dict.fromkeys(data.classes, 0)
    for item in data.items:
        sizes[data.classes[item.label]][item.width, item.height] += 1
        grey[data.classes[item.label]] += item.grey
    likeness, pairs = _alike(data, seed)
    return ImageFacts(
        sizes=sizes,
        grey=grey,
        modes=Counter(item.mode for item in data.items),
        alike=pairs,
        alike_count=likeness.count,
        alike_contrary=likeness.contrary,
    )


def _alike(data: ImageFolder, seed: int) -> tuple[Likeness, tuple[LikePair, ...]]:
    """Pairs across parts, but for copies: those stand in one part."""
    parts = deal(data.items, len(data.classes), seed=seed)
    dealt: list[tuple[ImageItem, Subset]] = [
        (item, subset) for subset, chosen in parts.items() for item in chosen
    ]
    likeness = alike(
        [item.look for item, _ in dealt],
        [SUBSETS.index(subset) for _, subset in dealt],
        [item.label for item, _ in dealt],
    )
    pairs = [(dealt[pair.first], dealt[pair.second], pair.correlation) for pair in likeness.pairs]
    return likeness, tuple(
        LikePair(
            paths=(one.path, other.path),
            parts=(part, other_part),
            classes=(data.classes[one.label], data.classes[other.label]),
            correlation=correlation,
        )
        for (one, part), (other, other_part), correlation in pairs
    )


def _signal_facts(data: SignalFolder) -> SignalFacts:
    recordings = Counter(data.classes[item.label] for item in data.items)
    lengths = [item.samples for item in data.items]
    return SignalFacts(
        recordings={name: recordings[name] for name in data.classes},
        channels=data.channel_names,
        length=data.windows.length,
        step=data.windows.step,
        shortest=min(lengths, default=0),
        longest=max(lengths, default=0),
        flat=_everywhere([item.flat for item in data.items], data.channel_names),
        rising=_everywhere([item.rising for item in data.items], data.channel_names),
    )


def _everywhere(named: Sequence[tuple[str, ...]], channels: Sequence[str]) -> tuple[str, ...]:
    """The channels that every recording names."""
    return tuple(name for name in channels if named and all(name in names for names in named))
