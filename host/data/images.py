"""Images in a folder with one sub-folder a class, divided into training, validation and test."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from host.data.split import SUBSETS, Labels, Samples, Split, Subset
from host.errors import GenbaError, UsageError
from host.preprocessing import (
    Channels,
    Floats,
    Pixels,
    Preprocessing,
    UnreadableImageError,
    decode,
    is_grey,
    pixels_of,
)

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
MIN_IMAGES_PER_CLASS = 5
VALIDATION_FRACTION = 0.2
TEST_FRACTION = 0.2

_SUBSET_FOLDERS: dict[str, Subset] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_DECODER_THREADS = 2


@dataclass(frozen=True)
class ImageItem:
    """A usable image: its path below the folder, its class, and the hash of its content."""

    path: str
    label: int
    sha256: str
    grey: bool
    subset: Subset | None = None
    """The subset that the folder itself puts it into, if it does."""


@dataclass(frozen=True)
class ExcludedFile:
    """An image file that is left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of images holds; items are in the order of their paths."""

    root: Path
    classes: tuple[str, ...]
    items: tuple[ImageItem, ...]
    excluded: tuple[ExcludedFile, ...] = ()

    @property
    def channels(self) -> Channels:
        """One where every image is grey, else three."""
        return 1 if all(item.grey for item in self.items) else 3

    @property
    def fingerprint(self) -> str:
        """A hash of the classes and of every image's path and content."""
        lines = [f"class {name}\n" for name in self.classes]
        lines += [f"{item.sha256} {item.path}\n" for item in self.items]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def class_counts(self) -> dict[str, int]:
        """Images of each class."""
        counts = [0] * len(self.classes)
        for item in self.items:
            counts[item.label] += 1
        return dict(zip(self.classes, counts, strict=True))


def scan_folder(path: Path) -> ImageFolder:
    """Read every image below a folder and say which can be used.

    The folder has one sub-folder a class, or sub-folders train, val and test (train alone is
    enough) that have. Hidden files and files that are no images by their suffix are passed over;
    files that cannot be decoded, and pictures that stand in two classes or in two parts, are
    excluded and named.

    Raises UsageError where the folder is missing, has no class folders, has one class only, or
    has a class with too few images.
    """
    if not path.is_dir():
        raise UsageError(f"there is no image folder {path}: check the path")
    parts = _parts(path)
    folders = {name for part in parts for name in _folders(part)}
    if not folders:
        raise UsageError(
            f"{path} has no class folders: put the images of each class into a sub-folder "
            "named after the class"
        )
    if len(folders) == 1:
        raise UsageError(
            f'{path} has only one class, "{folders.pop()}": training needs two classes or more, '
            "each in a sub-folder of its own"
        )
    classes = tuple(sorted(folders))
    items, excluded = _read_all(path, parts, classes)
    items, conflicting = _without_conflicts(items, classes)
    folder = ImageFolder(path, classes, tuple(items), tuple(_by_path(excluded + conflicting)))
    _check_class_sizes(folder)
    return folder


def _by_path(files: Iterable[ExcludedFile]) -> list[ExcludedFile]:
    return sorted(files, key=lambda file: file.path)


def split_items(folder: ImageFolder, *, seed: int) -> dict[Subset, tuple[ImageItem, ...]]:
    """Divide the images, class by class; parts that the folder itself has are kept.

    A pure function of contents and seed: names and the order of files change nothing. Copies of
    one picture stay in one part.

    Raises UsageError where a class would have no image in a part.
    """
    given = {item.subset for item in folder.items} - {None, "train"}
    parts: dict[Subset, list[ImageItem]] = {subset: [] for subset in SUBSETS}
    for label in range(len(folder.classes)):
        items = [item for item in folder.items if item.label == label]
        for item in items:
            if item.subset in ("validation", "test"):
                parts[item.subset].append(item)
        rest = [item for item in items if item.subset in (None, "train")]
        wanted: dict[Subset, int] = {
            "test": 0 if "test" in given else _share(TEST_FRACTION, rest),
            "validation": 0 if "validation" in given else _share(VALIDATION_FRACTION, rest),
        }
        _deal(rest, wanted, parts, seed)
    for subset, chosen in parts.items():
        missing = set(range(len(folder.classes))) - {item.label for item in chosen}
        if missing:
            name = folder.classes[min(missing)]
            raise UsageError(
                f'class "{name}" of {folder.root} has no image for {subset}: add images of it'
            )
    return {s: tuple(sorted(chosen, key=lambda i: i.path)) for s, chosen in parts.items()}


class ImageLoader:
    """Decodes the images of a folder; what was decoded at one size is kept as uint8."""

    def __init__(self, folder: ImageFolder, *, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.parts = split_items(folder, seed=seed)
        self._splits: dict[tuple[int, int, Channels], Split] = {}

    def split(self, height: int, width: int, channels: Channels | None = None) -> Split:
        """All images at that size; without `channels` grey if every image is, else RGB.

        Raises GenbaError for a file that has changed since it was scanned.
        """
        key = (height, width, channels or self.folder.channels)
        if key not in self._splits:
            self._splits[key] = self._load(*key)
        return self._splits[key]

    def batch(
        self, count: int, height: int, width: int, channels: Channels | None = None
    ) -> Floats:
        """Up to `count` images of the training part, drawn by the seed, as float32 (N, C, H, W).

        Normalised by their own mean and deviation. This is what proxies look at.
        """
        return self.labelled_batch(count, height, width, channels)[0]

    def labelled_batch(
        self, count: int, height: int, width: int, channels: Channels | None = None
    ) -> tuple[Floats, Labels]:
        """The images of `batch`, and their classes (N,)."""
        train = self.parts["train"]
        ordered = sorted(train, key=lambda item: _draw(item.sha256, self.seed + 1))[:count]
        images = self._decode(ordered, height, width, channels or self.folder.channels)
        return preprocessing_of(images.inputs).normalise(images.inputs), images.labels

    def _load(self, height: int, width: int, channels: Channels) -> Split:
        images = {s: self._decode(self.parts[s], height, width, channels) for s in SUBSETS}
        return Split(
            classes=self.folder.classes,
            **images,
            preprocessing=preprocessing_of(images["train"].inputs),
            fingerprint=self.folder.fingerprint,
            seed=self.seed,
        )

    def _decode(
        self, items: Sequence[ImageItem], height: int, width: int, channels: Channels
    ) -> Samples:
        pixels = np.empty((len(items), channels, height, width), np.uint8)

        def fill(index: int) -> None:
            content = _read_unchanged(self.folder.root, items[index])
            pixels[index] = pixels_of(decode(content), height, width, channels)

        with ThreadPoolExecutor(_DECODER_THREADS) as pool:
            list(pool.map(fill, range(len(items))))
        return Samples(pixels, np.array([item.label for item in items], np.int64))


def load_split(
    folder: ImageFolder, *, height: int, width: int, seed: int, channels: Channels | None = None
) -> Split:
    """All images of a folder at one size; see ImageLoader."""
    return ImageLoader(folder, seed=seed).split(height, width, channels)


def preprocessing_of(pixels: Pixels) -> Preprocessing:
    """Size, channels, and the mean and deviation of each channel over uint8 (N, C, H, W)."""
    _, channels, height, width = pixels.shape
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(channels):
        share = np.bincount(pixels[:, channel].ravel(), minlength=256) / pixels[:, channel].size
        mean.append(float(share @ values))
        # Images of one flat tone have no deviation: one step of grey keeps the division defined.
        std.append(max(float(share @ (values - mean[-1]) ** 2) ** 0.5, 1 / 255))
    return Preprocessing(height, width, 1 if channels == 1 else 3, tuple(mean), tuple(std))


def _parts(path: Path) -> dict[Path, Subset | None]:
    """The folders that hold class folders, with the subset that each stands for."""
    found = {path / name: _SUBSET_FOLDERS[name] for name in _folders(path) & set(_SUBSET_FOLDERS)}
    if "train" in found.values() and all(_folders(part) for part in found):
        return dict(found)
    return {path: None}


def _folders(path: Path) -> set[str]:
    return {p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")}


def _read_all(
    root: Path, parts: dict[Path, Subset | None], classes: Sequence[str]
) -> tuple[list[ImageItem], list[ExcludedFile]]:
    wanted = [
        (file.relative_to(root).as_posix(), label, subset)
        for part, subset in parts.items()
        for label, name in enumerate(classes)
        for file in _image_files(part / name)
    ]
    with ThreadPoolExecutor(_DECODER_THREADS) as pool:
        read = list(pool.map(lambda file: _read_item(root, *file), sorted(wanted)))
    items = [found for found in read if isinstance(found, ImageItem)]
    return items, [found for found in read if isinstance(found, ExcludedFile)]


def _image_files(folder: Path) -> Iterable[Path]:
    for directory, _, names in os.walk(folder):
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(directory, name)


def _read_item(
    root: Path, path: str, label: int, subset: Subset | None
) -> ImageItem | ExcludedFile:
    try:
        content = (root / path).read_bytes()
        grey = is_grey(decode(content))
    except OSError as error:
        return ExcludedFile(path, error.strerror or str(error))
    except UnreadableImageError as error:
        return ExcludedFile(path, str(error))
    return ImageItem(path, label, hashlib.sha256(content).hexdigest(), grey, subset)


def _without_conflicts(
    items: Sequence[ImageItem], classes: Sequence[str]
) -> tuple[list[ImageItem], list[ExcludedFile]]:
    """Leave out pictures with two labels, and copies of held-back pictures in earlier parts."""
    copies: dict[str, list[ImageItem]] = defaultdict(list)
    for item in items:
        copies[item.sha256].append(item)
    kept, excluded = [], []
    for item in items:
        same = copies[item.sha256]
        labels = sorted({other.label for other in same})
        latest = max(same, key=lambda other: _part_order(other.subset)).subset
        if len(labels) > 1:
            names = " and ".join(f'"{classes[label]}"' for label in labels)
            excluded.append(ExcludedFile(item.path, f"the same picture stands in {names}"))
        elif item.subset != latest:
            excluded.append(ExcludedFile(item.path, f"the same picture stands in {latest}"))
        else:
            kept.append(item)
    return kept, excluded


def _part_order(subset: Subset | None) -> int:
    return 0 if subset is None else SUBSETS.index(subset)


def _check_class_sizes(folder: ImageFolder) -> None:
    for name, count in folder.class_counts().items():
        if count < MIN_IMAGES_PER_CLASS:
            first = next((f for f in folder.excluded if name in Path(f.path).parts), None)
            why = f" (left out: {first.path}: {first.reason})" if first else ""
            raise UsageError(
                f'class "{name}" of {folder.root} has {count} usable images{why}: at least '
                f"{MIN_IMAGES_PER_CLASS} are needed"
            )


def _share(fraction: float, items: Sequence[ImageItem]) -> int:
    return max(1, round(fraction * len(items)))


def _deal(
    items: Sequence[ImageItem],
    wanted: dict[Subset, int],
    parts: dict[Subset, list[ImageItem]],
    seed: int,
) -> None:
    """Fill test, then validation, with whole groups of copies; the rest is for training."""
    copies: dict[str, list[ImageItem]] = defaultdict(list)
    for item in items:
        copies[item.sha256].append(item)
    taken = dict.fromkeys(wanted, 0)
    for content in sorted(copies, key=lambda sha256: _draw(sha256, seed)):
        group = copies[content]
        for subset, count in wanted.items():
            if taken[subset] + len(group) <= count:
                taken[subset] += len(group)
                parts[subset].extend(group)
                break
        else:
            parts["train"].extend(group)


def _draw(sha256: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest()


def _read_unchanged(root: Path, item: ImageItem) -> bytes:
    try:
        content = (root / item.path).read_bytes()
    except OSError as error:
        raise GenbaError(
            f"the image {root / item.path} can no longer be read ({error.strerror}): put it back "
            "or start again"
        ) from error
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise GenbaError(
            f"the image {root / item.path} has changed since the folder was read: start again"
        )
    return content
