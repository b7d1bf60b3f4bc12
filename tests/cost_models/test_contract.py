"""What every cost model must do."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.base import CostModel, ModelFormatError, NotFittedError
from cost_models.design import d_optimal
from cost_models.evaluate import evaluate
from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel

MODELS = (LatencyModel, PeakMemoryModel)
models = pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
KINDS: tuple[KernelClass, ...] = ("conv", "pointwise", "depthwise", "elementwise", "reduce", "gemm")


def network(seed: int, kinds: tuple[KernelClass, ...] = KINDS) -> KernelGraph:
    """A chain of kernels of random classes and sizes, one of each class at least."""
    random = np.random.default_rng(seed)
    kernels: list[Kernel] = []
    drawn = [*kinds, *random.choice(kinds, random.integers(0, 30))]
    size = int(random.integers(1_000_000, 20_000_000))
    for kind in drawn:
        written = int(random.integers(1_000_000, 20_000_000))
        macs = (
            int(random.integers(10_000_000, 2_000_000_000)) if kind in {*KINDS[:3], "gemm"} else 0
        )
        weights = int(random.integers(100_000, 10_000_000)) if macs else 0
        source = len(kernels) - 1 if kernels else NETWORK_INPUT
        kernels.append(Kernel(kind, ("Op",), macs, size, written, weights, (source,), (1,)))
        size = written
    return KernelGraph(tuple(kernels), 1_000_000)


def costs(model: NonNegativeModel, graphs: list[KernelGraph], noise: float = 0.0) -> FloatArray:
    """What a device would say whose rates lie within a factor of two of the nominal ones."""
    random = np.random.default_rng(7)
    rates = [model.nominal_rates[unit] * random.uniform(0.5, 2) for _, unit in model.columns]
    exact: FloatArray = model.features(graphs) @ np.array(rates)
    exact *= np.exp(noise * random.standard_normal(len(graphs)))
    return exact


@models
def test_it_is_a_cost_model(kind: type[NonNegativeModel]) -> None:
    model: CostModel = kind()

    assert model.n == 0
    assert model.features([]).shape == (0, len(model.feature_names))


@models
@pytest.mark.parametrize("use", ["predict", "to_json"])
def test_before_the_first_fit_it_says_so(kind: type[NonNegativeModel], use: str) -> None:
    model = kind()

    with pytest.raises(NotFittedError, match=f"the {kind.quantity} model has seen no measurement"):
        model.predict([network(0)]) if use == "predict" else model.to_json()


@models
def test_fifteen_chosen_networks_predict_the_others(kind: type[NonNegativeModel]) -> None:
    model, graphs = kind(), [network(seed) for seed in range(150)]
    measured = costs(model, graphs, noise=0.01)
    chosen = d_optimal(model.design_rows(model.features(graphs)), 15)
    rest = [index for index in range(150) if index not in chosen]

    model.fit([graphs[i] for i in chosen], measured[chosen])

    found = evaluate(model.predict([graphs[i] for i in rest]), measured[rest])
    assert found.rho is not None
    assert found.rho > 0.97
    assert found.mape < 0.06
    assert found.coverage > 0.85


@models
def test_predictions_of_graphs_and_of_their_rows_agree(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(20)]
    model = kind()
    model.fit(graphs, costs(model, graphs))

    assert model.predict(graphs) == model.predict_rows(model.features(graphs))
    assert model.predict([]) == []


@models
@settings(max_examples=20)
@given(scale=st.sampled_from([1e-6, 1e-2, 1e3, 1e6]), seed=st.integers(0, 50))
def test_a_device_slower_by_a_factor_gets_predictions_larger_by_it(
    kind: type[NonNegativeModel], scale: float, seed: int
) -> None:
    graphs = [network(seed + offset) for offset in range(15)]
    model = kind()
    measured = costs(model, graphs, noise=0.1)
    first = model.fit(graphs, measured).predict(graphs)

    second = kind().fit(graphs, measured * scale).predict(graphs)

    for a, b in zip(first, second, strict=True):
        assert b.value == pytest.approx(a.value * scale, rel=1e-4)
        assert b.high / b.low == pytest.approx(a.high / a.low, rel=1e-2)


@models
def test_rates_are_never_negative(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(12)]
    noise = np.random.default_rng(0).lognormal(size=12)

    assert min(kind().fit(graphs, noise).coefficients.values()) >= 0


@models
def test_below_nine_measurements_an_interval_is_open(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(9)]
    model = kind()
    measured = costs(model, graphs)

    (few,) = model.fit(graphs[:8], measured[:8]).predict(graphs[8:])
    (enough,) = model.fit(graphs, measured).predict(graphs[8:])

    assert (few.low, few.high, few.n) == (0.0, math.inf, 8)
    assert 0 < enough.low <= enough.value <= enough.high < math.inf
    assert enough.level == 0.9


@models
def test_text_and_back_is_exact(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(30)]
    model = kind(level=0.8)
    model.fit(graphs[:12], costs(model, graphs[:12], noise=0.1))

    text = model.to_json()
    restored = kind.from_json(text)

    assert restored.predict(graphs) == model.predict(graphs)
    assert restored.to_json() == text
    assert (restored.n, restored.level) == (12, 0.8)
    stored = json.loads(text)
    assert stored["features"] == list(model.feature_names)
    assert stored["version"] == 1
    assert np.array_equal(stored["rows"], model.features(graphs[:12]))


@models
def test_an_open_interval_survives_the_text(kind: type[NonNegativeModel]) -> None:
    model = kind()
    model.fit([network(0)], np.array([1.0]))

    restored = kind.from_json(model.to_json())

    assert "Infinity" not in model.to_json()
    assert restored.half_width == math.inf


@models
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "accuracy"}, "'accuracy' version 1"),
        ({"version": 2}, "version 2"),
        ({"features": ["constant"]}, "fit anew"),
        ({"rows": "x"}, "damaged"),
        ({"targets": [1.0]}, "damaged"),
        ({"coefficients": [-1.0]}, "damaged"),
        ({"level": 5}, "damaged"),
        ({"half_width": []}, "damaged"),
    ],
    ids=str,
)
def test_text_of_something_else_is_refused(
    kind: type[NonNegativeModel], change: dict[str, object], message: str
) -> None:
    graphs = [network(seed) for seed in range(3)]
    text = kind().fit(graphs, np.ones(3)).to_json()

    with pytest.raises(ModelFormatError, match=message):
        kind.from_json(json.dumps(json.loads(text) | change))


@models
@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_text_that_is_no_model_is_refused(kind: type[NonNegativeModel], text: str) -> None:
    with pytest.raises(ModelFormatError):
        kind.from_json(text)


@models
@pytest.mark.parametrize("measured", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], []], ids=str)
def test_measurements_that_cannot_be_are_refused(
    kind: type[NonNegativeModel], measured: list[float]
) -> None:
    model = kind()

    with pytest.raises(ValueError, match="targets"):
        model.fit([network(0), network(1)], np.array(measured))

    assert model.n == 0


@models
def test_rows_of_another_width_are_refused(kind: type[NonNegativeModel]) -> None:
    model = kind().fit([network(0)], np.array([1.0]))

    with pytest.raises(ValueError, match="columns"):
        model.predict_rows(np.ones((2, 50)))


def test_a_class_that_was_never_measured_is_flagged_charged_and_open_above() -> None:
    known = [network(seed, kinds=("conv", "elementwise")) for seed in range(12)]
    model = LatencyModel()
    model.fit(known, costs(model, known))
    new = network(99, kinds=("conv", "elementwise", "depthwise"))

    plain, flagged = model.predict([known[0], new])

    assert plain.flagged == ()
    assert flagged.flagged == ("depthwise_macs",)
    assert flagged.high == math.inf
    assert 0 < flagged.low <= flagged.value
    assert model.coefficients["depthwise_macs"] == model.coefficients["conv_macs"] > 0


def test_an_unknown_operator_is_flagged_even_where_it_was_measured() -> None:
    graphs = [network(seed, kinds=("conv", "unknown")) for seed in range(12)]
    model = LatencyModel()
    model.fit(graphs, costs(model, graphs))

    prediction = model.predict(graphs)[0]

    assert prediction.flagged == ("unknown_bytes",)
    assert prediction.high < math.inf


def test_the_design_weighs_networks_as_the_fit_does() -> None:
    graphs = [network(seed) for seed in range(30)]
    model = LatencyModel()
    measured = costs(model, graphs)
    rows = model.features(graphs)
    before = model.design_rows(rows)

    after = model.fit(graphs, measured).design_rows(rows)

    assert before.shape == after.shape == rows.shape
    assert after == pytest.approx(rows / measured[:, np.newaxis], rel=1e-2)
