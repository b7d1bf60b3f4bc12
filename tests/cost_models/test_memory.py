"""Peak memory from weights and activations."""

import numpy as np
import pytest

from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from cost_models.memory import PeakMemoryModel


def graph(kind: KernelClass, weight_bytes: int, output_bytes: int = 4) -> KernelGraph:
    kernel = Kernel(kind, ("Op",), 1, 4, output_bytes, weight_bytes, (NETWORK_INPUT,), (1,))
    return KernelGraph((kernel,), 4)


def test_weights_of_convolutions_stand_apart() -> None:
    found = PeakMemoryModel().features([graph("pointwise", 40), graph("gemm", 70)])

    assert found[:, 2:].tolist() == [[40, 0], [0, 70]]


def test_a_runtime_with_two_copies_of_convolution_weights_is_learnt() -> None:
    rng = np.random.default_rng(0)
    graphs = [
        graph(kind, int(rng.integers(1, 50_000_000)), int(rng.integers(1, 9_000_000)))
        for kind in ("conv", "gemm") * 10
    ]
    measured = np.array(
        [
            60e6
            + 1.5 * g.peak_activation_bytes
            + g.weight_bytes * (2 if g.kernels[0].kind == "conv" else 1)
            for g in graphs
        ]
    )

    model = PeakMemoryModel().fit(graphs, measured)

    assert model.coefficients["convolution_weight_bytes"] == pytest.approx(2, rel=0.01)
    assert model.coefficients["other_weight_bytes"] == pytest.approx(1, rel=0.01)


def test_nothing_to_predict_has_no_rows() -> None:
    assert PeakMemoryModel().features([]).shape == (0, 4)
