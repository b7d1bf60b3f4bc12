"""Kernels of a network are those of its .tflite file."""

import numpy as np
import pytest

from cost_models.tflite_graph import kernels_from_tflite
from host.network.tflite_kernels import tflite_kernels_of
from host.network.tflite_model import tflite_bytes
from host.spaces.base import Task, sample
from host.spaces.catalogue import SPACES, space_by_name
from host.study.proposal import Proposer


@pytest.mark.parametrize("name", SPACES)
def test_kernels_without_a_file_are_those_read_from_it(name):
    space = space_by_name(name, restrict={}, resolution=None)
    rng = np.random.default_rng(4)
    proposals = Proposer(space, Task(3, 5)).fresh([sample(space, rng) for _ in range(12)])

    assert len(proposals) >= 5
    for proposal in proposals:
        written = tflite_bytes(proposal.network, None)
        assert tflite_kernels_of(proposal.network) == kernels_from_tflite(written)
