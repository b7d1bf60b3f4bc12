"""Kernels of a network are those of its .tflite file."""

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from cost_models.tflite_graph import kernels_from_tflite
from host.network.tflite_kernels import tflite_kernels_of
from host.network.tflite_model import tflite_bytes
from host.spaces.base import Task, sample
from host.spaces.catalogue import SPACES, space_by_name
from host.spaces.mobile import Mobile
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


def test_operators_named_in_the_wide_field_only_are_read_as_what_they_are():
    space = Mobile()
    network = space.build(space.parse(space.example), Task(3, 5))
    model = tflite_bytes(network, None)
    unpacked = schema.ModelT.InitFromPackedBuf(model, 0)
    for code in unpacked.operatorCodes:
        code.deprecatedBuiltinCode = 0
    builder = flatbuffers.Builder(len(model))
    builder.Finish(unpacked.Pack(builder), b"TFL3")

    assert kernels_from_tflite(bytes(builder.Output())) == kernels_from_tflite(model)
