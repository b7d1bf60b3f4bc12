"""Fitted rates as people read them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.nonnegative import NonNegativeModel
from cost_models.words import Fact, facts, three_digits


def fitted(kind: type[NonNegativeModel], rates: dict[str, float]) -> NonNegativeModel:
    """A model whose measurements determine exactly these rates."""
    model, random = kind(), np.random.default_rng(0)
    amount = {"mac": 1e9, "byte": 1e8, "kernel": 5e4}
    rows = np.zeros((60, len(model.columns)))
    for index, (name, unit) in enumerate(model.columns):
        if name in rates:
            rows[:, index] = random.uniform(0, 1, 60) * amount.get(unit, 50.0)
    given_rates = np.array([rates.get(name, 0.0) for name in model.feature_names])
    return model.fit_rows(rows, rows @ given_rates)


def test_rates_of_latency_are_speeds_and_times() -> None:
    model = fitted(
        LatencyModel, {"kernels": 41e-6, "conv_macs": 1 / 2.1e9, "pool_bytes": 1 / 1.8e8}
    )

    found = {fact.name: fact for fact in facts(model)}

    assert str(found["conv_macs"]) == "2.10 GMAC/s"
    assert str(found["pool_bytes"]) == "180 MB/s"
    assert str(found["kernels"]) == "41.0 µs per kernel"


def test_what_was_not_measured_is_undetermined_but_keeps_its_unit() -> None:
    model = fitted(LatencyModel, {"kernels": 41e-6, "conv_macs": 1 / 2.1e9})

    found = {fact.name: fact for fact in facts(model)}

    assert model.coefficients["depthwise_macs"] > 0  # what it is charged, which nobody measured
    assert found["depthwise_macs"] == Fact("depthwise_macs", None, "GMAC/s")
    assert not found["depthwise_macs"].known
    assert str(found["depthwise_macs"]) == "undetermined"


def test_rates_of_memory_are_sizes_and_ratios() -> None:
    model = fitted(PeakMemoryModel, {"constant": 43e6, "peak_activation_bytes": 1.25})

    found = {fact.name: str(fact) for fact in facts(model)}

    assert found["constant"] == "43.0 MB"
    assert found["peak_activation_bytes"] == "1.25 B per byte"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.1, "2.10"),
        (5680.4, "5680"),
        (0.0012345, "0.00123"),
        (9.996, "10.0"),
        (99.96, "100"),
        (999.6, "1000"),
        (0.9996, "1.00"),
        (41.0, "41.0"),
        (1e7, "10000000"),
        (0.0, "0"),
    ],
)
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


@given(st.floats(1e-12, 1e15))
def test_three_digits_are_never_an_exponent_and_right_to_half_a_per_cent(value: float) -> None:
    text = three_digits(value)

    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=5.1e-3)
