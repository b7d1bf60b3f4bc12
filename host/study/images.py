"""What proxies look at where the plant has images: a batch of them, at the size of a network."""

from functools import lru_cache
from typing import cast

from host.data.images import ImageLoader
from host.errors import UsageError
from host.network.graph import Shape
from host.preprocessing import Channels
from host.proxies.scoring import View
from host.proxies.work import Batch


def view_of_images(
    loader: ImageLoader, count: int, *, seed: int, resolution: int | None = None
) -> View:
    """Up to `count` images of the training part with their classes, and the seed of the weights.

    Networks that read one channel see them grey. `resolution` is the side of the images where it
    is not that of the network.
    """

    @lru_cache(maxsize=1)  # for networks of one size after another
    def batch(channels: Channels, height: int, width: int) -> Batch:
        images, labels = loader.labelled_batch(count, height, width, channels)
        return Batch("images", images, labels)

    def batch_of(shape: Shape) -> Batch:
        if len(shape) != 3 or shape[0] not in {1, 3}:
            sides = "x".join(map(str, shape))
            raise UsageError(
                f"images have 1 or 3 channels, and a network here reads {sides}: "
                "use --images gaussian"
            )
        channels, height, width = resized(shape, resolution)
        return batch(cast("Channels", channels), height, width)

    return View(batch_of, seed)


def resized(shape: Shape, resolution: int | None) -> Shape:
    """(channels, height, width) with that side, or as they are; a signal keeps its height of 1."""
    if resolution is None:
        return shape
    channels, height, _ = shape
    return (channels, 1 if height == 1 else resolution, resolution)
