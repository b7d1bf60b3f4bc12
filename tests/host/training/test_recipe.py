"""Settings of a training, and what follows from them for each step."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import UsageError
from host.training.augment import Augmentation
from host.training.recipe import (
    SmallInputs,
    TrainConfig,
    averaging_decay_at,
    learning_rate_at,
    small_size,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs of 1 or more, got 0"),
        ({"batch_size": -1}, "batch_size of 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate above 0"),
        ({"learning_rate": math.nan}, "learning_rate above 0"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**changes)  # type: ignore[arg-type]


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_fraction=0.25)

    rates = [learning_rate_at(step, 100, config) for step in range(101)]

    assert rates[0] == pytest.approx(0.1)
    assert rates[25] == 1.0
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
    assert learning_rate_at(0, 100, replace(config, warmup_fraction=0.0)) == 1.0


@given(st.integers(0, 10_000), st.floats(1.0, 1e5))
def test_the_average_keeps_more_of_itself_with_every_step_up_to_its_span(
    step: int, span: float
) -> None:
    decay = averaging_decay_at(step, span)

    assert 0.0 <= decay <= averaging_decay_at(step + 1, span)
    assert decay <= 1.0 - 1.0 / span
    assert averaging_decay_at(10**9, span) == pytest.approx(1.0 - 1.0 / span, abs=1e-6)
    assert averaging_decay_at(0, span) == 0.0


def test_an_average_over_one_step_is_the_last_weights() -> None:
    assert averaging_decay_at(50, 1.0) == 0.0


@pytest.mark.parametrize(
    ("size", "smaller"),
    [
        ((64, 64), (48, 48)),
        ((96, 64), (72, 48)),
        ((224, 224), (168, 168)),
        ((48, 48), (32, 32)),
        ((47, 200), None),
        ((32, 32), None),
        ((1, 2048), None),
    ],
)
def test_sizes_shrink_to_multiples_of_eight_and_tiny_ones_not_at_all(
    size: tuple[int, int], smaller: tuple[int, int] | None
) -> None:
    assert small_size(*size, SmallInputs(side=0.75)) == smaller


def test_a_size_that_would_not_shrink_is_left() -> None:
    assert small_size(64, 64, SmallInputs(side=0.99)) is None


@pytest.mark.parametrize(
    "values", [{"side": 0.0}, {"side": 1.0}, {"steps": 0.0}, {"until": 1.0}, {"side": math.nan}]
)
def test_small_inputs_that_cannot_be_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="small inputs need side and until between 0 and 1"):
        SmallInputs(**values)


@pytest.mark.parametrize("name", ["shift_fraction", "brightness", "contrast", "amplitude", "noise"])
@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_an_augmentation_that_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"augmentation needs {name} from 0 to below 1"):
        Augmentation(**{name: value})  # type: ignore[arg-type]
