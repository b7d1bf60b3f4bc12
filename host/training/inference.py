"""The answers of a module, computed with a given number of threads."""

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from host.preprocessing import AnyPreprocessing, Inputs

_BATCH = 64


def logits_of_module(
    module: nn.Module,
    inputs: Inputs,
    preprocessing: AnyPreprocessing,
    *,
    threads: int = 2,
) -> npt.NDArray[np.float32]:
    """The logits (N, classes) of images or signals as a Split holds them, in evaluation mode."""
    with evaluating(module), limited_threads(threads), torch.inference_mode():
        parts = [
            module(torch.from_numpy(preprocessing.normalise(inputs[i : i + _BATCH])))
            for i in range(0, len(inputs), _BATCH)
        ]
        logits: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return logits


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and each layer back into its own afterwards."""
    was_training = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, training in was_training.items():
            layer.training = training


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Lets torch use that many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
