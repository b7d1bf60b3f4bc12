"""Limits, and the cheapest way to raise them."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.config import StudyConfig
from host.study.limits import Limit, Miss, limits_of, why_infeasible

FAST = Limit("latency_seconds", "panel", 2e-3)
SMALL = Limit("peak_rss_bytes", "pi", 50e6)
LIMITS = (FAST, SMALL, Limit("model_bytes", None, 2e6))


def misses(*shares):
    return [
        Miss(limit, share * limit.maximum, "predicted")
        for limit, share in zip(LIMITS, shares, strict=True)
    ]


def config(**sections):
    table = {"name": "s", "data": {"folder": "images"}, "devices": [{"name": "panel"}]}
    return StudyConfig.model_validate(table | sections)


def test_one_limit_is_raised_rather_than_two():
    text = why_infeasible({"wide": misses(1.2, 1.1, 0.5), "deep": misses(1.5, 0.9, 0.5)})

    assert "raise max_latency_ms to 3 on panel, which lets in deep" in text
    assert "predicted 3 ms, 1.5 times the limit" in text


def test_two_limits_are_raised_where_no_single_one_helps():
    text = why_infeasible({"wide": misses(1.2, 1.1, 0.5), "deep": misses(2.0, 3.0, 0.5)})

    assert "raise max_latency_ms to 2.4 on panel and raise max_peak_memory_mb to 55 on pi" in text
    assert "2 of 2 miss" in text


def test_a_rate_is_lowered_not_raised():
    limit = Limit("latency_seconds", "panel", 0.01, key="rate_hertz")

    text = why_infeasible({"deep": [Miss(limit, 0.02, "measured")]})

    assert str(limit) == "rate_hertz = 100 on panel"
    assert "lower rate_hertz to 50 on panel" in text


def test_what_does_not_run_is_no_way_out():
    failed = [Miss(FAST, math.inf, "measured"), *misses(1.0, 0.5, 0.5)[1:]]

    assert "was measured on every device" in why_infeasible({"broken": failed})
    assert "lets in deep" in why_infeasible({"broken": failed, "deep": misses(9.0, 0.5, 0.5)})


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(*[st.floats(0.1, 30.0)] * 3).filter(lambda shares: max(shares) > 1),
        min_size=1,
    )
)
def test_the_raised_limits_let_the_named_candidate_in(candidates):
    text = why_infeasible({name: misses(*shares) for name, shares in candidates.items()})

    name = re.search(r"lets in (\w)", text)
    assert name is not None
    raised = dict(re.findall(r"raise (\w+) to ([\d.e+-]+)", text))
    scales = {"max_latency_ms": 1e-3, "max_peak_memory_mb": 1e6, "max_model_mb": 1e6}
    keys = dict(zip(scales, LIMITS, strict=True))
    for (key, limit), miss in zip(keys.items(), misses(*candidates[name[1]]), strict=True):
        allowed = float(raised[key]) * scales[key] if key in raised else limit.maximum
        assert miss.value <= allowed * (1 + 1e-6)


def test_the_limits_of_a_study_are_in_si_units_and_name_their_profile():
    found = limits_of(
        config(
            devices=[
                {
                    "name": "panel-lite",
                    "device": "panel",
                    "runtime": "tflite",
                    "max_latency_ms": 4,
                    "max_latency_p90_ms": 6,
                    "max_peak_memory_mb": 80,
                    "max_energy_mj": 12,
                    "max_power_w": 3.5,
                }
            ],
            line={"rate_hertz": 10},
        )
    )

    assert {(limit.quantity, limit.maximum) for limit in found} == {
        ("latency_seconds", 0.004),
        ("latency_p90_seconds", 0.006),
        ("peak_rss_bytes", 80e6),
        ("energy_per_inference_joules", 0.012),
        ("power_watts", 3.5),
    }
    assert {limit.device for limit in found} == {"panel-lite"}


def test_a_device_must_keep_up_with_the_line():
    found = limits_of(config(line={"rate_hertz": 50}))

    (limit,) = found
    assert limit.quantity == "latency_seconds"
    assert limit.maximum == pytest.approx(0.02)
    assert str(limit) == "rate_hertz = 50 on panel"
