"""From kernels to features."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.features import FEATURE_NAMES, FEATURE_UNITS, feature_row, feature_rows
from cost_models.kernels import KERNEL_CLASSES, NETWORK_INPUT, Kernel, KernelClass, KernelGraph

PRODUCTS: tuple[KernelClass, ...] = (
    "conv",
    "pointwise",
    "depthwise",
    "grouped",
    "gemm",
    "matmul",
    "recurrent",
)


def kernel(kind: KernelClass, macs: int = 0, **changes: Any) -> Kernel:
    plain = Kernel(kind, ("Op",), macs, 100, 30, 7, (NETWORK_INPUT,), (1,))
    return dataclasses.replace(plain, **changes)


def named(*kernels: Kernel, threads: int = 1) -> dict[str, float]:
    row = feature_row(KernelGraph(kernels, 100), threads).tolist()
    return {name: value for name, value in zip(FEATURE_NAMES, row, strict=True) if value}


def test_each_kernel_counts_with_its_macs_and_bytes_under_its_class() -> None:
    found = named(
        kernel("matmul", 5, weight_bytes=0), kernel("pool"), kernel("move"), kernel("normalise")
    )

    assert found == {
        "constant": 1,
        "kernels": 4,
        "gemm_macs": 5,
        "weight_bytes": 21,
        "product_bytes": 130,
        "pool_bytes": 130,
        "move_bytes": 130,
        "normalise_bytes": 130,
    }


def test_the_macs_of_a_large_convolution_count_plainly() -> None:
    """56x56 pixels, 64 into 64 channels, 3x3."""
    weights = 64 * 64 * 9
    large = kernel(
        "conv", weights * 56**2, output_bytes=4 * 64 * 56**2, weight_bytes=4 * (weights + 64)
    )

    found = named(large)

    assert found["conv_macs"] == pytest.approx(large.macs, rel=0.05)
    assert found["weight_bytes"] < 0.02 * large.weight_bytes


def test_a_product_with_one_row_waits_for_its_weights() -> None:
    one = kernel("gemm", 512 * 512, weight_bytes=4 * 512 * 512)
    many = kernel("gemm", 100 * 512 * 512, weight_bytes=4 * 512 * 512)

    assert named(one)["gemm_macs"] > 2 * one.macs
    assert named(many)["gemm_macs"] == pytest.approx(many.macs, rel=0.05)
    assert named(one)["weight_bytes"] > 5 * named(many)["weight_bytes"]


def test_a_depthwise_convolution_of_a_small_image_is_mostly_edge() -> None:
    def filtered(side: int) -> float:
        macs = 9 * 32 * side**2
        of = kernel("depthwise", macs, output_bytes=128 * side**2, weight_bytes=4 * 9 * 32)
        return named(of)["depthwise_macs"] / macs

    assert filtered(4) > 1.5 * filtered(64)


def test_operators_known_to_take_longer_weigh_more() -> None:
    plain, slow = kernel("pool", ops=("MaxPool",)), kernel("pool", ops=("AveragePool",))

    assert named(slow)["pool_bytes"] == 2 * named(plain)["pool_bytes"]


def test_every_class_is_charged_by_bytes() -> None:
    for kind in KERNEL_CLASSES:
        assert sum(named(kernel(kind)).values()) == 1 + 1 + 7 + 130


def test_every_product_is_charged_by_macs_of_one_class() -> None:
    for kind in PRODUCTS:
        macs = [name for name in named(kernel(kind, 5)) if name.endswith("_macs")]
        assert len(macs) == 1


def test_a_product_of_integers_is_no_product_of_floats() -> None:
    found = named(kernel("pointwise", 6, integer=True))

    assert found["integer_macs"] >= 6
    assert "pointwise_macs" not in found


def test_the_steps_of_a_recurrent_kernel_have_an_overhead() -> None:
    one, many = kernel("recurrent", 600), kernel("recurrent", 600, steps=20)

    assert 1 == named(one)["kernels"] < named(many)["kernels"] < 20


def test_a_network_without_kernels_still_costs_a_run() -> None:
    assert named() == {"constant": 1}


def test_rows_stand_in_the_order_of_the_graphs() -> None:
    graphs = [
        KernelGraph(tuple(kernel("gemm", n) for n in macs), 100) for macs in ((3,), (), (9, 3))
    ]

    rows = feature_rows(graphs)

    assert rows[:, FEATURE_NAMES.index("kernels")].tolist() == [1, 0, 2]
    assert np.array_equal(rows[2], feature_row(graphs[2]))
    assert feature_rows([]).shape == (0, len(FEATURE_NAMES))


def test_the_names_are_few_and_distinct() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES) == len(FEATURE_UNITS) <= 16


@pytest.mark.parametrize("threads", [2, 4])
def test_several_threads_share_a_large_kernel(threads: int) -> None:
    large = kernel("conv", 10**9, output_bytes=10**7)

    one, several = named(large), named(large, threads=threads)

    assert several["conv_macs"] == pytest.approx(one["conv_macs"] / threads)
    assert several["kernels"] == one["kernels"] == 1


def test_a_small_kernel_is_not_split() -> None:
    small = kernel("conv", 1000)

    assert named(small, threads=4) == named(small)


@given(
    st.lists(
        st.tuples(st.sampled_from(PRODUCTS), st.integers(0, 10**10), st.integers(0, 10**8)),
        max_size=6,
    ),
    st.integers(1, 64),
)
def test_more_threads_never_lengthen_the_critical_path(
    shapes: list[tuple[KernelClass, int, int]], threads: int
) -> None:
    graph = KernelGraph(
        tuple(kernel(kind, macs, output_bytes=size) for kind, macs, size in shapes), 100
    )

    fewer, more = feature_row(graph, threads), feature_row(graph, threads + 1)

    assert (more <= fewer * (1 + 1e-12)).all()
    assert (more >= feature_row(graph) / (threads + 1) * (1 - 1e-12)).all()


def test_many_different_networks_have_the_rows_that_each_has_alone() -> None:
    graphs = [
        KernelGraph(tuple(kernel("gemm", 1000 * n + i) for i in range(n % 7)), 100)
        for n in range(60)
    ]

    together = feature_rows(graphs)

    assert np.allclose(together, [feature_row(graph) for graph in graphs])
