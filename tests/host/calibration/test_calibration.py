"""What a calibration measures, when it ends, and what it may not use."""

import math

import numpy as np
import pytest

from host.calibration.calibration import Calibrator, TooFewRowsError, Wish, _is_settled
from host.calibration.micrographs import micrographs
from host.calibration.specimens import Specimen, mobile_candidates

CANDIDATES = mobile_candidates(60, seed=0)


def calibrator(measure, **changed):
    wish = changed.pop("wish", Wish())
    return Calibrator(micrographs(), CANDIDATES, measure, wish, **changed)


def test_synthetic_networks_come_first_and_then_candidates(made_up):
    phases = []

    found = calibrator(made_up, on_phase=lambda *told: phases.append(told)).run()

    kinds = [row.kind for row in found.rows]
    assert kinds == sorted(kinds, reverse=True)
    assert 10 <= kinds.count("micro-graph") <= 15
    assert len(kinds) <= 24
    assert phases[0] == ("micro-graphs", 0, 24)
    assert {phase for phase, _, _ in phases[1:]} == {"candidates"}


def test_networks_that_it_never_saw_are_predicted(made_up):
    found = calibrator(made_up).run()

    seen = {row.name for row in found.rows}
    everything: list[Specimen] = [*micrographs(), *CANDIDATES]
    fresh = [one for one in everything if one.name not in seen]
    measured = made_up(fresh)
    errors = [
        abs(math.log(measured[one.name].measurement.latency_seconds / told.value))
        for one, told in zip(fresh, found.latency.predict([f.kernels for f in fresh]), strict=True)
    ]
    assert np.median(errors) < 0.05
    assert np.quantile(errors, 0.9) < 0.35  # chains of kinds that whole networks hardly have


def test_the_same_answers_give_the_same_choice(made_up):
    first = calibrator(made_up).run()
    asked = list(made_up.asked)
    made_up.asked.clear()

    second = calibrator(made_up).run()

    assert made_up.asked == asked
    assert second.latency.to_json() == first.latency.to_json()


def test_it_never_asks_twice_nor_more_than_was_wished(made_up):
    calibrator(made_up, wish=Wish(measurements=30)).run()

    assert len(made_up.asked) == len(set(made_up.asked)) <= 30


def test_it_ends_early_where_more_does_not_help(made_up):
    made_up.noise = 0.0

    found = calibrator(made_up, wish=Wish(measurements=60)).run()

    assert found.ended == "settled"
    assert 40 <= len(found.rows) < 60


SAME = (0.1, 0.3)


@pytest.mark.parametrize(
    ("history", "settled"),
    [
        ([SAME] * 4, True),
        ([SAME] * 3, False),  # two batches without improvement may be chance
        ([SAME, SAME, (0.1, 0.2), SAME], False),
        ([SAME, (0.05, 0.2), SAME, SAME, SAME], True),
        ([(0.2, 0.6), *[SAME] * 3], False),
    ],
)
def test_three_batches_that_improve_nothing_end_it(history, settled):
    assert _is_settled(history) is settled


def test_where_no_network_is_left_it_says_so(made_up):
    few = mobile_candidates(4, seed=0)

    found = Calibrator(micrographs(), few, made_up, Wish(20)).run()

    assert found.ended == "nothing left"
    assert len(found.rows) == 14


def test_near_a_limit_it_measures_what_straddles_it(made_up):
    made_up.noise = 0.1
    phases = []

    found = calibrator(
        made_up,
        wish=Wish(measurements=30, limit_seconds=0.008),
        on_phase=lambda *told: phases.append(told),
    ).run()

    done = next(done for phase, done, _ in phases if phase == "limit")
    near = [row.measurement.latency_seconds for row in found.rows[done:]]
    assert near
    assert all(0.004 < seconds < 0.016 for seconds in near)


def test_a_limit_that_no_candidate_is_near_is_said_to_be_decided(made_up):
    found = calibrator(made_up, wish=Wish(limit_seconds=1000.0)).run()

    assert found.ended == "nothing straddles"


def test_what_a_device_cannot_run_is_left_out_and_named(made_up):
    made_up.refuse = lambda one: "out of memory" if "gemm" in one.name else None

    found = calibrator(made_up).run()

    assert found.left_out
    assert {one.why for one in found.left_out} == {"out of memory"}
    assert not [row for row in found.rows if "gemm" in row.name]
    assert found.latency.n == found.memory.n == len(found.rows)


def test_a_device_that_measures_hardly_anything_says_why(made_up):
    made_up.refuse = lambda _: "no runtime: numpy is missing"

    with pytest.raises(TooFewRowsError, match=r"only 0 networks .* numpy is missing"):
        calibrator(made_up).run()


def test_a_slow_device_is_not_given_the_largest_candidates(made_up):
    made_up.slowness = 60.0

    found = calibrator(made_up).run()

    taken = [r.measurement.latency_seconds for r in found.rows if r.kind == "candidate"]
    all_of_them = [a.measurement.latency_seconds for a in made_up(CANDIDATES).values()]
    assert max(taken) < np.quantile(all_of_them, 0.7)


def test_a_device_of_the_same_kind_helps_where_little_was_measured(made_up):
    other = calibrator(made_up, wish=Wish(measurements=40)).run().latency
    made_up.slowness = 2.0

    found = calibrator(made_up, wish=Wish(measurements=10), others=[other]).run()

    assert found.latency.is_transferred


@pytest.mark.parametrize(("measurements", "expected"), [(10, 10), (24, 10), (100, 10)])
def test_ten_chains_and_whole_networks_from_then_on(measurements, expected):
    assert Wish(measurements).micrographs == expected


def test_candidates_are_different_small_enough_and_the_same_for_a_seed():
    again = mobile_candidates(60, seed=0)

    assert [one.name for one in again] == [one.name for one in CANDIDATES]
    assert len({one.network.key for one in CANDIDATES}) == 60
    assert max(one.kernels.weight_bytes for one in CANDIDATES) <= 33_000_000
    assert CANDIDATES[0].model_bytes() == again[0].model_bytes()
