"""From an image or a signal to the numbers that a network reads, in training and on a device."""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFile, ImageOps

from host.errors import GenbaError

Channels = Literal[1, 3]
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Inputs = Pixels | Floats
"""Images as uint8, or windows of signals as float32; batch first, channels second."""

_DEEP_MODES = ("I", "F")
_INDIRECT_MODES = {"LAB": "RGB", "La": "LA"}
"""Modes that Pillow turns into grey or colour only by way of another one."""
# What Pillow's decoders raise on damaged files: its own errors, and what their parsers let through.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class UnreadableImageError(GenbaError):
    """A file is no image that can be used; the text is the reason, without the file's name."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image: resized to height x width, then (pixel / 255 - mean) / std.

    One channel is grey, three are red, green and blue; `mean` and `std` have one number a channel.
    """

    height: int
    width: int
    channels: Channels
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def colour_order(self) -> Literal["grey", "RGB"]:
        return "grey" if self.channels == 1 else "RGB"

    def normalise(self, inputs: Inputs) -> Floats:
        """Pixels of shape (..., C, H, W) as the float32 that the network reads."""
        mean = np.array(self.mean, np.float32).reshape(-1, 1, 1)
        std = np.array(self.std, np.float32).reshape(-1, 1, 1)
        scaled: Floats = (inputs.astype(np.float32) / np.float32(255) - mean) / std
        return scaled


@dataclass(frozen=True)
class SignalPreprocessing:
    """What is done to a window of `length` samples of each channel: (value - mean) / std.

    `mean` and `std` have one number a channel, in the units of the recordings.
    """

    channels: int
    length: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, inputs: Inputs) -> Floats:
        """Windows of shape (N, C, L) or (N, C, 1, L) as the float32 that the network reads."""
        over_channels = (-1, *(1,) * (inputs.ndim - 2))
        mean = np.array(self.mean, np.float32).reshape(over_channels)
        std = np.array(self.std, np.float32).reshape(over_channels)
        scaled: Floats = (inputs.astype(np.float32) - mean) / std
        return scaled


AnyPreprocessing = Preprocessing | SignalPreprocessing


def decode(content: bytes) -> Image.Image:
    """The image in a file's bytes, upright, in 8 bits a channel; of several frames the first.

    Its mode is one that becomes grey or colour as it is. Raises UnreadableImageError for what is
    damaged, too large, or deeper than 8 bits: how 16 bits are to become 8 depends on the camera,
    so it is not guessed.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            deep = _keeps_half_of_each_value(opened)
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            if upright.mode in _INDIRECT_MODES:
                upright = upright.convert(_INDIRECT_MODES[upright.mode])
    except _DECODER_ERRORS as error:
        reason = re.sub(r" ?<_io\.BytesIO[^>]*>", "", str(error))
        raise UnreadableImageError(reason or type(error).__name__) from error
    if deep or upright.mode.split(";")[0] in _DEEP_MODES:
        raise UnreadableImageError("it has more than 8 bits a channel; save it with 8 bits")
    if upright.mode == "P" and "transparency" in upright.info:
        return upright.convert("RGBA")
    return upright


def _keeps_half_of_each_value(opened: ImageFile.ImageFile) -> bool:
    """Whether Pillow would read 16 bits a channel and quietly throw the lower 8 away.

    It does with colours, for which it has no deeper mode; how the file is packed says so.
    """
    for tile in opened.tile:
        if ";16" in str(tile.args):
            return True
        if tile.codec_name == "ppm" and isinstance(tile.args, tuple):
            return any(isinstance(value, int) and value > 255 for value in tile.args)
    return False


def is_grey(image: Image.Image) -> bool:
    """Whether an image shows no colour, whatever the form in which it is stored."""
    if image.mode in ("1", "L", "LA", "La"):
        return True
    red, green, blue = image.convert("RGB").split()
    same = (ImageChops.difference(red, other).getbbox() is None for other in (green, blue))
    return all(same)


def pixels_of(image: Image.Image, height: int, width: int, channels: Channels) -> Pixels:
    """The image as uint8 (C, H, W), squeezed to that size, so that no edge is cut off."""
    converted = image.convert("L" if channels == 1 else "RGB")
    array = np.asarray(converted.resize((width, height), Image.Resampling.BILINEAR))
    return array[np.newaxis] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))
