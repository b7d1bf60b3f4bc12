"""Light changes to training images that leave what they show as it is."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Augmentation:
    """Which changes are made; `shift_fraction` is the largest shift as a part of each side.

    Turn flips and quarter turns off where up and down or left and right mean something.
    """

    flips: bool = True
    quarter_turns: bool = True
    shift_fraction: float = 0.06


def augment(
    images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Changed copies of images (N, C, H, W) of any type, drawn from the generator.

    Quarter turns are made of square images only. Shifts repeat the border.
    """
    changed = images.clone()
    if augmentation.flips:
        for axis in (2, 3):
            chosen = _draw(2, len(images), generator) == 1
            changed[chosen] = changed[chosen].flip(axis)
    if augmentation.quarter_turns and images.shape[2] == images.shape[3]:
        turns = _draw(4, len(images), generator)
        for turn in (1, 2, 3):
            chosen = turns == turn
            changed[chosen] = changed[chosen].rot90(turn, (2, 3))
    return _shifted(changed, augmentation.shift_fraction, generator)


def _shifted(images: torch.Tensor, fraction: float, generator: torch.Generator) -> torch.Tensor:
    count, _, height, width = images.shape
    rows = _shifted_places(count, height, fraction, generator)
    columns = _shifted_places(count, width, fraction, generator)
    image = torch.arange(count)[:, None, None]
    # Advanced indices on both sides of a slice put the channels last.
    return images[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shifted_places(
    count: int, side: int, fraction: float, generator: torch.Generator
) -> torch.Tensor:
    reach = int(fraction * side)
    shifts = _draw(2 * reach + 1, count, generator) - reach
    return (torch.arange(side)[None, :] + shifts[:, None]).clamp(0, side - 1)


def _draw(below: int, count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(below, (count,), generator=generator)
