"""Batches of made-up images, for where no images of the plant are at hand."""

import torch
from torch.nn import functional


def gaussian_batch(shape: tuple[int, int, int, int], *, seed: int) -> torch.Tensor:
    """(N, C, H, W) float32 of independent standard normal numbers, a function of the seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def natural_batch(shape: tuple[int, int, int, int], *, seed: int) -> torch.Tensor:
    """(N, C, H, W) float32 with the second-order statistics of photographs, a function of the seed.

    Amplitudes fall as 1 / frequency (D. J. Field, J. Opt. Soc. Am. A 4(12), 1987) and channels
    share most of their variance. Each channel of the batch has mean 0 and deviation 1.
    """
    images, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images, channels, height, width, generator=generator)
    shared = torch.randn(images, 1, height, width, generator=generator)
    rows = torch.fft.fftfreq(height).square()[:, None]
    columns = torch.fft.rfftfreq(width).square()[None, :]
    # The mean of an image is one more of its slow waves.
    slowest = 0.5 / max(height, width)
    amplitude = 1.0 / (rows + columns).sqrt().clamp(min=slowest)
    mixed = 2.0 * shared + noise
    spectrum = torch.fft.rfft2(mixed) * amplitude
    smooth = torch.fft.irfft2(spectrum, s=(height, width))
    deviation, mean = torch.std_mean(smooth, dim=(0, 2, 3), keepdim=True)
    scaled: torch.Tensor = (smooth - mean) / functional.threshold(deviation, 1e-12, 1.0)
    return scaled
