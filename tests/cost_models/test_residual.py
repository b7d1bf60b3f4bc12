"""What a sum cannot say: the Gaussian process and the boosted trees on its log errors."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.base import ModelFormatError
from cost_models.boosting import BoostedTrees
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel
from cost_models.residual import GaussianProcess, Kernel


class Synthetic(NonNegativeModel):
    quantity = "synthetic_seconds"
    columns = (("constant", "run"), ("macs", "mac"), ("bytes", "byte"), ("depth", "shape"))
    nominal_rates = {"run": 1.0, "mac": 1.0, "byte": 1.0}  # noqa: RUF012


def draw(count: int, seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    amounts = random.uniform(0.1, 1, (count, 2))
    return np.column_stack([np.ones(count), amounts, random.integers(0, 4, count)])


def additive(rows: FloatArray) -> FloatArray:
    cost: FloatArray = rows[:, :3] @ [0.2, 1.0, 2.0]
    return cost


def learned(inputs: FloatArray, targets: FloatArray) -> GaussianProcess:
    kernel = Kernel.learned(inputs, targets, np.zeros(inputs.shape[1], dtype=np.int64))
    return GaussianProcess.fitted(inputs, targets, kernel)


def test_a_smooth_function_is_learned_from_few_points() -> None:
    inputs = np.random.default_rng(0).uniform(-2, 2, (60, 2))

    def truth(x: FloatArray) -> FloatArray:
        values: FloatArray = 0.3 * np.sin(x[:, 0]) * x[:, 1]
        return values

    asked = np.random.default_rng(1).uniform(-1.8, 1.8, (200, 2))

    found = learned(inputs, truth(inputs)).values(asked)

    assert np.abs(found - truth(asked)).max() < 0.05


def test_far_from_the_data_nothing_is_claimed() -> None:
    inputs = np.random.default_rng(0).uniform(-1, 1, (30, 2))
    process = learned(inputs, inputs[:, 0] ** 2)

    assert process.values(np.full((1, 2), 1e3)) == pytest.approx([0.0], abs=1e-6)


def test_noise_is_not_learned() -> None:
    random = np.random.default_rng(0)
    inputs = random.uniform(-1, 1, (80, 3))
    noise = 0.1 * random.standard_normal(80)

    assert np.abs(learned(inputs, noise).values(inputs)).max() < 0.1


def test_a_group_of_columns_that_does_not_matter_gets_a_long_length() -> None:
    random = np.random.default_rng(0)
    inputs = random.uniform(-1, 1, (60, 2))

    kernel = Kernel.learned(inputs, np.sin(3 * inputs[:, 0]), np.array([0, 1]))

    assert kernel.lengths[1] > 4 * kernel.lengths[0]


def test_columns_that_do_not_vary_do_no_harm() -> None:
    inputs = np.random.default_rng(0).uniform(-1, 1, (30, 1))
    wider = np.column_stack([inputs, np.full(30, 7.0)])

    found = learned(wider, inputs[:, 0] ** 2).values(wider)

    assert np.isfinite(found).all()
    assert found == pytest.approx(inputs[:, 0] ** 2, abs=0.05)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_any_few_points_give_finite_values(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs = random.integers(0, 2, (count, 2)).astype(np.float64)

    assert np.isfinite(learned(inputs, random.standard_normal(count)).values(inputs)).all()


def test_batches_do_not_change_the_values() -> None:
    inputs = np.random.default_rng(0).uniform(-1, 1, (30, 2))
    process = learned(inputs, inputs[:, 0] ** 2)
    many = np.tile(inputs, (300, 1))

    assert process.values(many) == pytest.approx(np.tile(process.values(inputs), 300))


def test_trees_learn_steps() -> None:
    random = np.random.default_rng(0)
    inputs = random.uniform(0, 1, (600, 3))
    targets = np.where(inputs[:, 1] > 0.5, 0.4, -0.4) + np.where(inputs[:, 0] > 0.3, 0.1, 0.0)
    asked = random.uniform(0, 1, (400, 3))
    truth = np.where(asked[:, 1] > 0.5, 0.4, -0.4) + np.where(asked[:, 0] > 0.3, 0.1, 0.0)

    found = BoostedTrees.fitted(inputs, targets).values(asked)

    assert np.median(np.abs(found - truth)) < 0.01
    assert np.mean(np.abs(found - truth) < 0.05) > 0.95


@pytest.mark.parametrize("count", [1, 9, 12])
def test_trees_of_few_or_equal_rows_are_their_mean(count: int) -> None:
    trees = BoostedTrees.fitted(np.ones((count, 2)), np.full(count, 0.5))

    assert trees.values(np.zeros((3, 2))) == pytest.approx(np.full(3, 0.5), abs=1e-3)


def test_trees_survive_their_text() -> None:
    inputs = np.random.default_rng(0).uniform(-1, 1, (80, 2))
    trees = BoostedTrees.fitted(inputs, np.sign(inputs[:, 0]))

    parts = json.loads(json.dumps(trees.parts(), allow_nan=False))

    assert np.array_equal(BoostedTrees.of_parts(parts, 2).values(inputs), trees.values(inputs))


@pytest.mark.parametrize("key", ["columns", "limits", "leaves"])
@pytest.mark.parametrize("number", [2.0, 0.5, "x", -1, [1.0]])
def test_damaged_trees_are_refused(key: str, number: object) -> None:
    inputs = np.random.default_rng(0).uniform(-1, 1, (80, 2))
    parts = BoostedTrees.fitted(inputs, np.sign(inputs[:, 0])).parts()
    parts[key][0][0] = number
    if key != "columns" and isinstance(number, int | float):
        parts[key] = parts[key][1:]

    with pytest.raises(ModelFormatError, match="damaged"):
        BoostedTrees.of_parts(parts, 2)


def test_a_sum_of_amounts_is_not_corrected() -> None:
    rows = draw(60)
    noise = np.exp(0.05 * np.random.default_rng(1).standard_normal(60))

    model = Synthetic().fit_rows(rows, additive(rows) * noise)

    assert not model.is_corrected


def test_an_effect_between_amounts_is_corrected_and_intervals_narrow() -> None:
    rows = draw(500)
    measured = additive(rows) * np.exp(0.5 * np.sin(6 * rows[:, 1]))
    few = Synthetic().fit_rows(rows[:14], measured[:14])

    model = Synthetic().fit_rows(rows[:60], measured[:60])

    assert model.is_corrected
    assert not few.is_corrected
    predictions = model.predict_rows(rows[60:])
    errors = [abs(np.log(p.value / y)) for p, y in zip(predictions, measured[60:], strict=True)]
    assert np.median(errors) < 0.05
    assert model.half_width < few.half_width / 2


def test_what_is_no_amount_is_never_charged_nor_flagged_but_corrects() -> None:
    rows = draw(500)
    measured = additive(rows) * np.where(rows[:, 3] > 1, 1.5, 1.0)
    shallow = rows[rows[:, 3] == 0]

    model = Synthetic().fit_rows(rows[:80], measured[:80])

    assert model.coefficients["depth"] == 0
    assert model.is_corrected
    predictions = model.predict_rows(rows[80:])
    errors = [abs(np.log(p.value / y)) for p, y in zip(predictions, measured[80:], strict=True)]
    assert np.median(errors) < 0.03
    unaware = Synthetic().fit_rows(shallow[:30], additive(shallow[:30]))
    assert unaware.predict_rows(rows[rows[:, 3] == 3][:1])[0].flagged == ()


def test_from_three_hundred_networks_trees_may_correct_and_survive_the_text() -> None:
    rows = draw(340)
    # Cliffs, as of caches that overflow: no smooth function.
    measured = additive(rows) * np.where(additive(rows) > 1.6, 3.0, 1.0)

    model = Synthetic().fit_rows(rows, measured)

    assert model.is_corrected
    assert "leaves" in json.loads(model.to_json())["residual"]
    restored = Synthetic.from_json(model.to_json())
    assert restored.predict_rows(rows) == model.predict_rows(rows)
