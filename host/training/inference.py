"""The answers of a module, computed with a given number of threads."""

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from host.network.torch_module import evaluating
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
def limited_threads(count: int) -> Iterator[None]:
    """Lets torch use that many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
