"""What every cost model must do."""

import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.base import CostModel, ModelFormatError, NotFittedError
from cost_models.design import d_optimal
from cost_models.energy import EnergyModel, PowerModel
from cost_models.evaluate import evaluate
from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel

MODELS = (LatencyModel, PeakMemoryModel, PowerModel, EnergyModel)
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


def fresh(kind: type[NonNegativeModel], level: float = 0.9) -> NonNegativeModel:
    """A model that has seen nothing; those of energy stand on a latency model that has."""
    if kind not in {PowerModel, EnergyModel}:
        return kind(level)
    return kind(latency_model(), level)


@functools.cache
def latency_model() -> LatencyModel:
    graphs = [network(seed) for seed in range(1000, 1030)]
    return LatencyModel().fit(graphs, costs(LatencyModel(), graphs))


def costs(model: NonNegativeModel, graphs: list[KernelGraph], noise: float = 0.0) -> FloatArray:
    """What a device would say whose rates lie within a factor of two of the nominal ones."""
    random = np.random.default_rng(7)
    rates = [model.nominal_rates[unit] * random.uniform(0.5, 2) for _, unit in model.columns]
    exact: FloatArray = model.features(graphs) @ np.array(rates)
    exact *= np.exp(noise * random.standard_normal(len(graphs)))
    return exact


@models
def test_it_is_a_cost_model(kind: type[NonNegativeModel]) -> None:
    model: CostModel = fresh(kind)

    assert model.n == 0
    assert model.features([]).shape == (0, len(model.feature_names))


@models
@pytest.mark.parametrize("use", ["predict", "to_json"])
def test_before_the_first_fit_it_says_so(kind: type[NonNegativeModel], use: str) -> None:
    model = fresh(kind)

    with pytest.raises(NotFittedError, match=f"the {kind.quantity} model has seen no measurement"):
        model.predict([network(0)]) if use == "predict" else model.to_json()


@models
def test_fifteen_chosen_networks_predict_the_others(kind: type[NonNegativeModel]) -> None:
    model, graphs = fresh(kind), [network(seed) for seed in range(150)]
    measured = costs(model, graphs, noise=0.01)
    chosen = d_optimal(model.design_rows(model.features(graphs)), 15)
    rest = [index for index in range(150) if index not in chosen]

    model.fit([graphs[i] for i in chosen], measured[chosen])

    found = evaluate(model.predict([graphs[i] for i in rest]), measured[rest])
    assert found.rho is not None
    assert found.rho > 0.95
    assert found.mape < 0.06
    assert found.coverage > 0.8


@models
def test_predictions_of_graphs_and_of_their_rows_agree(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(20)]
    model = fresh(kind)
    model.fit(graphs, costs(model, graphs))

    assert model.predict(graphs) == model.predict_rows(model.features(graphs))
    assert model.predict([]) == []


@models
@settings(max_examples=8)
@given(scale=st.sampled_from([1e-6, 1e-2, 1e3, 1e6]), seed=st.integers(0, 50))
def test_a_device_slower_by_a_factor_gets_predictions_larger_by_it(
    kind: type[NonNegativeModel], scale: float, seed: int
) -> None:
    graphs = [network(seed + offset) for offset in range(15)]
    model = fresh(kind)
    measured = costs(model, graphs, noise=0.1)
    first = model.fit(graphs, measured).predict(graphs)

    second = fresh(kind).fit(graphs, measured * scale).predict(graphs)

    for a, b in zip(first, second, strict=True):
        assert b.value == pytest.approx(a.value * scale, rel=1e-4)
        assert b.high / b.low == pytest.approx(a.high / a.low, rel=1e-2)


@models
def test_rates_are_never_negative(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(12)]
    noise = np.random.default_rng(0).lognormal(size=12)

    assert min(fresh(kind).fit(graphs, noise).coefficients.values()) >= 0


@models
def test_below_nine_measurements_an_interval_is_open(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(9)]
    model = fresh(kind)
    measured = costs(model, graphs)

    (few,) = model.fit(graphs[:8], measured[:8]).predict(graphs[8:])
    (enough,) = model.fit(graphs, measured).predict(graphs[8:])

    assert (few.low, few.high, few.n) == (0.0, math.inf, 8)
    assert 0 < enough.low <= enough.value <= enough.high < math.inf
    assert enough.level == 0.9


@models
def test_text_and_back_is_exact(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(30)]
    model = fresh(kind, level=0.8)
    model.fit(graphs[:12], costs(model, graphs[:12], noise=0.1))

    text = model.to_json()
    restored = kind.from_json(text)

    assert restored.predict(graphs) == model.predict(graphs)
    assert restored.to_json() == text
    assert (restored.n, restored.level) == (12, 0.8)
    stored = json.loads(text)
    assert stored["features"] == list(model.feature_names)
    assert stored["version"] == 3
    assert np.array_equal(stored["rows"], model.features(graphs[:12]))


@models
def test_a_corrected_model_survives_the_text(kind: type[NonNegativeModel]) -> None:
    model = fresh(kind)
    graphs = [network(seed) for seed in range(40)]
    rows, measured = model.features(graphs), costs(model, graphs)
    # A cost that no sum of amounts gives: it is least at a middling share of one of them.
    share = rows[:, 2] / measured
    measured *= np.exp(0.3 * np.minimum(((share - share.mean()) / share.std()) ** 2, 4))
    model.fit_rows(rows, measured)
    assert model.is_corrected

    restored = kind.from_json(model.to_json())

    assert restored.is_corrected
    assert restored.predict_rows(rows) == model.predict_rows(rows)
    assert restored.to_json() == model.to_json()


@models
def test_contributions_sum_to_the_prediction(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(20)]
    model = fresh(kind)
    model.fit(graphs, costs(model, graphs, noise=0.1))
    row = model.features(graphs[:1])[0]

    assert model.contributions(row).shape == row.shape
    assert model.contributions(row).sum() == pytest.approx(model.predict(graphs[:1])[0].value)


@models
def test_it_keeps_what_it_was_fitted_on_and_what_it_would_have_said(
    kind: type[NonNegativeModel],
) -> None:
    graphs = [network(seed) for seed in range(12)]
    model = fresh(kind)
    measured = costs(model, graphs, noise=0.1)

    model.fit(graphs, measured)

    assert np.array_equal(model.measured_rows, model.features(graphs))
    assert np.array_equal(model.measured_values, measured)
    without = fresh(kind).fit(graphs[1:], measured[1:])
    assert model.held_out_values[0] == pytest.approx(without.predict(graphs[:1])[0].value, rel=0.2)
    assert model.log_errors == pytest.approx(np.log(measured / model.held_out_values))


@models
def test_what_it_hands_out_is_a_copy(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(10)]
    model = fresh(kind)
    model.fit(graphs, costs(model, graphs))
    before = model.predict(graphs)

    for handed in (model.measured_rows, model.measured_values, model.held_out_values):
        handed[:] = 1.0

    assert model.predict(graphs) == before


@models
@pytest.mark.parametrize("count", [1, 2, 3, 9, 20])
def test_equal_networks_are_enough_for_a_model(kind: type[NonNegativeModel], count: int) -> None:
    graphs = [network(0)] * count
    model = fresh(kind).fit(graphs, np.full(count, 3.0))

    prediction = model.predict(graphs[:1])[0]

    assert prediction.value == pytest.approx(3.0, rel=1e-3)
    assert len(model.log_errors) == (count if count > 1 else 0)


@models
def test_a_failed_fit_leaves_the_model_as_it_was(kind: type[NonNegativeModel]) -> None:
    graphs = [network(seed) for seed in range(10)]
    model = fresh(kind)
    before = model.fit(graphs, costs(model, graphs)).predict(graphs)

    with pytest.raises(ValueError, match="targets"):
        model.fit(graphs, np.zeros(10))

    assert model.predict(graphs) == before


@models
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_rows_that_are_no_amounts_are_refused(kind: type[NonNegativeModel], value: float) -> None:
    model = fresh(kind).fit([network(0)], np.array([1.0]))
    rows = np.full((1, len(model.feature_names)), value)

    with pytest.raises(ValueError, match="non-negative and finite"):
        model.predict_rows(rows)


@models
def test_an_open_interval_survives_the_text(kind: type[NonNegativeModel]) -> None:
    model = fresh(kind)
    model.fit([network(0)], np.array([1.0]))

    restored = kind.from_json(model.to_json())

    assert "Infinity" not in model.to_json()
    assert restored.half_width == math.inf


@models
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "accuracy"}, "'accuracy' version 3"),
        ({"version": 2}, "version 2"),
        ({"features": ["constant"]}, "fit anew"),
        ({"rows": "x"}, "damaged: its 'rows'"),
        ({"rows": [[], [], []]}, "damaged: its 'rows'"),
        ({"rows": [[1.0], [1.0, 2.0], 3.0]}, "damaged: its 'rows'"),
        ({"measured": [1.0]}, "damaged"),
        ({"measured": [1.0, 0.0, 1.0]}, "damaged"),
        ({"measured": [1.0, True, 1.0]}, "damaged: its 'measured'"),
        ({"measured": [1.0, "1", 1.0]}, "damaged: its 'measured'"),
        ({"measured": [1.0, 10**400, 1.0]}, "damaged: its 'measured'"),
        ({"measured": [], "rows": [], "held_out": []}, "damaged"),
        ({"coefficients": [-1.0]}, "damaged: its 'coefficients'"),
        ({"held_out": None}, "damaged: its 'held_out'"),
        ({"held_out": [1.0, 0.0, 1.0]}, "damaged"),
        ({"level": 5}, "damaged: level 5"),
        ({"level": "0.9"}, "damaged: its 'level'"),
        ({"transferred": 1}, "damaged: its 'transferred'"),
        ({"residual": []}, "damaged"),
        ({"residual": {"lengths": [1.0], "noise": 1.0}}, "damaged: its 'lengths'"),
        ({"residual": {"columns": [], "limits": [], "leaves": []}}, "damaged: its 'columns'"),
    ],
    ids=str,
)
def test_text_of_something_else_is_refused(
    kind: type[NonNegativeModel], change: dict[str, object], message: str
) -> None:
    graphs = [network(seed) for seed in range(3)]
    text = fresh(kind).fit(graphs, np.ones(3)).to_json()

    with pytest.raises(ModelFormatError, match=message):
        kind.from_json(json.dumps(json.loads(text) | change))


@models
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1", "true", "null", '"1"'])
@pytest.mark.parametrize("key", ["coefficients", "rows", "measured", "held_out"])
def test_what_is_no_amount_is_refused(kind: type[NonNegativeModel], key: str, number: str) -> None:
    stored = json.loads(fitted_text(kind.quantity))
    numbers = stored[key][1] if key == "rows" else stored[key]
    numbers[1] = "@"

    with pytest.raises(ModelFormatError):
        kind.from_json(json.dumps(stored).replace('"@"', number))


@models
def test_numbers_that_overflow_together_are_refused(kind: type[NonNegativeModel]) -> None:
    stored = json.loads(fitted_text(kind.quantity))
    stored["coefficients"] = [1e308] * len(stored["coefficients"])
    stored["rows"][0] = [1e3] * len(stored["coefficients"])

    with pytest.raises(ModelFormatError, match="overflow"):
        kind.from_json(json.dumps(stored))


@functools.cache
def fitted_text(quantity: str) -> str:
    (kind,) = (kind for kind in MODELS if kind.quantity == quantity)
    graphs = [network(seed) for seed in range(12)]
    model = fresh(kind)
    return model.fit(graphs, costs(model, graphs, noise=0.1)).to_json()


@models
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 100_000, '{"level": NaN}'])
def test_text_that_is_no_model_is_refused(kind: type[NonNegativeModel], text: str) -> None:
    with pytest.raises(ModelFormatError):
        kind.from_json(text)


@models
@pytest.mark.parametrize("measured", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], []], ids=str)
def test_measurements_that_cannot_be_are_refused(
    kind: type[NonNegativeModel], measured: list[float]
) -> None:
    model = fresh(kind)

    with pytest.raises(ValueError, match="targets"):
        model.fit([network(0), network(1)], np.array(measured))

    assert model.n == 0


@models
def test_rows_of_another_width_are_refused(kind: type[NonNegativeModel]) -> None:
    model = fresh(kind).fit([network(0)], np.array([1.0]))

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
    assert model.coefficients["depthwise_macs"] > 0


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
    assert after == pytest.approx(rows / measured[:, np.newaxis], rel=5e-2)
