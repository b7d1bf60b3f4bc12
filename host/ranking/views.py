"""What proxies look at in a ranking: images of the plant or made-up ones, drawn several times."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, cast

from host.data.images import ImageFolder, ImageLoader
from host.errors import UsageError
from host.network.graph import Shape
from host.proxies.images import gaussian_batch, natural_batch
from host.proxies.scoring import View
from host.proxies.work import Batch
from host.study.data import resized, view_of_data

Made = Literal["gaussian", "natural"]
"""Noise, or images with the statistics of photographs."""
MADE: Mapping[str, Made] = {"gaussian": "gaussian", "natural": "natural"}
"""By what people call them."""


def views_of_folder(
    folder: ImageFolder, count: int, draws: int, *, seed: int, resolution: int | None
) -> tuple[View, ...]:
    """For each draw other images of the folder and other weights; see `view_of_data`."""
    return tuple(
        _seen(ImageLoader(folder, seed=each), count, each, resolution)
        for each in range(seed, seed + draws)
    )


def _seen(loader: ImageLoader, count: int, seed: int, resolution: int | None) -> View:
    view = view_of_data(loader, count, seed=seed, resolution=resolution)

    def batch_of(shape: Shape) -> Batch:
        try:
            return view.batch(shape)
        except UsageError as error:
            raise UsageError(f"{error}, or use --images gaussian") from error

    return View(batch_of, seed)


def made_views(
    source: Made | None, count: int, draws: int, *, seed: int, resolution: int | None
) -> tuple[View, ...]:
    """For each draw other made-up images and other weights.

    Without a source networks that read (channels, height, width) see natural images, others
    Gaussian noise. `resolution` is the side of the images where it is not that of the network.
    """
    return tuple(_made(source, count, each, resolution) for each in range(seed, seed + draws))


def _made(source: Made | None, count: int, seed: int, resolution: int | None) -> View:
    @lru_cache(maxsize=1)  # for networks of one size after another
    def batch(kind: Made, shape: Shape) -> Batch:
        make = gaussian_batch if kind == "gaussian" else natural_batch
        full = cast("tuple[int, int, int, int]", (count, *shape))
        return Batch(kind, make(full, seed=seed).numpy())

    def batch_of(shape: Shape) -> Batch:
        if len(shape) == 3:
            return batch(source or "natural", resized(shape, resolution))
        if source == "natural":
            sides = "x".join(map(str, shape))
            raise UsageError(
                f"a network here reads {sides}, which is no image: use --images gaussian"
            )
        return batch("gaussian", shape)

    return View(batch_of, seed)
