"""What other devices know helps a new one only where it is like them."""

import numpy as np
import pytest

from cost_models.base import NotFittedError
from cost_models.evaluate import mape
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel

COLUMNS = 12


class Synthetic(NonNegativeModel):
    quantity = "synthetic_seconds"
    columns = tuple((f"amount_{index}", "mac") for index in range(COLUMNS))
    nominal_rates = {"mac": 1.0}  # noqa: RUF012


def rows(count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).lognormal(size=(count, COLUMNS))


def rates(seed: int) -> FloatArray:
    return np.random.default_rng(seed).lognormal(0, 1.5, COLUMNS)


def device(
    true: FloatArray, count: int, seed: int, others: tuple[Synthetic, ...] = ()
) -> Synthetic:
    measured = rows(count, seed)
    noise = np.exp(0.02 * np.random.default_rng(seed + 1).standard_normal(count))
    return Synthetic().fit_rows(measured, measured @ true * noise, others)


def error(model: Synthetic, true: FloatArray) -> float:
    fresh = rows(300, 99)
    return mape(np.array([p.value for p in model.predict_rows(fresh)]), fresh @ true)


def test_ten_measurements_and_a_similar_device_beat_ten_alone() -> None:
    true = rates(0)
    similar = device(true * 3, 60, seed=10)

    alone = [device(true, 10, seed) for seed in range(20, 26)]
    helped = [device(true, 10, seed, (similar,)) for seed in range(20, 26)]

    assert not any(model.is_transferred for model in alone)
    assert sum(model.is_transferred for model in helped) >= 4
    assert np.mean([error(m, true) for m in helped]) < 0.6 * np.mean(
        [error(m, true) for m in alone]
    )


def test_a_device_unlike_all_others_is_not_made_worse() -> None:
    true = rates(0)
    others = tuple(device(rates(seed), 60, seed=seed) for seed in (40, 41, 42))

    for seed in range(20, 24):
        alone, offered = device(true, 24, seed), device(true, 24, seed, others)
        assert error(offered, true) < 1.1 * error(alone, true)


def test_the_nearest_device_is_taken_first() -> None:
    true = rates(0)
    similar = device(true * 3, 60, seed=10)
    others = tuple(device(rates(seed), 60, seed=seed) for seed in (40, 41))

    found = device(true, 10, 20, (*others, similar))

    assert found.is_transferred
    assert error(found, true) < 0.2


def test_a_transferred_model_stands_on_its_own() -> None:
    true = rates(0)
    model = device(true, 10, 20, (device(true * 3, 60, seed=10),))

    restored = Synthetic.from_json(model.to_json())

    assert restored.is_transferred
    assert restored.predict_rows(rows(20, 5)) == model.predict_rows(rows(20, 5))


def test_what_only_the_other_device_has_measured_is_charged_as_there_and_flagged() -> None:
    true = rates(0)
    similar = device(true * 3, 60, seed=10)
    measured = rows(10, 21)
    measured[:, 5] = 0
    model = Synthetic().fit_rows(measured, measured @ true, (similar,))
    assert model.is_transferred

    assert model.coefficients["amount_5"] == pytest.approx(true[5], rel=0.15)
    prediction = model.predict_rows(rows(1, 3))[0]
    assert prediction.flagged == ("amount_5",)
    assert prediction.high == np.inf


def test_a_device_that_is_not_fitted_cannot_help() -> None:
    with pytest.raises(NotFittedError):
        device(rates(0), 10, 20, (Synthetic(),))
