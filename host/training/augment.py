"""Light changes to training samples that leave what they show as it is."""

from dataclasses import dataclass

import torch

from host.errors import UsageError


@dataclass(frozen=True)
class Augmentation:
    """Which changes are made, each by chance; 0 and False turn one off.

    `shift_fraction` is the largest shift, as a part of each side of an image or of the length of a
    signal. Of images: turn flips and quarter turns off where up and down or left and right mean
    something; `brightness` is the most that is added, as a part of white, and `contrast` the most
    that distances from the image's mean grow or shrink, as a part of them. Of signals: `amplitude`
    is the most that a window grows or shrinks, as a part of it, and `noise` the standard deviation
    of what is added to each sensor, in that of the sensor's window.

    Raises UsageError for values that cannot be.
    """

    flips: bool = True
    quarter_turns: bool = True
    shift_fraction: float = 0.06
    brightness: float = 0.05
    contrast: float = 0.1
    amplitude: float = 0.1
    noise: float = 0.05

    def __post_init__(self) -> None:
        for name in ("shift_fraction", "brightness", "contrast", "amplitude", "noise"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(
                    f"augmentation needs {name} from 0 to below 1, got {getattr(self, name)}"
                )


def augment(
    samples: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Changed copies of samples as a Split holds them, drawn from the generator.

    Images are whole numbers from 0 to 255 (N, C, H, W), signals are floats (N, C, L) or
    (N, C, 1, L); shape and type stay as they are. Quarter turns are made of square images only.
    Shifts repeat the border of an image and mirror a signal at its ends.
    """
    if samples.is_floating_point():
        changed = _changed_signals(samples.flatten(2), augmentation, generator)
        return changed.reshape(samples.shape)
    return _toned(_moved(samples, augmentation, generator), augmentation, generator)


def _moved(
    images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Flips, turns and shifts as one look-up: a turn is a transposition and flips."""
    count, channels, height, width = images.shape
    rows = _shifted(count, height, augmentation.shift_fraction, generator).clamp(0, height - 1)
    columns = _shifted(count, width, augmentation.shift_fraction, generator).clamp(0, width - 1)
    turns = torch.zeros(count, dtype=torch.int64)
    if augmentation.quarter_turns and height == width:
        turns = _draw(4, count, generator)
    flipped_rows, flipped_columns = (turns == 1) | (turns == 2), (turns == 2) | (turns == 3)
    if augmentation.flips:
        flipped_rows = flipped_rows ^ (_draw(2, count, generator) == 1)
        flipped_columns = flipped_columns ^ (_draw(2, count, generator) == 1)
    rows = torch.where(flipped_rows[:, None], height - 1 - rows, rows)[:, :, None]
    columns = torch.where(flipped_columns[:, None], width - 1 - columns, columns)[:, None, :]
    transposed = (turns % 2 == 1)[:, None, None]
    places = torch.where(transposed, columns * width + rows, rows * width + columns)
    places = places.reshape(count, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, places).reshape(images.shape)


def _toned(
    images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    if augmentation.brightness == 0.0 and augmentation.contrast == 0.0:
        return images
    brightness = 255.0 * augmentation.brightness * _either_way(len(images), generator)
    contrast = 1.0 + augmentation.contrast * _either_way(len(images), generator)
    tones = images.float()
    mean = tones.mean(dim=(1, 2, 3))
    tones.mul_(contrast[:, None, None, None])
    tones.add_((mean * (1.0 - contrast) + brightness)[:, None, None, None])
    return tones.round_().clamp_(0.0, 255.0).to(images.dtype)


def _changed_signals(
    signals: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    count, channels, length = signals.shape
    places = _shifted(count, length, augmentation.shift_fraction, generator).abs()
    places = length - 1 - (length - 1 - places).abs()
    changed = signals.gather(2, places[:, None, :].expand(-1, channels, -1))
    if augmentation.amplitude > 0.0:
        gain = 1.0 + augmentation.amplitude * _either_way(count, generator)
        changed = changed * gain[:, None, None]
    if augmentation.noise > 0.0:
        spread = augmentation.noise * changed.std(dim=2, keepdim=True, correction=0)
        changed = changed + spread * torch.randn(changed.shape, generator=generator)
    return changed


def _shifted(count: int, side: int, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """Places (count, side), each row moved by a whole number; some lie outside."""
    reach = int(fraction * side)
    shifts = _draw(2 * reach + 1, count, generator) - reach
    return torch.arange(side)[None, :] + shifts[:, None]


def _draw(below: int, count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(below, (count,), generator=generator)


def _either_way(count: int, generator: torch.Generator) -> torch.Tensor:
    """Uniform from -1 to 1."""
    return 2.0 * torch.rand(count, generator=generator) - 1.0
