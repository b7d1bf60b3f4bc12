"""The gate: int8 ships to a device only where it gains something there and answers as it should."""

import pytest

from host.export.forms import Precision
from host.study.front import OnDevice, value_on
from host.study.gate import gate


def figures(latency: float) -> OnDevice:
    return OnDevice(
        device="panel",
        runtime="onnxruntime 1.23.2",
        predicted_latency_seconds=None,
        predicted_peak_rss_bytes=None,
        latency_seconds=latency,
        latency_low_seconds=0.98 * latency,
        latency_high_seconds=1.02 * latency,
        latency_p90_seconds=1.05 * latency,
        samples=30,
        peak_rss_bytes=1,
        power_watts=None,
        energy_per_inference_joules=None,
        power_source=None,
        power_absent_because="none",
        verdict="OK",
        agreement=1.0,
    )


@pytest.mark.parametrize(
    ("int8_latency", "int8_quality", "chosen", "reason"),
    [
        (0.5, 0.90, "int8", "2.00 times as fast"),
        (0.5, 0.80, "fp32", "loses 0.100 in quality"),
        (2.0, 0.95, "fp32", "no gain"),
        (0.99, 0.95, "fp32", "no gain"),
    ],
    ids=["faster and as good", "faster but worse", "slower", "faster within the noise"],
)
def test_int8_ships_only_where_it_is_faster_and_good_enough(
    int8_latency, int8_quality, chosen, reason
):
    qualities: dict[Precision, float] = {"fp32": 0.90, "int8": int8_quality}

    measured: dict[Precision, OnDevice] = {"fp32": figures(1.0), "int8": figures(int8_latency)}
    name, because = gate(qualities, measured, {"fp32": True, "int8": True}, 0.02)

    assert name == chosen
    assert reason in because


@pytest.mark.parametrize(
    ("within", "chosen"),
    [({"fp32": True, "int8": False}, "fp32"), ({"fp32": False, "int8": True}, "int8")],
)
def test_the_form_that_alone_is_within_the_limits_ships(within, chosen):
    qualities: dict[Precision, float] = {"fp32": 0.90, "int8": 0.90}
    latency: dict[Precision, float] = (
        {"fp32": 0.5, "int8": 1.0} if chosen == "int8" else {"fp32": 1.0, "int8": 0.5}
    )

    name, because = gate(qualities, {n: figures(s) for n, s in latency.items()}, within, 0.02)

    assert name == chosen
    assert f"only {chosen} is within the limits" in because


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"agreement": None}, "could not be checked"),
        ({"agreement": 0.8}, "on 80% of the samples only"),
        ({"verdict": "REJECT"}, "cannot be compared"),
        ({"latency_kind": "derived"}, "cannot be compared"),
    ],
    ids=["unchecked", "other answers", "rejected", "another kind of figure"],
)
def test_int8_that_cannot_be_trusted_on_the_device_is_not_shipped(changes, reason):
    qualities: dict[Precision, float] = {"fp32": 0.90, "int8": 0.90}
    int8 = figures(0.5).model_copy(update=changes)
    measured: dict[Precision, OnDevice] = {"fp32": figures(1.0), "int8": int8}

    name, because = gate(qualities, measured, {"fp32": True, "int8": True}, 0.02)

    assert name == "fp32"
    assert reason in because


def test_the_power_at_the_rate_of_the_line_is_held_against_its_limit_where_it_is_known():
    assert value_on(figures(0.01), "power_watts") is None
    known = figures(0.01).model_copy(update={"power_at_rate_watts": 2.5})
    assert value_on(known, "power_watts") == 2.5


def test_a_quantity_that_is_none_of_a_device_has_no_value_on_it():
    assert value_on(figures(1.0), "model_bytes") is None


def test_a_limit_is_held_against_the_upper_end_of_the_interval():
    assert value_on(figures(1.0), "latency_seconds") == pytest.approx(1.02)
