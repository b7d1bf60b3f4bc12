"""The data of a study: opened, drawn from for the proxies, and as facts to be kept."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from host.config import DataConfig
from host.data.dataset import Dataset, open_data
from host.data.split import Samples, Split
from host.data.table import Columns
from host.network.graph import Shape
from host.proxies.scoring import View
from host.proxies.work import Batch
from host.study.stored import DataFacts


def open_study_data(config: DataConfig, *, seed: int) -> Dataset:
    """The data that a study names. Raises UsageError where no network can be trained on them."""
    return open_data(
        Path(config.folder),
        kind=config.kind,
        table=None if config.table is None else Path(config.table),
        columns=Columns(**config.columns, channels=tuple(config.channels or ())),
        group=config.group,
        length=config.window,
        step=config.step,
        seed=seed,
    )


def channels_of(config: DataConfig, data: Dataset) -> int:
    """How many channels networks read: of a signal its sensors, of an image as configured."""
    if data.kind == "signals" or config.colour == "auto":
        return data.channels
    return 1 if config.colour == "grey" else 3


def facts_of(config: DataConfig, data: Dataset, split: Split) -> DataFacts:
    """What is kept of the data, from any split of them."""
    return DataFacts(
        folder=config.folder,
        classes=list(data.classes),
        counts={
            "train": _counts(split, split.train),
            "validation": _counts(split, split.validation),
            "test": _counts(split, split.test),
        },
        fingerprint=data.fingerprint,
        licence=config.licence,
    )


def _counts(split: Split, samples: Samples) -> list[int]:
    counts = np.bincount(samples.labels, minlength=len(split.classes))
    return [int(count) for count in counts]


def view_of_data(data: Dataset, count: int, *, seed: int, resolution: int | None = None) -> View:
    """Up to `count` samples of the training part with their classes, at the size that a network
    reads, and the seed of the weights. `resolution` is the side of images where it is another.
    """

    @lru_cache(maxsize=1)  # for networks of one size after another
    def batch(shape: Shape) -> Batch:
        samples, labels = data.batch_at(count, shape)
        return Batch(data.kind, samples, labels)

    return View(lambda shape: batch(resized(shape, resolution)), seed)


def resized(shape: Shape, resolution: int | None) -> Shape:
    """(channels, height, width) with that side, or as they are; a signal keeps its height of 1."""
    if resolution is None or len(shape) != 3:
        return shape
    channels, height, _ = shape
    return (channels, 1 if height == 1 else resolution, resolution)
