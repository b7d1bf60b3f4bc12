"""The latency model of a setting with several threads."""

import json

import numpy as np
import pytest

from cost_models.base import ModelFormatError
from cost_models.kernels import NETWORK_INPUT, Kernel, KernelGraph
from cost_models.latency import LatencyModel


def graphs() -> list[KernelGraph]:
    return [
        KernelGraph(
            (Kernel("conv", ("Conv",), macs, 10**6, 10**6, 1000, (NETWORK_INPUT,), (8,)),), 10**6
        )
        for macs in range(10**7, 2 * 10**8, 10**7)
    ]


def fitted(threads: int) -> LatencyModel:
    found = graphs()
    return LatencyModel(threads=threads).fit(found, np.array([1e-11 * g.macs for g in found]))


def test_the_threads_are_kept_with_the_model() -> None:
    again = LatencyModel.from_json(fitted(2).to_json())

    assert again.threads == 2
    assert again.predict(graphs()) == fitted(2).predict(graphs())


def test_rates_are_those_of_one_thread() -> None:
    one, two = (fitted(threads).coefficients["conv_macs"] for threads in (1, 2))

    assert two == pytest.approx(2 * one, rel=0.05)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_network_runs_on_one_thread_at_least(threads: int) -> None:
    with pytest.raises(ValueError, match="one thread at least"):
        LatencyModel(threads=threads)


@pytest.mark.parametrize("threads", [None, 0, 1.5, "2", True])
def test_a_stored_model_with_other_threads_is_damaged(threads: object) -> None:
    stored = json.loads(fitted(2).to_json())

    with pytest.raises(ModelFormatError):
        LatencyModel.from_json(json.dumps({**stored, "threads": threads}))


def test_a_stored_model_without_threads_is_damaged() -> None:
    stored = json.loads(fitted(1).to_json())
    del stored["threads"]

    with pytest.raises(ModelFormatError):
        LatencyModel.from_json(json.dumps(stored))
