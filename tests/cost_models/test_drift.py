"""Drift: quiet on noise, quick on a shift, and able to tell a shift from a change of shape."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.base import Prediction
from cost_models.drift import (
    CLIP,
    NOISE_FLOOR,
    H,
    K,
    SentinelNoise,
    chart,
    diagnose,
    rescaled,
    sentinel_noise,
)

NOISE = SentinelNoise(round=0.02, reference=0.0107)
EXACT = SentinelNoise(round=0.02, reference=0.0)
THREE = [NOISE] * 3


def rounds(count, seed=0, sigma=0.02):
    return np.random.default_rng(seed).normal(scale=sigma, size=(count, 3))


def changed(before, after, change, seed=0, sigma=0.01):
    """Rounds before and after a change of the logarithms, one number or one a sentinel."""
    ratios = rounds(before + after, seed, sigma)
    ratios[before:] += change
    return ratios


def test_noise_alone_alarms_at_the_rate_that_is_named():
    # 20 charts of 10,000 rounds: at one alarm in 29,800 rounds 6.7 are expected.
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(20):
        found = chart(rng.normal(scale=EXACT.round, size=10_000), EXACT)
        alarms += sum(max(peak) > H for peak in found.peaks)

    assert 1 <= alarms <= 17


def test_steady_devices_are_called_steady():
    verdicts = [diagnose(rounds(60, seed), THREE).verdict for seed in range(100)]

    assert verdicts.count("steady") >= 90
    assert verdicts.count("shifted") + verdicts.count("reshaped") <= 3


def test_a_shift_of_ten_per_cent_is_found_in_the_second_round():
    found = [diagnose(changed(10, 2, math.log(1.1), seed), THREE) for seed in range(100)]

    assert sum(drift.verdict == "shifted" for drift in found) >= 95
    assert sum(drift.since == 10 for drift in found) >= 90


def test_a_shift_of_five_per_cent_is_found_within_eight_rounds():
    found = [diagnose(changed(10, 8, math.log(1.05), seed), THREE) for seed in range(100)]

    assert sum(drift.verdict == "shifted" for drift in found) >= 90


@pytest.mark.parametrize("ratio", [0.8, 1.15, 3.0])
def test_the_interval_of_the_ratio_holds_it(ratio):
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        off = rng.normal(scale=NOISE.reference)  # the references' own error, common to all
        ratios = changed(5, 6, math.log(ratio), seed, sigma=0.02) + off
        state = diagnose(ratios, THREE).common.state
        held += abs(state.level - math.log(ratio)) <= state.half_width

    assert held >= 85


@given(st.integers(0, 19), st.floats(-3, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_one_odd_round_however_far_off_changes_nothing(place, size, seed):
    ratios = rounds(22, seed, sigma=0.005)
    ratios[place] += size

    drift = diagnose(ratios, THREE)

    assert drift.verdict == "steady"
    assert drift.common.state.level == 0


@given(st.integers(0, 19), st.integers(0, 2), st.floats(-3, 3))
@settings(deadline=None, max_examples=50)
def test_one_odd_sentinel_in_one_round_changes_nothing(place, sentinel, size):
    ratios = rounds(22, sigma=0.005)
    ratios[place, sentinel] += size

    assert diagnose(ratios, THREE).verdict == "steady"


def test_an_odd_newest_round_asks_for_another_one():
    ratios = changed(10, 1, math.log(1.2))

    assert diagnose(ratios, THREE).verdict == "too little to tell"
    assert diagnose(ratios, THREE).is_doubtful
    assert diagnose(np.vstack([ratios, ratios[-1:]]), THREE).verdict == "shifted"


@pytest.mark.parametrize("sentinel", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.7, 1.15, 2.0])
def test_one_sentinel_that_leaves_the_others_is_a_change_of_shape(sentinel, factor):
    change = np.zeros(3)
    change[sentinel] = math.log(factor)

    drift = diagnose(changed(10, 3, change), THREE)

    assert drift.verdict == "reshaped"
    assert drift.reshaped == (sentinel,)
    assert drift.since == 10


def test_a_shift_with_a_change_of_shape_is_a_change_of_shape():
    change = np.log([1.4, 1.4, 1.0])

    assert diagnose(changed(10, 3, change), THREE).verdict == "reshaped"


def test_a_device_that_changes_back_is_steady_again():
    ratios = rounds(30, sigma=0.01)
    ratios[10:20] += math.log(1.3)

    drift = diagnose(ratios, THREE)

    assert drift.verdict == "steady"
    assert drift.since is None
    assert drift.common.level_at(9) == 0
    assert drift.common.level_at(15) == pytest.approx(math.log(1.3), abs=0.03)
    assert drift.common.level_at(25) == 0


def test_each_of_two_shifts_has_its_level():
    ratios = rounds(30, sigma=0.01)
    ratios[10:20] += math.log(1.2)
    ratios[20:] += math.log(1.5)

    drift = diagnose(ratios, THREE)

    assert drift.verdict == "shifted"
    assert drift.since == 20
    assert drift.common.level_at(12) == pytest.approx(math.log(1.2), abs=0.03)
    assert drift.common.state.level == pytest.approx(math.log(1.5), abs=0.03)


@given(st.floats(1e-6, 1e6), st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_the_unit_of_the_clock_does_not_matter(unit, seed):
    reference = np.array([0.001, 0.02, 0.3])
    measured = reference * np.exp(changed(5, 5, 0.2, seed))

    there = diagnose(np.log(measured / reference), THREE)
    here = diagnose(np.log((measured * unit) / (reference * unit)), THREE)

    assert here.verdict == there.verdict
    assert here.common.state.level == pytest.approx(there.common.state.level)


@given(st.floats(-2, 2), st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_what_is_common_to_all_never_looks_like_a_change_of_shape(shift, seed):
    ratios = rounds(10, seed)

    alone, shifted = diagnose(ratios, THREE), diagnose(ratios + shift, THREE)

    assert [s.places for s in shifted.shapes] == [s.places for s in alone.shapes]


@given(st.permutations([0, 1, 2]), st.integers(0, 100))
@settings(deadline=None, max_examples=20)
def test_the_order_of_the_sentinels_does_not_matter(order, seed):
    ratios = changed(6, 6, np.array([0.0, 0.1, 0.3]), seed)

    assert diagnose(ratios[:, order], THREE).verdict == diagnose(ratios, THREE).verdict


def test_what_does_not_count_is_as_if_it_had_not_been():
    ratios = changed(5, 5, 0.3)
    holes = np.insert(ratios, 7, np.nan, axis=0)

    there, here = diagnose(ratios, THREE), diagnose(holes, THREE)

    assert here.counted == (*[True] * 7, False, *[True] * 3)
    assert here.verdict == there.verdict
    assert here.common.state == there.common.state


def test_a_round_of_a_single_sentinel_tells_nothing():
    ratios = np.full((5, 3), np.nan)
    ratios[:, 0] = 1.0

    drift = diagnose(ratios, THREE)

    assert drift.counted == (False,) * 5
    assert drift.verdict == "too little to tell"


def test_two_sentinels_of_three_are_enough():
    ratios = changed(5, 3, 0.3)
    ratios[:, 1] = np.nan

    assert diagnose(ratios, THREE).verdict == "shifted"


def test_no_round_tells_nothing():
    drift = diagnose(np.empty((0, 3)), THREE)

    assert drift.verdict == "too little to tell"
    assert drift.since is None


@pytest.mark.parametrize(
    ("ratios", "noises"),
    [
        (np.zeros((2, 2)), THREE),
        (np.zeros(3), THREE),
        (np.full((2, 3), np.inf), THREE),
        (np.zeros((2, 3)), [SentinelNoise(0.0, 0.0)] * 3),
    ],
)
def test_numbers_that_do_not_fit_are_refused(ratios, noises):
    with pytest.raises(ValueError, match="sentinels"):
        diagnose(ratios, noises)


def test_noise_has_a_floor():
    still = sentinel_noise([np.full(5, 0.01)] * 3, [0.0] * 3)

    assert {one.round for one in still} == {NOISE_FLOOR}


def test_a_noisy_device_is_given_the_noise_of_its_repeats():
    rng = np.random.default_rng(0)
    repeats = [0.01 * np.exp(rng.normal(scale=0.1, size=40)) for _ in range(3)]

    noises = sentinel_noise(repeats, [0.001] * 3)

    assert [one.round for one in noises] == [pytest.approx(0.1, rel=0.2)] * 3
    assert noises[0].reference == pytest.approx(0.1 * 1.2533 / math.sqrt(40), rel=0.2)


def test_a_sentinel_with_wide_intervals_has_their_noise():
    repeats = [np.full(5, 0.01)] * 2

    wide, narrow = sentinel_noise(repeats, [0.196, 0.001])

    assert wide.round == pytest.approx(0.1)
    assert narrow.round == NOISE_FLOOR


@pytest.mark.parametrize("repeats", [[np.array([])], [np.array([0.0])], [np.array([np.nan])]])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_reference_without_measurements_is_refused(repeats):
    with pytest.raises(ValueError, match="reference"):
        sentinel_noise(repeats, [0.01])


def test_one_round_can_never_reach_the_alarm():
    assert CLIP - K < H < 2 * (CLIP - K)


def test_a_rescaled_prediction_is_as_unsure_as_the_ratio():
    prediction = Prediction(1.0, 0.9, 1.1, 0.9, 12, ("move",))

    told = rescaled(prediction, 2.0, (1.9, 2.1))

    assert (told.value, told.low, told.high) == pytest.approx((2.0, 1.71, 2.31))
    assert told.flagged == ("move",)


def test_a_bound_that_is_open_stays_open():
    prediction = Prediction(1.0, 0.9, math.inf, 0.9, 3)

    assert rescaled(prediction, 2.0, (1.9, 2.1)).high == math.inf
