from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.errors import BadAnswerError
from device_agent.work import (
    Failure,
    FailureKind,
    MeasuredSamples,
    PowerReading,
    outcome_from_json,
    outcome_to_json,
)

POWER = PowerReading("rapl", "package", "measured", 12.5, 2.0, 40, None)


@settings(deadline=None)
@given(kind=st.sampled_from(FailureKind), message=st.text())
def test_a_failure_survives_json(kind: Any, message: Any) -> None:
    failure = Failure(kind, message)

    assert outcome_from_json(outcome_to_json(failure)) == failure


@settings(deadline=None)
@given(latency=st.lists(st.floats(1e-9, 1e6), min_size=1), celsius=st.none() | st.floats(-40, 120))
def test_samples_survive_json_exactly(samples: MeasuredSamples, latency: Any, celsius: Any) -> None:
    outcome = dataclasses.replace(
        samples, latency_seconds=tuple(latency), temperature_start_celsius=celsius
    )

    assert outcome_from_json(outcome_to_json(outcome)) == outcome


def test_a_power_reading_survives_json(samples: MeasuredSamples) -> None:
    outcome = dataclasses.replace(samples, power=POWER, power_absent_because="")

    assert outcome_from_json(outcome_to_json(outcome)) == outcome


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latency_seconds", []),
        ("latency_seconds", [0.0]),
        ("latency_seconds", [-1.0]),
        ("latency_seconds", ["fast"]),
        ("latency_seconds", 1.0),
        ("threads", 1.5),
        ("threads", True),
        ("peak_rss_bytes", -1),
        ("load_seconds", None),
        ("governor", 3),
        ("power_absent_because", ""),
        ("power", {"source": "rapl"}),
        ("power", 3),
    ],
)
def test_a_field_of_another_kind_is_refused_by_name(
    samples: MeasuredSamples, field: Any, value: Any
) -> None:
    data = json.loads(outcome_to_json(samples))
    data["measured"][field] = value

    with pytest.raises(BadAnswerError, match=field):
        outcome_from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"measured": 3}', '{"failure": {}}', "NaN"])
def test_text_that_is_no_outcome_is_refused(text: str) -> None:
    with pytest.raises(BadAnswerError):
        outcome_from_json(text)


def test_numbers_that_are_not_finite_are_refused(samples: MeasuredSamples) -> None:
    text = outcome_to_json(samples).replace('"load_seconds": 0.1', '"load_seconds": Infinity')

    with pytest.raises(BadAnswerError, match="load_seconds"):
        outcome_from_json(text)
