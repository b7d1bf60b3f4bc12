"""Reads a signal as the network of a bundle reads it; becomes part of the bundle's `run.py`."""

from typing import Any

import numpy as np


def read_input(path: str, spec: dict[str, Any]) -> Any:
    """The window as float32 (1, C, L): from a .npy of (C, L), or CSV with a line a time step."""
    if path.endswith(".npy"):
        window = np.load(path, allow_pickle=False)
    else:  # a first line without numbers is a heading
        table = np.genfromtxt(path, delimiter=",", encoding="utf-8-sig")
        window = table.reshape(len(table), -1)[int(np.isnan(table[0]).all()) :].T
    needed = (spec["channels"], spec["length"])
    if window.shape != needed or not np.isfinite(window).all():
        raise ValueError(f"(channels, steps) must be {needed}, all finite; it has {window.shape}")
    mean, std = (np.array(spec[key], np.float32).reshape(-1, 1) for key in ("mean", "std"))
    return ((window.astype(np.float32) - mean) / std)[np.newaxis]
