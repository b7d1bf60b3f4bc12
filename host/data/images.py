"""Images with their classes, divided into training, validation and test."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np

from host.data.conflicts import without_conflicts
from host.data.dealing import deal, draw
from host.data.likeness import look_of
from host.data.listing import (
    IMAGE_SUFFIXES,
    ExcludedFile,
    ListedFile,
    Listing,
    by_path,
    in_threads,
    list_folder,
)
from host.data.loading import KeptSplits, file_content, require_memory
from host.data.split import SUBSETS, Labels, Samples, Split, Subset
from host.data.trainable import first_complaint, missing_class
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


@dataclass(frozen=True)
class ImageItem:
    """A usable image: its path below the folder, its class, and the hash of its content."""

    path: str
    label: int
    sha256: str
    grey: bool
    subset: Subset | None = None
    """The subset that the folder itself puts it into, if it does."""
    group: str | None = None
    """Images of one group are never divided between parts."""
    width: int = 0
    height: int = 0
    mode: str = "L"
    """How Pillow calls the way in which its colours are stored."""
    look: bytes = b""
    """What it looks like, very small: see `host.data.likeness`."""

    @property
    def weight(self) -> int:
        return 1


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of images holds; items are in the order of their paths."""

    root: Path
    classes: tuple[str, ...]
    items: tuple[ImageItem, ...]
    excluded: tuple[ExcludedFile, ...] = ()
    table: Path | None = None
    """The table of labels, where classes are not folders."""

    kind: Literal["images"] = "images"

    @property
    def channels(self) -> Channels:
        """One where every image is grey, else three."""
        return 1 if all(item.grey for item in self.items) else 3

    @property
    def fingerprint(self) -> str:
        """A hash of the classes and of every image's path and content.

        And of what a path does not say: labels and parts of a table, and groups.
        """
        lines = [f"class {name}\n" for name in self.classes]
        lines += [f"{item.sha256} {item.path}\n" for item in self.items]
        if self.table is not None:
            lines += [f"row {json.dumps([i.path, i.label, i.subset])}\n" for i in self.items]
        if any(item.group is not None for item in self.items):
            lines += [f"group {json.dumps([item.path, item.group])}\n" for item in self.items]
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
    return scan_images(list_folder(path, IMAGE_SUFFIXES))


def scan_images(listing: Listing) -> ImageFolder:
    """Read every image of a listing; see `scan_folder`."""
    folder = read_images(listing)
    complaint = first_complaint(folder)
    if complaint is not None:
        raise UsageError(complaint)
    return folder


def read_images(listing: Listing) -> ImageFolder:
    """What a listing holds, whether or not a network can be trained on it."""
    labels = {name: label for label, name in enumerate(listing.classes)}
    read = list(
        in_threads(lambda file: _read_item(listing.root, file, labels[file.label]), listing.files)
    )
    excluded = [found for found in read if isinstance(found, ExcludedFile)]
    items = [found for found in read if isinstance(found, ImageItem)]
    settled = without_conflicts(items, listing.classes, lambda i, part: replace(i, subset=part))
    excluded += [*listing.excluded, *settled.excluded]
    return ImageFolder(
        listing.root, listing.classes, tuple(settled.kept), by_path(excluded), listing.table
    )


def split_items(folder: ImageFolder, *, seed: int) -> dict[Subset, tuple[ImageItem, ...]]:
    """Divide the images, class by class; parts that the folder itself has are kept.

    A pure function of contents, groups and seed: names and the order of files change nothing.
    Copies of one picture stay in one part, and so do the pictures of one group.

    Raises UsageError where a class would have no image in a part.
    """
    parts = deal(folder.items, len(folder.classes), seed=seed)
    complaint = missing_class(folder, parts)
    if complaint is not None:
        raise UsageError(complaint)
    return parts


class ImageLoader:
    """Decodes the images of a folder; what was decoded at one size is kept as uint8."""

    kind: Literal["images"] = "images"

    def __init__(self, folder: ImageFolder, *, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.parts = split_items(folder, seed=seed)
        self._splits = KeptSplits()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    @property
    def channels(self) -> Channels:
        return self.folder.channels

    @property
    def fingerprint(self) -> str:
        return self.folder.fingerprint

    @property
    def excluded(self) -> tuple[ExcludedFile, ...]:
        return self.folder.excluded

    def class_counts(self) -> dict[str, int]:
        """Images of each class."""
        return self.folder.class_counts()

    def split_at(self, shape: tuple[int, ...]) -> Split:
        """All images as a network reads them whose input has that shape (C, H, W).

        Raises UsageError for another kind of shape, and GenbaError for a file that has changed.
        """
        channels, height, width = _image_shape(shape)
        return self.split(height, width, channels)

    def batch_at(self, count: int, shape: tuple[int, ...]) -> tuple[Floats, Labels]:
        """`labelled_batch` for a network whose input has that shape (C, H, W)."""
        channels, height, width = _image_shape(shape)
        return self.labelled_batch(count, height, width, channels)

    def split(self, height: int, width: int, channels: Channels | None = None) -> Split:
        """All images at that size; without `channels` grey if every image is, else RGB.

        Raises GenbaError for a file that has changed since it was scanned, and where memory does
        not suffice.
        """
        shape = (channels or self.folder.channels, height, width)
        return self._splits.get(shape, lambda: self._load(*shape))

    def labelled_batch(
        self, count: int, height: int, width: int, channels: Channels | None = None
    ) -> tuple[Floats, Labels]:
        """Up to `count` images of the training part, drawn by the seed, and their classes (N,).

        As float32 (N, C, H, W), normalised by their own mean and deviation. This is what proxies
        look at.
        """
        train = self.parts["train"]
        ordered = sorted(train, key=lambda item: draw(item.sha256, self.seed + 1))[:count]
        pixels, labels = self._decode(ordered, height, width, channels or self.folder.channels)
        return preprocessing_of(pixels).normalise(pixels), labels

    def _load(self, channels: Channels, height: int, width: int) -> Split:
        require_memory(len(self.folder.items), (channels, height, width), 1, "images")
        pixels = {s: self._decode(self.parts[s], height, width, channels) for s in SUBSETS}
        return Split(
            classes=self.folder.classes,
            **{subset: Samples(*decoded) for subset, decoded in pixels.items()},
            preprocessing=preprocessing_of(pixels["train"][0]),
            fingerprint=self.folder.fingerprint,
            seed=self.seed,
        )

    def _decode(
        self, items: Sequence[ImageItem], height: int, width: int, channels: Channels
    ) -> tuple[Pixels, Labels]:
        pixels = np.empty((len(items), channels, height, width), np.uint8)

        def fill(index: int) -> None:
            content = image_content(self.folder.root, items[index])
            pixels[index] = pixels_of(decode(content), height, width, channels)

        for _ in in_threads(fill, range(len(items))):
            pass
        return pixels, np.array([item.label for item in items], np.int64)


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


def image_content(root: Path, item: ImageItem) -> bytes:
    """The bytes of an image as they were when it was scanned. Raises GenbaError."""
    content = file_content(root / item.path, "image")
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise GenbaError(
            f"the image {root / item.path} has changed since the folder was read: start again"
        )
    return content


def _image_shape(shape: tuple[int, ...]) -> tuple[Channels, int, int]:
    if len(shape) != 3 or shape[0] not in {1, 3}:
        sides = "x".join(map(str, shape))
        raise UsageError(
            f"images have 1 or 3 channels, and a network here reads {sides}: choose a network "
            "for images"
        )
    channels, height, width = shape
    return cast("Channels", channels), height, width


def _read_item(root: Path, file: ListedFile, label: int) -> ImageItem | ExcludedFile:
    try:
        content = (root / file.path).read_bytes()
        image = decode(content)
    except OSError as error:
        return ExcludedFile(file.path, error.strerror or str(error))
    except UnreadableImageError as error:
        return ExcludedFile(file.path, str(error))
    return ImageItem(
        path=file.path,
        label=label,
        sha256=hashlib.sha256(content).hexdigest(),
        grey=is_grey(image),
        subset=file.subset,
        group=file.group,
        width=image.width,
        height=image.height,
        mode=image.mode,
        look=look_of(image),
    )
