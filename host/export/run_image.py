"""Reads a photo as the network of a bundle reads it; becomes part of the bundle's `run.py`."""

from typing import Any

import numpy as np
from PIL import Image, ImageOps


def read_input(path: str, spec: dict[str, Any]) -> Any:
    """The photo as float32 (1, C, H, W)."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode[0] in "IF":
        raise ValueError("it has more than 8 bits a channel; save it with 8 bits")
    image = image.convert("L" if spec["channels"] == 1 else "RGB")
    bilinear = getattr(Image, "Resampling", Image).BILINEAR  # where Pillow before 9.1 has it
    pixels = np.asarray(image.resize((spec["width"], spec["height"]), bilinear), np.float32)
    pixels = pixels.reshape(spec["height"], spec["width"], -1).transpose(2, 0, 1)
    mean, std = (np.array(spec[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
    return ((pixels / np.float32(255) - mean) / std)[np.newaxis]
