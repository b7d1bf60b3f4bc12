"""What there is to score: a network, proxies, images and a seed. Scores are a function of these."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from host.network.graph import Network, Shape
from host.proxies.catalogue import proxies_by_name
from host.proxies.engine import score, score_module, weight_seed

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Scores = dict[str, float]
"""By the name of the proxy; nan where there is no finite score."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (N, C, H, W) that proxies look at, their classes (N,) where they have any, and the
    name of their source.
    """

    source: str
    images: Images
    labels: Labels | None = None

    @cached_property
    def digest(self) -> str:
        """A hash of every pixel and label."""
        found = hashlib.blake2b(np.ascontiguousarray(self.images).tobytes(), digest_size=8)
        found.update(b"" if self.labels is None else self.labels.tobytes())
        return found.hexdigest()

    @property
    def key(self) -> str:
        """Source, shape and content, such as "natural 32x3x64x64 #0123456789abcdef"."""
        shape = "x".join(map(str, self.images.shape))
        return f"{self.source} {shape} #{self.digest}"


NO_BATCH = Batch("none", np.empty((0, 0, 0, 0), np.float32))
"""For proxies that look at the graph alone."""


class ModelFile(Protocol):
    """A model of the user's own, as a module."""

    @property
    def key(self) -> str:
        """Names its content."""
        ...

    @property
    def input_shape(self) -> Shape:
        """Channels, height and width of an image."""
        ...

    def module(self, seed: int) -> nn.Module:
        """What the file computes, with weights drawn anew from the seed. Raises UsageError."""
        ...


Scorable = Network | ModelFile


@dataclass(frozen=True, eq=False)
class Work:
    """A network to score by some proxies, by their names; `name` is what people call it."""

    name: str
    network: Scorable
    proxies: tuple[str, ...]
    batch: Batch
    seed: int


def compute(work: Work) -> Scores:
    """The scores: the same numbers in whatever process, on machines of one kind.

    Raises UsageError where the batch does not suit the network.
    """
    proxies = proxies_by_name(work.proxies)
    batch = torch.tensor(work.batch.images)
    labels = None if work.batch.labels is None else torch.tensor(work.batch.labels)
    with _one_thread():
        if isinstance(work.network, Network):
            return score(work.network, proxies, batch=batch, seed=work.seed, labels=labels)
        drawn = weight_seed(work.network.key, work.seed)
        module = work.network.module(drawn)
        return score_module(module, proxies, batch=batch, seed=drawn, labels=labels)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The number of threads changes the order of sums, and with it the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
