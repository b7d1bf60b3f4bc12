"""From kernels to features."""

import numpy as np

from cost_models.features import FEATURE_NAMES, feature_row, feature_rows
from cost_models.kernels import KERNEL_CLASSES, NETWORK_INPUT, Kernel, KernelClass, KernelGraph


def kernel(kind: KernelClass, macs: int = 0) -> Kernel:
    return Kernel(kind, ("Op",), macs, 100, 30, 7, (NETWORK_INPUT,), (1,))


def named(*kernels: Kernel) -> dict[str, float]:
    row = feature_row(KernelGraph(kernels, 100)).tolist()
    return {name: value for name, value in zip(FEATURE_NAMES, row, strict=True) if value}


def test_each_kernel_counts_with_its_macs_and_bytes_under_its_class() -> None:
    found = named(kernel("conv", 5), kernel("pointwise", 6), kernel("depthwise", 8), kernel("pool"))

    assert found == {
        "constant": 1,
        "kernels": 4,
        "conv_macs": 5,
        "pointwise_macs": 6,
        "depthwise_macs": 8,
        "weight_bytes": 28,
        "window_bytes": 390,
        "pool_bytes": 130,
    }


def test_every_class_is_charged_by_bytes() -> None:
    for kind in KERNEL_CLASSES:
        assert sum(named(kernel(kind)).values()) == 1 + 1 + 7 + 130


def test_a_network_without_kernels_still_costs_a_run() -> None:
    assert named() == {"constant": 1}


def test_rows_stand_in_the_order_of_the_graphs() -> None:
    graphs = [KernelGraph((kernel("gemm", n),), 100) for n in (3, 9)]

    rows = feature_rows(graphs)

    assert rows[:, FEATURE_NAMES.index("gemm_macs")].tolist() == [3, 9]
    assert np.array_equal(rows[1], feature_row(graphs[1]))
    assert feature_rows([]).shape == (0, len(FEATURE_NAMES))


def test_the_names_are_few_and_distinct() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES) <= 14
