import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from host.errors import UsageError
from host.measurement.verification import compare_outputs

TOLERANCES = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-4}


@pytest.fixture
def scores(rng):
    return rng.normal(size=(50, 10)).astype(np.float32)


def test_equal_outputs_pass(scores):
    found = compare_outputs({"y": scores}, {"y": scores.copy()}, **TOLERANCES)

    (output,) = found.outputs
    assert found.passed
    assert found.top1_agreement == 1.0
    assert (output.max_absolute_error, output.max_relative_error) == (0, 0)
    assert output.within_tolerance == 1.0
    assert output.cosine == pytest.approx(1.0)
    assert found.sentence.startswith("All outputs agree")


def test_one_wrong_example_is_found(scores):
    wrong = scores.copy()
    wrong[17, 3] = 100.0

    found = compare_outputs({"y": scores}, {"y": wrong}, **TOLERANCES)

    (output,) = found.outputs
    assert not found.passed
    assert output.worst_example == 17
    assert output.within_tolerance == pytest.approx(499 / 500)
    assert output.top1_agreement == pytest.approx(0.98)
    assert output.max_absolute_error == pytest.approx(100.0 - scores[17, 3])
    assert "worst example is number 17" in found.sentence


def test_an_error_within_the_tolerance_passes(scores):
    near = scores + 5e-5

    assert compare_outputs({"y": scores}, {"y": near}, **TOLERANCES).passed
    assert not compare_outputs(
        {"y": scores}, {"y": near}, relative_tolerance=0.0, absolute_tolerance=1e-6
    ).passed


def test_the_relative_error_leaves_out_zeros():
    found = compare_outputs({"y": np.array([0.0, 2.0])}, {"y": np.array([0.5, 2.2])}, **TOLERANCES)

    assert found.outputs[0].max_relative_error == pytest.approx(0.1)
    assert found.outputs[0].max_absolute_error == pytest.approx(0.5)


def test_top1_agreement_is_of_examples_and_classes_only(rng):
    outputs = {
        "boxes": rng.random((2, 5, 4)),
        "one": rng.random((2, 1)),
        "scalar": np.float32(1.0) * np.ones(()),
        "classes": rng.random((2, 3)),
    }

    found = compare_outputs(outputs, outputs, **TOLERANCES)

    assert found.passed
    assert [o.top1_agreement for o in found.outputs] == [None, None, None, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_no_number_on_one_side_fails(scores, bad):
    wrong = scores.copy()
    wrong[4, 0] = bad

    for expected, got in ((scores, wrong), (wrong, scores)):
        found = compare_outputs({"y": expected}, {"y": got}, **TOLERANCES)

        assert not found.passed
        assert found.outputs[0].max_absolute_error == np.inf
        assert found.outputs[0].worst_example == 4
        assert found.outputs[0].cosine is None


def test_the_same_nan_on_both_sides_passes(scores):
    scores[4, 0] = np.nan

    assert compare_outputs({"y": scores}, {"y": scores}, **TOLERANCES).passed


def test_infinities_of_opposite_signs_fail():
    found = compare_outputs({"y": np.array([np.inf])}, {"y": np.array([-np.inf])}, **TOLERANCES)

    assert not found.passed


def test_missing_and_unexpected_outputs_fail(scores):
    found = compare_outputs({"y": scores}, {"z": scores}, **TOLERANCES)

    assert not found.passed
    assert "missing: y; not expected: z" in found.sentence


def test_another_shape_fails(scores):
    found = compare_outputs({"y": scores}, {"y": scores[:10]}, **TOLERANCES)

    assert not found.passed
    assert "(10, 10)" in found.sentence


def test_nothing_expected_is_nothing_verified():
    assert not compare_outputs({}, {}, **TOLERANCES).passed


def test_empty_outputs_agree():
    found = compare_outputs({"y": np.zeros((0, 4))}, {"y": np.zeros((0, 4))}, **TOLERANCES)

    assert found.passed
    assert found.outputs[0].top1_agreement is None


def test_text_cannot_be_compared():
    with pytest.raises(UsageError, match="only numbers"):
        compare_outputs({"y": np.array(["a"])}, {"y": np.array(["a"])}, **TOLERANCES)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_a_tolerance_below_zero_is_a_mistake(scores, tolerance):
    with pytest.raises(UsageError, match="tolerance"):
        compare_outputs(
            {"y": scores}, {"y": scores}, relative_tolerance=tolerance, absolute_tolerance=0.0
        )


def test_integers_of_unsigned_types_do_not_wrap():
    found = compare_outputs(
        {"y": np.array([250], dtype=np.uint8)}, {"y": np.array([255], dtype=np.uint8)}, **TOLERANCES
    )

    assert found.outputs[0].max_absolute_error == 5


values = st.floats(-1e30, 1e30, allow_nan=False)


@given(arrays(np.float64, array_shapes(max_dims=3, max_side=5), elements=values), st.data())
def test_the_share_within_tolerance_is_that_of_numpy(expected, data):
    got = data.draw(arrays(np.float64, expected.shape, elements=values))

    found = compare_outputs(
        {"y": expected}, {"y": got}, relative_tolerance=0.1, absolute_tolerance=0.5
    )

    (output,) = found.outputs
    near = np.abs(got - expected) <= 0.5 + 0.1 * np.abs(expected)
    assert output.within_tolerance == pytest.approx(near.mean())
    assert found.passed == bool(near.all())
    assert output.max_absolute_error == np.abs(got - expected).max()
    assert 0 <= output.worst_example < expected.shape[0]
    assert output.cosine is None or -1 <= output.cosine <= 1
