from dataclasses import replace

import pytest

from host.measurement import ModelRun, Reason, Verdict
from host.measurement.compare import compare


@pytest.fixture
def of(make_process, make_measurement, rng):
    """A measurement by three processes of a model that takes so long."""

    def make(seconds=0.007, count=3, **changes):
        runs = [make_process(rng, seconds=seconds, **changes) for _ in range(count)]
        return make_measurement(runs)

    return make


def test_a_difference_beyond_noise_and_processes_is_real(of):
    found = compare(of(0.007), of(0.0077))

    assert found.real
    assert found.obstacles == ()
    assert found.ratio == pytest.approx(1.1, rel=0.01)
    assert found.difference_seconds == pytest.approx(0.0007, rel=0.05)
    low, high = found.difference_interval_seconds
    assert 0 < low < found.difference_seconds < high
    assert found.ratio_interval[0] < found.ratio < found.ratio_interval[1]
    assert found.sentence.startswith("The second is really 10.")
    assert "slower" in found.sentence


def test_the_same_model_twice_is_no_real_difference(of):
    found = compare(of(), of())

    assert not found.real
    assert found.sentence.startswith("No real difference")


def test_a_measurement_does_not_differ_from_itself(of):
    one = of()

    found = compare(one, one)

    low, high = found.difference_interval_seconds
    assert (found.difference_seconds, found.ratio) == (0, 1)
    assert low < 0 < high
    assert not found.real


def test_the_second_for_the_first_turns_the_answer_round(of):
    a, b = of(0.007), of(0.008)

    there, back = compare(a, b), compare(b, a)

    assert back.difference_seconds == -there.difference_seconds
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert there.real
    assert back.real
    assert "faster" in back.sentence


def test_a_sure_difference_smaller_than_that_of_processes_is_not_real(of, make_process, rng):
    a = of()
    b = of(0.0073)
    spread = [make_process(rng, seconds=s) for s in (0.0072, 0.0073, 0.0077)]

    found = compare(a, replace(b, processes=tuple(spread)))

    assert found.difference_interval_seconds[0] > 0
    assert not found.real
    assert "fresh processes of one model differ" in found.sentence


def test_of_one_process_three_percent_are_not_real(of):
    found = compare(of(count=1), of(0.0071, count=1))

    assert found.spread == 0.03
    assert not found.real


def test_a_reference_that_moved_along_explains_the_difference(of):
    found = compare(of(), of(0.0077, reference=(0.00165,)))

    assert found.references_moved
    assert found.normalised_ratio == pytest.approx(1.0, abs=0.02)
    assert not found.real
    assert "reference model changed its speed" in found.sentence


def test_a_difference_that_stays_in_units_of_the_reference_is_real(of):
    found = compare(of(), of(0.0105, reference=(0.00165,)))

    assert found.references_moved
    assert found.real
    assert "in units of the reference model" in found.sentence


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ({"protocol": "genba-measure/1"}, "different protocols"),
        ({"device_id": "dev-2"}, "different devices"),
        ({"runtime_version": "1.16.3"}, "different runtimes (onnxruntime 1.23.2"),
        ({"run": ModelRun("b" * 64, 1000, threads=2)}, "different numbers of threads (1 and 2)"),
        (
            {"verdict": Verdict("REJECT", (Reason("UNSTABLE", "REJECT", "x"),))},
            "the second is rejected (UNSTABLE)",
        ),
    ],
)
def test_what_is_not_comparable_is_never_real(of, change, obstacle):
    found = compare(of(), replace(of(0.02), **change))

    assert not found.real
    assert obstacle in found.obstacles[0]
    assert found.sentence.startswith("Not comparable: ")


def test_measured_and_derived_figures_are_not_compared(of):
    found = compare(of(), of(0.02, delayed=1.0))

    assert "different kinds of figure (measured and derived)" in found.obstacles


def test_another_runtime_has_another_reference(of):
    found = compare(of(), replace(of(), runtime_library="tflite-runtime"))

    assert found.normalised_ratio is None
    assert not found.references_moved


def test_noise_alone_is_seldom_called_real(of):
    called = sum(compare(of(noise=0.05), of(noise=0.05)).real for _ in range(60))

    assert called <= 3
